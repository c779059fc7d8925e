"""What best-of-n would earn: the frontier of reward against KL that needs no training, and what training has to beat.

Dimensions: B prompts, K responses of a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, sqrt
from statistics import NormalDist, fmean, stdev
from typing import NamedTuple

from accord.losses import kl

__all__ = ["BestOfN", "best_of_n", "expected_best"]

WIDTH = NormalDist().inv_cdf(0.975)


class BestOfN(NamedTuple):
    """The best of n responses: its mean reward over prompts, a 95% interval (None for one prompt), nats of KL at most.

    Example: `BestOfN(n=1, reward=0.31, lo=0.22, hi=0.40, kl_bound=0.0)` is plain sampling.
    """

    n: int
    reward: float
    lo: float | None
    hi: float | None
    kl_bound: float


def expected_best(score_K: Sequence[float], n: int) -> float:
    """Expected largest of n scores drawn from K without replacement, the unbiased estimate of best-of-n's reward.

        sum over k of C(k - 1, n - 1) / C(K, n) * (k-th smallest score)

    The k-th smallest is the largest of C(k - 1, n - 1) of the C(K, n) subsets.

    Args:
        score_K: scores of all responses to a prompt, in any order.
        n: 1 (their mean) to K (their largest).

    Raises: ValueError: n is outside 1..K.
    """
    if not 1 <= n <= len(score_K):
        raise ValueError(f"the best of {n} cannot be told from {len(score_K)} scores; ask for 1 to {len(score_K)}")
    ways = [comb(k, n - 1) for k in range(len(score_K))]
    return sum(way * score for way, score in zip(ways, sorted(score_K), strict=True)) / comb(len(score_K), n)


def best_of_n(score_BK: Sequence[Sequence[float]]) -> list[BestOfN]:
    """For n = 1, 2, 4, ... and K, from K scores per prompt.

    The interval is normal over prompts: mean -+ 1.96 deviations / sqrt(B). The KL is an upper bound on that of the best
    of n to the model sampled from, log n - (n - 1) / n (`accord.losses.kl.best_of_n`).
    """
    samples = len(score_BK[0])
    counts = sorted({samples, *(2**power for power in range(samples.bit_length()))})
    rows = []
    for n in counts:
        best_B = [expected_best(score_K, n) for score_K in score_BK]
        mean, lo, hi = fmean(best_B), None, None
        if len(best_B) > 1:
            half = WIDTH * stdev(best_B) / sqrt(len(best_B))
            lo, hi = mean - half, mean + half
        rows.append(BestOfN(n=n, reward=mean, lo=lo, hi=hi, kl_bound=kl.best_of_n(n)))
    return rows
