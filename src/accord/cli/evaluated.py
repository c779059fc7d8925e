"""How `accord eval` runs an evaluation and prints what it found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from accord.cli.console import output_console
from accord.evaluate.blocks import Block, Row, blocks, counts_in_words, interval_in_words, number_in_words
from accord.pipelines.evaluation import Config, Job, Outcome, perform
from accord.train.progress import Bar

__all__ = ["evaluate", "print_outcome"]

COLUMN = 18  # characters of a measure with its interval


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
        for number, table in enumerate(_tables(block, console.width) if block.measures else [_list(block)]):
            console.print(*([""] if number else []), table)


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


def _tables(block: Block, width: int) -> Iterator[Table]:
    """Subjects below each other, measures side by side, each with its interval; as many tables as the width needs."""
    label_width = max(len(label) for label, _ in block.rows) + 2
    columns = max(2, (width - label_width) // COLUMN)
    names = list(block.measures)
    for first in range(0, len(names), columns):
        table = Table(box=None, padding=(0, 2, 0, 0))
        table.add_column("", style="cyan", overflow="fold", min_width=label_width - 2)
        for name in names[first : first + columns]:
            header = f"{name}\n[dim]{block.measures[name]}[/dim]"
            table.add_column(header, justify="right", overflow="fold", max_width=COLUMN - 2)
        for label, measured in block.rows:
            table.add_row(
                _subject(label, measured), *(_cell(measured.get(name)) for name in names[first : first + columns])
            )
        yield table


def _subject(label: str, measured: Mapping[str, Row]) -> Text:
    """The name of a row, and of how many observations its figures are."""
    counts = counts_in_words(measured)
    return Text.assemble(label, (f"\n{counts}", "dim") if counts else "")


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
