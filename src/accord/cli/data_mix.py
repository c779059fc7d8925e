"""Several data sets into one: drawn by size up to a cap, a weight and a temperature, in an order the seed decides.

A source is a data file, or a folder of them, perhaps with a weight, a cap or a name: "rte.jsonl weight=2 cap=1000".
Killing the job at any moment and giving the same command again continues it.
"""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from accord.cli.console import output_console
from accord.cli.options import add_config_arguments, config_from
from accord.cli.progress import bars
from accord.data.curation.mix import Mixed, mix
from accord.data.curation.plan import MixConfig
from accord.data.curation.written import beside

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sources and a flag for each setting."""
    add_config_arguments(parser, MixConfig, words="sources")


def run(arguments: argparse.Namespace) -> int:
    """Mix and print the table."""
    config = config_from(MixConfig, arguments)
    with bars() as tell:
        mixed = mix(config, tell)
    print_mixed(output_console(), mixed, config)
    return 0


def print_mixed(console: Console, mixed: Mixed, config: MixConfig) -> None:
    """Print the table of sources and what was left out."""
    table = Table(title=str(config.out), title_justify="left", title_style="bold")
    table.add_column("source", no_wrap=True)
    for name in ("rows", "rate", "in the mixture", "share", "times each"):
        table.add_column(name, justify="right")
    for part in mixed.shares:
        at_limit = part.drawn == part.available * config.max_repeats
        table.add_row(
            part.name,
            f"{part.available:,}",
            f"{part.rate:.2%}",
            f"{part.drawn:,}",
            f"{part.drawn / mixed.rows:.2%}",
            f"{part.repeats:.2f}" + (" (limit)" if at_limit else ""),
        )
    console.print(table)
    console.print(f"{mixed.rows:,} rows of {len(mixed.shares)} sources")
    if mixed.rows < mixed.wanted:
        console.print(
            f"{mixed.wanted:,} were asked for: no row stands in it more than {config.max_repeats} times", style="yellow"
        )
    _print_contaminated(console, mixed, config)
    if mixed.bad:
        console.print(f"{mixed.bad:,} bad rows set aside", style="yellow")


def _print_contaminated(console: Console, mixed: Mixed, config: MixConfig) -> None:
    if not mixed.contaminated:
        console.print("no evaluation set to check against: name them with --against", style="dim", soft_wrap=True)
        return
    count = sum(mixed.contaminated.values())
    where = f": {beside(config.out, 'removed.jsonl')}" if count else ""
    console.print(
        f"{count:,} rows left out because they give one of {len(mixed.contaminated):,} evaluation sets away{where}",
        soft_wrap=True,
    )
    by_set = sorted(mixed.contaminated.items(), key=lambda pair: -pair[1])
    for name, number in [pair for pair in by_set if pair[1]][:10]:
        console.print(f"  {number:>6,} give away {name}", soft_wrap=True)
