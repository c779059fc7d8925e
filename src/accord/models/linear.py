"""Linear layers whose weights get their gradient in float32 from one product, on a CPU with matrix units.

Under autocast the product of a weight's gradient is rounded to bfloat16, and then cast to float32 for the optimiser.
The kernel of `accord.models.kernels` writes the float32 sums of that product: nothing is rounded, half as much memory
is moved, and with few tokens it is faster than the library's product (docs/log.md). Forward pass and the gradient of
the input are those of autocast, bit for bit; elsewhere, and in other arithmetic, the layers are as they were. A weight
that is changed between forward and backward pass is an error, as in float32.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from accord.models import kernels

__all__ = ["casting_once", "forget_casts", "gradients_in_float32"]

_cast: dict[int, tuple[Tensor, Tensor]] | None = None  # by the identity of a weight: it, and it in bfloat16


@contextmanager
def casting_once() -> Iterator[None]:
    """Cast each weight once while this lasts, as autocast does; where weights change within, `forget_casts`."""
    global _cast
    outer, _cast = _cast, {} if _cast is None else _cast
    try:
        yield
    finally:
        _cast = outer


def forget_casts() -> None:
    """To be called where weights change within: autocast's copies of them, and these, are of what they were."""
    torch.clear_autocast_cache()
    if _cast is not None:
        _cast.clear()


def gradients_in_float32(model: nn.Module) -> int:
    """Let the linear layers of a model compute their weights' gradients in float32; returns how many do."""
    count = 0
    for layer in model.modules():
        if type(layer) is nn.Linear and "forward" not in vars(layer) and _fits(layer.weight):
            layer.forward = types.MethodType(_forward, layer)  # type: ignore[method-assign]
            count += 1
    return count


def _fits(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and all(width % 32 == 0 for width in weight.shape) and kernels.has_tiles()


def _forward(self: Any, input: Tensor) -> Tensor:
    if _computes(input, self.weight):
        result: Tensor = _Linear.apply(input.to(torch.bfloat16), self.weight, self.bias)  # type: ignore[no-untyped-call]
        return result
    plain: Tensor = type(self).forward(self, input)
    return plain


def _computes(x: Tensor, weight: Tensor) -> bool:
    """Whether this is a pass under autocast to bfloat16 that is to end in a float32 gradient of the weight."""
    if not (torch.is_grad_enabled() and weight.requires_grad and x.device.type == weight.device.type == "cpu"):
        return False
    autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return autocast and weight.dtype == torch.float32 and x.dtype in (torch.bfloat16, torch.float32) and x.dim() > 1


def _in_bfloat16(weight: Tensor) -> Tensor:
    if _cast is None:
        return weight.detach().to(torch.bfloat16)
    if id(weight) not in _cast:
        _cast[id(weight)] = weight, weight.detach().to(torch.bfloat16)
    return _cast[id(weight)][1]


class _Linear(torch.autograd.Function):
    """y = x @ weight.T + bias in bfloat16, of a weight in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.cast, ctx.bias = _in_bfloat16(weight), bias is not None
        with torch.autocast("cpu", enabled=False):
            return nn.functional.linear(x, ctx.cast, None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        with torch.autocast("cpu", enabled=False):
            # Second derivatives (TRPO) go through the weight itself, and through operations that have derivatives.
            again = torch.is_grad_enabled()
            cast, flat, rows = weight.to(x.dtype) if again else ctx.cast, grad.flatten(0, -2), x.flatten(0, -2)
            x_grad = grad @ cast if of_x else None
            weight_grad = (
                kernels.weight_gradient(flat.contiguous(), rows.contiguous()) if of_weight and not again else None
            )
            if of_weight and weight_grad is None:
                weight_grad = (flat.T @ rows).to(weight.dtype)
            bias_grad = flat.sum(0, dtype=weight.dtype) if ctx.bias and of_bias else None
        return x_grad, weight_grad, bias_grad
