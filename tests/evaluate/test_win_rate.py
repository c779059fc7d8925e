import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.evaluate.win_rate import outcomes, win_rate


def test_win_tie_loss_by_hand():
    """Two wins, one tie, one loss, one unscored: (2 + 1/2) / 4."""
    estimate = win_rate([3.0, 2.0, 1.0, 0.0, math.nan], [1.0, 1.0, 1.0, 1.0, 1.0])
    assert estimate.value == 0.625
    assert (estimate.n, estimate.n_unscored) == (4, 1)
    assert outcomes([3.0, 1.0, 0.0], [1.0, 1.0, 1.0]).tolist() == [1.0, 0.5, 0.0]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_swapping_the_models_mirrors_the_rate(pairs):
    first, second = zip(*pairs, strict=True)
    assert win_rate(first, second).value == pytest.approx(1 - win_rate(second, first).value)


def test_a_model_against_itself_is_a_half():
    scores = np.random.default_rng(0).normal(size=12)
    estimate = win_rate(scores, scores)
    assert estimate.value == 0.5
    assert estimate.lo < 0.5 < estimate.hi  # twelve ties are not proof


def test_prompts_are_drawn_and_not_responses():
    """Prompts that win or lose all four of their pairs: the interval widens by about two once they are drawn whole."""
    score = np.repeat(np.random.default_rng(1).integers(0, 2, 40), 4)
    rows, prompts = win_rate(score, np.full(160, 0.5)), win_rate(score, np.full(160, 0.5), np.repeat(np.arange(40), 4))
    assert rows.value == prompts.value
    assert 1.6 < (prompts.hi - prompts.lo) / (rows.hi - rows.lo) < 2.4


def test_equal_infinite_scores_tie():
    assert win_rate([math.inf, -math.inf], [math.inf, -math.inf]).value == 0.5


def test_nothing_is_none():
    assert win_rate([], []).value is None
    assert win_rate([math.nan], [1.0]).value is None


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="one score of each for every pair"):
        win_rate([1.0, 2.0], [1.0])
