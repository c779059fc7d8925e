"""Have a model write instructions with inputs and outputs from seed tasks: Self-Instruct's four steps, or Alpaca's one.

Every rejected instruction and instance is kept with the reason. Killing the job at any moment and giving the same
command again continues it.
"""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Console
from rich.table import Table

from accord.cli.console import error_console, output_console, waiting
from accord.cli.options import add_config_arguments, config_from
from accord.cli.progress import bars
from accord.data.self_instruct import SelfInstructConfig, self_instruct

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting."""
    add_config_arguments(parser, SelfInstructConfig)


def run(arguments: argparse.Namespace) -> int:
    """Open the model, write, print the yield."""
    config = config_from(SelfInstructConfig, arguments)
    from accord.pipelines.language_models import open_language_model

    with waiting("opening the model"):
        model = open_language_model(config.model, concurrency=config.batch, max_rows=config.batch)
    with bars() as tell:
        report = self_instruct(model, config, tell)
    print_report(output_console(), report, config)
    return 0


def print_report(console: Console, report: dict[str, Any], config: SelfInstructConfig) -> None:
    """Print what came of it."""
    wanted, instances = report["instructions"], report["instances"]
    console.print(
        f"[bold]{wanted['accepted']:,}[/] of {config.target:,} instructions from {report['requests']:,} requests, "
        f"{wanted['yield']:.0%} of those offered; [bold]{instances['kept']:,}[/] instances of "
        f"{instances['instructions_with_one']:,} instructions"
    )
    table = Table(box=None, padding=(0, 2, 0, 2))
    for name in ("step", "reason", "rejected"):
        table.add_column(name, justify="right" if name == "rejected" else "left")
    without = {"rejected": report["why_without_reply"]}
    for step, part in (("requests", without), ("instructions", wanted), ("instances", instances)):
        for reason, count in part["rejected"].items():
            table.add_row(step, reason, f"{count:,}")
    if table.row_count:
        console.print(table)
    _bars(console, "nearest known instruction, ROUGE-L f1", report["nearest_f1"])
    costs = ", ".join(f"{ms:.2g} ms ({size})" for size, ms in report["filter_ms_by_pool_size"].items())
    if costs:
        console.print(f"filters, a candidate, by known instructions: {costs}", soft_wrap=True)
    verbs = ", ".join(f"{one['verb']} {'/'.join(one['nouns'])} ({one['count']})" for one in report["verbs"][:10])
    console.print(f"first words and what follows: {verbs}" if verbs else "", soft_wrap=True)
    console.print(
        f"training data: {config.out / 'demonstrations.jsonl'}   rejected: {config.out / 'rejected.jsonl'}",
        style="dim",
        soft_wrap=True,
    )
    if instances["kept"]:
        console.print(
            f"Read {config.out / 'review.jsonl'} before you train: in the paper, with a far larger model, 46 % of 200 "
            "rows had a fault.",
            style="yellow",
            soft_wrap=True,
        )
    if wanted["accepted"] < config.target:
        error_console().print(
            f"stopped at --max-requests {config.max_requests}; a higher number goes on from here", style="yellow"
        )


def _bars(console: Console, title: str, counts: dict[str, int]) -> None:
    most = max(counts.values(), default=0)
    if not most:
        return
    console.print(title)
    for name, count in counts.items():
        if count:
            console.print(f"  {name} [cyan]{'█' * max(1, round(30 * count / most))}[/] {count:,}")
