"""Show rows the way the trainer sees them: as coloured tokens, with lengths, cuts and duplicates; totals at the end.

Trained tokens have a green background (stand in brackets where there are no colours), special tokens are spelled out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from accord.cli.console import output_console, printable, waiting
from accord.cli.token_text import Mark, legend, token_text
from accord.records import Comparison, Conversation, Demonstration, Feedback, Message, Ranking

if TYPE_CHECKING:
    from accord.text import Template
    from accord.trees import Branch, PromptTree

__all__ = ["Row", "Totals", "add_arguments", "inspect_rows", "run"]

KINDS = ("preference", "feedback", "demonstration", "prompts")
COMPARED = 1000
"""Rows of a file whose encoding is compared with the template's own rendering; the rest would only take time."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row as the trainer sees it.

    Attributes:
        number: in its file, counted from 1.
        labels: one per response: "response", "chosen", "rank 2", ...
        tree: uncut; the response of a bare prompt is empty room for one.
        kept: cut to the limit, or None if it is left out.
        start: tokens at the beginning of the prompt that a cut leaves standing: 1 if it is the model's start token.
        same_as: number of the first row with this content, if there is one.
        differences: where the encoding parts from the template's own rendering.
    """

    number: int
    labels: tuple[str, ...]
    tree: PromptTree
    kept: PromptTree | None
    start: int
    same_as: int | None
    differences: tuple[str, ...]

    @property
    def cut(self) -> int:
        """Prompt tokens that are lost."""
        return len(self.tree.prompt) - len(self.kept.prompt) if self.kept else 0

    @property
    def trained(self) -> int:
        """Tokens that are trained on, if the row is kept."""
        return sum(sum(branch.scored) for branch in self.tree.branches) if self.labels else 0

    @property
    def tokens(self) -> int:
        """Tokens before any cut, the prompt counted once."""
        return self.tree.length if self.labels else len(self.tree.prompt)


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Counts over all rows of a file; tokens are those of kept rows, after cutting."""

    rows: int
    tokens: int
    trained: int
    longest: int
    cut: int
    cut_tokens: int
    left_out: int
    duplicates: int
    different: int

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Totals:
        """Add up rows."""
        kept = [row for row in rows if row.kept is not None]
        return cls(
            rows=len(rows),
            tokens=sum(row.tokens - row.cut for row in kept),
            trained=sum(row.trained for row in kept),
            longest=max((row.tree.longest for row in rows), default=0),
            cut=sum(row.cut > 0 for row in rows),
            cut_tokens=sum(row.cut for row in rows),
            left_out=len(rows) - len(kept),
            duplicates=sum(row.same_as is not None for row in rows),
            different=sum(bool(row.differences) for row in rows),
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the file and how to look at it."""
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="JSONL (.gz too), JSON, Parquet, or a `datasets` folder"
    )
    parser.add_argument("--model", required=True, metavar="MODEL", help="whose tokenizer and chat template to use")
    parser.add_argument("--kind", choices=KINDS, help="what the rows are (default: what the first row can be read as)")
    parser.add_argument(
        "--max-length", type=int, default=1024, metavar="N", help="tokens of a prompt with its longest response (1024)"
    )
    parser.add_argument("--rows", type=int, default=5, metavar="N", help="rows to print; totals are of all (default 5)")
    parser.add_argument("--width", type=int, metavar="N", help="columns to print (default: the terminal's)")


def run(arguments: argparse.Namespace) -> int:
    """Read, encode, print."""
    from accord.data import ReadResult, read
    from accord.data.files import check_path
    from accord.data.files import rows as numbered

    check_path(arguments.file)
    kind: Any = arguments.kind or guess_kind(arguments.file)
    result: ReadResult[Any] = read(arguments.file, kind, skip_bad_rows=True)
    bad = {row.row for row in result.bad_rows}
    numbers = [number for number, _ in numbered(arguments.file) if number not in bad]
    with waiting(f"loading the tokenizer of {arguments.model}"):
        from accord.models.load import load_tokenizer
        from accord.text import Template

        template = Template(load_tokenizer(arguments.model))
    rows = inspect_rows(result.records, numbers, template, arguments.max_length, str(arguments.file))
    console = output_console()
    if arguments.width:
        console.width = arguments.width
    colour = console.color_system is not None
    console.print(
        Text.assemble((str(arguments.file), "bold"), f" as {kind}, with the template of {arguments.model}"),
        soft_wrap=True,
    )
    console.print(legend(colour=colour), "\n")
    for row in rows[: arguments.rows]:
        print_row(console, row, template.tokenizer, colour=colour)
    for bad_row in result.bad_rows[: arguments.rows]:
        console.print(Text(f"row {bad_row.row} cannot be read: {printable(bad_row.message)}", "red"))
    print_totals(console, Totals.of(rows), len(result.bad_rows), arguments.max_length)
    return 0


def guess_kind(path: Path) -> str:
    """The first kind that the first readable row can be read as.

    Raises:
        ValueError: it is none of them.
    """
    from accord.data.files import Broken, rows
    from accord.data.formats import parse

    first = next((row for _, row in rows(path) if not isinstance(row, Broken)), None)
    for kind in KINDS:
        try:
            parse(first, kind)  # type: ignore[arg-type]
        except ValueError:
            continue
        return kind
    raise ValueError(f"{path}: the first row is no {', no '.join(KINDS)}; --kind KIND says what is wrong with it")


def inspect_rows(
    records: Sequence[Any], numbers: Sequence[int], template: Template, max_length: int, name: str
) -> list[Row]:
    """Encode records as the trainer does and note what becomes of them at a length limit."""
    from accord.data.batches import fit

    first: dict[Any, int] = {}
    rows = []
    for index, (record, number) in enumerate(zip(records, numbers, strict=True)):
        try:
            labels, tree = encode(record, template)
        except ValueError as error:
            raise ValueError(f"{name}, row {number}: {error}") from error
        same = first.setdefault(_content(record), number)
        row = Row(
            number=number,
            labels=labels,
            tree=tree,
            kept=fit(tree, max_length, template.bos_id),
            start=int(tree.prompt[0] == template.bos_id),
            same_as=same if same != number else None,
            differences=tuple(_differences(record, template)) if index < COMPARED else (),
        )
        rows.append(row)
    return rows


def encode(record: Any, template: Template) -> tuple[tuple[str, ...], PromptTree]:
    """The tree of a record by the trainer's own functions, uncut, with a label for each response."""
    from accord.data.batches import demonstration_trees, preferences
    from accord.trees import Branch, PromptTree

    unlimited = 2**62
    if isinstance(record, Demonstration):
        label = "response" if record.trained == "last" else "dialogue"
        return (label,), demonstration_trees([record], template, unlimited)[0][0]
    if isinstance(record, (Comparison, Feedback, Ranking)):
        return _labels(record), preferences([record], template, unlimited)[0][0].tree
    return (), PromptTree(template.prompt(record), (Branch.response((template.end_id,)),))


def _labels(record: Comparison | Feedback | Ranking) -> tuple[str, ...]:
    if isinstance(record, Feedback):
        return ("thumbs up",) if record.label else ("thumbs down",)
    if isinstance(record, Comparison):
        return ("chosen", "rejected")
    return tuple("failed" if rank is None else f"rank {rank}" for rank in record.ranks)


def _content(record: Any) -> Any:
    """What makes two rows the same: prompt and responses, whatever else is noted beside them."""
    if isinstance(record, Comparison):
        return (record.prompt, record.chosen, record.rejected)
    if isinstance(record, Feedback):
        return (record.prompt, record.response, record.label)
    if isinstance(record, Ranking):
        return (record.prompt, record.responses, record.ranks)
    return record.conversation if isinstance(record, Demonstration) else record


def _differences(record: Any, template: Template) -> Iterator[str]:
    for conversation in _conversations(record):
        found = template.difference(conversation)
        if found is not None:
            yield found


def _conversations(record: Any) -> Iterator[Conversation]:
    """Every finished conversation of a record; a bare prompt has none."""
    if isinstance(record, Demonstration):
        yield record.conversation
    elif isinstance(record, (Comparison, Feedback, Ranking)):
        for text in _texts(record):
            yield (*record.prompt, Message(role="assistant", content=text))


def _texts(record: Comparison | Feedback | Ranking) -> tuple[str, ...]:
    if isinstance(record, Comparison):
        return record.chosen, record.rejected
    return (record.response,) if isinstance(record, Feedback) else record.responses


# -- printing ----------------------------------------------------------------------------------------------------------


def print_row(console: Console, row: Row, tokenizer: Any, *, colour: bool) -> None:
    """Print one row: a line of facts, the prompt, the responses."""
    console.print(Text.assemble((f"row {row.number}", "bold cyan"), "  ", _facts(row)))
    table = Table.grid(padding=(0, 0, 0, 2))
    table.add_column(style="cyan", no_wrap=True, min_width=8)
    table.add_column(overflow="fold")
    read: list[Mark] = [
        "cut" if row.start <= place < row.start + row.cut else "given" for place in range(len(row.tree.prompt))
    ]
    table.add_row("prompt", token_text(tokenizer, row.tree.prompt, read, colour=colour))
    for label, branch in zip(row.labels, row.tree.branches, strict=False):
        table.add_row(label, token_text(tokenizer, branch.tokens, _marks(branch), colour=colour))
    console.print(table)
    for difference in row.differences:
        console.print(Text(f"differs from the template's own rendering: {difference}", "yellow"))
    console.print()


def _marks(branch: Branch) -> list[Mark]:
    return ["trained" if scored else "given" for scored in branch.scored]


def _facts(row: Row) -> Text:
    share = f", {row.trained} trained on ({row.trained / row.tokens:.0%})" if row.labels else ""
    facts = Text(f"{row.tokens} tokens{share}")
    if row.kept is None:
        facts.append("  left out: the response is too long for --max-length", "bold red")
    elif row.cut:
        facts.append(f"  the oldest {row.cut} tokens of the prompt are cut off", "red")
    if row.same_as is not None:
        facts.append(f"  the same as row {row.same_as}", "yellow")
    return facts


def print_totals(console: Console, totals: Totals, bad: int, max_length: int) -> None:
    """Print what all rows come to."""
    share = f" ({totals.trained / totals.tokens:.0%})" if totals.tokens else ""
    compared = f" of the first {COMPARED}" if totals.rows > COMPARED else ""
    lines = (
        ("rows", f"{totals.rows:,}", ""),
        ("tokens", f"{totals.tokens:,}, of which trained on {totals.trained:,}{share}", ""),
        ("longest", f"{totals.longest:,} tokens before any cut", ""),
        ("prompts cut", f"{totals.cut:,} at {max_length:,} tokens, {totals.cut_tokens:,} tokens lost", "red"),
        ("left out", f"{totals.left_out:,} (response too long for {max_length:,} tokens)", "red"),
        ("duplicates", f"{totals.duplicates:,} (rows that repeat an earlier one)", "yellow"),
        ("template", f"{totals.different:,}{compared} (rows that differ from its own rendering)", "yellow"),
        ("bad rows", f"{bad:,} (cannot be read)", "red"),
    )
    counts = (1, 1, 1, totals.cut, totals.left_out, totals.duplicates, totals.different, bad)
    console.print("\n[bold]totals[/bold]" if bad else "[bold]totals[/bold]")
    for (name, words, style), count in zip(lines, counts, strict=True):
        console.print(Text.assemble("  ", (name.ljust(13), "cyan"), (words, style if count else "")))
