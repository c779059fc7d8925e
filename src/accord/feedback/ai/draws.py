"""Random choices that are a function of what is chosen for, so that a job that was stopped chooses the same again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TypeVar

__all__ = ["choose", "digest", "shuffled"]

Item = TypeVar("Item")


def digest(*parts: object) -> str:
    """SHA-256 of the parts as canonical JSON, in hexadecimal."""
    text = json.dumps(parts, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def shuffled(items: Sequence[Item], *parts: object) -> list[Item]:
    """The items in an order that depends on the parts and the places alone."""
    return [items[place] for place in sorted(range(len(items)), key=lambda place: digest(*parts, place))]


def choose(items: Sequence[Item], *parts: object) -> Item:
    """One of the items, each as likely as another."""
    return items[int(digest(*parts), 16) % len(items)]
