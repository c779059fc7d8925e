"""The events of a profile sorted: by the phase of a step they belong to, and by what kind of computation they are.

Every moment belongs to the innermost event that covers it, so seconds add up to the time of the steps. An event of a
backward pass is found through the forward operation it belongs to (PyTorch numbers both alike).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.profiler import record_function
from transformers.pytorch_utils import Conv1D

from accord.models.kernels import MARK as KERNEL
from accord.train.work import MARK, Work

__all__ = ["BESIDES", "KINDS", "PHASES", "Sorted", "sort_events", "tracing_modules"]

PHASES = ("training", "scoring", "sampling")
BESIDES = ("evaluation", "checkpoint")  # where they fall into the measured steps, no part of what a step takes
KINDS = {
    "matmul": "matrix products of linear layers; on a CPU a decoding step as a whole",
    "attention": "scores, softmax, rotation and layout of attention; its projections are matmul",
    "head": "vocabulary head: its products, log-probabilities, drawing a token",
    "casts": "casts between precisions, copies, filling",
    "pointwise": "norms, activations, sums, embeddings, losses",
    "optimiser": "clipping the gradient, AdamW",
    "data": "packing rows into tensors",
    "other": "Python, the autograd engine, waiting",
}
_LINEAR, _ATTENTION, _HEAD = "accord.linear", "accord.attention", "accord.head"
_RANGES = {
    _LINEAR: "linear",
    _ATTENTION: "attention",
    _HEAD: "head",
    "accord.optimiser": "optimiser",
    "accord.data": "data",
    "_TokenLogprob": "head",
    "_TokenLogprobBackward": "head",
    "_ExactKl": "head",
    "_ExactKlBackward": "head",
    "_Blocks": "attention",
    "_BlocksBackward": "attention",
}
_HEADS = ("_TokenLogprob", "_ExactKl")
_OF_ATTENTION = tuple(KERNEL + name for name in ("attend", "turn"))
_PHASES = {f"accord.{phase}": phase for phase in (*PHASES, *BESIDES)}
_COPIES = ("copy", "aten::to", "clone", "contiguous", "fill_", "zero_", "aten::cat", "repeat_interleave", "reorder")

Shapes = Sequence[Sequence[int]]
_PRODUCTS: dict[str, Callable[[Shapes], float]] = {
    "aten::mm": lambda s: 2.0 * prod(s[0]) * s[1][-1],
    "aten::bmm": lambda s: 2.0 * prod(s[0]) * s[1][-1],
    "aten::addmm": lambda s: 2.0 * prod(s[1]) * s[2][-1],
    "aten::baddbmm": lambda s: 2.0 * prod(s[1]) * s[2][-1],
}
"""FLOP of a product from the shapes of its inputs: a multiplication and an addition per element of the inner sum."""
_FUSED = ("aten::_scaled_dot_product", "aten::_flash_attention")


@dataclass(frozen=True)
class Sorted:
    """Where the time went.

    Attributes:
        seconds: by phase, by kind.
        flop: of matrix products as they were computed, by phase, by kind (matmul, attention, head).
        work: useful arithmetic of forward and backward passes, by phase.
        repeated: of the products those of logits that the head's backward pass makes again, by phase.
    """

    seconds: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(float)))
    flop: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(float)))
    work: dict[str, Work] = field(default_factory=lambda: defaultdict(Work))
    repeated: dict[str, float] = field(default_factory=lambda: defaultdict(float))


@contextmanager
def tracing_modules() -> Iterator[None]:
    """Mark in the profile where linear layers and attention blocks of any model begin and end."""
    open_ranges: list[tuple[nn.Module, Any]] = []

    def enter(module: nn.Module, _: Any) -> None:
        name = _name_of(module)
        if name is not None:
            mark: Any = record_function(name)
            mark.__enter__()
            open_ranges.append((module, mark))

    def leave(module: nn.Module, _: Any, __: Any) -> None:
        if open_ranges and open_ranges[-1][0] is module:
            open_ranges.pop()[1].__exit__(None, None, None)

    handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _name_of(module: nn.Module) -> str | None:
    if isinstance(module, (nn.Linear, Conv1D)) or hasattr(module, "base_layer"):  # has adapters
        return _LINEAR
    return _ATTENTION if type(module).__name__.endswith("Attention") else None


def sort_events(events: Iterable[Any], device: str) -> Sorted:
    """Sort a profile's events.

    Args:
        events: `FunctionEvent`s of torch.profiler.
        device: "cpu" counts the time of the operations, "cuda" that of the kernels they start.
    """
    found = Sorted()
    events = [event for event in events if str(event.device_type).endswith("CPU")]
    places = _Places(events)
    for event in events:
        micros = event.self_cpu_time_total if device == "cpu" else event.self_device_time_total
        phase, kind = places.phase(event), _kind(event.name, places.range(event))
        if kind == "matmul" and places.makes_logits(event):
            kind = "head"
        if micros > 0:
            found.seconds[phase][kind] += micros * 1e-6
        if event.name.startswith(MARK):
            found.work[phase].add(event.name)
        flop = _flop(event)
        if flop:
            found.flop[phase][kind] += flop
            if kind == "head" and places.repeats(event):
                found.repeated[phase] += flop
    return found


class _Places:
    """For each event the phase and the innermost range it is in, its forward operation's where it has none itself."""

    def __init__(self, events: Sequence[Any]) -> None:
        self._range: dict[int, str | None] = {}
        self._phase: dict[int, str | None] = {}
        self._engine: dict[int, int] = {}
        forward: dict[int, str | None] = {}
        self._heads = {tuple(event.input_shapes[1]) for event in events if event.name in _HEADS}
        for event in sorted(events, key=lambda event: event.time_range.start):  # parents come before their children
            self._place(event)
            if event.scope == 0 and event.sequence_nr >= 0 and not event.name.startswith("autograd::engine"):
                forward[event.sequence_nr] = self._range[event.id]  # the last one is the one that made the node
        self._forward = forward

    def _place(self, event: Any) -> None:
        parent = event.cpu_parent
        above = None if parent is None else parent.id
        self._range[event.id] = _RANGES.get(event.name) or self._range.get(above)  # type: ignore[arg-type]
        self._phase[event.id] = self._phase.get(above) or _PHASES.get(event.name)  # type: ignore[arg-type]
        if event.name.startswith("autograd::engine::evaluate_function"):
            self._engine[event.id] = event.sequence_nr
        elif above in self._engine:
            self._engine[event.id] = self._engine[above]

    def repeats(self, event: Any) -> bool:
        """Whether a product in the head's backward pass is that of states and weights, as in its forward pass."""
        if event.id not in self._engine:
            return False
        if event.name.startswith(KERNEL + "linear "):
            return True
        if len(event.input_shapes) < 2:
            return False
        return tuple(event.input_shapes[1]) in {(width, vocabulary) for vocabulary, width in self._heads}

    def makes_logits(self, event: Any) -> bool:
        """Whether a product of a model that samples is that of its vocabulary head."""
        shapes = event.input_shapes or [()]
        pair = tuple(shapes[1]) if len(shapes) > 1 else ()
        return event.name in _PRODUCTS and (pair in self._heads or pair[::-1] in self._heads)

    def phase(self, event: Any) -> str:
        return self._phase[event.id] or "training"

    def range(self, event: Any) -> str | None:
        own = self._range[event.id]
        return own if own is not None or event.id not in self._engine else self._forward.get(self._engine[event.id])


def _kind(name: str, place: str | None) -> str:
    if place in ("optimiser", "head", "data"):
        return place
    if name.startswith(KERNEL):
        if _flop_of_kernel(name):
            return "matmul"
        return "attention" if name.startswith(_OF_ATTENTION) else "pointwise"
    if name.startswith(("autograd::", "accord.")) or "::" not in name:
        return "pointwise" if name.startswith("_RmsNorm") else "other"
    if name in _PRODUCTS and "bmm" not in name:
        return "attention" if place == "attention" else "matmul"
    if place == "attention" or "bmm" in name or "softmax" in name or name.startswith(_FUSED):
        return "attention"
    return "casts" if any(part in name for part in _COPIES) else "pointwise"


def _flop_of_kernel(name: str) -> float:
    return float(name.partition(" ")[2] or 0)


def _flop(event: Any) -> float:
    shapes = event.input_shapes or []
    if event.name in _PRODUCTS:
        return _PRODUCTS[event.name](shapes)
    if event.name.startswith(KERNEL):
        return _flop_of_kernel(event.name)
    # The fused kernels: two products forward; five backward, of which the scores are made again.
    if event.name.startswith(_FUSED) and event.name.count("_for_cpu"):
        backward = "backward" in event.name
        query, key = (shapes[1], shapes[2]) if backward else (shapes[0], shapes[1])
        return 2.0 * prod(query) * key[-2] * (5 if backward else 2)
    return 0.0
