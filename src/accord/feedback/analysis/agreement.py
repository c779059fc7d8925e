"""How far annotators agree: over all, and by prompt group, guideline and week.

Suffixes: A annotators, N units, M values of a unit packed to the top.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from accord.evaluate.agreement import (
    krippendorff_alpha,
    leave_one_out_agreement,
    preference_agreement,
    preference_alpha,
    ranking_agreement,
)
from accord.evaluate.intervals import bootstrap, mean_result, wilson
from accord.evaluate.result import Result
from accord.feedback.analysis.measures import Measure, measures_of
from accord.feedback.store.arrays import ranks_by_item
from accord.feedback.store.queries.verdicts import Content, Verdict

__all__ = ["Agreement", "AnnotatorLine", "agreement_of", "annotator_lines", "slices", "week_of"]

REPLICATES = 200  # of alpha, which has no short cut; 95 % ends move by about a hundredth
SLICE_REPLICATES = 100


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Agreement on one thing.

    Attributes:
        name: of the measure.
        level: preference, nominal or ordinal.
        alpha: Krippendorff's; of preferences beside their mirror image.
        agreement: of preferences without ties: share of pairs of annotators that say the same. None: of other levels.
        kappa: of preferences: (agreement - 1/2) / (1/2), since responses are shuffled; None: of other levels.
        agreement_half: of preferences with ties as half. NaN: of other levels.
        tau_b: mean over items of Kendall's tau-b of rankings; None: of other levels, and of pairs.
        tie_rate: share of ties; NaN: of other levels.
        values: judgments of units.
        annotators: who gave them.
        items: they are of.
        shared_items: items with two annotators or more: what agreement can be seen on.
    """

    name: str
    level: str
    alpha: Result
    agreement: Result | None
    kappa: Result | None
    agreement_half: float
    tau_b: Result | None
    tie_rate: float
    values: int
    annotators: int
    items: int
    shared_items: int


@dataclass(frozen=True, kw_only=True)
class AnnotatorLine:
    """One annotator beside the others.

    Attributes:
        annotator: pseudonym.
        judgments: counted ones.
        skipped: tasks.
        rate: share of units on which they say what the others say most (leave-one-out); NaN without a shared unit.
        n: such units.
        interval: Wilson's, of `rate`.
        minutes: median time of a task; None: not known.
        ties: share of response pairs they call a tie; NaN: no ranks.
        excluded: an exclusion is in force.
    """

    annotator: str
    judgments: int
    skipped: int
    rate: float
    n: int
    interval: tuple[float, float]
    minutes: float | None
    ties: float
    excluded: bool


def agreement_of(
    measure: Measure, verdicts: Sequence[Verdict], contents: Mapping[str, Content], replicates: int = REPLICATES
) -> Agreement:
    """Figures of a measure with intervals that draw whole items.

    Args:
        measure: of these verdicts.
        verdicts: for the ranks behind preferences.
        contents: texts by item.
        replicates: of the bootstrap of alpha; 0: none.
    """
    rated_AN = ~np.isnan(measure.value_AN)
    shared_N = rated_AN.sum(axis=0) >= 2
    items = np.array(measure.item_N, dtype=object)
    is_preference = measure.level == "preference"
    agreement, kappa, half, ties = None, None, math.nan, math.nan
    if is_preference:
        found = preference_agreement(measure.value_AN, ties="exclude")
        half = preference_agreement(measure.value_AN, ties="half").agreement
        ties = _share(measure.value_AN[rated_AN] == 0)
        agreement = mean_result(_credits(measure.value_AN), list(items), pairs=found.n_pairs)
        ends = None if agreement.ci is None else (2 * agreement.ci[0] - 1, 2 * agreement.ci[1] - 1)
        kappa = Result(
            value=found.kappa, n=agreement.n, ci=ends, method=agreement.method, clusters=agreement.clusters,
            seed=agreement.seed, detail={"expected": 0.5},
        )  # fmt: skip
    return Agreement(
        name=measure.name,
        level=measure.level,
        alpha=_alpha(measure, shared_N, replicates),
        agreement=agreement,
        kappa=kappa,
        agreement_half=half,
        tau_b=_tau_b(verdicts, contents) if is_preference else None,
        tie_rate=ties,
        values=int(rated_AN.sum()),
        annotators=int(rated_AN.any(axis=1).sum()),
        items=len(set(items[rated_AN.any(axis=0)])),
        shared_items=len(set(items[shared_N])),
    )


def _share(found: NDArray[np.bool_]) -> float:
    return float(found.mean()) if found.size else math.nan


def _credits(verdict_AN: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each unit the share of pairs of annotators without a tie that agree; NaN: no such pair."""
    up_N, down_N = (verdict_AN > 0).sum(axis=0), (verdict_AN < 0).sum(axis=0)
    pairs_N = (up_N + down_N) * (up_N + down_N - 1) / 2
    equal_N = up_N * (up_N - 1) / 2 + down_N * (down_N - 1) / 2
    return np.where(pairs_N > 0, equal_N / np.where(pairs_N > 0, pairs_N, 1), np.nan)


def _alpha(measure: Measure, shared_N: NDArray[np.bool_], replicates: int) -> Result:
    packed_MN = _packed(measure.value_AN[:, shared_N])
    items = [unit[0] for unit, shared in zip(measure.units, shared_N, strict=True) if shared]

    def alpha(index: NDArray[np.int64]) -> float:
        chosen = packed_MN[:, index]
        if measure.level == "preference":
            return preference_alpha(chosen)
        return krippendorff_alpha(chosen, level="ordinal" if measure.level == "ordinal" else "nominal")

    value = alpha(np.arange(packed_MN.shape[1])) if packed_MN.size else math.nan
    ends = bootstrap(alpha, items, replicates=replicates) if replicates and not math.isnan(value) else None
    return Result(
        value=value, n=int(shared_N.sum()), ci=ends, method="bootstrap" if ends else "none",
        clusters=len(set(items)), seed=0 if ends else None,
    )  # fmt: skip


def _packed(value_AN: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of each unit moved to the top: alpha does not ask who said what, and most annotators rate few units."""
    if not value_AN.size:
        return value_AN
    order_AN = np.argsort(np.isnan(value_AN), axis=0, kind="stable")
    deepest = int((~np.isnan(value_AN)).sum(axis=0).max())
    return np.take_along_axis(value_AN, order_AN, axis=0)[:deepest]


def _tau_b(verdicts: Sequence[Verdict], contents: Mapping[str, Content]) -> Result | None:
    responses = {item: list(content.responses) for item, content in contents.items() if len(content.responses) > 2}
    tables = ranks_by_item(verdicts, responses)
    taus = [ranking_agreement(table).tau_b for table in tables.values() if len(table) > 1]
    return mean_result(taus) if taus else None


def week_of(ms: int) -> str:
    """ISO week of a time: "2026-W47"; "unknown" of what has no time."""
    if ms <= 0:
        return "unknown"
    year, week, _ = datetime.fromtimestamp(ms / 1000, UTC).isocalendar()
    return f"{year}-W{week:02}"


def slices(name: str, verdicts: Sequence[Verdict], contents: Mapping[str, Content]) -> dict[str, dict[str, Agreement]]:
    """Agreement on the measure `name` by prompt group, guideline and week: dimension -> part -> figures.

    A dimension with one part is left out: it says what the total says.
    """
    keys: dict[str, Callable[[Verdict], str]] = {
        "prompt group": lambda verdict: contents[verdict.item_id].group or "none",
        "guideline": lambda verdict: verdict.guideline or "none",
        "week": lambda verdict: week_of(verdict.submitted_at),
    }
    known = [verdict for verdict in verdicts if verdict.item_id in contents]
    found: dict[str, dict[str, Agreement]] = {}
    for dimension, key in keys.items():
        parts: dict[str, list[Verdict]] = defaultdict(list)
        for verdict in known:
            parts[key(verdict)].append(verdict)
        if len(parts) < 2:
            continue
        found[dimension] = {}
        for part in sorted(parts):
            measure = next((one for one in measures_of(parts[part], contents) if one.name == name), None)
            if measure is not None:
                found[dimension][part] = agreement_of(measure, parts[part], contents, SLICE_REPLICATES)
    return found


def annotator_lines(
    measures: Sequence[Measure], verdicts: Sequence[Verdict], skips: Sequence[Verdict]
) -> list[AnnotatorLine]:
    """Everyone beside the others, those who agree least first.

    Args:
        measures: of the verdicts; units of all that vary are pooled.
        verdicts: counted ones, those of excluded annotators among them.
        skips: tasks that were skipped.
    """
    rates = _leave_one_out([measure for measure in measures if measure.varies])
    counts = Counter(verdict.annotator for verdict in verdicts)
    skipped = Counter(verdict.annotator for verdict in skips)
    excluded = {verdict.annotator for verdict in verdicts if verdict.excluded}
    ties = _ties(measures)
    lines = []
    for who in sorted({*counts, *skipped}):
        credit, n = rates.get(who, (math.nan, 0))
        lines.append(
            AnnotatorLine(
                annotator=who,
                judgments=counts[who],
                skipped=skipped[who],
                rate=credit / n if n else math.nan,
                n=n,
                interval=_ends(credit, n),
                minutes=_minutes([verdict for verdict in verdicts if verdict.annotator == who]),
                ties=ties.get(who, math.nan),
                excluded=who in excluded,
            )
        )
    return sorted(lines, key=lambda line: (math.isnan(line.rate), line.rate, line.annotator))


def _ends(credit: float, n: int) -> tuple[float, float]:
    low, high = wilson(credit, n) if n else (math.nan, math.nan)
    return low, high


def _leave_one_out(measures: Sequence[Measure]) -> dict[str, tuple[float, int]]:
    """Annotator -> (credit, units) over all measures."""
    total: dict[str, tuple[float, int]] = {}
    for measure in measures:
        rate_A, n_A = leave_one_out_agreement(measure.value_AN)
        for who, rate, n in zip(measure.annotators, rate_A.tolist(), n_A.tolist(), strict=True):
            credit, count = total.get(who, (0.0, 0))
            total[who] = (credit + (rate * n if n else 0.0), count + int(n))
    return total


def _ties(measures: Sequence[Measure]) -> dict[str, float]:
    measure = next((one for one in measures if one.level == "preference"), None)
    if measure is None:
        return {}
    return {
        who: _share(row[~np.isnan(row)] == 0) for who, row in zip(measure.annotators, measure.value_AN, strict=True)
    }


def _minutes(verdicts: Sequence[Verdict]) -> float | None:
    spent = [ms for verdict in verdicts if (ms := time_of(verdict)) is not None]
    return float(np.median(spent)) / 60_000 if spent else None


def time_of(verdict: Verdict) -> int | None:
    """Milliseconds spent on a task: the browser's, else from shown to submitted; None: not known."""
    if verdict.active_ms is not None:
        return verdict.active_ms
    spent = verdict.submitted_at - verdict.started_at
    return spent if spent > 0 else None
