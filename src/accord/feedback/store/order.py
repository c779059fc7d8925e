"""Orders nobody can guess and everybody can check: keyed hashes instead of random numbers.

A hash of fixed ids under a secret is stable on reload, the same in every version of every library, and different for
every annotator.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence

__all__ = ["ON_DEMAND", "display_order", "draw", "is_random", "places", "queue_number", "shuffled"]

ON_DEMAND = -1  # place of a slot that was made for one annotator: the queue does not hand it out
_SLOTS = 64  # numbers of one item's slots in the queue


def _keyed(secret: str, *parts: str) -> bytes:
    """HMAC-SHA256 of ids side by side; they are of one length each, so no two lists of parts read the same."""
    return hmac.new(secret.encode(), "".join(parts).encode(), hashlib.sha256).digest()


def _share(secret: str, *parts: str) -> float:
    """A number in [0, 1), uniform over secrets."""
    return int.from_bytes(_keyed(secret, *parts)[:6], "big") / 2**48


def display_order(secret: str, item: str, annotator: str, responses: Sequence[str]) -> list[str]:
    """Response ids in the order this annotator sees them.

    Sorted by HMAC-SHA256(secret, item || annotator || response): over annotators and items no order is favoured.
    """
    return sorted(responses, key=lambda response: _keyed(secret, item, annotator, response))


def shuffled(secret: str, ids: Sequence[str], salt: str = "") -> list[str]:
    """Ids in an order of their own per secret and salt, whatever order they come in."""
    return sorted(ids, key=lambda one: _keyed(secret, salt, one))


def draw(secret: str, annotator: str, turn: int, what: str, one_in: int) -> bool:
    """Whether an annotator's task number `turn` is one of `what`, e.g. "gold": 1 in `one_in`, 0 is never.

    It depends on how many tasks are behind the annotator only, so a reload cannot draw again.
    """
    return one_in > 0 and _share(secret, "draw", what, annotator, str(turn)) < 1 / one_in


def is_random(seed: str, item: str, share: float) -> bool:
    """Whether an item belongs to the share whose place no score decides."""
    return _share(seed, "arm", item) < share


def places(priority: Mapping[str, float], seed: str, random: frozenset[str] = frozenset()) -> dict[str, int]:
    """Place of each item in the queue, from 0: by priority, high ones first, then by a permutation of the seed.

    Items in `random` do not stand where their priority would put them: they are spread evenly, in an order of their
    own, so that at any time the share of random items among those handed out is their share of all.
    """
    chosen = sorted((i for i in priority if i not in random), key=lambda i: (-priority[i], _keyed(seed, i)))
    drawn = sorted((i for i in priority if i in random), key=lambda i: _keyed(seed, i))
    total, order = len(priority), list[str]()
    for place in range(1, total + 1):
        due = place * len(drawn) // total  # random items that are to be out after this place
        at = len(order)
        out = (place - 1) * len(drawn) // total
        order.append(drawn[out] if due > out else chosen[at - out])
    return {item: place for place, item in enumerate(order)}


def queue_number(place: int, number: int) -> int:
    """Where a slot stands: all slots of an item before those of the next, so items are finished one by one."""
    return place * _SLOTS + min(number, _SLOTS - 1)
