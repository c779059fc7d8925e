"""How `accord eval` runs an evaluation and prints what it found."""

from __future__ import annotations

import math
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from accord.cli.console import output_console
from accord.evaluate.result import Result
from accord.pipelines.evaluation import Config, Job, Outcome, perform
from accord.train.progress import Bar

__all__ = ["evaluate", "written"]


def evaluate(kind: str, config: Config, out: Path, job: Job[Config]) -> int:
    """Run an evaluation into a run folder, print its results, renew the report; returns the exit code."""
    from accord.evaluate.report import write_report

    outcome = perform(kind, config, out, job, Bar())
    console = output_console()
    print_outcome(console, kind, outcome)
    console.print()
    console.print(Text(str(out / "eval" / f"{config.name or kind}.json"), "bold"), soft_wrap=True)
    console.print(Text(str(write_report(out)), "bold"), soft_wrap=True)
    return outcome.exit_code


def print_outcome(console: Console, kind: str, outcome: Outcome) -> None:
    """The notes, then every result with its interval."""
    console.print()
    for note in outcome.notes:
        console.print(Text(note, "yellow"))
    table = Table(title=f"accord eval {kind}", title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    table.add_column("", style="cyan", overflow="fold")
    for header in ("value", "interval", "n", "unscored"):
        table.add_column(header, justify="right", header_style="dim", no_wrap=True)
    table.add_column("unit", style="dim", header_style="dim", overflow="fold")
    for name, unit, result in outcome.results:
        table.add_row(name, written(result.value), interval(result), str(result.n), str(result.n_unscored or ""), unit)
    console.print(table)


def interval(result: Result) -> str:
    """`0.61 to 0.72`; `-` where there is none."""
    if result.ci is None or not all(map(math.isfinite, result.ci)):
        return "-"
    return f"{written(result.ci[0])} to {written(result.ci[1])}"


def written(value: float) -> str:
    """Three decimals below ten, fewer above; `-` for what is undefined."""
    if not math.isfinite(value):
        return "-"
    size = abs(value)
    if 0 < size < 0.001:
        return f"{value:.1e}"
    return f"{value:.{3 if size < 10 else 2 if size < 100 else 1}f}"
