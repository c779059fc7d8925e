"""What was converted of what: how a job finds out what it need not do again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Any

import accord
from accord.data import files
from accord.data.files import DataError
from accord.data.lines import write_json
from accord.data.tasks.config import ConvertConfig, TaskReport
from accord.data.tasks.rows import paths_of, relative_name
from accord.data.tasks.task import Task

__all__ = ["Manifest"]


class Manifest:
    """OUT/manifest.json: what was made of what, and so what need not be made again."""

    def __init__(self, config: ConvertConfig) -> None:
        self._config, self._path = config, config.out / "manifest.json"
        self._entries: dict[str, Any] = {}
        if self._path.exists():
            try:
                self._entries = json.loads(self._path.read_text(encoding="utf-8"))["tasks"]
            except (ValueError, KeyError, TypeError):
                raise DataError(f"{self._path}: no manifest of a conversion; choose another --out") from None

    def finished(self, task: Task, role: str) -> TaskReport | None:
        """The report of a task that was made of the same things and is still there."""
        entry = self._entries.get(task.task)
        if entry is None or entry["role"] != role or entry["made_of"] != self._made_of(task, role):
            return None
        if not all((self._config.out / name).exists() for name in entry["outputs"]):
            return None
        values = {name: entry[name] for name in TaskReport._fields if name in entry}
        return TaskReport(**{**values, "clusters": tuple(entry["clusters"]), "seconds": 0.0})

    def _made_of(self, task: Task, role: str) -> dict[str, Any]:
        """All that the result depends on."""
        leave = {"tasks", "root", "out", "workers", "hold_out"}
        settings = self._config.model_dump(mode="json", exclude=leave)
        text = json.dumps([task.model_dump(mode="json"), settings], sort_keys=True)
        sources = {} if role == "left out" else paths_of(task, self._config.root)
        return {
            "accord": accord.__version__,
            "settings": hashlib.sha256(text.encode()).hexdigest(),
            "sources": {relative_name(path, self._config.root): files.sha256(path) for path in sources.values()},
        }

    def add(self, task: Task, report: TaskReport) -> None:
        """Note a task and remove files of it that an earlier conversion left."""
        old = self._entries.get(task.task, {"outputs": {}})
        for name in set(old["outputs"]) - set(report.outputs):
            (self._config.out / name).unlink(missing_ok=True)
        made_of = {"licence": task.licence, "made_of": self._made_of(task, report.role)}
        self._entries[task.task] = report._asdict() | made_of
        self._write()

    def check(self, held: Collection[str], names: Collection[str]) -> None:
        """Refuse training rows that an earlier conversion left in the folder and that are to be held out now."""
        for name, entry in self._entries.items():
            if name not in names and entry["role"] == "train" and set(entry["clusters"]) & set(held):
                raise DataError(
                    f"{self._config.out}: holds training rows of {name} ({', '.join(entry['clusters'])}) from an "
                    "earlier conversion, which are held out now; convert that task again too, or choose another --out"
                )

    def _write(self) -> None:
        settings = self._config.model_dump(mode="json")
        write_json({"accord": accord.__version__, "settings": settings, "tasks": self._entries}, self._path)
