"""JSONL files written a row at a time: whatever their size, memory stays the same; they appear whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

__all__ = ["Lines", "write_json"]


class Lines:
    """A JSONL file being written, .gz by its name. Closed, it is in its place; left by an exception, it is not there.

    with Lines(Path("rows.jsonl")) as rows:
        rows.add({"prompt": "2+2=", "response": "4"})
    """

    def __init__(self, path: Path, *, keep_empty: bool = True) -> None:
        self.path, self.rows = path, 0
        self._hash, self._keep_empty = hashlib.sha256(), keep_empty
        path.parent.mkdir(parents=True, exist_ok=True)
        self._aside = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._raw: IO[bytes] = self._aside.open("wb")
        # mtime 0: the same rows give the same bytes
        self._file: Any = gzip.GzipFile("", "wb", fileobj=self._raw, mtime=0) if path.suffix == ".gz" else self._raw

    @property
    def sha256(self) -> str:
        """Hash of the rows as text, whether compressed or not."""
        return self._hash.hexdigest()

    def add(self, row: Mapping[str, Any]) -> None:
        """Write a row."""
        line = (json.dumps(row, ensure_ascii=False, default=str) + "\n").encode("utf-8", "backslashreplace")
        self._hash.update(line)
        self._file.write(line)
        self.rows += 1

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._raw.close()
        if kind is not None or not (self.rows or self._keep_empty):
            self._aside.unlink(missing_ok=True)
        else:
            os.replace(self._aside, self.path)


def write_json(value: Any, path: Path) -> None:
    """Write an object as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    aside.write_text(json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n", encoding="utf-8")
    os.replace(aside, path)
