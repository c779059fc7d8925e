"""How `accord eval` runs an evaluation and prints what it found."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from accord.cli.console import output_console
from accord.evaluate.blocks import Block, Row, blocks, interval_in_words, number_in_words
from accord.pipelines.evaluation import Config, Job, Outcome, perform
from accord.train.progress import Bar

__all__ = ["evaluate", "print_outcome"]


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
    console.print(f"[bold]accord eval {kind}[/bold]")
    for note in outcome.notes:
        console.print(Text(note, "yellow"))
    for block in blocks(outcome.rows()):
        console.print()
        console.print(_table(block) if block.measures else _list(block))


def _list(block: Block) -> Table:
    """One result a line."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("", style="cyan", overflow="fold", min_width=min(28, max(len(label) for label, _ in block.rows)))
    for header in ("value", "interval", "n"):
        table.add_column(header, justify="right", header_style="dim", no_wrap=True)
    table.add_column("", style="dim", overflow="fold")
    for label, measured in block.rows:
        row = measured[""]
        lost = row.get("n_unscored") or 0
        unit = str(row.get("unit", "")) + (f"; {lost} unscored" if lost else "")
        table.add_row(label, number_in_words(row.get("value")), interval_in_words(row), str(row.get("n")), unit)
    return table


def _table(block: Block) -> Table:
    """Subjects below each other, measures side by side, each with its interval."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("", style="cyan", overflow="fold")
    for name, unit in block.measures.items():
        table.add_column(f"{name}\n[dim]{unit}[/dim]", justify="right", overflow="fold")
    for label, measured in block.rows:
        table.add_row(label, *(_cell(measured.get(name)) for name in block.measures))
    return table


def _cell(row: Row | None) -> Text:
    if row is None:
        return Text("")
    found = interval_in_words(row)
    lost = row.get("n_unscored") or 0
    text = Text(number_in_words(row.get("value")))
    if found:
        text.append(f"\n{found}", "dim")
    if lost:
        text.append(f"\n{lost} unscored", "yellow")
    return text
