"""Rows of data files with their texts, one at a time, whatever kind and format they are in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from accord.data import files
from accord.data.files import Broken, DataError
from accord.data.formats import Kind, parse
from accord.records import Comparison, Conversation, Demonstration, Feedback, Ranking

__all__ = ["Aside", "Example", "Nowhere", "examples", "expanded"]

_KINDS: tuple[Kind, ...] = ("demonstration", "preference", "feedback", "prompts", "text")


class Aside(Protocol):
    """Takes rows that are set aside."""

    def add(self, row: Mapping[str, Any]) -> None:
        """Take one."""
        ...


class Nowhere:
    """Where bad rows go in a reading that is not the last: the last one writes them aside."""

    def add(self, row: Mapping[str, Any]) -> None:
        """Forget it."""


class Example(NamedTuple):
    """One row.

    Attributes:
        file: path as it was given.
        number: of the row in its file, from 1.
        raw: the row as it stands.
        prompt: its text, turns on lines of their own; of plain text, the text.
        responses: one for a demonstration, two for a comparison, K for a ranking, none for a prompt or text.
        kind: what the file holds: demonstration, preference, feedback, prompts or text.
    """

    file: str
    number: int
    raw: Mapping[str, Any]
    prompt: str
    responses: tuple[str, ...]
    kind: str = "demonstration"

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join((self.prompt, *self.responses))


def expanded(paths: Sequence[str | Path]) -> list[Path]:
    """Files, and the data files in folders, in order.

    Raises:
        DataError: one is not there or cannot be read, or a folder has none.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir() and not (path / "dataset_info.json").exists():
            inside = sorted(
                child for child in path.rglob("*") if child.name.endswith((".jsonl", ".jsonl.gz", ".parquet"))
            )
            inside = [child for child in inside if not child.name.startswith(".")]
            if not inside:
                raise DataError(f"{path}: a folder without data files; expected .jsonl, .jsonl.gz or .parquet in it")
            found += inside
        else:
            found.append(path)
    for path in found:
        files.check_path(path)
    return found


def examples(paths: Sequence[Path], bad: Aside | None = None) -> Iterator[Example]:
    """Yield the rows of files; what a file holds is told by its first row.

    Args:
        paths: files, in order.
        bad: where rows go that cannot be read; none: the first one raises.

    Raises:
        DataError: a file cannot be read, or a row is bad and `bad` is none.
    """
    for path in paths:
        kind: Kind | None = None
        for number, raw in files.rows(path):
            try:
                if isinstance(raw, Broken):
                    raise ValueError(raw.message)
                kind = kind or _kind_of(raw)
                prompt, responses = texts(parse(raw, kind)[0])
            except ValueError as error:
                if bad is None:
                    message = f"{path}, row {number}: {error} (or set such rows aside: --skip-bad-rows)"
                    raise DataError(message) from None
                shown = raw.text if isinstance(raw, Broken) else raw
                bad.add({"file": str(path), "row": number, "reason": "bad row", "message": str(error), "raw": shown})
                continue
            yield Example(str(path), number, raw, prompt, responses, kind)


def _kind_of(raw: Any) -> Kind:
    """The first kind that reads a row; if none does, the complaint of the first."""
    complaint: ValueError | None = None
    for kind in _KINDS:
        try:
            parse(raw, kind)
        except ValueError as error:
            complaint = complaint or error
        else:
            return kind
    assert complaint is not None
    raise complaint


def texts(record: Any) -> tuple[str, tuple[str, ...]]:
    """The prompt of a record as text, and its responses."""
    if isinstance(record, str):
        return record, ()
    if isinstance(record, Demonstration):
        return _joined(record.conversation[:-1]), (record.conversation[-1].content,)
    if isinstance(record, Comparison):
        return _joined(record.prompt), (record.chosen, record.rejected)
    if isinstance(record, Feedback):
        return _joined(record.prompt), (record.response,)
    if isinstance(record, Ranking):
        return _joined(record.prompt), record.responses
    return _joined(record), ()


def _joined(conversation: Conversation) -> str:
    return "\n".join(message.content for message in conversation)
