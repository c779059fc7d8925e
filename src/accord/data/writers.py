"""Records -> JSONL, Parquet and columns for `datasets`; what is written reads back equal.

A file appears whole or not at all: it is written aside and renamed.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from accord.data.readers import BadRow
from accord.records import Conversation, to_row

__all__ = ["to_columns", "write", "write_bad_rows"]

# Objects with keys of their own in every row: JSON text in a table, whose columns are the same in every row.
_FREE_FORM = ("ranks", "sampling")


def write(records: Sequence[BaseModel | Conversation], path: str | Path) -> None:
    """Write records (or prompts: bare conversations) to .jsonl, .jsonl.gz or .parquet.

    Raises:
        ValueError: There are no records, or the file is named otherwise.
    """
    path = Path(path)
    if not records:
        raise ValueError(f"{path}: found no records to write; expected at least one, since an empty file is no data")
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        _write_lines((_row(record) for record in records), path)
    elif path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        aside = _aside(path)
        pyarrow.parquet.write_table(pyarrow.table(to_columns(records)), aside)
        os.replace(aside, path)
    else:
        raise ValueError(f"{path}: cannot write a file of this name; expected .jsonl, .jsonl.gz or .parquet; rename it")


def to_columns(records: Sequence[BaseModel | Conversation]) -> dict[str, list[Any]]:
    """Return records as columns, e.g. for `datasets.Dataset.from_dict`; a field that is not there is None."""
    rows = [_flat(_row(record)) for record in records]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def write_bad_rows(bad_rows: Sequence[BadRow], path: str | Path) -> None:
    """Write rows that were set aside to JSONL: `file`, `row`, `message` and the row itself as `raw`."""
    _write_lines((vars(bad) for bad in bad_rows), Path(path))


def _row(record: BaseModel | Conversation) -> dict[str, Any]:
    return to_row(record) if isinstance(record, BaseModel) else {"prompt": [to_row(turn) for turn in record]}


def _flat(value: Any) -> Any:
    if isinstance(value, list):
        return [_flat(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: json.dumps(item, ensure_ascii=False) if name in _FREE_FORM and isinstance(item, dict) else _flat(item)
        for name, item in value.items()
    }


def _write_lines(rows: Iterable[dict[str, Any]], path: Path) -> None:
    aside = _aside(path)
    # mtime 0: the same records give the same bytes, and the same hash
    with (
        aside.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if path.suffix == ".gz" else raw as file,
    ):
        for row in rows:
            file.write((json.dumps(row, ensure_ascii=False, default=str) + "\n").encode("utf-8", "backslashreplace"))
    os.replace(aside, path)


def _aside(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.part")
