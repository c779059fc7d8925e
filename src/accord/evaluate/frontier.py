"""Reward against distance from the reference: what a method gains within a budget of KL.

Suffixes: N sequences, T tokens, M checkpoints.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from accord.evaluate._arrays import NAN, Floats, floats, one_of, same_length
from accord.evaluate.intervals import mean_result
from accord.evaluate.result import Result, of_amounts

__all__ = ["Frontier", "frontier", "sequence_kl"]

_FLOOR = -20.0  # nats; exp(20) is already far beyond what a mean of k3 can tell


class Frontier(NamedTuple):
    """What a family of checkpoints reaches.

    Attributes:
        pareto: indices of checkpoints that none beats, by rising KL; -1 is the reference.
        hull_kl: nats, corners of the least concave majorant of these.
        hull_reward: reward units, at the corners.
        area: reward units, mean gain over the reference within a budget of up to kl_max; NaN for kl_max = 0.
        kl_max: nats.
        n_negative: checkpoints whose KL estimate was negative and was taken as 0.
    """

    pareto: tuple[int, ...]
    hull_kl: Floats
    hull_reward: Floats
    area: float
    kl_max: float
    n_negative: int


def sequence_kl(
    logprob_policy_NT: ArrayLike,
    logprob_reference_NT: ArrayLike,
    mask_NT: ArrayLike,
    estimator: Literal["k1", "k3"] = "k1",
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Result:
    """KL(policy || reference) of whole responses, from samples of the policy: the sum over tokens, the mean over rows.

        d = log policy - log reference,   k1 = d,   k3 = exp(-d) - 1 + d with d >= -20

    Never a mean over tokens: a response has to pay for its length (estimators: Schulman 2020, "Approximating KL").

    Args:
        logprob_policy_NT: (N, T) nats, of the sampled tokens; under mask False anything, NaN too.
        logprob_reference_NT: (N, T) nats.
        mask_NT: (N, T) bool, response tokens.
        estimator: k1 is unbiased and may be negative for a sequence; k3 never is, has a heavy tail, and is unbiased
            but for the floor.
        replicates: draws over sequences; 0 for no interval.
        level: coverage.
        seed: of the bootstrap.

    Returns: nats; detail: estimator, clearly_negative (the interval ends below 0, which no KL does: sampling and
        scoring used another temperature or template). A NaN under mask True makes the sequence unscored.

    Raises:
        ValueError: shapes differ, or an unknown estimator.
    """
    one_of("estimator", estimator, ("k1", "k3"))
    policy, reference = (
        floats("logprob_policy_NT", logprob_policy_NT, 2),
        floats("logprob_reference_NT", logprob_reference_NT, 2),
    )
    mask = np.asarray(mask_NT, dtype=bool)
    if not policy.shape == reference.shape == mask.shape:
        raise ValueError(f"shapes {policy.shape}, {reference.shape} and mask {mask.shape}; expected the same")
    with np.errstate(invalid="ignore"):
        d_NT = np.where(mask, policy - reference, 0.0)
    if estimator == "k3":
        d_NT = np.maximum(d_NT, _FLOOR)
        d_NT = np.expm1(-d_NT) + d_NT
    result = of_amounts(mean_result(d_NT.sum(axis=1), None, replicates, level, seed, estimator=estimator))
    negative = result.ci is not None and result.ci[1] < 0
    return replace(result, detail=result.detail | {"clearly_negative": negative})


def frontier(kl_M: ArrayLike, reward_M: ArrayLike, reward_at_zero: float, kl_max: float | None = None) -> Frontier:
    """The checkpoints no other beats, their concave hull, and the mean gain under it.

        area = 1/kl_max * integral from 0 to kl_max of (hull - reward_at_zero)

    Points are (max(kl, 0), reward) and the reference (0, reward_at_zero). One beats another with KL <= and reward >=,
    one of them strictly; of equal points the first stays. Points on or under a chord of the hull are no corners, and
    behind the last corner the hull is level.

    Args:
        kl_M: (M,) nats, `sequence_kl` of each checkpoint; a NaN in either drops the checkpoint.
        reward_M: (M,) reward units, gold if there is one.
        reward_at_zero: of the reference.
        kl_max: nats; the largest KL among the points when None. Compare methods at a common one, the smallest of
            their largest.

    Returns: a `Frontier`. Adding a point that is beaten changes nothing; doubling the rewards doubles the area.

    Raises:
        ValueError: lengths differ, or a negative kl_max, or the reference has no reward.
    """
    kl, reward = floats("kl_M", kl_M), floats("reward_M", reward_M)
    same_length(kl_M=kl, reward_M=reward)
    if not np.isfinite(reward_at_zero) or (kl_max is not None and not kl_max >= 0):
        raise ValueError(f"reward_at_zero {reward_at_zero}, kl_max {kl_max}; expected a number, and at least 0")
    kept = np.flatnonzero(~(np.isnan(kl) | np.isnan(reward)))
    point_kl = np.concatenate([[0.0], np.maximum(kl[kept], 0.0)])
    point_reward = np.concatenate([[float(reward_at_zero)], reward[kept]])
    index = np.concatenate([[-1], kept])
    best: list[int] = []
    for point in np.lexsort((index, -point_reward, point_kl)).tolist():
        if not best or point_reward[point] > point_reward[best[-1]]:
            best.append(point)
    corners: list[int] = []
    for point in best:
        while len(corners) >= 2 and not _above(corners[-2], corners[-1], point, point_kl, point_reward):
            corners.pop()
        corners.append(point)
    limit = float(point_kl.max()) if kl_max is None else float(kl_max)
    hull_kl, hull_reward = point_kl[corners], point_reward[corners]
    return Frontier(
        pareto=tuple(int(index[point]) for point in best),
        hull_kl=hull_kl,
        hull_reward=hull_reward,
        area=_mean_height(hull_kl, hull_reward - reward_at_zero, limit),
        kl_max=limit,
        n_negative=int((kl[kept] < 0).sum()),
    )


def _above(left: int, middle: int, right: int, x: Floats, y: Floats) -> bool:
    """Whether the middle point lies above the chord of the other two."""
    rise, run = (y[right] - y[left]) * (x[middle] - x[left]), (y[middle] - y[left]) * (x[right] - x[left])
    return bool(run > rise and not np.isclose(run, rise, rtol=1e-12, atol=0))


def _mean_height(x: Floats, y: Floats, limit: float) -> float:
    """Mean from 0 to the limit of the polygon through the corners, level behind the last."""
    if limit == 0:
        return NAN
    at = np.concatenate([x[x < limit], [limit]])
    height = np.interp(at, x, y)
    return float((np.diff(at) * (height[1:] + height[:-1]) / 2).sum() / limit)
