"""What a row of a collection becomes: a record, and the opinions on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

from accord.records import Comparison, Conversation, Demonstration, Judgment, Model, Person, Ranking, ResponseSet

__all__ = ["UNKNOWN_TIME", "Asked", "Collected", "Opinion", "Row", "field", "text_of"]

UNKNOWN_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""Of judgments whose source does not say when they were given: reports put them under "unknown"."""

Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A prompt without responses, for people to write some. `id` is unique in its data set."""

    id: str
    prompt: Conversation


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """What one annotator said of a response set. A `Judgment` for tasks of any kind.

    Attributes:
        annotator: a person or a model.
        response_set: id of the set.
        payload: as the studio keeps it for the kind of task, by the set's own response ids.
        display_order: response ids as shown; in the set's order where that is unknown.
        shown_at: None: not known.
        submitted_at: `UNKNOWN_TIME`: not known.
        guideline: version that was followed.
    """

    annotator: Person | Model
    response_set: str
    payload: Mapping[str, Any]
    display_order: tuple[str, ...]
    shown_at: datetime | None = None
    submitted_at: datetime = UNKNOWN_TIME
    guideline: str = "unknown"


@dataclass(frozen=True, kw_only=True)
class Collected:
    """One thing to judge, and what was said of it.

    Attributes:
        record: prompt and responses; None: the row has judgments only, of a set that came earlier.
        ranks: response id -> place, of whoever published the set; None: no ranks without an annotator.
        judgments: of known annotators.
        group: kind of prompt, where the source says so.
        language: ISO code or name, where the source says so.
        file: it stands in; the last one of a set that is gathered from several rows.
        row: in the file, from 1.
    """

    record: Demonstration | ResponseSet | Comparison | Ranking | Asked | None
    ranks: Mapping[str, int | None] | None = None
    judgments: tuple[Judgment | Opinion, ...] = ()
    group: str | None = None
    language: str | None = None
    file: str = ""
    row: int = 0


def field(row: Row, name: str, kind: type | tuple[type, ...], words: str) -> Any:
    """Return a field of a row, or raise ValueError saying what was found and expected."""
    if name not in row:
        raise ValueError(f"`{name}` is missing, found {sorted(map(str, row))}; expected {words}; add or rename it")
    if not isinstance(row[name], kind):
        found = repr(row[name])
        found = found if len(found) <= 60 else found[:57] + "..."
        raise ValueError(f"`{name}`: found {found}; expected {words}; correct the row")
    return row[name]


def text_of(row: Row, name: str) -> str:
    """Return a field that has to be a text with something in it."""
    text: str = field(row, name, str, "a text")
    if not text.strip():
        raise ValueError(f"`{name}` is empty (found {text!r}); expected a text; remove the row")
    return text
