import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from accord.evaluate.hacking import correlation_within, distinct_n, length_report, repeated_ngrams, within_length_gain

NAN = math.nan


def test_long_prompts_do_not_look_like_a_length_bias():
    """Rewards and lengths that only differ between prompts: correlated over all, not within a prompt."""
    rng = np.random.default_rng(0)
    prompt = np.repeat(np.arange(50), 4)
    length = 100 + 10 * prompt + rng.normal(0, 5, 200)
    found = length_report(0.02 * prompt + rng.normal(0, 0.1, 200), length, prompt)
    assert found.pearson > 0.8
    assert abs(found.within_prompt) < 0.2


def test_slope_by_hand_and_ranks():
    found = length_report([0.0, 1.0, 5.0, 5.5], [10, 60, 100, 125], ["p", "p", "q", "q"])
    assert found.slope_per_100 == pytest.approx(2.0)
    assert found.within_prompt == pytest.approx(1.0)
    assert found.spearman == pytest.approx(1.0)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=20))
def test_spearman_is_scipys(pairs):
    reward, length = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    found = length_report(reward, length, np.arange(len(pairs))).spearman
    if np.ptp(reward) and np.ptp(length):
        assert found == pytest.approx(spearmanr(reward, length).statistic)
    else:
        assert math.isnan(found)


def test_a_constant_side_has_no_correlation():
    found = length_report([0.1, 0.1, 0.1], [1.0, 2.0, 3.0], ["p", "p", "q"])
    assert all(map(math.isnan, found[:3]))
    assert found.slope_per_100 == 0
    assert length_report([NAN], [1.0], ["p"]).n == 0


def test_a_gain_that_is_only_length():
    """Reward is length / 100 and the policy writes 60 more: nothing is gained at equal length."""
    before = np.arange(0, 200, 2.0)
    found = within_length_gain(before / 100, before, (before + 60) / 100, before + 60)
    assert found.total == pytest.approx(0.6)
    assert found.within == pytest.approx(0, abs=1e-12)
    better = within_length_gain(before / 100, before, before / 100 + 0.6, before)
    assert (better.within, better.share, better.covered) == (pytest.approx(0.6), pytest.approx(1), 1)


def test_no_common_length():
    found = within_length_gain([1.0], [5.0], [2.0], [500.0])
    assert (found.total, found.covered) == (1.0, 0.0)
    assert math.isnan(found.within)
    assert all(map(math.isnan, within_length_gain([NAN], [1.0], [1.0], [1.0])))


def test_repetition_by_hand():
    """a b a b a b: five bigrams, two distinct."""
    assert repeated_ngrams("a b a b a b", 2) == pytest.approx(3 / 5)
    assert repeated_ngrams("one two three four five") == 0
    assert distinct_n(["a b a b a b"]) == pytest.approx(2 / 5)
    assert distinct_n(["a b", "b a"]) == 1  # no bigram across texts
    assert math.isnan(distinct_n(["one", ""]))
    with pytest.raises(ValueError, match="1 word"):
        repeated_ngrams("a", 0)
    with pytest.raises(ValueError, match="several texts"):
        distinct_n("a b a b")


def test_the_correlation_within_prompts_is_that_of_the_report_with_an_interval_over_prompts():
    rng = np.random.default_rng(0)
    prompt_N = np.repeat(np.arange(40), 4)
    items_N = rng.integers(0, 4, 160).astype(float)  # list items, say
    reward_N = 0.8 * items_N + 5 * prompt_N + rng.normal(size=160)  # long prompts explain nothing here
    reward_N[3] = math.nan
    found = correlation_within(reward_N, items_N, prompt_N, replicates=500)
    assert found.value == pytest.approx(length_report(reward_N, items_N, prompt_N).within_prompt)
    assert found.ci is not None
    assert 0.3 < found.ci[0] < found.value < found.ci[1] < 0.9
    assert (found.n, found.n_unscored, found.clusters) == (159, 1, 40)
    assert correlation_within(-reward_N, items_N, prompt_N, 500).value == pytest.approx(-found.value)


def test_a_form_that_no_response_has_correlates_with_nothing():
    found = correlation_within([1.0, 2.0, 3.0, 4.0], [0.0] * 4, [0, 0, 1, 1])
    assert math.isnan(found.value)
    assert found.ci is None
