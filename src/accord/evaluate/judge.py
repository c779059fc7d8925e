"""Whether a judge, a model or a rule, can stand in for people: against their verdicts, and for its biases."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from accord.evaluate._arrays import NAN, Clusters, Floats, floats, picked, same_length
from accord.evaluate.intervals import mean_result
from accord.evaluate.result import Result
from accord.evaluate.reward import Calibration, pairwise_accuracy, preference_calibration
from accord.evaluate.winrate import PositionFlips, combine_orders, position_flips

__all__ = ["JudgeReport", "judge_report"]


class JudgeReport(NamedTuple):
    """What a judge is worth.

    Attributes:
        accuracy: share of decided items on which it sides with people, 1/2 where it cannot tell.
        flips: how much it looks at the position.
        calibration: of its probabilities, on the items that count for the accuracy.
        longer_wins: accuracy, on the same items, of "the longer is better"; a judge has to beat it.
        first_wins: share of the same items on which people prefer A.
        prefers_longer: share of items with clearly different lengths on which the judge takes the longer.
        gold_prefers_longer: the same of people, over the items they decided; what the judge has more is its bias.
        n_gold_ties: items on which people could not tell.
    """

    accuracy: Result
    flips: PositionFlips
    calibration: Calibration
    longer_wins: float
    first_wins: float
    prefers_longer: float
    gold_prefers_longer: float
    n_gold_ties: int


def judge_report(
    first_AB_N: ArrayLike,
    first_BA_N: ArrayLike,
    truth_N: ArrayLike,
    length_A_N: ArrayLike,
    length_B_N: ArrayLike,
    clusters_N: Clusters | None = None,
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> JudgeReport:
    """Compare a judge, asked in both orders, with what people said.

        p = (ab + 1 - ba) / 2 = P(A better)
        accuracy: over items with truth != 1/2, 1 if p and truth are on the same side, 1/2 if p = 1/2
        prefers_longer: over scored items with |length difference| >= 10% of the longer, 1/2 if p = 1/2

    Args:
        first_AB_N: (N,) P(first wins), A first; NaN unscored.
        first_BA_N: (N,) P(first wins), B first.
        truth_N: (N,) 1 A is better, 0 B, 1/2 neither; NaN where people did not say, which is unscored.
        length_A_N: (N,) in any unit.
        length_B_N: (N,) same unit.
        clusters_N: (N,) the prompt of each item; every item its own when None.
        replicates: draws; 0 for no interval.
        level: coverage.
        seed: of the bootstrap.

    Returns: a `JudgeReport`. A judge that always says "first" has accuracy 1/2 and flips every item.

    Raises:
        ValueError: lengths differ, a probability outside 0..1, or a truth that is none of 1, 0, 1/2.
    """
    p, truth = combine_orders(first_AB_N, first_BA_N), floats("truth_N", truth_N)
    length_A, length_B = floats("length_A_N", length_A_N), floats("length_B_N", length_B_N)
    same_length(first_AB_N=p, truth_N=truth, length_A_N=length_A, length_B_N=length_B)
    wrong = truth[~(np.isnan(truth) | np.isin(truth, (0, 0.5, 1)))]
    if wrong.size:
        raise ValueError(f"`truth_N` holds {wrong[0]:g}; expected 1, 0 or 1/2, NaN where nobody said")
    decided_N = truth != 0.5
    credit_N = np.where(np.isnan(p) | np.isnan(truth), NAN, 0.5 + np.sign(p - 0.5) * (truth - 0.5))
    clusters = picked(clusters_N, decided_N)
    counted_N = decided_N & ~np.isnan(credit_N)
    better, worse = np.where(truth == 1, (length_A, length_B), (length_B, length_A))
    return JudgeReport(
        accuracy=mean_result(credit_N[decided_N], clusters, replicates, level, seed),
        flips=position_flips(first_AB_N, first_BA_N),
        calibration=preference_calibration(p[counted_N], truth[counted_N]),
        longer_wins=pairwise_accuracy(better[counted_N], worse[counted_N], replicates=0).value,
        first_wins=_mean(truth[counted_N]),
        prefers_longer=_takes_longer(p, length_A, length_B),
        gold_prefers_longer=_takes_longer(np.where(decided_N, truth, NAN), length_A, length_B),
        n_gold_ties=int((truth == 0.5).sum()),
    )


def _takes_longer(verdict_N: Floats, length_A: Floats, length_B: Floats) -> float:
    """Share of the items with clearly different lengths on which the longer wins."""
    differ_N = np.abs(length_A - length_B) >= 0.1 * np.maximum(length_A, length_B)
    kept_N = differ_N & (length_A != length_B) & ~np.isnan(verdict_N)
    side_N = np.sign(verdict_N - 0.5) * np.sign(length_A - length_B)
    return _mean((1 + side_N[kept_N]) / 2)


def _mean(value_N: Floats) -> float:
    return float(value_N.mean()) if len(value_N) else NAN
