"""Files that grow together: a job that is killed goes on from the last time all of them were right."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from accord.data.files import DataError
from accord.data.lines import write_json

__all__ = ["Journal"]


class Journal:
    """JSONL files and a state that says how long each of them is.

    A step appends rows and then commits; whatever stands behind the committed length when the folder is opened again
    was written by a step that did not end, and is cut off.

    Args:
        folder: of the files and of state.json.
        made_of: what the files depend on; a folder with another is refused.

    Raises:
        DataError: the folder holds a job with other settings.
    """

    def __init__(self, folder: Path, made_of: Mapping[str, Any]) -> None:
        self.folder, self._path = folder, folder / "state.json"
        folder.mkdir(parents=True, exist_ok=True)
        self.state: dict[str, Any] = {}
        self._lengths: dict[str, int] = {}
        self._made_of = json.loads(json.dumps(made_of, default=str))
        if self._path.exists():
            saved = json.loads(self._path.read_text(encoding="utf-8"))
            self._check(saved["made_of"])
            self.state, self._lengths = saved["state"], saved["lengths"]
        for name, length in self._lengths.items():
            found = (folder / name).stat().st_size if (folder / name).exists() else 0
            if found < length:
                raise DataError(
                    f"{folder / name}: has {found} bytes, and {self._path} counts {length}; put the file back, or "
                    "choose another --out to begin anew"
                )
            if found:
                os.truncate(folder / name, length)

    def _check(self, before: Mapping[str, Any]) -> None:
        for name, value in self._made_of.items():
            if before.get(name) != value:
                raise DataError(
                    f"{self.folder}: holds a job with {name} {before.get(name)!r}, now it is {value!r}; "
                    "choose another --out, or the settings it began with"
                )

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The committed rows of a file."""
        path = self.folder / name
        if name not in self._lengths or not path.exists():
            return []
        return [json.loads(line) for line in path.read_bytes()[: self._lengths[name]].splitlines()]

    def append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows; they count from the next commit on."""
        path = self.folder / name
        with path.open("r+b" if path.exists() else "wb") as file:
            file.truncate(self._lengths.get(name, 0))
            file.seek(self._lengths.get(name, 0))
            for row in rows:
                file.write((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))
            self._lengths[name] = file.tell()

    def commit(self, **state: Any) -> None:
        """Make what was appended count, and remember the state."""
        self.state |= state
        write_json({"made_of": self._made_of, "state": self.state, "lengths": self._lengths}, self._path)
