"""How often one model's response is preferred to another's, whichever was shown first and however long they are.

Suffixes: N pairs, R replicates. `first_AB` is the judge's probability that the response shown first wins when the
candidate is first, `first_BA` the same with the baseline first; hard judges give 0, 1/2, 1.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from accord.evaluate._arrays import NAN, Clusters, Floats, between, cluster_numbers, floats, one_of, ratio, same_length
from accord.evaluate._bootstrap import cluster_counts, percentiles
from accord.evaluate._length_fit import fit_lengths
from accord.evaluate.intervals import mean_result
from accord.evaluate.result import Result

__all__ = [
    "LengthControlled",
    "PositionFlips",
    "combine_orders",
    "length_controlled_win_rate",
    "outcomes",
    "position_flips",
    "win_rate",
]

_CELLS_AT_ONCE = 1 << 21  # replicates times rows that are fitted together


class PositionFlips(NamedTuple):
    """How much a judge looks at the position, over pairs scored in both orders.

    Attributes:
        flip_rate: share in which both orders pick the same position: another response wins once they are swapped.
        same_first_rate: of these, both pick the first.
        same_second_rate: both pick the second.
        inconsistent_rate: flips, and pairs in which exactly one order is a tie.
        first_rate: how often the first is picked, ties half; 1/2 for a judge without a bias.
        n: pairs.
        n_unscored: pairs with an order that was not scored.
    """

    flip_rate: float
    same_first_rate: float
    same_second_rate: float
    inconsistent_rate: float
    first_rate: float
    n: int
    n_unscored: int


class LengthControlled(NamedTuple):
    """A win rate as it is, and as it would be at equal lengths.

    Attributes:
        raw: the plain win rate of the same pairs.
        controlled: sigma(theta); detail: `extrapolated`, True when fewer than 5% of pairs have the model longer, or
            fewer than 5% have it shorter: the lengths hardly overlap.
        theta: log-odds of winning at equal length.
        phi: log-odds per unit of tanh(length difference / its deviation); above 0, longer wins.
    """

    raw: Result
    controlled: Result
    theta: float
    phi: float


def outcomes(score_N: ArrayLike, baseline_score_N: ArrayLike) -> Floats:
    """Scores of two models on the same prompts as outcomes: 1 win, 1/2 tie, 0 loss, NaN where either is unscored.

    Args:
        score_N: (N,) any unit, higher is better.
        baseline_score_N: (N,) the baseline on the same prompts, in the same order and unit.

    Raises:
        ValueError: the two differ in length.
    """
    score, baseline = floats("score_N", score_N), floats("baseline_score_N", baseline_score_N)
    same_length(score_N=score, baseline_score_N=baseline)
    outcome_N = 0.5 + 0.5 * (score > baseline) - 0.5 * (score < baseline)
    return np.where(np.isnan(score) | np.isnan(baseline), NAN, outcome_N)


def combine_orders(
    first_AB_N: ArrayLike, first_BA_N: ArrayLike, rule: Literal["mean", "consistent"] = "mean"
) -> Floats:
    """The candidate's outcome from both orders of each pair.

        mean:       (ab + 1 - ba) / 2
        consistent: 1 if ab > 1/2 > ba, 0 if ab < 1/2 < ba, else 1/2        (MT-bench, arXiv:2306.05685)

    Args:
        first_AB_N: (N,) P(first wins), candidate first; NaN unscored.
        first_BA_N: (N,) P(first wins), baseline first.
        rule: how to combine.

    Returns: (N,) 0..1; NaN where either order is unscored. A judge that always says "first" gives 1/2.

    Raises:
        ValueError: lengths differ, a probability outside 0..1, or an unknown rule.
    """
    one_of("rule", rule, ("mean", "consistent"))
    ab, ba = _orders(first_AB_N, first_BA_N)
    if rule == "mean":
        return (ab + 1 - ba) / 2
    outcome_N = 0.5 + 0.5 * ((ab > 0.5) & (ba < 0.5)) - 0.5 * ((ab < 0.5) & (ba > 0.5))
    return np.where(np.isnan(ab) | np.isnan(ba), NAN, outcome_N)


def win_rate(
    outcome_N: ArrayLike,
    clusters_N: Clusters | None = None,
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Result:
    """Share of pairs that were won, ties half: the mean outcome.

    Args:
        outcome_N: (N,) 1 win, 1/2 tie, 0 loss, or a probability; NaN unscored. `combine_orders` and `outcomes` give
            them; identical texts are ties without asking a judge.
        clusters_N: (N,) the prompt of each pair, when a prompt has several; every pair its own when None.
        replicates: draws; 0 for no interval.
        level: coverage.
        seed: of the bootstrap.

    Returns: detail: wins (above 1/2), ties, losses. 1/2 for equal models; swapping the two gives 1 - value.

    Raises:
        ValueError: lengths differ, or an outcome outside 0..1.
    """
    outcome = floats("outcome_N", outcome_N)
    between("outcome_N", outcome, 0, 1)
    counts = {"wins": outcome > 0.5, "ties": outcome == 0.5, "losses": outcome < 0.5}
    detail = {name: int(kind_N.sum()) for name, kind_N in counts.items()}
    return mean_result(outcome, clusters_N, replicates, level, seed, **detail)


def position_flips(first_AB_N: ArrayLike, first_BA_N: ArrayLike) -> PositionFlips:
    """How often swapping two responses swaps the winner.

    Each order picks the first (above 1/2), the second (below), or ties.

    Args:
        first_AB_N: (N,) P(first wins), candidate first; NaN unscored.
        first_BA_N: (N,) P(first wins), baseline first.

    Returns: a `PositionFlips`, NaN without a pair scored in both orders. A coin flips half the time.

    Raises:
        ValueError: lengths differ, or a probability outside 0..1.
    """
    ab, ba = _orders(first_AB_N, first_BA_N)
    scored_N = ~(np.isnan(ab) | np.isnan(ba))
    ab, ba, n = ab[scored_N], ba[scored_N], int(scored_N.sum())
    both_first, both_second = int(((ab > 0.5) & (ba > 0.5)).sum()), int(((ab < 0.5) & (ba < 0.5)).sum())
    one_tie = int(((ab == 0.5) != (ba == 0.5)).sum())
    first = sum(float((order > 0.5).sum() + 0.5 * (order == 0.5).sum()) for order in (ab, ba))
    return PositionFlips(
        flip_rate=ratio(both_first + both_second, n),
        same_first_rate=ratio(both_first, n),
        same_second_rate=ratio(both_second, n),
        inconsistent_rate=ratio(both_first + both_second + one_tie, n),
        first_rate=ratio(first, 2 * n),
        n=n,
        n_unscored=len(scored_N) - n,
    )


def length_controlled_win_rate(
    outcome_N: ArrayLike,
    length_model_N: ArrayLike,
    length_baseline_N: ArrayLike,
    clusters_N: Clusters | None = None,
    l2_intercept: float = 1e-3,
    l2_length: float = 10.0,
    replicates: int = 500,
    level: float = 0.95,
    seed: int = 0,
) -> LengthControlled:
    """The win rate two models would have at equal lengths: AlpacaEval 2 (arXiv:2404.04475) less its instruction term.

        x = tanh((length_model - length_baseline) / s),   s the deviation of the differences, ddof 1
        minimise -sum [y log sigma(theta + phi x) + (1 - y) log(1 - sigma)] + (l2_intercept theta^2 + l2_length phi^2)/2
        controlled = sigma(theta)

    phi is shrunk because models are often shorter than the baseline on nearly every prompt: theta and phi are then
    almost collinear. On 680 of AlpacaEval's instructions, l2_length 10 comes within 1.1 points of the published rates,
    the mean of 22 models; without control they are 4.1 away, with l2_length 1 as much.

    Args:
        outcome_N: (N,) 0..1, NaN unscored.
        length_model_N: (N,) any unit, AlpacaEval's is characters; NaN makes a pair unscored.
        length_baseline_N: (N,) same unit.
        clusters_N: (N,) the prompt of each pair; every pair its own when None.
        l2_intercept: >= 0, ridge on theta; keeps it finite when every pair was won.
        l2_length: >= 0, ridge on phi.
        replicates: draws; each fits again, s included. 0 for no intervals.
        level: coverage.
        seed: of the bootstrap.

    Returns: a `LengthControlled`. If all differences are equal, lengths explain nothing: the raw rate, phi 0.

    Raises:
        ValueError: lengths differ, an outcome outside 0..1, or a negative ridge.
    """
    columns = {"outcome_N": outcome_N, "length_model_N": length_model_N, "length_baseline_N": length_baseline_N}
    outcome, model, baseline = (floats(name, values) for name, values in columns.items())
    same_length(outcome_N=outcome, length_model_N=model, length_baseline_N=baseline)
    between("outcome_N", outcome, 0, 1)
    if min(l2_intercept, l2_length) < 0:
        raise ValueError(f"l2_intercept {l2_intercept}, l2_length {l2_length}; expected ridges of at least 0")
    ridge = (l2_intercept, l2_length)
    scored_N = ~np.isnan(outcome + model - baseline)
    raw = win_rate(np.where(scored_N, outcome, NAN), clusters_N, replicates, level, seed)
    outcome, longer = outcome[scored_N], (model - baseline)[scored_N]
    fit = fit_lengths(longer, outcome, np.ones((1, len(outcome))), ridge)
    cluster_N = cluster_numbers(clusters_N, scored_N)
    bootstrapped = bool(replicates) and (raw.clusters or 0) >= 2
    ci = raw.ci
    if bootstrapped:
        draws = cluster_counts(raw.clusters or 0, replicates, seed)
        rate_R = [
            fit_lengths(longer, outcome, part_RC[:, cluster_N].astype(np.float64), ridge).rate_R
            for counts_RC in draws
            for part_RC in np.array_split(counts_RC, max(1, counts_RC.shape[0] * len(outcome) // _CELLS_AT_ONCE))
        ]
        interval = percentiles(np.concatenate(rate_R), level)
        ci = (interval.low, interval.high)
    controlled = Result(
        value=float(fit.rate_R[0]),
        n=raw.n,
        n_unscored=raw.n_unscored,
        ci=ci,
        level=level,
        method="bootstrap" if bootstrapped else "none",
        clusters=raw.clusters,
        seed=seed if bootstrapped else None,
        detail={"extrapolated": _hardly_overlap(longer)},
    )
    return LengthControlled(raw, controlled, float(fit.theta_R[0]), float(fit.phi_R[0]))


def _hardly_overlap(longer_N: Floats) -> bool:
    return len(longer_N) > 0 and bool(min((longer_N > 0).mean(), (longer_N < 0).mean()) < 0.05)


def _orders(first_AB_N: ArrayLike, first_BA_N: ArrayLike) -> tuple[Floats, Floats]:
    ab, ba = floats("first_AB_N", first_AB_N), floats("first_BA_N", first_BA_N)
    same_length(first_AB_N=ab, first_BA_N=ba)
    between("first_AB_N", ab, 0, 1)
    between("first_BA_N", ba, 0, 1)
    return ab, ba
