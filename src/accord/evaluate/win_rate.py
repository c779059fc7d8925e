"""How often one model's response scores above another's on the same prompt."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accord.evaluate.intervals import Clusters, Estimate, estimate_mean

__all__ = ["outcomes", "win_rate"]


def outcomes(score: ArrayLike, baseline_score: ArrayLike) -> NDArray[np.float64]:
    """Each paired comparison as a number: 1 win, 1/2 tie (equal scores), 0 loss, NaN where either is unscored.

    Args:
        score: (N,) any unit, higher is better, NaN where not scored.
        baseline_score: (N,) the baseline on the same prompts, in the same order and unit.

    Raises:
        ValueError: the two differ in length.
    """
    score_N, baseline_N = np.asarray(score, dtype=np.float64), np.asarray(baseline_score, dtype=np.float64)
    if score_N.shape != baseline_N.shape or score_N.ndim != 1:
        raise ValueError(
            f"scores of shape {score_N.shape} against baseline scores of shape {baseline_N.shape}; "
            "give one score of each for every pair, in the same order"
        )
    unscored_N = np.isnan(score_N) | np.isnan(baseline_N)
    outcome_N = 0.5 + 0.5 * (score_N > baseline_N) - 0.5 * (score_N < baseline_N)
    return np.where(unscored_N, np.nan, outcome_N)


def win_rate(score: ArrayLike, baseline_score: ArrayLike, cluster: Clusters | None = None, seed: int = 0) -> Estimate:
    """Share of pairs in which `score` is above `baseline_score`, ties counted half, with its 95% interval.

        value = (wins + ties / 2) / (wins + ties + losses)

    Args:
        score: (N,) any unit, higher is better, NaN where not scored.
        baseline_score: (N,) the baseline on the same prompts, in the same order and unit.
        cluster: (N,) the prompt of each pair, when a prompt has several; every pair its own when None.
        seed: of the bootstrap.

    Returns: 0.5 for equal models; swapping the two gives 1 - value. Without a scored pair: value None, n 0.

    Raises:
        ValueError: lengths differ.
    """
    return estimate_mean(outcomes(score, baseline_score), cluster, seed=seed)
