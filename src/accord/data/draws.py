"""Random choices as functions of a seed and a name, so that no order of work and no restart can change them."""

from __future__ import annotations

import random
from hashlib import blake2b

__all__ = ["draw", "share"]


def draw(*parts: object) -> random.Random:
    """A random generator of its own for a seed and a name, e.g. `draw(seed, "rte", 17)`."""
    return random.Random(_number(parts))


def share(*parts: object) -> float:
    """A number from 0 to below 1, evenly spread over names: below 0.1 for a tenth of them."""
    return _number(parts) / 2**64


def _number(parts: tuple[object, ...]) -> int:
    return int.from_bytes(blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest())
