"""Results as tables: those of one measure under another, those of several subjects side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Block", "blocks", "counts_in_words", "interval_in_words", "number_in_words"]

Row = Mapping[str, Any]
FEWEST_SUBJECTS = 2  # that make a table of subjects by measures
MINUS, DASH = "\u2212", "\u2013"


@dataclass
class Block:
    """A part of the results that is one table.

    Attributes:
        measures: name -> unit, the columns; empty in a plain list, whose rows have a name each.
        rows: (label, its results by name). In a plain list the one result of a row stands under "".
    """

    measures: dict[str, str] = field(default_factory=dict)
    rows: list[tuple[str, dict[str, Row]]] = field(default_factory=list)


def blocks(results: Sequence[Row]) -> list[Block]:
    """Group results, in their order: subjects (`of`) that share their measures become rows of one table."""
    by_subject: dict[str, dict[str, Row]] = {}
    for row in results:
        by_subject.setdefault(str(row.get("of") or ""), {})[str(row.get("name"))] = row
    found: list[Block] = []
    for subject, measured in by_subject.items():
        last = found[-1] if found else None
        shared = len(measured.keys() & last.measures.keys()) if last else 0
        if subject and last and 2 * shared >= len(measured):
            last.measures = {name: str(row.get("unit", "")) for name, row in measured.items()} | last.measures
            last.rows.append((subject, measured))
        elif subject:
            units = {name: str(row.get("unit", "")) for name, row in measured.items()}
            found.append(Block(measures=units, rows=[(subject, measured)]))
        else:
            found.append(Block(rows=[(name, {"": row}) for name, row in measured.items()]))
    return _joined([block if len(block.rows) >= FEWEST_SUBJECTS else _listed(block) for block in found])


def _listed(block: Block) -> Block:
    """A single subject as rows of a plain list."""
    rows = [
        (f"{subject}: {name}" if name else subject, {"": row})
        for subject, measured in block.rows
        for name, row in measured.items()
    ]
    return Block(rows=rows)


def _joined(found: Sequence[Block]) -> list[Block]:
    """Plain lists that follow each other as one."""
    joined: list[Block] = []
    for block in found:
        if joined and not block.measures and not joined[-1].measures:
            joined[-1].rows.extend(block.rows)
        else:
            joined.append(block)
    return joined


def counts_in_words(measured: Mapping[str, Row]) -> str:
    """Of how many observations the results of a subject are: `n 24`, or `n 5 to 16` where they differ."""
    counts = [n for row in measured.values() if isinstance(n := row.get("n"), int)]
    if not counts:
        return ""
    low, high = min(counts), max(counts)
    return f"n {low:,}" if low == high else f"n {low:,} to {high:,}"


def number_in_words(value: object) -> str:
    """Three decimals below ten, fewer above, none of a whole number; a dash for what is undefined.

    >>> number_in_words(0.51234), number_in_words(123.45), number_in_words(12)
    ('0.512', '123.5', '12')
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or abs(value) == float("inf"):
        return DASH
    if isinstance(value, int):
        return f"{value:,}".replace("-", MINUS)
    size = abs(value)
    digits = 3 if size < 10 else 2 if size < 100 else 1
    text = f"{value:.1e}" if 0 < size < 0.001 else f"{value:,.{digits}f}"
    return text.replace("-", MINUS)


def interval_in_words(row: Row) -> str:
    """`0.61 to 0.72`; empty where a result has no interval."""
    ends = row.get("ci")
    if not isinstance(ends, (list, tuple)) or len(ends) != 2 or number_in_words(ends[0]) == DASH:
        return ""
    return f"{number_in_words(ends[0])} to {number_in_words(ends[1])}"
