"""Rotary position embeddings that round once: what attention reads, in one pass each way instead of a dozen.

transformers turns queries and keys by five operations in float32, keeps what each needs for the backward pass, and
whoever reads the result (attention, a cache) casts it. Turning is linear, its gradient is turning back: nothing needs
to be kept but the angles. With halves a, b of a head and angle t:  (a cos t - b sin t, b cos t + a sin t).

The forward pass of a family's attention stays as it is written; only the name by which it calls the rotation is bound
to ours, in a copy of the function. Tried on numbers against the family's own first.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from typing import Any

import torch
from torch import Tensor, nn

from accord.models import kernels
from accord.models.fused import fused

__all__ = ["is_rotated_once", "rotate_once", "turn"]

_ATTENTION = ("LlamaAttention", "MistralAttention", "Qwen2Attention", "Qwen3Attention")
_NAME = "apply_rotary_pos_emb"


def rotate_once(model: nn.Module) -> int:
    """Let the attention of known families turn queries and keys in one pass; returns how many layers do."""
    count = 0
    for layer in model.modules():
        kind: Any = type(layer)
        if kind.__name__ in _ATTENTION and "forward" not in vars(layer) and _is_rotation(layer):
            layer.forward = types.MethodType(_bound(kind), layer)
            count += 1
    return count


def is_rotated_once(layer: nn.Module) -> bool:
    """Whether an attention is as `rotate_once` left it."""
    kind: Any = type(layer)
    return getattr(vars(layer).get("forward"), "__func__", None) is _bound(kind)


@functools.cache
def _bound(kind: type) -> Any:
    """The forward function of a class with its rotation replaced."""
    plain: Any = inspect.unwrap(kind.forward)  # type: ignore[attr-defined]
    copy = types.FunctionType(
        plain.__code__, {**plain.__globals__, _NAME: _rotated}, plain.__name__, plain.__defaults__, plain.__closure__
    )
    copy.__kwdefaults__ = plain.__kwdefaults__
    return copy


@torch.no_grad()
def _is_rotation(layer: nn.Module) -> bool:
    """Whether the family's rotation is the one written here."""
    theirs = getattr(sys.modules[type(layer).__module__], _NAME, None)
    forward: Any = inspect.unwrap(type(layer).forward)
    if theirs is None or _NAME not in forward.__code__.co_names:
        return False
    with torch.device("cpu"), torch.autocast("cpu", enabled=False):  # whatever holds where the model is prepared
        q, k = torch.linspace(-2, 3, 2 * 3 * 8).view(1, 2, 3, 8), torch.linspace(1, -1, 3 * 8).view(1, 1, 3, 8)
        half = torch.linspace(0, 2, 3 * 4).view(1, 3, 4)
        angle = torch.cat([half, half], -1)
        ours, expected = _rotated(q, k, angle.cos(), angle.sin()), theirs(q, k, angle.cos(), angle.sin())
    return all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, expected, strict=True))


def _rotated(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Queries (B, H, T, D) and keys (B, G, T, D) turned by angles (B, T, D), whose two halves are equal.

    Under autocast in its dtype, which is what attention and caches read; else in the wider one of states and angles.
    """
    device = q.device.type
    wide = torch.promote_types(q.dtype, cos.dtype)
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else wide
    half = cos.shape[-1] // 2
    # Tokens before heads, as the products before wrote them and attention reads them: no copy on either side.
    rows, tokens = q.shape[0], q.shape[2]
    flat = (x.transpose(1, 2).flatten(0, 1) for x in (q, k))
    angles = (x[..., :half].expand(rows, tokens, half).reshape(-1, 1, half) for x in (cos, sin))
    turned_q, turned_k = _Turn.apply(*flat, *angles, dtype)  # type: ignore[no-untyped-call]
    turned = (x.unflatten(0, (rows, tokens)).transpose(1, 2) for x in (turned_q, turned_k))
    return next(turned), next(turned)


class _Turn(torch.autograd.Function):
    """Queries (T, H, D) and keys (T, G, D) turned by angles (T, 1, D / 2)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(cos, sin)
        ctx.dtype = q.dtype
        return _turned(q, k, cos, sin, dtype)

    @staticmethod
    def backward(ctx: Any, grad_q: Tensor, grad_k: Tensor) -> Any:
        cos, sin = ctx.saved_tensors
        return (*_turned(grad_q, grad_k, cos, -sin, ctx.dtype), None, None, None)


@fused(tokens=0, on_cpu=kernels.turn)
def _turned(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return turn(q, cos, sin).to(dtype), turn(k, cos, sin).to(dtype)


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Halves (a, b) of (T, H, D) by angles (T, 1, D / 2): (a cos - b sin, b cos + a sin), in the wider dtype."""
    first, second = x.to(torch.promote_types(x.dtype, cos.dtype)).chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)
