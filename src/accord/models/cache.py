"""Accord's folder for what can be made again: converted models, and the hashes of large files.

It is `$ACCORD_CACHE`, or `~/.cache/accord`. Deleting it costs time, nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["cache_folder", "file_sha256", "locked", "write_json"]

logger = logging.getLogger("accord")

_SETTLED_SECONDS = 2.0


def cache_folder() -> Path:
    """`$ACCORD_CACHE`, or `~/.cache/accord`; it need not exist yet."""
    chosen = os.environ.get("ACCORD_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else Path.home() / ".cache" / "accord"


def file_sha256(path: Path, *, trust_remembered: bool = True) -> str:
    """The sha256 of a file's content, as hexadecimal digits.

    It is remembered with the file's size, inode and time of change, so that naming a model of many gigabytes a second
    time costs nothing.

    Args:
        path: a file; a link means the file it leads to.
        trust_remembered: False reads the file whatever is remembered, to find damage on the disk.
    """
    path = path.resolve()
    status = path.stat()
    key = {"path": str(path), "size": status.st_size, "inode": status.st_ino, "changed_ns": status.st_mtime_ns}
    note = cache_folder() / "hashes" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:24]}.json"
    if trust_remembered:
        with contextlib.suppress(OSError, ValueError):
            remembered = json.loads(note.read_text())
            if remembered["key"] == key:
                return str(remembered["sha256"])
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    # A file changed a moment ago may change again within the same tick of its clock: then the key would not tell.
    if time.time() - status.st_mtime > _SETTLED_SECONDS:
        with contextlib.suppress(OSError):  # a cache that cannot be written is no reason to stop
            write_json(note, {"key": key, "sha256": digest})
    return digest


def write_json(path: Path, content: object) -> None:
    """Write a JSON file aside and rename it, so that nobody ever reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("w") as file:
        json.dump(content, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Let one process at a time into the block of that name; the lock dies with the process that holds it."""
    path = cache_folder() / "locks" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("another process is preparing %s; waiting for it", name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
