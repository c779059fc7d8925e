"""Verdicts -> tables that agreement is computed on: one per thing that annotators say of the same unit.

A ranking says of each pair of responses which is better; attributes say something of each response; labels of the item.
Suffixes: A annotators, N units (a pair, a response, an item).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from accord.feedback.store.arrays import pair_verdict
from accord.feedback.store.queries.verdicts import Content, Verdict

__all__ = ["Level", "Measure", "main_measure", "measures_of", "pairs_of", "restricted"]

Level: TypeAlias = Literal["preference", "nominal", "ordinal"]
Unit: TypeAlias = tuple[str, ...]  # the item first

_SCALES = frozenset(("quality", "helpfulness", "creativity", "humor", "toxicity", "violence", "rating", "success"))


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One thing that is judged.

    Attributes:
        name: "preference", or the name of the attribute.
        level: "preference" (+1 first is better, 0 tie, -1), "nominal" for flags, "ordinal" for scales.
        annotators: of the rows.
        units: of the columns; a unit begins with its item.
        value_AN: NaN where an annotator said nothing.
    """

    name: str
    level: Level
    annotators: tuple[str, ...]
    units: tuple[Unit, ...]
    value_AN: NDArray[np.float64]

    @property
    def item_N(self) -> list[str]:
        """The item of each unit: the cluster intervals are drawn by."""
        return [unit[0] for unit in self.units]

    @property
    def varies(self) -> bool:
        """Whether more than one value was given."""
        return bool(len(np.unique(self.value_AN[~np.isnan(self.value_AN)])) > 1)


def pairs_of(contents: Mapping[str, Content]) -> dict[str, list[tuple[str, str]]]:
    """Item -> its pairs of responses, in the item's own order."""
    return {item: list(combinations(content.responses, 2)) for item, content in contents.items()}


def measures_of(verdicts: Sequence[Verdict], contents: Mapping[str, Content]) -> list[Measure]:
    """All things the verdicts speak of: one for rankings, one per attribute for attributes and labels.

    Returns: none for tasks whose verdicts are texts.
    """
    cells: dict[str, dict[tuple[str, Unit], float]] = {}
    pairs = pairs_of(contents)
    for verdict in verdicts:
        for name, unit, value in _said(verdict, pairs):
            cells.setdefault(name, {})[verdict.annotator, unit] = value
    return [_measure(name, found) for name, found in cells.items()]


def _measure(name: str, cells: Mapping[tuple[str, Unit], float]) -> Measure:
    annotators = tuple(sorted({who for who, _ in cells}))
    units = tuple(dict.fromkeys(unit for _, unit in cells))
    row = {who: place for place, who in enumerate(annotators)}
    column = {unit: place for place, unit in enumerate(units)}
    value_AN = np.full((len(annotators), len(units)), np.nan)
    for (who, unit), value in cells.items():
        value_AN[row[who], column[unit]] = value
    level: Level = "preference" if name == "preference" else "ordinal" if name in _SCALES else "nominal"
    return Measure(name=name, level=level, annotators=annotators, units=units, value_AN=value_AN)


def _said(verdict: Verdict, pairs: Mapping[str, Sequence[tuple[str, str]]]) -> Iterator[tuple[str, Unit, float]]:
    if verdict.ranks is not None:
        for first, second in pairs.get(verdict.item_id, ()):
            if first in verdict.ranks and second in verdict.ranks:
                value = pair_verdict(verdict, first, second)
                assert value is not None
                yield "preference", (verdict.item_id, first, second), value
        for response, attributes in (verdict.payload.get("attributes") or {}).items():
            yield from ((name, (verdict.item_id, response), value) for name, value in _numbers(attributes))
        return
    payload = verdict.payload
    if "skip" in payload:
        return
    if isinstance(payload.get("responses"), Mapping):
        for response, attributes in payload["responses"].items():
            yield from ((name, (verdict.item_id, response), value) for name, value in _numbers(attributes))
        return
    yield from ((name, (verdict.item_id,), value) for name, value in _numbers(payload))


def _numbers(attributes: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    for name, value in attributes.items():
        if name != "schema" and isinstance(value, (bool, int, float)):  # "n/a" and lists are no numbers
            yield name, float(value)


def main_measure(measures: Sequence[Measure]) -> Measure | None:
    """The one that stands for the campaign in slices: preference, quality, or the one with most values that vary."""
    known = {measure.name: measure for measure in measures}
    for name in ("preference", "quality"):
        if name in known and known[name].varies:
            return known[name]
    varying = [measure for measure in measures if measure.varies]
    return max(varying, key=lambda measure: int((~np.isnan(measure.value_AN)).sum()), default=None)


def restricted(measure: Measure, keep: Callable[[str, str], bool]) -> Measure:
    """The measure with the values of (annotator, item) that `keep` says, the others missing."""
    kept_AN = np.array([[keep(who, unit[0]) for unit in measure.units] for who in measure.annotators], dtype=bool)
    value_AN = np.where(kept_AN.reshape(measure.value_AN.shape), measure.value_AN, np.nan)
    return Measure(
        name=measure.name, level=measure.level, annotators=measure.annotators, units=measure.units, value_AN=value_AN
    )
