"""Which parts of an exported row people and models wrote: what is screened, counted and replaced is the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["texts_in", "words_of"]

# Fields of rows without texts; an id can look like a telephone number.
_NOT_WORDS = ("id", "response_set", "meta", "shown_at", "submitted_at", "display_order", "ranks", "annotator")
_WORDS_OF_META = ("words", "edits", "picks")  # among ids and counts


def words_of(row: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of a row that hold words, and those of its `meta`."""
    fields = {name: value for name, value in row.items() if name not in _NOT_WORDS}
    return fields, {name: value for name, value in row["meta"].items() if name in _WORDS_OF_META}


def texts_in(value: Any) -> Iterator[str]:
    """All texts in an object of JSON, in order."""
    if isinstance(value, str):
        yield value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        yield from texts_in(one)
