"""How far a job on data is, told to whoever shows it: the command line draws a bar, a program may show nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeVar

__all__ = ["Tell", "counted", "silent"]

Item = TypeVar("Item")
_EVERY = 256


class Tell(Protocol):
    """Called now and then with what is being done and how far it is."""

    def __call__(self, title: str, done: int, total: int | None = None, note: str = "") -> None:
        """`done` of `total` steps of `title` are done; no total: not known. `note`: the latest figures in words."""
        ...


def silent(title: str, done: int, total: int | None = None, note: str = "") -> None:
    """Show nothing."""


def counted(items: Iterator[Item], title: str, tell: Tell, total: int | None = None) -> Iterator[Item]:
    """Pass items on and tell every few hundred how many there were."""
    done = 0
    for done, item in enumerate(items, 1):
        if done % _EVERY == 0:
            tell(title, done, total)
        yield item
    tell(title, done, total)
