"""Pointwise work in one kernel on a GPU: what a step does between its matrix products is bound by memory there.

`fused` marks a function of tensors whose operations PyTorch runs one by one, each reading and writing memory. On a GPU
torch.compile makes one kernel of it at the first call (seconds; kept on disk by torch for the next process). On a CPU,
where second derivatives are wanted, and where compiling fails, the function runs as it is written: same numbers, but
for what is rounded in between.
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

_failed: list[str] = []  # functions that did not compile on this machine


def fuses(device: torch.device) -> bool:
    """Whether functions marked `fused` are compiled for tensors of a device."""
    return device.type == "cuda" and not _failed and _has_compiler()


@functools.cache
def _has_compiler() -> bool:
    from torch.utils._triton import has_triton

    return bool(has_triton())


def fused(tokens: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Compile a function of tensors and numbers for a GPU; it must not read anything else.

    Autocast is off within it on both ways.

    Args:
        tokens: the axis of the function's first argument, a tensor, that differs from pack to pack: one kernel serves
            all lengths. Every other size is compiled in, which makes kernels of half the time.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        compiled: Callable[..., Any] | None = None
        seen: set[Any] = set()

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            nonlocal compiled
            first: Any = args[0]
            assert isinstance(first, Tensor)
            with torch.autocast(first.device.type, enabled=False):
                if torch.is_grad_enabled() or not fuses(first.device):
                    return function(*args, **kwargs)
                count = first.shape[tokens]
                kind = tuple(_kind(arg, count) for arg in args)
                if kind in seen:
                    assert compiled is not None
                    known: R = compiled(*args, **kwargs)
                    return known
                compiled = compiled or torch.compile(function, fullgraph=True)
                seen.add(kind)
                return _first(compiled, function, count, args, kwargs)

        return call

    return decorate


def _kind(arg: Any, count: int) -> Any:
    """What a compiled function is compiled for: of a tensor all sizes but the number of tokens."""
    if not isinstance(arg, Tensor):
        return arg
    return arg.dtype, arg.requires_grad, tuple(None if size == count else size for size in arg.shape)


def _first(compiled: Any, function: Any, count: int, args: Any, kwargs: Any) -> Any:
    """The call that compiles; where that fails the function runs as it is written, and so do all from then on."""
    from torch._dynamo import mark_static, maybe_mark_dynamic

    for arg in args:
        if isinstance(arg, Tensor):
            for axis, size in enumerate(arg.shape):
                if size == count:
                    maybe_mark_dynamic(arg, axis)
                else:
                    mark_static(arg, axis)
    try:
        return compiled(*args, **kwargs)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a compiler does not like on this machine
        _failed.append(function.__name__)
        logger.warning(
            "torch.compile failed on `%s` (%s: %s); going on without it: slower, same results",
            function.__name__,
            type(error).__name__,
            " ".join(str(error).split())[:300],
        )
        return function(*args, **kwargs)
