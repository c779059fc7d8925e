"""How sure a figure is: percentile bootstrap over prompts, Wilson's interval for a proportion.

Suffixes: N observations, C clusters, R replicates. An observation that was not scored is NaN; it is left out and
counted, never read as 0. Observations of one prompt are not independent, so prompts (clusters) are what is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Estimate", "Interval", "bootstrap", "bootstrap_mean", "estimate_mean", "wilson"]

Clusters = Sequence[Hashable] | NDArray[np.generic]


class Interval(NamedTuple):
    """Both ends of an interval, in the unit of what was measured; (nan, nan) where there is none."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean and how sure it is: 7 wins of 10 prompts are `Estimate(value=0.7, lo=0.4, hi=1.0, n=10, ...)`."""

    value: float | None  # None where nothing was scored: nothing measured is not zero
    lo: float | None  # 95% interval; None with fewer than two clusters
    hi: float | None
    n: int  # observations used
    n_unscored: int = 0  # observations lost (NaN)
    seed: int = 0  # of the bootstrap


def wilson(successes: float, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion p = successes / n.

        (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)

    Args:
        successes: 0..n; halves are allowed, so that a tie can count half.
        n: independent trials. Nothing tried, nothing known: n = 0 is (0, 1).
        level: coverage, 0.95 for a 95% interval.

    Returns: both ends, exactly 0 at no success and exactly 1 at n of them.

    Raises:
        ValueError: successes lie outside 0..n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials; expected a number from 0 to {n}")
    if n == 0:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share, spread = successes / n, z * z / n
    centre = share + spread / 2
    half_width = z * sqrt(share * (1 - share) / n + spread / (4 * n))
    low = 0.0 if successes == 0 else (centre - half_width) / (1 + spread)
    high = 1.0 if successes == n else (centre + half_width) / (1 + spread)
    return Interval(low, high)


def bootstrap_mean(
    values_N: ArrayLike,
    clusters_N: Clusters | None = None,
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of a mean, drawing whole clusters.

    A replicate draws as many clusters as there are, with repetition; its mean is the sum over rows divided by the
    number of rows, so a prompt with more responses weighs more, as it does in the mean itself.

    Args:
        values_N: (N,) any unit, NaN where not scored.
        clusters_N: (N,) what each row belongs to, usually the prompt; every row its own when None.
        replicates: draws.
        level: coverage.
        seed: of numpy's default generator; the same seed gives the same interval.

    Returns: both ends; (nan, nan) with fewer than two clusters.

    Raises:
        ValueError: values and clusters differ in length.
    """
    values_N, cluster_N = _scored(values_N, clusters_N)
    cluster_count = int(cluster_N.max(initial=-1)) + 1
    if cluster_count < 2:
        return Interval(float("nan"), float("nan"))
    sum_C = np.bincount(cluster_N, weights=values_N)
    rows_C = np.bincount(cluster_N)
    draw_RC = np.random.default_rng(seed).integers(0, cluster_count, size=(replicates, cluster_count))
    return _percentiles(sum_C[draw_RC].sum(axis=1) / rows_C[draw_RC].sum(axis=1), level)


def bootstrap(
    statistic: Callable[[NDArray[np.intp]], float],
    clusters_N: Clusters,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of any statistic, drawing whole clusters.

    Args:
        statistic: row indices, with repetition, to a number; NaN where it is undefined for that draw.
        clusters_N: (N,) what each row belongs to.
        replicates: draws.
        level: coverage.
        seed: of numpy's default generator.

    Returns: both ends; (nan, nan) with fewer than two clusters, or where over 10% of the draws gave NaN.
    """
    cluster_N = _numbered(clusters_N)
    rows_of = [np.flatnonzero(cluster_N == cluster) for cluster in range(int(cluster_N.max(initial=-1)) + 1)]
    if len(rows_of) < 2:
        return Interval(float("nan"), float("nan"))
    draw_RC = np.random.default_rng(seed).integers(0, len(rows_of), size=(replicates, len(rows_of)))
    value_R = np.array([statistic(np.concatenate([rows_of[cluster] for cluster in draw_C])) for draw_C in draw_RC])
    defined_R = value_R[~np.isnan(value_R)]
    if len(defined_R) < 0.9 * replicates:
        return Interval(float("nan"), float("nan"))
    return _percentiles(defined_R, level)


def estimate_mean(values_N: ArrayLike, cluster_N: Clusters | None = None, seed: int = 0) -> Estimate:
    """The mean of what was scored, with its 95% interval over clusters (`bootstrap_mean`, 2000 draws).

    Equal values inside 0..1 leave the bootstrap without width, and ten wins of ten are not certainty: then the
    interval is Wilson's, with the number of clusters as its trials.

    Args:
        values_N: (N,) any unit, NaN where not scored.
        cluster_N: (N,) what each row belongs to, usually the prompt; every row its own when None.
        seed: of the bootstrap.

    Returns: value None and n 0 where nothing was scored; lo and hi None with fewer than two clusters.

    Raises:
        ValueError: values and clusters differ in length.
    """
    value_N, number_N = _scored(values_N, cluster_N)
    unscored = int(np.size(values_N)) - len(value_N)
    if not len(value_N):
        return Estimate(value=None, lo=None, hi=None, n=0, n_unscored=unscored, seed=seed)
    clusters = int(number_N.max()) + 1
    value = float(value_N.mean())
    interval: tuple[float | None, float | None] = (None, None)
    if clusters >= 2:
        certain = 0 <= value_N[0] <= 1 and bool((value_N == value_N[0]).all())
        interval = (
            wilson(float(value_N[0]) * clusters, clusters) if certain else bootstrap_mean(value_N, number_N, seed=seed)
        )
    return Estimate(value=value, lo=interval[0], hi=interval[1], n=len(value_N), n_unscored=unscored, seed=seed)


def _scored(values_N: ArrayLike, clusters_N: Clusters | None) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Drop the rows without a value, then number the clusters of the others by first appearance."""
    value_N = np.asarray(values_N, dtype=np.float64)
    if value_N.ndim != 1:
        raise ValueError(f"values have shape {value_N.shape}; expected one number a row")
    kept_N = ~np.isnan(value_N)
    if clusters_N is None:
        return value_N[kept_N], np.arange(int(kept_N.sum()))
    if len(clusters_N) != len(value_N):
        raise ValueError(f"{len(clusters_N)} clusters for {len(value_N)} values; give one cluster per value")
    kept_clusters = [cluster for cluster, kept in zip(clusters_N, kept_N, strict=True) if kept]
    return value_N[kept_N], _numbered(kept_clusters)


def _numbered(clusters_N: Clusters) -> NDArray[np.intp]:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters_N], dtype=np.intp)


def _percentiles(value_R: NDArray[np.float64], level: float) -> Interval:
    low, high = np.percentile(value_R, [50 * (1 - level), 50 * (1 + level)])
    return Interval(float(low), float(high))
