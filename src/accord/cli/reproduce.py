"""Run one of the literature's headline results again, in small, with intervals and seeds.

    accord reproduce frontier recipes/reproduce/frontier.yaml

Finished steps are skipped: a run that was stopped is continued by the same command. It ends in evidence.json, which
says what was claimed, what was seen here, and what it cost; docs/evidence.md is made of these files.
"""

from __future__ import annotations

import argparse
from functools import partial

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from accord.cli.console import error_console, output_console
from accord.cli.options import add_config_arguments, config_from
from accord.pipelines.reproduce.runner import EXPERIMENTS

__all__ = ["add_arguments", "run"]

COLOURS = {"yes": "green", "no": "red", "unclear": "yellow"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one subcommand per experiment."""
    actions = parser.add_subparsers(dest="experiment", metavar="EXPERIMENT", required=True, title="experiments")
    for experiment in EXPERIMENTS.values():
        fill = partial(add_config_arguments, config=experiment.config)
        actions.add_parser(experiment.name, help=experiment.help, description=experiment.config.__doc__, fill=fill)


def run(arguments: argparse.Namespace) -> int:
    """Run the experiment and print what it found."""
    experiment = EXPERIMENTS[arguments.experiment]
    config = config_from(experiment.config, arguments)
    from accord.pipelines.reproduce.runner import reproduce

    evidence, path = reproduce(experiment, config, error_console())
    print_evidence(output_console(), evidence)
    output_console().print(Text(str(path), "bold"), soft_wrap=True)
    return 0


def print_evidence(console: Console, evidence: object) -> None:
    """Tables, then what was claimed and whether it was seen."""
    from accord.pipelines.reproduce.evidence import Evidence

    assert isinstance(evidence, Evidence)
    for table in evidence.tables:
        grid = Grid(title=table.title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
        for number, column in enumerate(table.columns):
            grid.add_column(column, header_style="dim", justify="right" if number else "left", overflow="fold")
        for row in table.rows:
            grid.add_row(*row)
        console.print("", grid)
    console.print()
    for finding in evidence.findings:
        console.print(Text.assemble((f"seen: {finding.seen}  ", COLOURS[finding.seen]), finding.claim))
        console.print(Text(f"  {finding.words}", "dim"))
    if evidence.provenance.get("fast"):
        console.print("a fast run: the machinery works; no figure above means anything", style="yellow")
