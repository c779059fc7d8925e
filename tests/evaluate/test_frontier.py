import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.evaluate.frontier import frontier, sequence_kl

NAN = math.nan
POINTS = st.lists(st.tuples(st.integers(-1, 12), st.integers(-3, 6)), min_size=1, max_size=10)


def test_by_hand():
    """(1, 2) and (4, 3): a triangle of 1, then trapezoids of 2 to 3 over 3 nats: (1 + 7.5) / 4. (2, 1) is beaten."""
    found = frontier([1, 2, 4], [2, 1, 3], 0.0)
    assert found.pareto == (-1, 0, 2)
    assert found.area == pytest.approx((1 + 7.5) / 4)
    assert frontier([1, 2, 4], [2, 1, 3], 0.0, kl_max=8).area == pytest.approx((1 + 7.5 + 4 * 3) / 8)
    assert frontier([1, 2, 4], [2, 1, 3], 0.0, kl_max=1).area == pytest.approx(1)


def test_what_falls_under_a_chord_is_no_corner():
    found = frontier([1, 2, 3], [0.5, 1.4, 3.0], 0.0)
    assert found.pareto == (-1, 0, 1, 2)
    assert found.hull_kl.tolist() == [0, 3]


@given(POINTS, st.tuples(st.integers(0, 12), st.integers(0, 4)))
def test_a_beaten_point_changes_nothing(points, worse_by):
    kl, reward = (list(column) for column in zip(*points, strict=True))
    found = frontier(kl, reward, 0.0, kl_max=10)
    beaten = frontier([*kl, max(kl[0], 0) + worse_by[0]], [*reward, reward[0] - worse_by[1] - 1], 0.0, kl_max=10)
    assert beaten.pareto == found.pareto
    assert beaten.area == found.area


@given(POINTS, st.floats(0.1, 10), st.floats(-5, 5))
def test_scaling_rewards_scales_the_area_and_shifting_does_not(points, scale, shift):
    kl, reward = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    found = frontier(kl, reward, 0.5, kl_max=10)
    moved = frontier(kl, reward * scale + shift, 0.5 * scale + shift, kl_max=10)
    assert moved.area == pytest.approx(scale * found.area, abs=1e-9)
    assert found.area >= 0
    assert (np.diff(found.hull_kl) > 0).all()
    assert (np.diff(np.diff(found.hull_reward) / np.diff(found.hull_kl)) < 0).all()


def test_unscored_checkpoints_and_negative_kl():
    found = frontier([NAN, -0.2, 3.0], [9.0, 1.0, NAN], 0.0)
    assert (found.pareto, found.n_negative, found.kl_max) == ((1,), 1, 0.0)
    assert math.isnan(found.area)
    with pytest.raises(ValueError, match="reward_at_zero"):
        frontier([1.0], [1.0], NAN)


def test_kl_is_a_sum_over_tokens():
    """Twice the tokens, twice the KL; a mean over tokens would say the same of both."""
    policy, reference, mask = np.full((6, 8), -1.0), np.full((6, 8), -1.5), np.ones((6, 8), dtype=bool)
    mask[:3, 4:] = False
    assert sequence_kl(policy[:3], reference[:3], mask[:3], replicates=0).value == pytest.approx(2)
    assert sequence_kl(policy[3:], reference[3:], mask[3:], replicates=0).value == pytest.approx(4)


def test_both_estimators_find_the_kl_of_two_coins():
    """P(heads) .6 under the policy and .5 under the reference, 10 tokens."""
    rng = np.random.default_rng(0)
    heads = rng.random((20_000, 10)) < 0.6
    policy, reference = np.where(heads, math.log(0.6), math.log(0.4)), np.full(heads.shape, math.log(0.5))
    truth = 10 * (0.6 * math.log(1.2) + 0.4 * math.log(0.8))
    for estimator in ("k1", "k3"):
        found = sequence_kl(policy, reference, np.ones(heads.shape, dtype=bool), estimator, replicates=200)
        assert found.ci[0] < truth < found.ci[1]
        assert not found.detail["clearly_negative"]


def test_a_mean_below_zero_is_a_bug_and_is_called_one():
    policy, mask = np.random.default_rng(0).normal(-2, 0.1, (50, 4)), np.ones((50, 4), dtype=bool)
    noise = np.random.default_rng(1).normal(0, 0.1, (50, 4))
    assert not sequence_kl(policy, policy + noise - noise.mean(), mask).detail["clearly_negative"]
    assert sequence_kl(policy, policy + 0.3, mask).detail["clearly_negative"]


def test_a_lost_token_loses_its_sequence():
    found = sequence_kl([[NAN, -1.0], [-1.0, -1.0]], [[-1.0, -1.0], [-2.0, -2.0]], [[True, True]] * 2, replicates=0)
    assert (found.value, found.n, found.n_unscored) == (2.0, 1, 1)


def test_the_kl_of_a_policy_to_itself_is_no_share():
    """Equal values inside 0..1 have Wilson's interval where they are wins; a KL of 0 has not one up to .39."""
    same = np.log(np.full((6, 4), 0.5))
    found = sequence_kl(same, same, np.ones((6, 4), dtype=bool))
    assert (found.value, found.ci, found.method) == (0.0, (0.0, 0.0), "bootstrap")
