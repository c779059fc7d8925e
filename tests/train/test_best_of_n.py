"""The best of n: the estimator against every subset, its limits, and the table."""

import math
from itertools import combinations
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.train.best_of_n import best_of_n, expected_best

scores = st.lists(st.floats(-10, 10), min_size=1, max_size=7)


@given(scores, st.data())
def test_the_estimator_is_the_mean_over_all_subsets(score_K, data):
    n = data.draw(st.integers(1, len(score_K)))
    brute = fmean(max(subset) for subset in combinations(score_K, n))
    assert expected_best(score_K, n) == pytest.approx(brute, abs=1e-9)


def test_by_hand():
    """Of 1, 2, 4 the six ordered pairs' maxima are 2, 4, 4."""
    assert expected_best([4.0, 1.0, 2.0], 1) == pytest.approx(7 / 3)
    assert expected_best([4.0, 1.0, 2.0], 2) == pytest.approx(10 / 3)
    assert expected_best([4.0, 1.0, 2.0], 3) == 4
    assert expected_best([0.5] * 64, 32) == 0.5  # binomials of 18 digits cancel


def test_it_is_unbiased():
    """Of coins that score 1 with probability 0.3 the best of 2 is 1 - 0.7^2, whatever K is, 2 included."""
    draws = [(k, 0.3**k * 0.7 ** (4 - k) * math.comb(4, k)) for k in range(5)]
    expected = sum(p * expected_best([1.0] * ones + [0.0] * (4 - ones), 2) for ones, p in draws)
    assert expected == pytest.approx(1 - 0.7**2)


def test_a_number_that_cannot_be_told_is_refused():
    for n in (0, 4):
        with pytest.raises(ValueError, match=f"the best of {n} cannot be told from 3 scores; ask for 1 to 3"):
            expected_best([1.0, 2.0, 3.0], n)


def test_the_table_by_hand():
    """K = 6: n = 1, 2, 4 and 6; prompts with maxima 1 and 3 have mean 2 and deviation sqrt 2, so +- 1.96."""
    table = best_of_n([[1.0, 0, 0, 0, 0, 0], [3.0, 0, 0, 0, 0, 0]])
    assert [row.n for row in table] == [1, 2, 4, 6]
    assert [row.reward for row in table] == pytest.approx([2 * n / 6 for n in (1, 2, 4, 6)])
    assert (table[-1].lo, table[-1].hi) == pytest.approx((2 - 1.95996, 2 + 1.95996), abs=1e-4)
    half = 1.95996 * stdev([1 / 3, 1.0]) / math.sqrt(2)
    assert table[1].hi - table[1].reward == pytest.approx(half, abs=1e-5)
    assert [row.kl_bound for row in table] == pytest.approx([0, 0.1931, 0.6363, math.log(6) - 5 / 6], abs=1e-4)


def test_one_prompt_has_no_interval_and_one_response_no_choice():
    (only,) = best_of_n([[0.25]])
    assert only == (1, 0.25, None, None, 0.0)
    assert [row.n for row in best_of_n([[0.0] * 8] * 2)] == [1, 2, 4, 8]
