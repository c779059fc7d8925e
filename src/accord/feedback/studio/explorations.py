"""Chat logs being explored: one at a time, in a thread, kept in memory until the next or the end of the server.

Logs are about people who agreed to nothing here, so they are not written anywhere; only what becomes a campaign is.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from accord.data.collections import read_logs
from accord.feedback.explore import Exploration, explore

__all__ = ["Explorations", "Exploring", "Upload"]

log = logging.getLogger("accord.studio")


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A file that was sent. `compared`: of the second set."""

    name: str
    data: bytes
    compared: bool = False


@dataclass
class Exploring:
    """How far one is. `found` or `error` is set at the end."""

    names: tuple[str, ...]
    title: str = "waiting"
    done: int = 0
    total: int | None = None
    bad_rows: list[str] = field(default_factory=list)
    found: Exploration | None = None
    error: str | None = None

    @property
    def running(self) -> bool:
        """Whether it goes on."""
        return self.found is None and self.error is None

    def step(self, title: str, done: int, total: int | None) -> None:
        """Note how far it is."""
        self.title, self.done, self.total = title, done, total


@dataclass
class Explorations:
    """The last one of each project."""

    _kept: dict[str, Exploring] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "explorer"))

    def of(self, project_id: str) -> Exploring | None:
        """The one of a project; None: there is none."""
        return self._kept.get(project_id)

    def start(self, project_id: str, uploads: Sequence[Upload], *, clusters: int | None) -> Exploring:
        """Explore files of a project in the background; the earlier one of the project is gone.

        Raises:
            ValueError: one is still going on.
        """
        with self._lock:
            known = self._kept.get(project_id)
            if known is not None and known.running:
                raise ValueError("logs of this project are being explored; wait until that is done")
            exploring = Exploring(names=tuple(upload.name for upload in uploads))
            self._kept[project_id] = exploring
        self._pool.submit(_run, exploring, tuple(uploads), clusters)
        return exploring

    def drop(self, project_id: str) -> None:
        """Forget the one of a project."""
        self._kept.pop(project_id, None)

    def close(self) -> None:
        """Wait for what is going on; nothing new is taken."""
        self._pool.shutdown(cancel_futures=True)


def _run(exploring: Exploring, uploads: Sequence[Upload], clusters: int | None) -> None:
    try:
        exploring.found = _explored(exploring, uploads, clusters)
    except (ValueError, OSError) as error:
        exploring.error = str(error)
    except Exception:
        log.exception("an exploration failed")
        exploring.error = "this is a fault of the studio and is in its log"


def _explored(exploring: Exploring, uploads: Sequence[Upload], clusters: int | None) -> Exploration:
    folder = Path(tempfile.mkdtemp(prefix="accord-explore-"))
    try:
        parts = []
        for compared in (False, True):
            paths = [_written(folder, place, one) for place, one in enumerate(uploads) if one.compared == compared]
            read = (
                read_logs(paths, skip_bad_rows=True, seen=lambda rows: exploring.step("reading", rows, None))
                if paths
                else None
            )
            exploring.bad_rows += [f"row {bad.row}: {bad.message}" for bad in (read.bad_rows if read else ())]
            parts.append(read.logs if read else ())
        return explore(parts[0], parts[1], clusters=clusters, step=exploring.step)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _written(folder: Path, place: int, upload: Upload) -> Path:
    """The file under a name of ours with its own ending; what cannot be read is refused by the reader."""
    endings = (".jsonl", ".jsonl.gz", ".json", ".parquet")
    ending = next((one for one in endings if upload.name.lower().endswith(one)), None)
    if ending is None:
        raise ValueError(f"{upload.name}: cannot read a file of this name; expected one of {', '.join(endings)}")
    path = folder / f"{place}{ending}"
    path.write_bytes(upload.data)
    return path
