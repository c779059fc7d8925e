"""Log-probabilities of the reference model: computed once, kept on disk by content, shared between runs.

What decides them is the starting model, its arithmetic, and the tokens, which a template and a data file have made. All
of that goes into the name of a file in `$ACCORD_CACHE/reference` (docs/decisions/0007-reference-once.md), so a second
run on the same data, with another loss, beta or learning rate, starts at once. A run keeps a copy of its own: deleting
the cache in the middle of a run cannot change it.
"""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import shutil
from array import array
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from accord.models.cache import cache_folder
from accord.models.kernels.build import library
from accord.models.kernels.decoding import UNITS, best_unit
from accord.train.loop import Precision
from accord.train.progress import Display
from accord.train.run import Run, write_atomically
from accord.train.scoring import all_sequence_logprobs
from accord.trees import PromptTree

__all__ = ["content_key", "reference_logprobs"]

FORMAT = "5"  # a change of what the file holds, or of the last bits of it, changes its name


def content_key(model_fingerprint: str, precision: Precision, trees: Sequence[PromptTree]) -> str:
    """sha256 of everything the log-probabilities are a function of, as hexadecimal digits."""
    # With and without kernels, and by their units, the last bits differ, and DPO's first loss is to be log 2.
    device = precision.device.type
    if device == "cpu" and library():
        device = f"cpu with kernels, {UNITS[best_unit()]}"
    digest = hashlib.sha256(f"{FORMAT} {model_fingerprint} {precision.name} {device}".encode())
    for tree in trees:
        branches = [branch.tokens for branch in tree.branches]
        scored = [int(mark) for branch in tree.branches for mark in branch.scored]
        sizes = [len(tree.prompt), len(branches), *map(len, branches)]
        digest.update(
            array("q", [*sizes, *tree.prompt, *(t for tokens in branches for t in tokens), *scored]).tobytes()
        )
    return digest.hexdigest()


def reference_logprobs(
    model: nn.Module,
    model_fingerprint: str,
    run: Run,
    precision: Precision,
    display: Display,
    trees: Sequence[PromptTree],
) -> Tensor:
    """(N,) log pi_ref(y | x) of every response, nats, summed over its tokens: from the run, the cache, or the model.

    Args:
        model: the starting model, before the first step.
        model_fingerprint: of the starting model.
        run: its folder gets a copy.
        precision: of the forward passes.
        display: shows a bar while the model is asked.
        trees: N responses in all, in order.
    """
    key = content_key(model_fingerprint, precision, trees)
    own, shared = run.folder / f"reference-{key[:16]}.pt", cache_folder() / "reference" / f"{key}.pt"
    for path in (own, shared):
        known = _read(path, key)
        if known is not None:
            if path is shared:
                display.note(f"reference log-probabilities of {len(known)} responses from {shared}")
                write_atomically(own, partial(_copy, shared))
            return known
    display.begin("reference log-probabilities", len(trees))
    micro_tokens = run.config.micro_tokens
    logprob_N = all_sequence_logprobs(model, trees, precision, micro_tokens, lambda done: display.update(done, {}))
    content: dict[str, Any] = {"key": key, "logprob_N": logprob_N}
    write_atomically(own, lambda aside: torch.save(content, aside))
    with contextlib.suppress(OSError):  # a cache that cannot be written is no reason to stop
        shared.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(shared, partial(_copy, own))
    return logprob_N


def _copy(source: Path, aside: Path) -> None:
    shutil.copyfile(source, aside)


def _read(path: Path, key: str) -> Tensor | None:
    """The log-probabilities of a file, or None if it is not there, damaged, or of something else."""
    try:
        known = torch.load(path, weights_only=True)
        return known["logprob_N"] if known["key"] == key else None
    except (OSError, RuntimeError, LookupError, TypeError, ValueError, EOFError, pickle.PickleError):
        return None
