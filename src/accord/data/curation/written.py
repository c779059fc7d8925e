"""Rows in, rows out: what stays as it stands, what goes beside it with the reason, and a report."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from accord.data import files
from accord.data.curation.examples import Example, examples
from accord.data.files import DataError
from accord.data.lines import Lines, write_json
from accord.data.progress import Tell, counted, silent

__all__ = ["Written", "beside", "sift"]


class Written(NamedTuple):
    """What became of the rows.

    Attributes:
        kept: rows written to `out`.
        removed: rows by reason.
        bad: rows that could not be read.
        by_file: removed rows by file.
        out: file of the rows that stay.
        aside: file of the rows that went; none if there is none.
        report: file of the report.
        details: the report itself.
    """

    kept: int
    removed: Mapping[str, int]
    bad: int
    by_file: Mapping[str, int]
    out: Path
    aside: Path | None
    report: Path
    details: Mapping[str, Any]


def beside(out: Path, name: str) -> Path:
    """The name of a file that belongs to another: rows.jsonl -> rows.removed.jsonl."""
    return out.with_name(f"{out.name.removesuffix('.gz').removesuffix('.jsonl')}.{name}")


def sift(
    paths: Sequence[Path],
    out: Path,
    reason: Callable[[Example], Mapping[str, Any] | None],
    report: Mapping[str, Any],
    *,
    skip_bad_rows: bool = False,
    tell: Tell = silent,
) -> Written:
    """Write the rows for which there is no reason to go; nothing is at `out` before all rows were looked at.

    Args:
        paths: files, in order.
        out: of the rows that stay, .jsonl or .jsonl.gz.
        reason: why a row goes: {"reason": ..., and what else there is to say}; None: it stays.
        report: is written beside `out`, with the counts; what it refers to may still change while rows are read.
        skip_bad_rows: set rows that cannot be read aside as well, instead of raising.
        tell: progress.

    Raises:
        DataError: a file cannot be read or written, or a row is bad.
    """
    if not out.name.endswith((".jsonl", ".jsonl.gz")):
        raise DataError(f"{out}: cannot write a file of this name; expected .jsonl or .jsonl.gz; rename it")
    if any(path.resolve() == out.resolve() for path in paths):
        raise DataError(f"{out}: --out is one of the files that are read; choose another")
    removed: Counter[str] = Counter()
    by_file: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        kept = stack.enter_context(Lines(out))
        aside = stack.enter_context(Lines(beside(out, "removed.jsonl"), keep_empty=False))
        bad = stack.enter_context(Lines(beside(out, "bad-rows.jsonl"), keep_empty=False))
        for example in counted(examples(paths, bad if skip_bad_rows else None), "rows", tell):
            why = reason(example)
            if why is None:
                kept.add(example.raw)
            else:
                aside.add({"file": example.file, "row": example.number, **why, "raw": example.raw})
                removed[str(why["reason"]).split(" and ")[0]] += 1
                by_file[example.file] += 1
        counts = {"kept": kept.rows, "removed": removed, "bad": bad.rows, "by_file": by_file}
    sources = {str(path): files.sha256(path) for path in paths}
    details = {**report, "sources": sources, **counts, "sha256": kept.sha256}
    write_json(details, beside(out, "report.json"))
    return Written(
        kept.rows,
        removed,
        bad.rows,
        by_file,
        out,
        aside.path if aside.rows else None,
        beside(out, "report.json"),
        details,
    )
