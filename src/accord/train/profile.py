"""Where the time of a few training steps goes, and how much of the machine's matrix-multiply rate they reach.

    accord train dpo ... --profile

The steps of a window, never the first where there is a second, run under `torch.profiler`; what happens in them is
sorted by `accord.train.profile_events`, the useful arithmetic is counted by `accord.train.work`. The result stands in
`profile.json` of the run folder. Steps of the window are a few per cent slower than others; the numbers they compute
are the same. Without `profile` nothing of this is imported.

    share of the ceiling = useful FLOP / (seconds of the steps x measured rate of a large matrix product)

The rate is measured before and behind the window, and the higher one counts: on a machine that is shared it changes
from one second to the next.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profile

from accord.train.configs import TrainConfig
from accord.train.loop import Precision
from accord.train.profile_events import BESIDES, sort_events, tracing_modules
from accord.train.progress import Display
from accord.train.run import Run, environment, write_text
from accord.train.work import counting_work

__all__ = ["FILE", "WINDOW", "matmul_rate", "window_of"]

FILE = "profile.json"
WINDOW = 3  # steps; where a job samples, one rollout with its updates, which is as many events
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def window_of(steps: range, config: TrainConfig, run: Run, precision: Precision, display: Display) -> Iterator[int]:
    """The numbers of `steps`; while those of the window are taken, their time is measured.

    The window is the second to the fourth step (the second rollout), or as many of these as there are; the first where
    it is the only one, with whatever the first step does for all others.
    """
    window = steps[1 : 1 + (1 if config.job == "ppo" else WINDOW)] or steps[:1]
    before, after = steps[: steps.index(window[0])] if window else steps, steps[len(window) + 1 :]
    yield from before
    if not window:
        return
    device = precision.device
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    rates = _rates(device)
    profiler: Any = torch_profile(activities=activities, record_shapes=True, acc_events=True)
    with tracing_modules(), counting_work(), _recording(profiler):
        _wait(device)
        began = time.perf_counter()
        yield from window
        _wait(device)
        seconds = time.perf_counter() - began
    rates = {name: max(rate, rates[name]) for name, rate in _rates(device).items()}
    display.note(f"{FILE}: sorting where the time of the steps went")
    found = sort_events(profiler.events(), device.type)
    del profiler
    facts: dict[str, Any] = {
        "job": config.job,
        "model": config.model,
        "seed": config.seed,
        "precision": precision.name,
        "device": str(device),
        "steps": [step + 1 for step in window],
        "first_step_included": window[0] == steps[0],
        "seconds": seconds,
        **summary(found, seconds, rates, precision),
        **environment(),
    }
    write_text(run.folder / FILE, json.dumps(facts, indent=2))
    yield from after


def summary(found: Any, seconds: float, rates: dict[str, float], precision: Precision) -> dict[str, Any]:
    """Seconds by phase and kind, FLOP by kind, and the shares of the measured rates.

    Args:
        found: the sorted events.
        seconds: of the whole window.
        rates: measured, FLOP/s by precision.
        precision: of the run; its rate is the ceiling.
    """
    table = {phase: dict(kinds) for phase, kinds in found.seconds.items()}
    named = sum(sum(kinds.values()) for kinds in table.values())
    training = table.setdefault("training", {})
    training["other"] = training.get("other", 0.0) + max(0.0, seconds - named)
    # A step of sampling computes nothing twice: all of it is useful.
    sampled = sum(found.flop.get("sampling", {}).values())
    besides = sum(sum(table.get(phase, {}).values()) for phase in BESIDES)
    counted = [found.work[phase] for phase in ("training", "scoring")]
    head = sum(found.flop[phase].get("head", 0.0) - found.repeated[phase] for phase in ("training", "scoring"))
    linear, attention = sum(work.linear for work in counted), sum(work.attention for work in counted)
    parts = {"matmul": linear, "attention": attention, "head": head, "sampling": sampled}
    useful = sum(parts.values())
    rate = useful / (seconds - besides)
    return {
        "phases": table,
        "flop": found.flop,
        "tokens": sum(work.tokens for work in counted),
        "useful_flop": parts,
        "useful_flop_per_second": rate,
        "matmul_rate": rates,
        "share_of_ceiling": rate / rates[precision.name],
    }


def _rates(device: torch.device) -> dict[str, float]:
    """FLOP/s by precision, now."""
    return {name: matmul_rate(dtype, device) for name, dtype in DTYPES.items()}


def matmul_rate(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of the device in the best of several large square matrix products, 2 n^3 FLOP each."""
    size = 2048 if device.type == "cpu" else 8192
    a, b = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    best = math.inf
    for _ in range(6):
        _wait(device)
        start = time.perf_counter()
        a @ b
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _recording(profiler: Any) -> Iterator[None]:
    """Record from here to the end, in a window or in what is left of one that failed."""
    with _silent():
        profiler.start()
    try:
        yield
    finally:
        with _silent():
            profiler.stop()


@contextmanager
def _silent() -> Iterator[None]:
    """Without the lines that the profiler's C++ library writes to standard error past Python."""
    kept, nowhere = os.dup(2), os.open(Path(os.devnull), os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
