"""Gradients of weights summed by the product that makes them, into what earlier packs of a step left there.

Autograd adds a gradient that is returned to it in a pass of its own: for a weight of n numbers that is 12 n bytes moved
for each pack but the first, and a tensor as large as the weight. A product can begin its sums with what is there.
`torch.autograd.grad` wants its gradients returned: so it is asked for, by `backward`. While that runs, nobody else may
differentiate by the same weights, in another thread or within a backward pass.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

__all__ = ["backward", "leave", "product", "sums_exactly", "there"]

_asked_for = False


def backward(loss: Tensor) -> None:
    """`loss.backward()`, where products may add to gradients that are there."""
    global _asked_for
    before, _asked_for = _asked_for, True
    try:
        torch.autograd.backward(loss)
    finally:
        _asked_for = before


def there(weight: Tensor) -> Tensor | None:
    """The float32 gradient of a weight, if a product may add to it."""
    if not _asked_for or not weight.is_leaf or weight._backward_hooks:  # which would be given None
        return None
    grad = weight.grad
    return grad if grad is not None and grad.dtype == torch.float32 and grad.is_contiguous() else None


def leave(weight: Tensor, grad: Tensor) -> bool:
    """Make this the gradient of a weight that has none yet, so that others add to it; False: it has to be returned."""
    alone = weight.grad is None and not weight._backward_hooks
    if not (_asked_for and weight.is_leaf and alone and grad.dtype == weight.dtype == torch.float32):
        return False
    weight.grad = grad
    return True


def sums_exactly(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether products of a dtype are written in float32 on a device: on an NVIDIA GPU."""
    return device.type == "cuda" and torch.version.hip is None and dtype in (torch.bfloat16, torch.float16)


def product(left: Tensor, right: Tensor, total: Tensor | None = None) -> Tensor:
    """float32 left @ right of half-precision matrices, not rounded on the way.

    Args:
        left: (N, T).
        right: (T, M).
        total: (N, M) float32 to which it is added, in place.
    Returns: (N, M), the total if there is one.
    """
    if not sums_exactly(left.device, left.dtype):
        found = left.float() @ right.float()
        return found if total is None else total.add_(found)
    if total is not None and _adds_up(left.device, left.dtype):
        return torch.addmm(total, left, right, out_dtype=torch.float32, out=total)
    found = torch.mm(left, right, out_dtype=torch.float32)
    return found if total is None else total.add_(found)


@functools.cache
def _adds_up(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch adds a product of half precision to a float32 matrix: 2.11 does, tried on numbers."""
    a, total = torch.eye(16, device=device, dtype=dtype), torch.full((16, 16), 0.1, device=device)
    expected = total + a
    try:
        torch.addmm(total, a, a, out_dtype=torch.float32, out=total)
    except (RuntimeError, TypeError):
        return False
    return torch.equal(total, expected)
