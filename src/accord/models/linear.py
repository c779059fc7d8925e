"""Linear layers whose products are our own, on a CPU with matrix units and in bfloat16.

The kernels of `accord.models.kernels` hand out a product in small pieces, so that no core waits for a slower one; read
a float32 weight as it is, so that no copy of it in bfloat16 is made and kept; and write the gradient of a weight as the
float32 sums of its product, where autocast rounds them first. The result and the gradient of the input are rounded as
autocast rounds them. Elsewhere, and in other arithmetic, the layers are as they were.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor, nn

from accord.models import kernels

__all__ = ["fits", "own_products"]


def own_products(model: nn.Module) -> int:
    """Let the linear layers of a model compute by these kernels where they can; returns how many do."""
    count = 0
    if not kernels.has_tiles():
        return count
    for layer in model.modules():
        if type(layer) is nn.Linear and layer.weight.device.type == "cpu" and fits(layer.weight):
            count += "forward" not in vars(layer)
            layer.forward = types.MethodType(_forward, layer)  # type: ignore[method-assign]
    return count


def fits(weight: Tensor) -> bool:
    """Whether the kernels take a weight of this shape."""
    return all(width % 32 == 0 for width in weight.shape)


def _forward(self: Any, input: Tensor) -> Tensor:
    if _in_bfloat16(input, self.weight):
        result: Tensor = _Linear.apply(input.to(torch.bfloat16), self.weight, self.bias)  # type: ignore[no-untyped-call]
        return result
    plain: Tensor = type(self).forward(self, input)
    return plain


def _in_bfloat16(x: Tensor, weight: Tensor) -> bool:
    """Whether this product is one of bfloat16: by autocast, or because both sides are."""
    if not (x.device.type == weight.device.type == "cpu" and x.dim() > 1):
        return False
    wanted = (
        torch.get_autocast_dtype("cpu")
        if torch.is_autocast_enabled("cpu")
        else torch.promote_types(x.dtype, weight.dtype)
    )
    known = (torch.bfloat16, torch.float32)
    return wanted == torch.bfloat16 and x.dtype in known and weight.dtype in known


class _Linear(torch.autograd.Function):
    """y = x @ weight.T + bias of bfloat16 x; weight and bias are rounded to it if they are not of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.bias = None if bias is None else bias.dtype
        y = kernels.linear(x.flatten(0, -2).contiguous(), weight, bias)
        if y is not None:
            return y.view(*x.shape[:-1], weight.shape[0])
        with torch.autocast("cpu", enabled=False):
            return nn.functional.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        with torch.autocast("cpu", enabled=False):
            flat, rows = grad.flatten(0, -2).contiguous(), x.flatten(0, -2).contiguous()
            # Second derivatives (TRPO) go through operations that have derivatives.
            kernel = not torch.is_grad_enabled()
            x_grad = kernels.linear_back(flat, weight) if kernel and of_x else None
            if of_x and x_grad is None:
                x_grad = flat @ weight.to(x.dtype)
            weight_grad = kernels.weight_gradient(flat, rows) if kernel and of_weight else None
            if of_weight:
                weight_grad = (flat.T @ rows if weight_grad is None else weight_grad).to(weight.dtype)
            bias_grad = flat.sum(0, dtype=torch.float32).to(ctx.bias) if ctx.bias and of_bias else None
        return None if x_grad is None else x_grad.view_as(x), weight_grad, bias_grad
