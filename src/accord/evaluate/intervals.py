"""How sure a figure is: percentile bootstrap over prompts, Wilson's interval for a proportion, and tests.

Suffixes: N observations, C clusters, R replicates. An observation that was not scored is NaN; it is left out and
counted, never read as 0. Observations of one prompt are not independent, so prompts (clusters) are what is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accord.evaluate._arrays import NAN, Clusters, Floats, Ints, between, cluster_numbers, floats, numbered, same_length
from accord.evaluate._bootstrap import NO_INTERVAL, Interval, cluster_draws, deviations, percentiles
from accord.evaluate.result import Result

__all__ = [
    "Clusters",
    "Interval",
    "benjamini_hochberg",
    "binomial_test",
    "bootstrap",
    "bootstrap_mean",
    "bootstrap_several",
    "clustered_standard_error",
    "mean_result",
    "paired_difference",
    "pairs_needed",
    "wilson",
]


def wilson(successes: float, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion p = successes / n (Wilson 1927; Newcombe 1998, method 3).

        (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)

    Args:
        successes: 0..n; halves are allowed, so that a tie can count half.
        n: independent trials. Nothing tried, nothing known: n = 0 is (0, 1).
        level: coverage, 0.95 for a 95% interval.

    Returns: both ends, exactly 0 at no success and exactly 1 at n of them.

    Raises:
        ValueError: successes lie outside 0..n, or level outside 0..1.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials; expected a number from 0 to {n}")
    z = deviations(level)
    if n == 0:
        return Interval(0.0, 1.0)
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
    """Percentile bootstrap of a mean, drawing whole clusters (Efron 1979).

    A replicate draws as many clusters as there are, with repetition; its mean is the sum over rows divided by the
    number of rows, so a prompt with more responses weighs more, as it does in the mean itself.

    Args:
        values_N: (N,) any unit, NaN where not scored.
        clusters_N: (N,) what each row belongs to, usually the prompt; every row its own when None.
        replicates: draws.
        level: coverage.
        seed: of numpy's default generator; the same seed gives the same interval.

    Returns: both ends; (nan, nan) with fewer than two clusters, or without replicates.

    Raises:
        ValueError: values and clusters differ in length, or level is outside 0..1.
    """
    value_N, cluster_N = _scored(values_N, clusters_N)
    return _bootstrap_mean(value_N, cluster_N, replicates, level, seed)


def bootstrap(
    statistic: Callable[[Ints], float],
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

    Raises:
        ValueError: level is outside 0..1.
    """
    return bootstrap_several(lambda rows: (statistic(rows),), clusters_N, replicates, level, seed)[0]


def bootstrap_several(
    statistic: Callable[[Ints], Sequence[float]],
    clusters_N: Clusters,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Interval]:
    """`bootstrap` of several statistics of the same draws, such as all figures of one report.

    Args:
        statistic: row indices, with repetition, to S numbers; NaN where one is undefined for that draw.
        clusters_N: (N,) what each row belongs to.
        replicates: draws.
        level: coverage.
        seed: of numpy's default generator.

    Returns: S intervals, each as of `bootstrap`.

    Raises:
        ValueError: level is outside 0..1.
    """
    cluster_N = numbered(clusters_N)
    rows_of = np.split(np.argsort(cluster_N, kind="stable"), np.cumsum(np.bincount(cluster_N))[:-1])
    if len(rows_of) < 2 or not replicates:
        return [percentiles(np.empty(0), level) for _ in statistic(np.arange(len(cluster_N)))]
    value_RS = [
        statistic(np.concatenate([rows_of[cluster] for cluster in draw_C]))
        for draw_RC in cluster_draws(len(rows_of), replicates, seed)
        for draw_C in draw_RC
    ]
    return [percentiles(value_R, level) for value_R in np.asarray(value_RS, dtype=np.float64).T]


def mean_result(
    values_N: ArrayLike,
    clusters_N: Clusters | None = None,
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    **detail: Any,
) -> Result:
    """The mean of what was scored, with its interval over clusters.

    Equal values inside 0..1 leave the bootstrap without width, and ten wins of ten are not certainty: then the
    interval is `wilson(value * C, C)` with the C clusters as its trials.

    Args:
        values_N: (N,) any unit, NaN where not scored.
        clusters_N: (N,) what each row belongs to, usually the prompt; every row its own when None.
        replicates: draws; 0 for no interval.
        level: coverage.
        seed: of the bootstrap.
        detail: goes into the result as it stands.

    Returns: value NaN and n 0 where nothing was scored.

    Raises:
        ValueError: values and clusters differ in length, or level is outside 0..1.
    """
    deviations(level)  # checked also where no interval is made
    value_N, cluster_N = _scored(values_N, clusters_N)
    clusters = int(cluster_N.max(initial=-1)) + 1
    value = float(value_N.mean()) if len(value_N) else NAN
    ci: Interval | None = None
    method = "none"
    if replicates and clusters >= 2:
        first = float(value_N[0])
        certain = 0 <= first <= 1 and bool((value_N == first).all())
        method = "wilson" if certain else "bootstrap"
        ci = (
            wilson(first * clusters, clusters, level)
            if certain
            else _bootstrap_mean(value_N, cluster_N, replicates, level, seed)
        )
    elif replicates and clusters:
        ci = NO_INTERVAL
    return Result(
        value=value,
        n=len(value_N),
        n_unscored=len(floats("values_N", values_N)) - len(value_N),
        ci=None if ci is None else (ci.low, ci.high),
        level=level,
        method=method,
        clusters=clusters,
        seed=seed if method == "bootstrap" else None,
        detail=detail,
    )


def paired_difference(
    a_N: ArrayLike,
    b_N: ArrayLike,
    clusters_N: Clusters | None = None,
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Result:
    """`mean_result` of a - b: how much better a did on the same rows.

    Args:
        a_N: (N,) any unit, NaN where not scored.
        b_N: (N,) same rows, same unit; a row that either lost is lost.
        clusters_N: (N,) what each row belongs to; every row its own when None.
        replicates: draws; 0 for no interval.
        level: coverage.
        seed: of the bootstrap.

    Returns: swapping the two turns the sign.

    Raises:
        ValueError: lengths differ.
    """
    first_N, second_N = floats("a_N", a_N), floats("b_N", b_N)
    same_length(a_N=first_N, b_N=second_N)
    return mean_result(first_N - second_N, clusters_N, replicates, level, seed)


def clustered_standard_error(values_N: ArrayLike, clusters_N: Clusters | None = None) -> float:
    """Standard error of a mean whose rows come in clusters (Liang & Zeger 1986, with C/(C-1)).

        sqrt(C/(C-1) * sum_c (sum_{i in c} (x_i - mean))^2) / n

    Args:
        values_N: (N,) any unit, NaN where not scored.
        clusters_N: (N,) prompts, never votes: votes on one prompt are not independent. Every row its own when None.

    Returns: in the unit of the values; NaN with fewer than two clusters. Without clusters it is std / sqrt(n).

    Raises:
        ValueError: values and clusters differ in length.
    """
    value_N, cluster_N = _scored(values_N, clusters_N)
    clusters = int(cluster_N.max(initial=-1)) + 1
    if clusters < 2:
        return NAN
    sum_C = np.bincount(cluster_N, weights=value_N - value_N.mean())
    return sqrt(clusters / (clusters - 1) * float((sum_C**2).sum())) / len(value_N)


def pairs_needed(win_rate: float, power: float = 0.8, level: float = 0.95) -> int:
    """Comparisons needed to tell a win rate from 1/2, by the normal approximation.

        ceil(((z_level / 2 + z_power sqrt(p(1-p))) / (p - 1/2))^2)

    Args:
        win_rate: p, the rate one hopes to find, 0..1.
        power: chance to find it.
        level: of the two-sided test.

    Returns: 783 for 55%, 194 for 60%, 85 for 65%.

    Raises:
        ValueError: the win rate is 1/2, which no number of pairs tells from 1/2, or a number is outside 0..1.
    """
    if not 0 <= win_rate <= 1 or win_rate == 0.5:
        raise ValueError(f"the win rate is {win_rate}; expected a number from 0 to 1 that is not 1/2")
    if not 0 < power < 1:
        raise ValueError(f"the power is {power}; expected a number between 0 and 1")
    z_power = NormalDist().inv_cdf(power)
    return ceil(((deviations(level) / 2 + z_power * sqrt(win_rate * (1 - win_rate))) / (win_rate - 0.5)) ** 2)


def binomial_test(k: int, n: int, p: float = 0.5) -> float:
    """Two-sided exact test of k successes in n trials, by the method of small probabilities.

        sum of P(i) over all i with P(i) <= P(k) (1 + 1e-7)

    Args:
        k: successes, 0..n.
        n: trials.
        p: chance of a success if nothing is going on, 0..1.

    Returns: the p-value; 1 for n = 0.

    Raises:
        ValueError: k lies outside 0..n, or p outside 0..1.
    """
    from scipy.special import gammaln, xlog1py, xlogy

    if not 0 <= k <= n or k != int(k) or n != int(n):
        raise ValueError(f"{k} successes of {n} trials; expected whole numbers, the first from 0 to the second")
    if not 0 <= p <= 1:
        raise ValueError(f"p is {p}; expected a chance from 0 to 1")
    i = np.arange(n + 1)
    log_I = gammaln(n + 1) - gammaln(i + 1) - gammaln(n - i + 1) + xlogy(i, p) + xlog1py(n - i, -p)
    probability_I = np.exp(log_I)
    return min(1.0, float(probability_I[probability_I <= probability_I[int(k)] * (1 + 1e-7)].sum()))


def benjamini_hochberg(p_values: ArrayLike, q: float = 0.05) -> NDArray[np.bool_]:
    """Which of several findings to keep so that on average at most a share q of them is false (their paper of 1995).

        True for all p up to the largest p_(k) <= q k / m

    Args:
        p_values: (m,) 0..1; a test that could not be made is NaN, does not count, and is False.
        q: false discovery rate.

    Returns: (m,) bool.

    Raises:
        ValueError: a p-value or q lies outside 0..1.
    """
    p_N = floats("p_values", p_values)
    between("p_values", p_N, 0, 1)
    if not 0 <= q <= 1:
        raise ValueError(f"q is {q}; expected a rate from 0 to 1")
    sorted_N = np.sort(p_N[~np.isnan(p_N)])
    passed = np.flatnonzero(sorted_N <= q * np.arange(1, len(sorted_N) + 1) / max(len(sorted_N), 1))
    return p_N <= sorted_N[passed[-1]] if len(passed) else np.zeros(p_N.shape, dtype=bool)


def _bootstrap_mean(value_N: Floats, cluster_N: Ints, replicates: int, level: float, seed: int) -> Interval:
    sum_C = np.bincount(cluster_N, weights=value_N)
    rows_C = np.bincount(cluster_N)
    if len(rows_C) < 2:
        return percentiles(np.empty(0), level)
    mean_R = [
        sum_C[draw_RC].sum(axis=1) / rows_C[draw_RC].sum(axis=1)
        for draw_RC in cluster_draws(len(rows_C), replicates, seed)
    ]
    return percentiles(np.concatenate([*mean_R, np.empty(0)]), level)


def _scored(values_N: ArrayLike, clusters_N: Clusters | None) -> tuple[Floats, Ints]:
    """Drop the rows without a value, then number the clusters of the others by first appearance."""
    value_N = floats("values_N", values_N)
    kept_N = ~np.isnan(value_N)
    return value_N[kept_N], cluster_numbers(clusters_N, kept_N)
