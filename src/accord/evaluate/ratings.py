"""Ratings of several models from games between two of them.

Suffixes: G games, M models, R replicates. A game that was not scored is NaN and left out.
"""

from __future__ import annotations

from math import log
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accord.evaluate._arrays import NAN, Clusters, Floats, Ints, between, cluster_numbers, floats, integers, same_length
from accord.evaluate._bootstrap import cluster_counts, percentiles

__all__ = ["BradleyTerry", "bradley_terry", "bradley_terry_ci", "elo", "rank_from_intervals"]


class BradleyTerry(NamedTuple):
    """Strengths of models.

    Attributes:
        rating_M: on the Elo scale; NaN for models that no chain of games joins to the anchor.
        log_strength_M: nats, s; only differences inside a component mean something.
        component_M: smallest model index that is reachable through games.
        bounded_M: whether the games bound the rating. False: inside its component some model never lost or never won
            against the rest, and the number is the ridge's doing; print "too few games" instead.
        log_likelihood: nats, of the games, without the ridge.
    """

    rating_M: Floats
    log_strength_M: Floats
    component_M: Ints
    bounded_M: NDArray[np.bool_]
    log_likelihood: float


class _Games(NamedTuple):
    """Scored games."""

    first: Ints
    second: Ints
    outcome: Floats
    weight: Floats
    kept: NDArray[np.bool_]

    def wins(self, weight: Floats, models: int) -> Floats:
        """(M, M) weight with which i won against j."""
        size = models * models
        won = np.bincount(self.first * models + self.second, weights=weight * self.outcome, minlength=size)
        lost = np.bincount(self.second * models + self.first, weights=weight * (1 - self.outcome), minlength=size)
        return np.asarray(won + lost, dtype=np.float64).reshape(models, models)


def bradley_terry(  # noqa: PLR0913 - the scale is three numbers, as everywhere in the field
    first_G: ArrayLike,
    second_G: ArrayLike,
    outcome_G: ArrayLike,
    num_models: int,
    weights_G: ArrayLike | None = None,
    l2: float = 1e-3,
    anchor: int = 0,
    start: float = 1000.0,
    scale: float = 400.0,
    base: float = 10.0,
) -> BradleyTerry:
    """Strengths from games in any order (Bradley & Terry 1952), with a small ridge.

        minimise -sum w [y log sigma(s_a - s_b) + (1 - y) log sigma(s_b - s_a)] + l2/2 sum s^2
        rating = start + (s - s_anchor) scale / ln(base)

    Args:
        first_G: (G,) model of each game, 0..num_models-1.
        second_G: (G,) its opponent.
        outcome_G: (G,) 1 the first won, 0 the second, 1/2 a tie, or a probability; NaN unscored, left out.
        num_models: M.
        weights_G: (G,) what each game weighs, >= 0; 1 when None.
        l2: >= 0, 1/nat^2.
        anchor: the model that is rated `start`.
        start: of the anchor.
        scale: rating points per factor `base` in odds.
        base: > 1.

    Returns: a `BradleyTerry`. 75% wins is 190.85 points.

    Raises:
        ValueError: lengths differ, a model out of range or against itself, an outcome outside 0..1, a negative weight.
    """
    games = _games(first_G, second_G, outcome_G, num_models, weights_G)
    _check_scale(num_models, l2, anchor, scale, base)
    wins_MM = games.wins(games.weight, num_models)
    strength_M = _fit(wins_MM, l2)
    component_M, bounded_M = _components(wins_MM)
    rating_M = _ratings(strength_M, component_M, anchor, start, scale / log(base))
    log_likelihood = 0.0 - float((wins_MM * np.logaddexp(0, strength_M - strength_M[:, None])).sum())
    return BradleyTerry(rating_M, strength_M, component_M, bounded_M, log_likelihood)


def bradley_terry_ci(  # noqa: PLR0913 - the arguments of `bradley_terry` and of a bootstrap
    first_G: ArrayLike,
    second_G: ArrayLike,
    outcome_G: ArrayLike,
    num_models: int,
    weights_G: ArrayLike | None = None,
    l2: float = 1e-3,
    anchor: int = 0,
    start: float = 1000.0,
    scale: float = 400.0,
    base: float = 10.0,
    clusters_G: Clusters | None = None,
    replicates: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[Floats, Floats]:
    """Percentile intervals of the ratings: prompts are drawn with all their games, and the fit is made again.

    Args:
        first_G: (G,) as in `bradley_terry`, likewise all down to `base`.
        second_G: (G,).
        outcome_G: (G,).
        num_models: M.
        weights_G: (G,).
        l2: ridge.
        anchor: its interval has no width: the others are distances from it.
        start: of the anchor.
        scale: rating points per factor `base` in odds.
        base: > 1.
        clusters_G: (G,) the prompt of each game; every game its own when None.
        replicates: draws.
        level: coverage.
        seed: of the bootstrap.

    Returns: low_M and high_M; (nan, nan) with fewer than two prompts, without replicates, and where a model was not
        joined to the anchor in over 10% of the draws.

    Raises:
        ValueError: as `bradley_terry`, or games and clusters differ in length.
    """
    games = _games(first_G, second_G, outcome_G, num_models, weights_G)
    _check_scale(num_models, l2, anchor, scale, base)
    cluster_G = cluster_numbers(clusters_G, games.kept)
    count = int(cluster_G.max(initial=-1)) + 1
    rating_RM = np.full((0, num_models), NAN)
    if count >= 2 and replicates:
        rating_RM = np.stack(
            [
                _replicate(
                    games.wins(games.weight * count_C[cluster_G], num_models), l2, anchor, start, scale / log(base)
                )
                for count_RC in cluster_counts(count, replicates, seed)
                for count_C in count_RC
            ]
        )
    interval_M = [percentiles(rating_R, level) for rating_R in rating_RM.T]
    return np.array([interval.low for interval in interval_M]), np.array([interval.high for interval in interval_M])


def elo(
    first_G: ArrayLike,
    second_G: ArrayLike,
    outcome_G: ArrayLike,
    num_models: int,
    k: float = 4.0,
    start: float = 1000.0,
    scale: float = 400.0,
    base: float = 10.0,
) -> Floats:
    """Ratings updated game by game, in the given order (Elo 1978): for live display; `bradley_terry` has no order.

        r_a += k (y - e),   r_b -= k (y - e),   e = 1 / (1 + base^((r_b - r_a) / scale))

    Args:
        first_G: (G,) model of each game, 0..num_models-1.
        second_G: (G,) its opponent.
        outcome_G: (G,) 1 the first won, 0 the second, 1/2 a tie; NaN changes nothing.
        num_models: M.
        k: points at stake.
        start: of every model.
        scale: rating points per factor `base` in odds.
        base: > 1.

    Returns: (M,) ratings, whose mean stays `start`.

    Raises:
        ValueError: lengths differ, a model out of range or against itself, or an outcome outside 0..1.
    """
    games = _games(first_G, second_G, outcome_G, num_models, None)
    rating = [float(start)] * num_models
    for a, b, y in zip(games.first.tolist(), games.second.tolist(), games.outcome.tolist(), strict=True):
        expected = 1 / (1 + base ** ((rating[b] - rating[a]) / scale))
        rating[a] += k * (y - expected)
        rating[b] -= k * (y - expected)
    return np.array(rating)


def rank_from_intervals(low_M: ArrayLike, high_M: ArrayLike) -> Ints:
    """Places that claim no more than the intervals do.

        1 + number of models whose low exceeds my high

    Args:
        low_M: (M,) lower ends.
        high_M: (M,) upper ends.

    Returns: (M,) from 1; 0, no place, where there is no interval (NaN). Overlapping models share a place.

    Raises:
        ValueError: lengths differ, or an interval is upside down.
    """
    low, high = floats("low_M", low_M), floats("high_M", high_M)
    same_length(low_M=low, high_M=high)
    if (low > high).any():
        raise ValueError("an interval of `low_M`, `high_M` ends below its beginning; expected low <= high")
    above_M = (low[None, :] > high[:, None]).sum(axis=1)
    return np.where(np.isnan(low) | np.isnan(high), 0, 1 + above_M)


def _games(
    first_G: ArrayLike, second_G: ArrayLike, outcome_G: ArrayLike, num_models: int, weights_G: ArrayLike | None
) -> _Games:
    first, second = integers("first_G", first_G, num_models), integers("second_G", second_G, num_models)
    outcome = floats("outcome_G", outcome_G)
    weight = np.ones(len(outcome)) if weights_G is None else floats("weights_G", weights_G)
    same_length(first_G=first, second_G=second, outcome_G=outcome, weights_G=weight)
    between("outcome_G", outcome, 0, 1)
    if not (weight >= 0).all():
        raise ValueError(f"`weights_G` holds {weight[~(weight >= 0)][0]:g}; expected weights of at least 0")
    if (first == second).any():
        game = int(np.flatnonzero(first == second)[0])
        raise ValueError(f"game {game} is model {first[game]} against itself; expected two models; leave it out")
    kept = ~np.isnan(outcome)
    return _Games(first[kept], second[kept], outcome[kept], weight[kept], kept)


def _check_scale(num_models: int, l2: float, anchor: int, scale: float, base: float) -> None:
    if not 0 <= anchor < num_models:
        raise ValueError(f"the anchor is {anchor}; expected a model from 0 to {num_models - 1}")
    if l2 < 0 or scale <= 0 or base <= 1:
        raise ValueError(f"l2 {l2}, scale {scale}, base {base}; expected l2 >= 0, scale > 0 and base > 1")


def _fit(wins_MM: Floats, l2: float) -> Floats:
    """Newton steps, halved while they make the loss larger; the loss is convex."""
    from scipy.special import expit

    def loss(strength_M: Floats) -> float:
        likelihood = (wins_MM * np.logaddexp(0, strength_M - strength_M[:, None])).sum()
        return float(likelihood + l2 / 2 * (strength_M**2).sum())

    games_MM = wins_MM + wins_MM.T
    strength_M = np.zeros(len(wins_MM))
    now = loss(strength_M)
    for _ in range(200):
        p_MM = expit(strength_M[:, None] - strength_M)
        slope_M = (wins_MM.T * p_MM - wins_MM * (1 - p_MM)).sum(axis=1) + l2 * strength_M
        bend_MM = games_MM * p_MM * (1 - p_MM)
        hessian_MM = np.diag(bend_MM.sum(axis=1) + l2) - bend_MM
        step_M = np.linalg.solve(hessian_MM, slope_M) if l2 else np.linalg.lstsq(hessian_MM, slope_M, rcond=None)[0]
        for _ in range(40):
            then = loss(strength_M - step_M)
            if then <= now + 1e-13 * abs(now):
                break
            step_M = step_M / 2
        strength_M, now = strength_M - step_M, then
        if np.abs(step_M).max() <= 1e-12 * (1 + np.abs(strength_M).max()):
            break
    return strength_M


def _components(wins_MM: Floats) -> tuple[Ints, NDArray[np.bool_]]:
    """Smallest model of each component of games, and whether "won or tied against" joins all of it both ways."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    won = csr_array(wins_MM > 0)
    _, weak_M = connected_components(won, directed=True, connection="weak")
    _, strong_M = connected_components(won, directed=True, connection="strong")
    smallest = np.full(len(wins_MM), len(wins_MM))
    np.minimum.at(smallest, weak_M, np.arange(len(wins_MM)))
    return smallest[weak_M].astype(np.intp), np.bincount(weak_M)[weak_M] == np.bincount(strong_M)[strong_M]


def _replicate(wins_MM: Floats, l2: float, anchor: int, start: float, points: float) -> Floats:
    return _ratings(_fit(wins_MM, l2), _components(wins_MM)[0], anchor, start, points)


def _ratings(strength_M: Floats, component_M: Ints, anchor: int, start: float, points: float) -> Floats:
    rating_M = start + (strength_M - strength_M[anchor]) * points
    return np.where(component_M == component_M[anchor], rating_M, NAN)
