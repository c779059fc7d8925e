"""Verdicts as the arrays that statistics take: a table of annotators and items, or one row per label.

table = matrix(verdicts, lambda verdict: verdict.payload.get("quality"))
krippendorff_alpha(table.value_AN, level="ordinal")
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accord.feedback.store.queries.verdicts import Verdict

__all__ = ["Labels", "Table", "labels", "matrix", "pair_verdict", "ranks_by_item"]


@dataclass(frozen=True, kw_only=True)
class Table:
    """One value per annotator and item, NaN where there is none. Two annotators, three items: `value_AN` is (2, 3)."""

    annotators: tuple[str, ...]
    items: tuple[str, ...]
    value_AN: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Labels:
    """One row per label; codes count from 0 and stand for the entries of the tuples, in the order of appearance."""

    annotators: tuple[str, ...]
    items: tuple[str, ...]
    classes: tuple[Any, ...]
    item_M: NDArray[np.int64]
    annotator_M: NDArray[np.int64]
    label_M: NDArray[np.int64]


def matrix(verdicts: Sequence[Verdict], value: Callable[[Verdict], float | bool | None]) -> Table:
    """Tabulate a number of each verdict; None is "no value" and becomes NaN. Of two of one kind the last counts."""
    annotators = tuple(dict.fromkeys(verdict.annotator for verdict in verdicts))
    items = tuple(dict.fromkeys(verdict.item_id for verdict in verdicts))
    row, column = _positions(annotators), _positions(items)
    table = np.full((len(annotators), len(items)), np.nan)
    for verdict in verdicts:
        found = value(verdict)
        table[row[verdict.annotator], column[verdict.item_id]] = np.nan if found is None else float(found)
    return Table(annotators=annotators, items=items, value_AN=table)


def labels(verdicts: Sequence[Verdict], value: Callable[[Verdict], Hashable | None]) -> Labels:
    """List a label of each verdict, without those that have none; for `majority_vote` and `dawid_skene`."""
    rows = [(verdict, found) for verdict in verdicts if (found := value(verdict)) is not None]
    annotators = tuple(dict.fromkeys(verdict.annotator for verdict, _ in rows))
    items = tuple(dict.fromkeys(verdict.item_id for verdict, _ in rows))
    classes = tuple(dict.fromkeys(found for _, found in rows))
    who, what, which = _positions(annotators), _positions(items), {found: n for n, found in enumerate(classes)}
    return Labels(
        annotators=annotators,
        items=items,
        classes=classes,
        item_M=np.array([what[verdict.item_id] for verdict, _ in rows], dtype=np.int64),
        annotator_M=np.array([who[verdict.annotator] for verdict, _ in rows], dtype=np.int64),
        label_M=np.array([which[found] for _, found in rows], dtype=np.int64),
    )


def _positions(names: Sequence[str]) -> dict[str, int]:
    return {name: position for position, name in enumerate(names)}


def ranks_by_item(
    verdicts: Sequence[Verdict], responses: Mapping[str, Sequence[str]]
) -> dict[str, list[list[int | None]]]:
    """Item -> one list of ranks per annotator, in the order of `responses[item]`; for `ranking_agreement`."""
    found: dict[str, list[list[int | None]]] = {}
    for verdict in verdicts:
        if verdict.ranks is not None and verdict.item_id in responses:
            row = [verdict.ranks[response] for response in responses[verdict.item_id]]
            found.setdefault(verdict.item_id, []).append(row)
    return found


def pair_verdict(verdict: Verdict, first: str, second: str) -> float | None:
    """+1: `first` is better, 0: a tie or both failed, -1: worse; None: no ranks. For `preference_agreement`."""
    if verdict.ranks is None:
        return None
    a, b = (float("inf") if (rank := verdict.ranks[one]) is None else rank for one in (first, second))
    return float((a < b) - (a > b))
