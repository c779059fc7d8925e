"""Answers against known ones: gold items, attention checks, qualification. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from accord.feedback.store.payloads import ranks_of

__all__ = ["check_expected", "is_right", "must_pause"]


def is_right(
    task_type: str, expected: Mapping[str, Any], payload: Mapping[str, Any], responses: list[str]
) -> bool | None:
    """Whether a kept payload gives the expected answer; None: a person has to say (free text).

    Ranks are right if they order every pair that the expected ranks order strictly; a failed response is below every
    ranked one. Other payloads are right if every value that is expected is there. A skip is wrong.
    """
    if "skip" in payload:
        return False
    if task_type in ("demonstrate", "chat", "review"):
        return None
    wanted = ranks_of(task_type, expected, responses)
    if wanted is None:
        return _holds(expected, payload)
    found = ranks_of(task_type, payload, responses)
    assert found is not None
    strict = [(a, b) for a, b in combinations(wanted, 2) if _place(wanted, a) != _place(wanted, b)]
    return all(_sign(found, a, b) == _sign(wanted, a, b) for a, b in strict)


def _sign(ranks: Mapping[str, int | None], a: str, b: str) -> int:
    """1: a is above b; 0: they tie; -1: below."""
    return (_place(ranks, a) < _place(ranks, b)) - (_place(ranks, a) > _place(ranks, b))


def _place(ranks: Mapping[str, int | None], response: str) -> float:
    rank = ranks[response]
    return float("inf") if rank is None else rank


def _holds(expected: Any, found: Any) -> bool:
    if isinstance(expected, Mapping):
        return isinstance(found, Mapping) and all(_holds(value, found.get(name)) for name, value in expected.items())
    return bool(expected == found)


def check_expected(task_type: str, expected: Mapping[str, Any], responses: list[str]) -> None:
    """Raise ValueError unless the expected answer of a rank or pair names every response and orders some of them."""
    if task_type not in ("rank", "pairwise", "winrate"):
        return
    ranks = ranks_of(task_type, {"both_failed": False, **expected}, responses)
    if ranks is None or ranks.keys() != set(responses):
        raise ValueError(
            f"`expected` is {dict(expected)!r}; expected ranks or a choice for each of {sorted(responses)}"
        )
    if len({_place(ranks, response) for response in ranks}) < 2:
        raise ValueError("`expected` has all responses in one place; expected an order that can be got wrong")


def must_pause(right: Sequence[bool], window: int, failures: int) -> bool:
    """Whether the last `window` attention checks hold too many failures."""
    return list(right[-window:]).count(False) >= failures
