"""How good a reward model is: does it order pairs, does it mean its probabilities, what does its best of n gain.

Suffixes: N pairs, B bins, P prompts, K responses of a prompt.
"""

from __future__ import annotations

from math import comb, log
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from accord.evaluate._arrays import NAN, Clusters, Floats, Ints, between, floats, same_length
from accord.evaluate.intervals import mean_result
from accord.evaluate.result import Result
from accord.evaluate.winrate import outcomes

__all__ = ["Calibration", "best_of_n", "best_of_n_kl", "calibration", "pairwise_accuracy", "preference_calibration"]


class Calibration(NamedTuple):
    """Whether things said to happen with probability p happen with frequency p.

    Attributes:
        ece: share, mean over bins of |mean p - mean y|, weighed by their number.
        mce: the largest of these gaps.
        brier: mean (p - y)^2.
        log_loss: nats.
        count_B: rows of each bin.
        confidence_B: mean p, NaN where empty.
        outcome_B: mean y, NaN where empty.
        n: rows.
        n_unscored: rows with a NaN.
    """

    ece: float
    mce: float
    brier: float
    log_loss: float
    count_B: Ints
    confidence_B: Floats
    outcome_B: Floats
    n: int
    n_unscored: int


def pairwise_accuracy(
    chosen_N: ArrayLike,
    rejected_N: ArrayLike,
    clusters_N: Clusters | None = None,
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Result:
    """Share of pairs in which the chosen response scores higher, equal scores half.

    A constant reward is chance, so a tie is 1/2 (RewardBench counts it 0); their number is in the detail.

    Args:
        chosen_N: (N,) reward units, NaN unscored. Lengths instead of rewards give the accuracy of "the longer wins".
        rejected_N: (N,) same unit.
        clusters_N: (N,) the prompt of each pair; every pair its own when None.
        replicates: draws; 0 for no interval.
        level: coverage.
        seed: of the bootstrap.

    Returns: detail: ties.

    Raises:
        ValueError: lengths differ.
    """
    chosen, rejected = floats("chosen_N", chosen_N), floats("rejected_N", rejected_N)
    same_length(chosen_N=chosen, rejected_N=rejected)
    outcome_N = outcomes(chosen, rejected)
    return mean_result(outcome_N, clusters_N, replicates, level, seed, ties=int((outcome_N == 0.5).sum()))


def calibration(
    probability_N: ArrayLike, outcome_N: ArrayLike, bins: int = 10, low: float = 0.0, high: float = 1.0
) -> Calibration:
    """Expected and largest calibration error (Naeini et al. 2015), Brier score and log loss.

        bin = min(int((p - low) / (high - low) * bins), bins - 1)
        ece = sum_b n_b / n |mean p - mean y|,   log_loss with p clipped to [1e-12, 1 - 1e-12]

    Args:
        probability_N: (N,) low..high, NaN unscored.
        outcome_N: (N,) 0..1, soft labels too; NaN unscored.
        bins: B, of equal width.
        low: where the first bin begins.
        high: where the last one ends.

    Returns: a `Calibration`, NaN without rows. Saying the base rate has ece 0, and says nothing.

    Raises:
        ValueError: lengths differ, a number out of range, or no bins.
    """
    p, y = floats("probability_N", probability_N), floats("outcome_N", outcome_N)
    same_length(probability_N=p, outcome_N=y)
    if bins < 1 or not 0 <= low < high <= 1:
        raise ValueError(f"{bins} bins from {low} to {high}; expected one or more, inside 0..1")
    between("probability_N", p, low, high)
    between("outcome_N", y, 0, 1)
    scored_N = ~(np.isnan(p) | np.isnan(y))
    p, y, n = p[scored_N], y[scored_N], int(scored_N.sum())
    bin_N = np.minimum(((p - low) / (high - low) * bins).astype(np.intp), bins - 1)
    count_B = np.bincount(bin_N, minlength=bins)
    divisor_B = np.where(count_B > 0, count_B, NAN)
    confidence_B = np.bincount(bin_N, weights=p, minlength=bins) / divisor_B
    outcome_B = np.bincount(bin_N, weights=y, minlength=bins) / divisor_B
    gap_B = np.abs(confidence_B - outcome_B)[count_B > 0]
    clipped = np.clip(p, 1e-12, 1 - 1e-12)
    return Calibration(
        ece=float((count_B[count_B > 0] * gap_B).sum() / n) if n else NAN,
        mce=float(gap_B.max()) if n else NAN,
        brier=float(((p - y) ** 2).mean()) if n else NAN,
        log_loss=float(-(y * np.log(clipped) + (1 - y) * np.log1p(-clipped)).mean()) if n else NAN,
        count_B=count_B,
        confidence_B=confidence_B,
        outcome_B=outcome_B,
        n=n,
        n_unscored=len(scored_N) - n,
    )


def preference_calibration(probability_N: ArrayLike, outcome_N: ArrayLike | None = None, bins: int = 10) -> Calibration:
    """Calibration of P(first better), folded: with the chosen always first every outcome is 1 and nothing to calibrate.

        p < 1/2 becomes (1 - p, 1 - y);   p = 1/2 gets y = 1/2;   bins over [1/2, 1]

    Args:
        probability_N: (N,) e.g. sigma(r_chosen - r_rejected), NaN unscored.
        outcome_N: (N,) whether the first was better, 0..1; all 1 when None.
        bins: B.

    Returns: a `Calibration` of being right. The Brier score is that of the unfolded, but for p = 1/2.

    Raises:
        ValueError: lengths differ, or a number outside 0..1.
    """
    p = floats("probability_N", probability_N)
    y = np.ones(len(p)) if outcome_N is None else floats("outcome_N", outcome_N)
    same_length(probability_N=p, outcome_N=y)
    between("probability_N", p, 0, 1)
    y = np.where((p == 0.5) & ~np.isnan(y), 0.5, np.where(p < 0.5, 1 - y, y))
    return calibration(np.where(p < 0.5, 1 - p, p), y, bins, low=0.5, high=1.0)


def best_of_n(proxy_PK: ArrayLike, gold_PK: ArrayLike, n: int) -> Floats:
    """Expected gold reward of the response with the best proxy reward among n, exactly and without sampling noise.

        sum_i C(i, n-1) / C(K, n) gold_(i),   i from 0, responses sorted by proxy, gold averaged over equal proxies

    Args:
        proxy_PK: (P, K) what chooses.
        gold_PK: (P, K) what counts; the proxy itself gives the proxy's own curve.
        n: drawn without replacement from the K.

    Returns: (P,) in gold units: the mean for n = 1, the gold of the best proxy for n = K; NaN where any is unscored.

    Raises:
        ValueError: shapes differ, or n is not from 1 to K.
    """
    proxy, gold = floats("proxy_PK", proxy_PK, 2), floats("gold_PK", gold_PK, 2)
    if proxy.shape != gold.shape:
        raise ValueError(f"`proxy_PK` has shape {proxy.shape}, `gold_PK` {gold.shape}; expected the same")
    responses = proxy.shape[1]
    if n != int(n) or not 1 <= n <= responses:
        raise ValueError(f"n is {n}; expected a whole number from 1 to {responses}, the responses of a prompt")
    order_PK = np.argsort(proxy, axis=1, kind="stable")
    proxy, gold = np.take_along_axis(proxy, order_PK, axis=1), np.take_along_axis(gold, order_PK, axis=1)
    new_PK = np.ones(proxy.shape, dtype=bool)
    new_PK[:, 1:] = proxy[:, 1:] != proxy[:, :-1]
    group = np.cumsum(new_PK) - 1  # numbered through all prompts; a prompt begins with a new one
    mean_PK = (np.bincount(group, weights=gold.ravel()) / np.bincount(group))[group].reshape(proxy.shape)
    ways = comb(responses, int(n))
    best_P = mean_PK @ np.array([comb(i, int(n) - 1) / ways for i in range(responses)])
    return np.where(np.isnan(proxy).any(axis=1) | np.isnan(gold).any(axis=1), NAN, best_P)


def best_of_n_kl(n: float) -> float:
    """KL of the best of n to the policy it is drawn from, in nats (Stiennon et al. 2020, arXiv:2009.01325).

        ln n - (n - 1) / n

    An upper bound when rewards can tie (arXiv:2401.01879).

    Args:
        n: samples, at least 1.

    Returns: 0 for n = 1, .636 for 4, 1.835 for 16.

    Raises:
        ValueError: n is under 1.
    """
    if not n >= 1:
        raise ValueError(f"n is {n}; expected 1 or more samples")
    return log(n) - (n - 1) / n
