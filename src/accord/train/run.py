"""A run is a folder: what was asked, from what, every figure, and a checkpoint from which it goes on.

    config.yaml       the resolved configuration
    manifest.json     versions, seed, command, hashes of data and starting model, precision, trainable share, rows cut
    metrics.jsonl     one object a line (docs/metrics.md)
    samples.jsonl     sampled responses, where a job samples
    bad_rows.jsonl    rows set aside with --skip-bad-rows, and why
    kept/             models of steps on the way, with --keep-every; load like model/
    checkpoints/      the newest state of training: enough to continue exactly
    model/            the finished model, loads in transformers or PEFT as it stands; none of a job that only samples
    done.json         written last

Every file that matters is written aside, flushed to disk and renamed: a kill at any moment leaves the old or the new.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.profiler import record_function

from accord.data.files import sha256
from accord.train.configs import FREE_TO_CHANGE, JobConfig
from accord.train.files import remove, take, versions, write_atomically, write_bytes, write_text
from accord.train.metrics import is_known

__all__ = ["Run", "environment", "settle_config", "take", "write_atomically", "write_text"]


class Run:
    """An open run folder: used by one process at a time, closed by `finish`.

    Attributes:
        folder: the run folder.
        finished: an earlier call already finished it; there is nothing to do.
        manifest: facts for manifest.json; jobs add to it before `begin`.
    """

    def __init__(self, job: str, config: JobConfig, *, notify: Callable[[str], None] = lambda text: None) -> None:
        self.job, self.config, self.notify = job, config, notify
        self.folder = Path(config.out)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = take(self.folder)
        self.finished = (self.folder / "done.json").exists()
        try:
            settle_config(self.folder, self._resolved())
            if self.finished:
                self._check_inputs()
                remove(self.folder / "checkpoints")  # a kill right behind done.json left them
        except ValueError:
            self.close()
            raise
        self.manifest: dict[str, Any] = {}
        self._bad_rows: dict[str, list[str]] = {}
        self._seconds_before = 0.0
        self._started = time.monotonic()

    # -- beginning -----------------------------------------------------------------------------------------------------

    def _resolved(self) -> dict[str, Any]:
        return {"job": self.job, **self.config.model_dump(mode="json")}

    def _check_inputs(self) -> None:
        """A finished run is reused only for the data it was made from, as far as that is still there."""
        for name in ("data", "eval_data", "ptx_data"):
            for entry in self.known(name) or []:
                path = Path(entry["file"])
                if path.is_file() and sha256(path) != entry["sha256"]:
                    raise ValueError(
                        f"{self.folder} is finished, but {path} has changed since; give another --out, or delete the "
                        "folder to train on the file as it is now"
                    )

    def begin(self, **facts: Any) -> None:
        """Write the manifest. On a resumed run everything that decides the numbers must be as it was."""
        path = self.folder / "manifest.json"
        facts = json.loads(json.dumps({**self.manifest, **facts}))
        if path.exists():
            found = json.loads(path.read_text(encoding="utf8"))
            for key in ("data", "eval_data", "ptx_data", "model_fingerprint", "precision", "reward"):
                if key in found and found[key] != facts.get(key):
                    if not has_results(self.folder):
                        clear_start(self.folder)
                        self._write_bad_rows()
                        break
                    raise ValueError(
                        f"{self.folder}: {key} was {found[key]!r} when the run began and is {facts.get(key)!r} now; "
                        "restore it to continue, or give another --out for a new run"
                    )
        manifest = {"job": self.job, "seed": self.config.seed, "command": " ".join(sys.argv), **environment(), **facts}
        self.manifest = manifest
        text = json.dumps(manifest, indent=2, ensure_ascii=False)
        write_text(path, text)

    def known(self, key: str) -> Any:
        """A fact of the manifest of an earlier part of this run, or None."""
        path = self.folder / "manifest.json"
        return json.loads(path.read_text(encoding="utf8")).get(key) if path.exists() else None

    # -- figures -------------------------------------------------------------------------------------------------------

    def log(self, step: int, **figures: float) -> dict[str, float]:
        """Append one line to metrics.jsonl. Names use `__` for `/`; every name is in `train.metrics`."""
        row = {"step": step, "seconds": round(self.seconds, 3)}
        row |= {name.replace("__", "/"): value for name, value in figures.items()}
        unknown = [name for name in row if not is_known(name)]
        assert not unknown, f"metrics without a meaning in train/metrics.py: {unknown}"
        self._append("metrics.jsonl", row)
        return row

    def sample(self, step: int, **fields: Any) -> None:
        """Append one line to samples.jsonl."""
        self._append("samples.jsonl", {"step": step, **fields})

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        with (self.folder / name).open("a", encoding="utf8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def set_aside(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep rows that could not be read, with the reason, in bad_rows.jsonl."""
        self._bad_rows[name] = [
            json.dumps({"setting": name, **row}, ensure_ascii=False, default=str) + "\n" for row in rows
        ]
        path = self._write_bad_rows()
        self.notify(f"{len(rows)} bad rows of --{name.replace('_', '-')} set aside in {path}")

    def _write_bad_rows(self) -> Path:
        path = self.folder / "bad_rows.jsonl"
        if self._bad_rows:
            write_text(path, "".join(line for lines in self._bad_rows.values() for line in lines))
        return path

    @property
    def seconds(self) -> float:
        """Time spent on this run, in all its parts."""
        return self._seconds_before + time.monotonic() - self._started

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    @record_function("accord.checkpoint")
    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Keep the state after `step` optimiser steps; the one before it is deleted once this one is safe."""
        folder = self.folder / "checkpoints"
        folder.mkdir(exist_ok=True)
        whole = {"step": step, "seconds": self.seconds, **state}
        path = folder / f"step-{step:08d}.pt"
        write_atomically(path, lambda aside: torch.save(whole, aside))
        for old in folder.iterdir():
            if old != path:
                remove(old)

    def keep(self, step: int, export: Callable[[Path], None]) -> None:
        """Keep the model after `step` optimiser steps in kept/; one that is there was made by an earlier part."""
        path = self.folder / "kept" / f"step-{step:08d}"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, export)

    def restore(self) -> dict[str, Any] | None:
        """The newest checkpoint, or None; figures logged after it are taken back, they will be made again."""
        found = sorted((self.folder / "checkpoints").glob("step-*.pt"))
        state: dict[str, Any] | None = None
        if found:
            state = torch.load(found[-1], map_location="cpu", weights_only=True, mmap=True)
            self._seconds_before = float(state["seconds"])
            self.notify(f"continuing {self.folder} after step {state['step']}")
        for name in ("metrics.jsonl", "samples.jsonl"):
            self._take_back(name, 0 if state is None else int(state["step"]))
        return state

    def _take_back(self, name: str, step: int) -> None:
        path = self.folder / name
        if path.exists():
            # Bytes, split at newlines alone: a kill may cut a character in two, and samples hold any line separator.
            rows = [line + b"\n" for line in path.read_bytes().split(b"\n") if _step_of(line) <= step]
            write_atomically(path, lambda aside: write_bytes(aside, b"".join(rows)))

    # -- end -----------------------------------------------------------------------------------------------------------

    def finish(self, export: Callable[[Path], None] | None = None, **facts: Any) -> Path:
        """Write model/ with `export(folder)`, then done.json, then drop the checkpoints. Returns the run folder.

        A job that makes no model has nothing to export.
        """
        if export is not None:
            write_atomically(self.folder / "model", export)
        done = {"job": self.job, "config": self._resolved(), "seconds": self.seconds, **facts}
        text = json.dumps(done, indent=2)
        write_text(self.folder / "done.json", text)
        remove(self.folder / "checkpoints")
        self.close()
        return self.folder

    def close(self) -> None:
        """Let go of the folder."""
        self._lock.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def settle_config(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Write config.yaml, or check that the run which is there was asked for with the same settings.

    A run that failed before it had a result worth keeping binds nobody: what little it left is cleared.

    Raises: ValueError: a setting that decides the result differs from that of a run with results.
    """
    path = folder / "config.yaml"
    found = yaml.safe_load(path.read_text(encoding="utf8")) if path.exists() else wanted
    changed = [
        key for key in sorted((wanted.keys() | found.keys()) - FREE_TO_CHANGE) if wanted.get(key) != found.get(key)
    ]
    if changed and has_results(folder):
        key = changed[0]
        raise ValueError(
            f"{folder} holds a run with {key} = {found.get(key)!r}, asked for is {wanted.get(key)!r}; "
            "give the same settings to continue it, another --out for a new run, or delete the folder"
        )
    if changed:
        clear_start(folder)
    write_text(path, yaml.safe_dump(dict(wanted), sort_keys=False, allow_unicode=True))


def has_results(folder: Path) -> bool:
    """Whether a run has something to continue from: a checkpoint, a finished stage, or its end."""
    return any((folder / name).exists() for name in ("done.json", "clock.json")) or bool(
        list((folder / "checkpoints").glob("step-*.pt"))
    )


def clear_start(folder: Path) -> None:
    """Remove what a run without results left: it belongs to settings or data that are no longer asked for."""
    for name in ("manifest.json", "metrics.jsonl", "samples.jsonl", "bad_rows.jsonl"):
        remove(folder / name)
    for path in (folder / "kept", *folder.glob("reference-*.pt")):
        remove(path)


def environment() -> dict[str, Any]:
    """Versions, machine and time, for a manifest."""
    machine = {"python": platform.python_version(), "machine": platform.machine(), "threads": torch.get_num_threads()}
    return {"versions": versions(), "environment": machine, "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}


def _step_of(line: bytes) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):
        return sys.maxsize  # a line cut off by a kill
