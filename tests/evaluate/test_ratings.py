import math

import numpy as np
import pytest

from accord.evaluate.ratings import bradley_terry, bradley_terry_ci, elo, rank_from_intervals


def season(games=600, seed=0):
    """Four models 100 points apart, prompts of three games each."""
    rng = np.random.default_rng(seed)
    rating = np.array([1000.0, 1100.0, 1200.0, 1300.0])
    first, step = rng.integers(0, 4, games), rng.integers(1, 4, games)
    second = (first + step) % 4
    chance = 1 / (1 + 10 ** ((rating[second] - rating[first]) / 400))
    return first, second, (rng.random(games) < chance).astype(float), np.repeat(np.arange(games // 3), 3)


def test_strengths_are_recovered_within_their_intervals():
    first, second, outcome, prompt = season(6000)
    found = bradley_terry(first, second, outcome, 4)
    assert found.rating_M == pytest.approx([1000, 1100, 1200, 1300], abs=30)
    low, high = bradley_terry_ci(first, second, outcome, 4, clusters_G=prompt, replicates=60)
    assert low[0] == high[0] == 1000  # the anchor
    assert ((low < found.rating_M) & (found.rating_M < high))[1:].all()
    assert rank_from_intervals(low, high).tolist() == [4, 3, 2, 1]


def test_turning_every_game_round_changes_nothing_and_turning_every_outcome_turns_the_ratings():
    first, second, outcome, _ = season()
    rating = bradley_terry(first, second, outcome, 4).rating_M - 1000
    assert bradley_terry(second, first, 1 - outcome, 4).rating_M - 1000 == pytest.approx(rating)
    assert bradley_terry(first, second, 1 - outcome, 4).rating_M - 1000 == pytest.approx(-rating)
    assert elo(first, second, 1 - outcome, 4) - 1000 != pytest.approx(elo(first, second, outcome, 4) - 1000)
    assert elo(second, first, 1 - outcome, 4) == pytest.approx(elo(first, second, outcome, 4))


def test_a_weight_is_so_many_games_and_order_means_nothing():
    first, second, outcome, _ = season(90)
    weight = np.random.default_rng(1).integers(0, 4, 90)
    rows = np.random.default_rng(2).permutation(np.repeat(np.arange(90), weight))
    once = bradley_terry(first, second, outcome, 4, weights_G=weight.astype(float))
    assert bradley_terry(first[rows], second[rows], outcome[rows], 4).rating_M == pytest.approx(once.rating_M)


def test_the_likelihood_is_that_of_the_games():
    """One game of two: sigma(s0 - s1), and the ridge is not in it."""
    found = bradley_terry([0], [1], [1.0], 2, l2=0.5)
    gap = found.log_strength_M[0] - found.log_strength_M[1]
    assert found.log_likelihood == pytest.approx(-math.log1p(math.exp(-gap)))
    assert 1 - 1 / (1 + math.exp(-gap)) == pytest.approx(0.5 * gap / 2)  # slope of the likelihood = pull of the ridge


def test_unscored_games_are_left_out():
    found = bradley_terry([0, 0, 1], [1, 2, 2], [0.5, math.nan, math.nan], 3)
    assert found.component_M.tolist() == [0, 0, 2]
    assert math.isnan(found.rating_M[2])
    assert elo([0], [1], [math.nan], 2).tolist() == [1000, 1000]


def test_a_tie_bounds_what_a_row_of_wins_does_not():
    assert not bradley_terry([0, 0], [1, 1], [1, 1], 2).bounded_M.any()
    assert bradley_terry([0, 0], [1, 1], [1, 0.5], 2).bounded_M.all()


def test_elo_by_hand():
    """Equal models, k = 4: the winner takes 2; then it expects a little more than a half."""
    assert elo([0], [1], [1.0], 3).tolist() == [1002, 998, 1000]
    expected = 1 / (1 + 10 ** (-4 / 400))
    assert elo([0, 0], [1, 1], [1.0, 1.0], 2)[0] == pytest.approx(1002 + 4 * (1 - expected))


def test_overlapping_intervals_share_a_place():
    assert rank_from_intervals([0, 5, 20], [10, 15, 30]).tolist() == [2, 2, 1]
    assert rank_from_intervals([0, math.nan], [1, math.nan]).tolist() == [1, 0]


def test_one_prompt_has_no_interval_and_a_loner_none_either():
    low, high = bradley_terry_ci([0, 0], [1, 1], [1, 0], 2, clusters_G=["p", "p"])
    assert np.isnan([*low, *high]).all()
    low, _ = bradley_terry_ci([0, 0, 1], [1, 1, 0], [1, 0, 0.5], 3, replicates=20)
    assert np.isnan(low).tolist() == [False, False, True]


def test_without_draws_there_is_no_interval():
    ends = bradley_terry_ci([0, 0], [1, 1], [1.0, 0.0], 2, replicates=0)
    assert np.isnan(ends).all()


def test_what_is_refused():
    for change in ({"num_models": 1}, {"anchor": 2}, {"l2": -1}, {"base": 1}, {"weights_G": [-1.0]}):
        with pytest.raises(ValueError, match="expected"):
            bradley_terry(**{"first_G": [0], "second_G": [1], "outcome_G": [1.0], "num_models": 2} | change)
