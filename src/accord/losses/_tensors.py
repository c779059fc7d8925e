"""What every objective needs before its arithmetic: one dtype, equal shapes, a mask applied first, numbers in range."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

# The one cap on exponents of log-ratios, nats: e^20 is 4.9e8, far beyond any ratio that still says something.
LOG_RATIO_CAP = 20.0


def raised(value: Tensor) -> Tensor:
    """`value` in a dtype losses are computed in: float32 and float64 stay, everything else becomes float32."""
    return value if value.dtype in (torch.float32, torch.float64) else value.float()


def aligned(main: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """All tensors in the dtype of the first, raised. Shapes must agree: (B,) against (B, 1) would make (B, B)."""
    main = raised(main)
    for other in others:
        require_shape(other, main)
    return (main, *(other.to(main.dtype) for other in others))


def selected(value: Tensor, mask: Tensor) -> Tensor:
    """`value` where the mask is True, else 0, raised; the arithmetic that follows never sees what lies under False."""
    require_shape(mask, value)
    return raised(torch.where(mask, value, 0))


def per_token(total: Tensor, length: Tensor) -> Tensor:
    """A sum over tokens divided by their number; a length of 0 counts as 1. Integer lengths take `total`'s dtype."""
    total, length = aligned(total, length)
    return total / length.clamp(min=1)


def as_scalar(number: float | Tensor, like: Tensor) -> Tensor:
    """A number or tensor in the dtype and on the device of `like`, filled on the device rather than copied to it."""
    return number.to(like) if isinstance(number, Tensor) else like.new_full((), number)


def require_shape(found: Tensor, expected: Tensor) -> None:
    """Raise ValueError unless two tensors that belong together have the same shape."""
    if found.shape != expected.shape:
        raise ValueError(
            f"tensors that belong together have shapes {tuple(expected.shape)} and {tuple(found.shape)}; "
            "pass one value per element (expand beforehand where one value is meant for many)"
        )


def require_positive(**numbers: float) -> None:
    """Raise ValueError for a number that is not above 0, naming it."""
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"{name} is {number}; pass a number above 0")


def require_between(low: float, high: float, **numbers: float) -> None:
    """Raise ValueError for a number outside [low, high], naming it."""
    for name, number in numbers.items():
        if not low <= number <= high:
            raise ValueError(f"{name} is {number}; pass a number from {low:g} to {high:g}")


def require_word(known: Collection[str], **words: str) -> None:
    """Raise ValueError for a word that is not among the known ones, naming its argument."""
    for name, word in words.items():
        if word not in known:
            raise ValueError(f"{name} is {word!r}; choose from {', '.join(map(repr, known))}")
