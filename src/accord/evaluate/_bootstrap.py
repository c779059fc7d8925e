"""What every bootstrap here is made of: draws of whole clusters, and percentiles of the replicates.

Suffixes: C clusters, R replicates.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from accord.evaluate._arrays import NAN, Floats, Ints

_DRAWS_AT_ONCE = 1 << 22  # 32 MiB of cluster numbers


class Interval(NamedTuple):
    """Both ends of an interval, in the unit of what was measured; (nan, nan) where there is none."""

    low: float
    high: float


NO_INTERVAL = Interval(NAN, NAN)


def cluster_draws(clusters: int, replicates: int, seed: int) -> Iterator[Ints]:
    """The rows of `default_rng(seed).integers(0, C, size=(replicates, C))`, in parts that fit the memory.

    The generator keeps its place between parts, so the parts hold the same numbers as one draw would.

    Raises:
        ValueError: a negative number of replicates.
    """
    if replicates < 0:
        raise ValueError(f"{replicates} replicates; expected 0 for no interval, or more")
    rng = np.random.default_rng(seed)
    rows = max(1, _DRAWS_AT_ONCE // max(clusters, 1))
    for start in range(0, replicates, rows):
        yield rng.integers(0, clusters, size=(min(rows, replicates - start), clusters))


def cluster_counts(clusters: int, replicates: int, seed: int) -> Iterator[Ints]:
    """How often each cluster was drawn, (R, C) in parts: `cluster_draws` for statistics that take weights."""
    for draw_RC in cluster_draws(clusters, replicates, seed):
        offset_R1 = np.arange(len(draw_RC))[:, None] * clusters
        yield np.bincount((draw_RC + offset_R1).ravel(), minlength=draw_RC.size).reshape(draw_RC.shape)


def percentiles(value_R: Floats, level: float) -> Interval:
    """The percentile interval of replicates; (nan, nan) where there are none or over 10% of them are NaN."""
    deviations(level)
    defined_R = value_R[~np.isnan(value_R)]
    if not len(defined_R) or len(defined_R) < 0.9 * len(value_R):
        return NO_INTERVAL
    low, high = np.percentile(defined_R, [50 * (1 - level), 50 * (1 + level)])
    return Interval(float(low), float(high))


def deviations(level: float) -> float:
    """Standard deviations that a two-sided interval of that level reaches out."""
    if not 0 < level < 1:
        raise ValueError(f"the level is {level}; expected a share between 0 and 1, e.g. 0.95")
    return NormalDist().inv_cdf(0.5 + level / 2)
