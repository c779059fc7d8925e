"""Gradients of weights summed by the product that makes them, into what earlier packs of a step left there.

Autograd adds a gradient that is returned to it in a pass of its own: for a weight of n numbers that is 12 n bytes moved
for each pack but the first, and a tensor as large as the weight. A product can begin its sums with what is there.
`torch.autograd.grad` wants its gradients returned: so it is asked for, by `backward`.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["backward", "there"]

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
    if not _asked_for or not weight.is_leaf:
        return None
    grad = weight.grad
    return grad if grad is not None and grad.dtype == torch.float32 and grad.is_contiguous() else None
