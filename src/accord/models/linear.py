"""Linear layers whose products are our own, on a CPU with matrix units and in bfloat16.

The kernels of `accord.models.kernels` hand out a product in small pieces, so that no core waits for a slower one; read
a float32 weight as it is, so that no copy of it in bfloat16 is made and kept; and write the gradient of a weight as the
float32 sums of its product, where autocast rounds them first. The result and the gradient of the input are rounded as
autocast rounds them. So are the products of the vocabulary head (`accord.models.head`). Elsewhere, and in other
arithmetic, the layers are as they were.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from accord.models import kernels
from accord.models.in_place import there

__all__ = [
    "by_kernel",
    "by_library",
    "fits",
    "in_bfloat16",
    "is_hooked",
    "library_products",
    "multiplied",
    "multiplied_back",
    "own_products",
    "shaped",
]

_by_library = False


def own_products(model: nn.Module) -> int:
    """Let the linear layers of a model compute by these kernels where they can; returns how many do."""
    count = 0
    for layer in model.modules():
        if type(layer) is nn.Linear and "forward" not in vars(layer) and _computes(layer.weight):
            layer.forward = types.MethodType(forward, layer)  # type: ignore[method-assign]
            count += 1
    return count


def _computes(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and fits(weight) and kernels.has_tiles()  # asked last: it compiles


def by_kernel(weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether kernels make products of this precision with a weight, and read it as it is."""
    known = weight.dtype in (torch.float32, torch.bfloat16) and weight.is_contiguous()
    return dtype == torch.bfloat16 and known and _computes(weight)


def fits(weight: Tensor) -> bool:
    """Whether the kernels take a weight of this shape."""
    return all(width % 32 == 0 for width in weight.shape)


@contextmanager
def library_products() -> Iterator[None]:
    """While this lasts layers are as they were: for pass after pass over a few rows, as sampling has them.

    What is laid out for the units is then read once; a copy that autocast keeps is half of what there is to read.
    """
    global _by_library
    before, _by_library = _by_library, True
    try:
        yield
    finally:
        _by_library = before


def by_library() -> bool:
    """Whether layers are as they were: see `library_products`."""
    return _by_library


def multiplied(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(T, outputs) of bfloat16 x (T, features), with what else is there rounded to it."""
    y = kernels.linear(x, weight, bias) if x.device.type == "cpu" else None
    return nn.functional.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype)) if y is None else y


def shaped(y: Tensor, shape: torch.Size) -> Tensor:
    """(..., outputs) of (T, outputs), for x (..., features); to autograd no view: who has it may write into it."""
    found: Tensor = torch.ops.aten._unsafe_view(y, [*shape[:-1], y.shape[-1]])
    return found


def is_hooked(module: Any) -> bool:
    """Whether others look at what a module computes, or change it."""
    forward = module._forward_hooks or module._forward_pre_hooks
    return bool(forward or module._backward_hooks or module._backward_pre_hooks)


def multiplied_back(grad: Tensor, weight: Tensor) -> Tensor:
    """(T, features), the gradient of x, of that of its product."""
    found = kernels.linear_back(grad, weight) if grad.device.type == "cpu" else None
    return grad @ weight.to(grad.dtype) if found is None else found


def forward(self: Any, input: Tensor) -> Tensor:  # whose name a pickled layer looks for
    if not _by_library and input.device.type == "cpu" and in_bfloat16(input, self.weight):
        result: Tensor = _Linear.apply(input.to(torch.bfloat16), self.weight, self.bias)  # type: ignore[no-untyped-call]
        return result
    plain: Tensor = type(self).forward(self, input)
    return plain


def in_bfloat16(x: Tensor, weight: Tensor) -> bool:
    """Whether this product is one of bfloat16: by autocast, or because both sides are."""
    device = x.device.type
    if not (device == weight.device.type and x.dim() > 1):
        return False
    wanted = (
        torch.get_autocast_dtype(device)
        if torch.is_autocast_enabled(device)
        else torch.promote_types(x.dtype, weight.dtype)
    )
    known = (torch.bfloat16, torch.float32)
    return wanted == torch.bfloat16 and x.dtype in known and weight.dtype in known


class _Linear(torch.autograd.Function):
    """y = x @ weight.T + bias of bfloat16 x; weight and bias are rounded to it if they are not of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        of_x, of_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if of_weight else None, weight if of_x else None)
        ctx.shape, ctx.weight = x.shape, weight if of_weight else None
        ctx.bias_dtype = None if bias is None else bias.dtype
        with torch.autocast("cpu", enabled=False):
            return shaped(multiplied(x.flatten(0, -2).contiguous(), weight, bias), x.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        x_grad = weight_grad = bias_grad = None
        with torch.autocast("cpu", enabled=False):
            flat = grad.flatten(0, -2).contiguous()
            kernel = not torch.is_grad_enabled()  # second derivatives (TRPO) need operations that have derivatives
            if ctx.needs_input_grad[0]:
                x_grad = multiplied_back(flat, weight) if kernel else flat @ weight.to(flat.dtype)
                x_grad = x_grad.view(ctx.shape)
            if ctx.needs_input_grad[1]:
                rows = x.flatten(0, -2).contiguous()
                total = there(ctx.weight) if kernel else None
                weight_grad = kernels.weight_gradient(flat, rows, total) if kernel else None
                added = weight_grad is not None and weight_grad is total
                weight_grad = flat.T @ rows if weight_grad is None else weight_grad
                weight_grad = None if added else weight_grad.to(ctx.weight.dtype)
            if ctx.needs_input_grad[2]:
                bias_grad = flat.sum(0, dtype=torch.float32).to(ctx.bias_dtype)
        return x_grad, weight_grad, bias_grad
