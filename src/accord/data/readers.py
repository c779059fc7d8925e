"""Data files -> records: every row validated, a bad row named, the bytes hashed.

    read("pairs.jsonl", "comparison").records

Reads .jsonl, .jsonl.gz, .json (a list), .parquet and folders of `datasets.save_to_disk`, in the formats of `formats`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, overload

from accord.data import files
from accord.data.files import Broken, DataError
from accord.data.formats import Kind, parse
from accord.records import Comparison, Conversation, Demonstration, Feedback, Judgment, Ranking, ResponseSet

__all__ = ["BadRow", "FileReport", "ReadResult", "read", "read_rows"]

Record = TypeVar("Record")
Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True, kw_only=True)
class BadRow:
    """A row that was set aside, and why. `raw` is the row as parsed, or its text where it is no JSON."""

    file: str
    row: int
    message: str
    raw: Any


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """What one file held.

    Attributes:
        file: path as it was given.
        rows: good rows.
        bad: rows set aside.
        sha256: hash of the bytes as stored, in hexadecimal.
        forms: good rows by the form they were written in, e.g. {"messages": 80, "Alpaca": 20}.
    """

    file: str
    rows: int
    bad: int
    sha256: str
    forms: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class ReadResult(Generic[Record]):
    """The records of some files in the order of files and rows, the rows set aside, and a report on each file."""

    records: list[Record]
    bad_rows: list[BadRow]
    files: tuple[FileReport, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the hashes of the files in order: the same for the same data, whatever the files are called."""
        return hashlib.sha256("".join(report.sha256 for report in self.files).encode()).hexdigest()


# fmt: off
@overload
def read(paths: Paths, kind: Literal["demonstration"], *, skip_bad_rows: bool = ...) -> ReadResult[Demonstration]: ...
@overload
def read(paths: Paths, kind: Literal["comparison"], *, skip_bad_rows: bool = ...) -> ReadResult[Comparison]: ...
@overload
def read(paths: Paths, kind: Literal["ranking"], *, skip_bad_rows: bool = ...) -> ReadResult[Ranking]: ...
@overload
def read(
    paths: Paths, kind: Literal["preference"], *, skip_bad_rows: bool = ...
) -> ReadResult[Comparison | Ranking]: ...
@overload
def read(
    paths: Paths, kind: Literal["feedback"], *, skip_bad_rows: bool = ...
) -> ReadResult[Comparison | Feedback | Ranking]: ...
@overload
def read(paths: Paths, kind: Literal["prompts"], *, skip_bad_rows: bool = ...) -> ReadResult[Conversation]: ...
@overload
def read(paths: Paths, kind: Literal["response_set"], *, skip_bad_rows: bool = ...) -> ReadResult[ResponseSet]: ...
@overload
def read(paths: Paths, kind: Literal["judgment"], *, skip_bad_rows: bool = ...) -> ReadResult[Judgment]: ...
@overload
def read(paths: Paths, kind: Literal["text"], *, skip_bad_rows: bool = ...) -> ReadResult[str]: ...
@overload
def read(paths: Paths, kind: Literal["corpus"], *, skip_bad_rows: bool = ...) -> ReadResult[str | Demonstration]: ...
# fmt: on
def read(paths: Paths, kind: Kind, *, skip_bad_rows: bool = False) -> ReadResult[Any]:
    """Read records of one kind.

    Args:
        paths: a file or folder, or several, read in this order.
        kind: what the rows are; "preference" takes comparisons and rankings mixed, "feedback" those and thumbs on
            single responses, "prompts" takes the prompt of any record and returns conversations, "text" returns the
            texts of `{"text": ...}`, "corpus" takes such texts and demonstrations mixed.
        skip_bad_rows: collect bad rows in `bad_rows` instead of raising at the first. A file damaged as a whole, or
            without one good row, raises all the same.

    Raises:
        DataError: A file is missing, empty, damaged or of another kind, or a row is bad.
    """
    records: list[Any] = []
    bad_rows: list[BadRow] = []
    reports = []
    for path in [Path(path) for path in ([paths] if isinstance(paths, (str, Path)) else paths)]:
        files.check_path(path)
        bad: list[BadRow] = []
        found, forms = _collect(files.rows(path), str(path), kind, bad if skip_bad_rows else None)
        if not found:
            why = f"all {len(bad)} rows are bad, the first one, row {bad[0].row}: {bad[0].message}" if bad else "no row"
            raise DataError(f"{path}: {why}; expected at least one good row")
        records += found
        bad_rows += bad
        reports.append(
            FileReport(file=str(path), rows=len(found), bad=len(bad), sha256=files.sha256(path), forms=forms)
        )
    return ReadResult(records=records, bad_rows=bad_rows, files=tuple(reports))


def read_rows(rows: Iterable[Mapping[str, Any]], kind: Kind, *, name: str = "rows") -> list[Any]:
    """Return the records of rows in memory, e.g. of a `datasets.Dataset`; errors call them `name`.

    Raises:
        DataError: A row is bad.
    """
    return _collect(enumerate(map(files.without_nulls, rows), 1), name, kind, None)[0]


def _collect(
    rows: Iterable[tuple[int, Any]], name: str, kind: Kind, bad: list[BadRow] | None
) -> tuple[list[Any], Counter[str]]:
    """Parse rows and count their forms. A bad row goes to the list `bad`, or raises where none is given."""
    records: list[Any] = []
    forms: Counter[str] = Counter()
    for number, row in rows:
        try:
            if isinstance(row, Broken):
                raise ValueError(row.message)
            record, form = parse(row, kind)
        except ValueError as error:
            if bad is None:
                raise DataError(f"{name}, row {number}: {error} (or set such rows aside: --skip-bad-rows)") from None
            raw = row.text if isinstance(row, Broken) else row
            bad.append(BadRow(file=name, row=number, message=str(error), raw=raw))
        else:
            records.append(record)
            forms[form] += 1
    return records, forms
