"""RMS norms that hand bfloat16 to the linear layers behind them: fewer passes, fewer casts, less kept for the backward.

Under autocast a norm's float32 result is cast once by each linear layer that reads it (five times a block) and each
cast's gradient is cast back and added in float32. Where nothing but linear layers reads a norm, it may as well round
its result once: the values those layers see are the same, bit for bit. Its backward pass is written out: four passes
over the states in place of ten, on a GPU one kernel each way. Buys 5 to 10% of a training step of a small model on a
CPU (docs/log.md).
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor, nn

from accord.models import kernels
from accord.models.fused import fused

__all__ = ["is_rounded_once", "normal", "round_once", "rounds_once"]

_BEFORE_LINEAR = {
    "LlamaDecoderLayer": ("input_layernorm", "post_attention_layernorm"),
    "MistralDecoderLayer": ("input_layernorm", "post_attention_layernorm"),
    "Qwen2DecoderLayer": ("input_layernorm", "post_attention_layernorm"),
    "Qwen3DecoderLayer": ("input_layernorm", "post_attention_layernorm"),
}
"""Norms that feed linear layers alone, by the class of the block. Gemma's norms also feed its residual sums."""


def rounds_once(model: nn.Module) -> bool:
    """Whether the blocks of a model are of a family whose norms `round_once` changes."""
    return any(type(block).__name__ in _BEFORE_LINEAR for block in model.modules())


def round_once(model: nn.Module) -> int:
    """Let the norms of known blocks round their results once under autocast; returns how many do.

    A norm is changed only if what it computes is w * x / sqrt(mean(x^2) + eps), tried on numbers. Without autocast, and
    on models of other families, nothing changes.
    """
    count = 0
    for block in model.modules():
        for name in _BEFORE_LINEAR.get(type(block).__name__, ()):
            norm: Any = getattr(block, name)
            if "forward" not in vars(norm) and _is_rms_norm(norm):
                norm.forward = types.MethodType(_forward, norm)
                count += 1
    return count


def is_rounded_once(norm: nn.Module) -> bool:
    """Whether a norm is as `round_once` left it."""
    return getattr(vars(norm).get("forward"), "__func__", None) is _forward


@torch.no_grad()
def _is_rms_norm(norm: Any) -> bool:
    eps = getattr(norm, "variance_epsilon", None)
    if eps is None or norm.weight.dim() != 1:
        return False
    width = norm.weight.numel()
    x = torch.linspace(-2.0, 3.0, 2 * width, device=norm.weight.device).view(2, width).to(norm.weight.dtype)
    expected = norm.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))
    return bool(torch.allclose(norm(x), expected, rtol=1e-5, atol=1e-6))


def _forward(self: Any, hidden_states: Tensor) -> Tensor:
    device = hidden_states.device.type
    if hidden_states.dtype == torch.float32 and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        result: Tensor = _RmsNorm.apply(hidden_states, self.weight, self.variance_epsilon, dtype)  # type: ignore[no-untyped-call]
        return result
    plain: Tensor = type(self).forward(self, hidden_states)
    return plain


class _RmsNorm(torch.autograd.Function):
    """y = round(w * x * r),  r = 1 / sqrt(mean(x^2) + eps);  (..., D) float32 in, `dtype` out."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        flat = x.flatten(0, -2)
        y, r = normal(flat, weight, eps, dtype)
        ctx.save_for_backward(x, weight, r)
        ctx.eps = eps
        return y.view(x.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, r = ctx.saved_tensors
        flat = x.flatten(0, -2)
        if torch.is_grad_enabled():  # second derivatives are wanted (TRPO), and a saved r would be a constant to them
            r = _inverse_size(flat, ctx.eps)
        x_grad, weight_grad = _gradients(grad.flatten(0, -2), flat, weight, r, ctx.needs_input_grad[1])
        return x_grad.view(x.shape), weight_grad, None, None


@fused(tokens=0, on_cpu=kernels.norm)
def normal(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The result and r, of (T, D)."""
    r = _inverse_size(x, eps)
    return (x * r).mul_(weight).to(dtype), r


@fused(tokens=0, on_cpu=kernels.norm_back)
def _gradients(grad: Tensor, x: Tensor, weight: Tensor, r: Tensor, of_weight: bool) -> tuple[Tensor, Tensor | None]:
    """Gradients of x (T, D) and weight.

    With n = x r and g = grad w:  dx = r (g - n mean(g n)).
    """
    grad, normal = grad.to(x.dtype), x * r
    weight_grad = (grad * normal).sum(0) if of_weight else None
    scaled = grad * weight
    share = (scaled * normal).mean(-1, keepdim=True)  # vecdot would round to bfloat16 under autocast
    return torch.addcmul(scaled, normal, share, value=-1.0) * r, weight_grad


def _inverse_size(x: Tensor, eps: float) -> Tensor:
    return torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
