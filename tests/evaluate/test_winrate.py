import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize

from accord.evaluate.winrate import (
    combine_orders,
    length_controlled_win_rate,
    outcomes,
    position_flips,
    win_rate,
)

NAN = math.nan
PROBABILITIES = arrays(float, st.integers(1, 20), elements=st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0, NAN]))


def test_win_tie_loss_by_hand():
    """Two wins, one tie, one loss, one unscored: (2 + 1/2) / 4."""
    rate = win_rate(outcomes([3.0, 2.0, 1.0, 0.0, NAN], [1.0] * 5))
    assert rate.value == 0.625
    assert (rate.n, rate.n_unscored) == (4, 1)
    assert rate.detail == {"wins": 2, "ties": 1, "losses": 1}
    assert outcomes([math.inf, -math.inf], [math.inf, -math.inf]).tolist() == [0.5, 0.5]
    with pytest.raises(ValueError, match="lengths differ"):
        outcomes([1.0, 2.0], [1.0])


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_swapping_the_models_mirrors_the_rate(pairs):
    first, second = zip(*pairs, strict=True)
    rate, swapped = win_rate(outcomes(first, second)), win_rate(outcomes(second, first))
    assert rate.value == pytest.approx(1 - swapped.value)
    assert rate.detail["wins"] == swapped.detail["losses"]
    if len(pairs) > 1:
        assert rate.ci == pytest.approx((1 - swapped.ci[1], 1 - swapped.ci[0]))


@given(PROBABILITIES, st.data())
def test_swapping_the_orders_mirrors_what_they_say_together(ab, data):
    ba = data.draw(arrays(float, len(ab), elements=st.sampled_from([0.0, 0.5, 0.6, 1.0, NAN])))
    for rule in ("mean", "consistent"):
        assert combine_orders(ab, ba, rule) == pytest.approx(1 - combine_orders(ba, ab, rule), nan_ok=True)
    assert position_flips(ab, ba) == pytest.approx(position_flips(ba, ab), nan_ok=True)


def test_a_model_against_itself_is_a_half():
    scores = np.random.default_rng(0).normal(size=12)
    rate = win_rate(outcomes(scores, scores))
    assert rate.value == 0.5
    assert rate.ci[0] < 0.5 < rate.ci[1]  # twelve ties are not proof


def test_prompts_are_drawn_and_not_responses():
    """Prompts that win or lose all four of their pairs: the interval widens by about two once they are drawn whole."""
    outcome = np.repeat(np.random.default_rng(1).integers(0, 2, 40), 4)
    rows, prompts = win_rate(outcome), win_rate(outcome, np.repeat(np.arange(40), 4))
    assert rows.value == prompts.value
    width = (prompts.ci[1] - prompts.ci[0]) / (rows.ci[1] - rows.ci[0])
    assert 1.7 < width < 2.3


def test_a_judge_that_always_says_first():
    found = position_flips([1.0] * 8, [1.0] * 8)
    assert found == (1.0, 1.0, 0.0, 1.0, 1.0, 8, 0)
    assert combine_orders([1.0] * 8, [1.0] * 8).tolist() == [0.5] * 8


def test_a_consistent_judge_never_flips():
    assert position_flips([1, 0, 0.5], [0, 1, 0.5])[:5] == (0, 0, 0, 0, 0.5)
    assert position_flips([1, 0.5], [0.5, 0]).inconsistent_rate == 1  # a tie in one order only


def verbose(copies, seed=0, n=1500, bias=3.0):
    """A judge that adds to the true difference, which is none on average, for length; answers grow by a factor."""
    rng = np.random.default_rng(seed)
    baseline, model = rng.lognormal(5, 0.5, (2, n))
    model = model * copies
    preference = rng.normal(0, 1, n) + bias * np.tanh((model - baseline) / 200)
    return (preference + rng.logistic(size=n) > 0).astype(float), model, baseline


def test_verbose_copies_move_the_controlled_rate_less_than_half_as_much():
    plain, wordy = (length_controlled_win_rate(*verbose(copies), replicates=0) for copies in (1.0, 1.8))
    raw = wordy.raw.value - plain.raw.value
    controlled = wordy.controlled.value - plain.controlled.value
    assert raw > 0.15
    assert abs(controlled) < raw / 2
    assert wordy.phi > 0  # longer wins


def test_swapping_the_models_mirrors_the_controlled_rate():
    outcome, model, baseline = verbose(1.3, n=200)
    found = length_controlled_win_rate(outcome, model, baseline, replicates=80)
    swapped = length_controlled_win_rate(1 - outcome, baseline, model, replicates=80)
    assert swapped.controlled.value == pytest.approx(1 - found.controlled.value, abs=1e-9)
    assert (swapped.theta, swapped.phi) == pytest.approx((-found.theta, found.phi), abs=1e-8)
    assert swapped.controlled.ci == pytest.approx((1 - found.controlled.ci[1], 1 - found.controlled.ci[0]), abs=1e-8)
    assert found.controlled.ci[0] < found.controlled.value < found.controlled.ci[1]


def test_the_fit_is_a_minimum_in_every_replicate():
    """Against scipy's minimiser: the whole sample, and one bootstrap draw of clusters made by hand."""
    outcome, model, baseline = verbose(1.2, seed=4, n=60)
    clusters = np.repeat(np.arange(20), 3)

    def rate(rows):
        y, d = outcome[rows], (model - baseline)[rows]
        x = np.tanh(d / d.std(ddof=1))

        def loss(w):
            z = w[0] + w[1] * x
            return (np.logaddexp(0, z) - y * z).sum() + (1e-3 * w[0] ** 2 + 10 * w[1] ** 2) / 2

        return 1 / (1 + np.exp(-minimize(loss, [0, 0], method="BFGS", options={"gtol": 1e-9}).x[0]))

    found = length_controlled_win_rate(outcome, model, baseline, clusters, replicates=40, seed=3)
    assert found.controlled.value == pytest.approx(rate(np.arange(60)), abs=1e-7)
    draws = np.random.default_rng(3).integers(0, 20, size=(40, 20))
    rates = [rate(np.concatenate([np.flatnonzero(clusters == c) for c in draw])) for draw in draws]
    assert found.controlled.ci == pytest.approx(np.percentile(rates, [2.5, 97.5]), abs=1e-6)


def test_lengths_that_hardly_overlap_are_named():
    rng = np.random.default_rng(0)
    shorter = length_controlled_win_rate(rng.random(100), np.full(100, 9.0), 10 + rng.random(100), replicates=0)
    assert shorter.controlled.detail == {"extrapolated": True}
    assert length_controlled_win_rate(*verbose(1.0), replicates=0).controlled.detail == {"extrapolated": False}


def test_equal_differences_leave_the_raw_rate_and_its_interval():
    found = length_controlled_win_rate([1, 0, 1, 1, 0], [3] * 5, [1] * 5, replicates=300)
    assert found.controlled.value == found.raw.value == pytest.approx(0.6)
    assert found.phi == 0
    assert found.controlled.ci[0] < 0.6 < found.controlled.ci[1]


def test_nothing_scored_is_not_zero():
    found = length_controlled_win_rate([NAN, 1.0], [1.0, 2.0], [1.0, NAN])
    assert math.isnan(found.controlled.value)
    assert (found.raw.n, found.raw.n_unscored, found.controlled.ci) == (0, 2, None)
    assert math.isnan(found.theta)
    assert win_rate([]).n == 0


def test_every_pair_won_stays_finite():
    found = length_controlled_win_rate(np.ones(50), np.arange(50), 25 * np.ones(50), replicates=20)
    assert 0.99 < found.controlled.value < 1
    assert math.isfinite(found.theta)
