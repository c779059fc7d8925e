"""One answer per item from several annotators, beside the raw votes; a reviewer's decision wins, and is marked."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from accord.evaluate.consensus import dawid_skene, majority_vote, preference_share, ranked_pairs
from accord.feedback.analysis.material import Material
from accord.feedback.analysis.measures import Measure, measures_of
from accord.feedback.store.payloads import ranks_of
from accord.feedback.store.queries.verdicts import Content, Verdict
from accord.feedback.store.selection import by_disagreement

__all__ = ["ItemConsensus", "consensus", "disputed"]

FEW_ANNOTATORS, FEW_ITEMS = 3, 50  # below, annotators' errors cannot be told from the items' difficulty


@dataclass(frozen=True, kw_only=True)
class ItemConsensus:
    """What the annotators of an item say together.

    Attributes:
        item: what it was called where it comes from, or its id.
        item_id: of the store.
        method: "ranked pairs", "vote", "median", or "review" where a reviewer decided.
        value: response id -> rank for rankings; attribute -> value, or -1 where the vote is tied.
        annotators: behind it.
        disagreement: entropy of the votes in nats, mean over what is judged; 0: all say the same.
        votes: share of annotators by pair or by attribute.
        skilled: attribute -> P(true) by Dawid-Skene, which weighs annotators by their errors; flags only.
    """

    item: str
    item_id: str
    method: str
    value: Mapping[str, Any]
    annotators: int
    disagreement: float
    votes: Mapping[str, float]
    skilled: Mapping[str, float]


def consensus(material: Material) -> list[ItemConsensus]:
    """Consensus of every item with a verdict of a person, in the order of their ids."""
    by_item: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in material.human():
        if verdict.item_id in material.contents:
            by_item[verdict.item_id].append(verdict)
    measures = measures_of(material.human(), material.contents)
    skilled = _skilled([measure for measure in measures if measure.level == "nominal"])
    found = []
    for item, verdicts in sorted(by_item.items()):
        content = material.contents[item]
        ranked = [verdict for verdict in verdicts if verdict.ranks is not None]
        made = _of_ranks(content, ranked) if ranked else _of_values(content, verdicts)
        if made is None:
            continue
        method, value, votes, disagreement = made
        decided = material.adjudicated.get(item)
        if decided is not None:
            ranks = ranks_of(material.task_type, decided, list(content.responses))
            method, value = "review", dict(decided) if ranks is None else {"ranks": _named(content, ranks)}
        found.append(
            ItemConsensus(
                item=content.name,
                item_id=item,
                method=method,
                value=value,
                annotators=len({verdict.annotator for verdict in verdicts}),
                disagreement=disagreement,
                votes=votes,
                skilled=skilled.get(item, {}),
            )
        )
    return found


def disputed(found: Sequence[ItemConsensus], count: int = 20) -> list[ItemConsensus]:
    """The items whose annotators disagree most, for a reviewer; those that are decided are left out."""
    open_ones = [one for one in found if one.method != "review" and one.disagreement > 0]
    return sorted(open_ones, key=lambda one: (-one.disagreement, one.item_id))[:count]


_Made = tuple[str, dict[str, Any], dict[str, float], float]


def _of_ranks(content: Content, verdicts: Sequence[Verdict]) -> _Made | None:
    ids = list(content.responses)
    table = [[verdict.ranks.get(one) for one in ids] for verdict in verdicts if verdict.ranks is not None]
    if len(ids) < 2:
        return None
    failed = [all(ranks[place] is None for ranks in table) for place in range(len(ids))]
    rank_K = ranked_pairs(table).rank_K.tolist()
    ranks = {one: None if bad else rank for one, bad, rank in zip(ids, failed, rank_K, strict=True)}
    share_KK = preference_share(table)
    pairs = [(i, j) for i in range(len(ids)) for j in range(i + 1, len(ids))]
    votes = {f"{content.names[ids[i]]} over {content.names[ids[j]]}": float(share_KK[i, j]) for i, j in pairs}
    signs = [[_sign(row[i], row[j]) for row in table] for i, j in pairs]
    return "ranked pairs", {"ranks": _named(content, ranks)}, votes, float(by_disagreement(signs).mean())


def _named(content: Content, ranks: Mapping[str, int | None]) -> dict[str, int | None]:
    return {content.names.get(one, one): rank for one, rank in ranks.items()}


def _sign(first: int | None, second: int | None) -> int:
    a, b = (math.inf if rank is None else rank for rank in (first, second))
    return (a < b) - (a > b)


def _of_values(content: Content, verdicts: Sequence[Verdict]) -> _Made | None:
    """Majority of each flag, median of each scale; of attributes by response."""
    value: dict[str, Any] = {}
    votes: dict[str, float] = {}
    entropies = []
    methods = set()
    for measure in measures_of(verdicts, {content.item_id: content}):
        for unit, column in zip(measure.units, measure.value_AN.T, strict=True):
            given = column[~np.isnan(column)].tolist()
            name = measure.name if len(unit) < 2 else f"{content.names.get(unit[1], unit[1])}: {measure.name}"
            if measure.level == "ordinal":
                value[name] = median(given)
                methods.add("median")
            else:
                result = majority_vote([0] * len(given), [int(one) for one in given], 1, 2)
                value[name] = int(result.label_N[0])
                votes[name] = float(result.share_NC[0, 1])
                methods.add("vote")
            entropies.append(float(by_disagreement([given])[0]))
    if not value:
        return None
    return " and ".join(sorted(methods, reverse=True)), value, votes, float(np.mean(entropies))


def _skilled(measures: Sequence[Measure]) -> dict[str, dict[str, float]]:
    """Item -> flag -> P(true), for flags with enough annotators and items, of one response or of the item."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for measure in measures:
        row_M, unit_M = np.nonzero(~np.isnan(measure.value_AN))
        items = len({measure.units[unit][0] for unit in unit_M.tolist()})
        if len(set(row_M.tolist())) < FEW_ANNOTATORS or items < FEW_ITEMS or not measure.varies:
            continue
        label_M = (measure.value_AN[row_M, unit_M] > 0).astype(np.int64)
        fit = dawid_skene(unit_M, row_M, label_M, len(measure.units), len(measure.annotators), 2)
        for unit, probability in zip(measure.units, fit.posterior_NC[:, 1].tolist(), strict=True):
            name = measure.name if len(unit) < 2 else f"{measure.name} of {unit[1]}"
            found[unit[0]][name] = probability
    return found
