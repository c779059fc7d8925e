"""Files of a run folder: written whole or not at all, used by one process at a time, and the versions that made them.

Everything is written aside, flushed to disk and renamed: a kill at any moment leaves the old or the new. No torch.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO

from accord import __version__

__all__ = ["remove", "take", "versions", "write_atomically", "write_bytes", "write_text"]

VERSIONED = ("torch", "transformers", "peft", "tokenizers", "safetensors", "numpy", "accord-align")


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file or folder aside with `write(aside)`, flush it, and rename it into place."""
    aside = path.with_name(f".{path.name}.part")
    remove(aside)
    write(aside)
    for part in [aside, *aside.rglob("*")] if aside.is_dir() else [aside]:
        _flush(part)
    before = path.with_name(f".{path.name}.before")
    if path.is_dir():  # a folder cannot be renamed over a full one; the moment without it is two renames short
        remove(before)
        os.replace(path, before)
    os.replace(aside, path)
    remove(before)
    _flush(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    # Half a character, as only bad rows hold it, is written as its JSON escape.
    write_atomically(path, lambda aside: write_bytes(aside, text.encode(errors="backslashreplace")))


def versions() -> dict[str, str]:
    """Versions of what computes the numbers, for a manifest; nothing is imported for it."""
    found = {}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = __version__ if name == "accord-align" else "not installed"
    return found


def take(folder: Path) -> IO[str]:
    """Take a folder for this process; it is let go when the file that is returned is closed.

    Raises: ValueError: another process has it.
    """
    handle = (folder / ".lock").open("w")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        raise ValueError(f"{folder} is in use by another process; give this run another --out") from None
    return handle


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes where they are not to be renamed: inside `write_atomically`."""
    path.write_bytes(content)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Delete a file or a whole folder; nothing if it is not there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
