"""Pointwise work in one kernel: what a step does between its matrix products is bound by memory.

`fused` marks a function of tensors whose operations PyTorch runs one by one, each reading and writing memory. On a GPU
torch.compile makes one kernel of it at the first call (seconds; kept on disk by torch for the next process), on a CPU
there may be one of ours (`accord.models.kernels`). Elsewhere, where second derivatives are wanted, and where compiling
fails, the function runs as it is written: same numbers, but for what is rounded in between.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

__all__ = ["fused", "fuses"]

logger = logging.getLogger("accord")

P = ParamSpec("P")
R = TypeVar("R")

_failed: set[Callable[..., Any]] = set()  # did not compile on this machine


def fuses(device: torch.device, *functions: Callable[..., Any]) -> bool:
    """Whether functions marked `fused` are compiled for tensors of a device, and these have not failed to."""
    return device.type == "cuda" and _has_compiler() and _failed.isdisjoint(functions)


@functools.cache
def _has_compiler() -> bool:
    from torch.utils._triton import has_triton

    return bool(has_triton())


def fused(tokens: int, on_cpu: Callable[..., Any] | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Compile a function of tensors and numbers for a GPU; it must not read anything else.

    Autocast is off within it on all ways.

    Args:
        tokens: the axis of the function's first argument, a tensor, that differs from pack to pack: one kernel serves
            all lengths. Every other size is compiled in, which makes kernels of half the time.
        on_cpu: a kernel that takes the same arguments and returns the same, or None for what it does not take.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        compiled: Callable[..., Any] | None = None
        seen: set[Any] = set()

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            nonlocal compiled
            first: Any = args[0]
            assert isinstance(first, Tensor)
            device = first.device.type
            if torch.is_autocast_enabled(device):
                with torch.autocast(device, enabled=False):
                    return call(*args, **kwargs)
            if torch.is_grad_enabled():
                return function(*args, **kwargs)
            if not fuses(first.device, call):
                found: R | None = on_cpu(*args, **kwargs) if on_cpu and device == "cpu" else None
                return function(*args, **kwargs) if found is None else found
            compiled = compiled or torch.compile(function, fullgraph=True)
            # One kernel, whether or not an argument asks for gradients.
            plain: Any = [arg.detach() if isinstance(arg, Tensor) else arg for arg in args]
            count = first.shape[tokens]
            kind = tuple(_kind(arg, count) for arg in plain)
            if kind not in seen:
                seen.add(kind)
                _mark(plain, count)
            try:
                result: R = compiled(*plain, **kwargs)
                return result
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # whatever a compiler does not like on this machine
                _failed.add(call)
                _warn(call.__name__, error)
                return function(*args, **kwargs)

        return call

    return decorate


def _kind(arg: Any, count: int) -> Any:
    """What a compiled function is compiled for: of a tensor all sizes but the number of tokens."""
    if not isinstance(arg, Tensor):
        return arg
    return arg.dtype, tuple(None if size == count else size for size in arg.shape)


def _mark(args: Any, count: int) -> None:
    """Tell the compiler, which is about to see these sizes for the first time, which of them will be others."""
    from torch._dynamo import mark_static, maybe_mark_dynamic

    for arg in args:
        for axis, size in enumerate(arg.shape if isinstance(arg, Tensor) else ()):
            (maybe_mark_dynamic if size == count else mark_static)(arg, axis)


def _warn(name: str, error: Exception) -> None:
    logger.warning(
        "torch.compile failed on `%s` (%s: %s); going on without it: slower, same results",
        name,
        type(error).__name__,
        " ".join(str(error).split())[:300],
    )
