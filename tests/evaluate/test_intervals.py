import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from accord.evaluate import _bootstrap
from accord.evaluate._arrays import numbered
from accord.evaluate.intervals import (
    benjamini_hochberg,
    binomial_test,
    bootstrap,
    bootstrap_mean,
    bootstrap_several,
    clustered_standard_error,
    mean_result,
    paired_difference,
    pairs_needed,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # Newcombe 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_at_the_ends():
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 7).low == 0.0
    assert wilson(7, 7).high == 1.0
    with pytest.raises(ValueError, match="5 successes of 4 trials"):
        wilson(5, 4)


@given(st.integers(1, 200), st.data())
def test_wilson_holds_the_share_and_mirrors(n, data):
    k = data.draw(st.integers(0, n))
    low, high = wilson(k, n)
    assert 0 <= low <= k / n <= high <= 1
    assert wilson(n - k, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_bootstrap_of_two_values_by_hand():
    """Two rows, 0 and 1: a replicate's mean is 0, 1/2 or 1 with chances 1/4, 1/2, 1/4, so the interval is (0, 1)."""
    assert bootstrap_mean([0.0, 1.0]) == (0.0, 1.0)


def test_the_seed_decides():
    values = np.linspace(0, 1, 23) ** 2
    assert bootstrap_mean(values, seed=4) == bootstrap_mean(values, seed=4)
    assert bootstrap_mean(values, seed=4) != bootstrap_mean(values, seed=5)


def test_copies_of_a_prompt_add_no_certainty():
    """Each value three times under one cluster gives the interval of one each; as rows of their own, a narrower one."""
    values = np.random.default_rng(0).normal(size=30)
    once, clusters = bootstrap_mean(values), np.repeat(np.arange(30), 3)
    assert bootstrap_mean(np.repeat(values, 3), clusters) == pytest.approx(once)
    naive = bootstrap_mean(np.repeat(values, 3))
    assert naive.high - naive.low < 0.7 * (once.high - once.low)


def test_bootstrap_of_a_statistic_agrees_with_the_mean():
    values = np.random.default_rng(1).normal(size=20)
    clusters = [f"p{i // 2}" for i in range(20)]
    by_statistic = bootstrap(lambda rows: float(values[rows].mean()), clusters, replicates=300, seed=3)
    assert by_statistic == pytest.approx(bootstrap_mean(values, clusters, replicates=300, seed=3))


def test_several_statistics_have_the_intervals_that_each_has_alone():
    values, clusters = np.random.default_rng(1).normal(size=20), np.arange(20) // 2
    several = bootstrap_several(lambda rows: (values[rows].mean(), values[rows].max()), clusters, 100, seed=3)
    assert several[0] == bootstrap(lambda rows: values[rows].mean(), clusters, 100, seed=3)
    assert several[1] == bootstrap(lambda rows: values[rows].max(), clusters, 100, seed=3)


def test_bootstrap_undefined_too_often_is_nan():
    assert all(map(math.isnan, bootstrap(lambda rows: math.nan, [0, 1, 2])))
    assert all(map(math.isnan, bootstrap(lambda rows: 1.0, ["only", "only"])))


def test_a_few_undefined_draws_are_left_out_and_many_are_too_many():
    """A draw of n rows misses the first one with chance (1 - 1/n)^n, about 0.37; of 3 copies together, 0.05."""

    def first_seen(rows):
        return 1.0 if (rows % 30 == 0).any() else math.nan

    assert all(map(math.isnan, bootstrap(first_seen, np.arange(30), replicates=300)))
    assert bootstrap(first_seen, np.arange(90), replicates=300) == (1.0, 1.0)


def test_nothing_scored_is_nan_and_not_zero():
    empty, lost = mean_result([]), mean_result([math.nan, math.nan])
    assert math.isnan(empty.value)
    assert (empty.ci, empty.n, empty.n_unscored) == (None, 0, 0)
    assert (math.isnan(lost.value), lost.ci, lost.n, lost.n_unscored) == (True, None, 0, 2)


def test_unscored_rows_move_nothing():
    whole, holed = mean_result([0.1, 0.4, 0.9]), mean_result([0.1, math.nan, 0.4, 0.9], ["a", "b", "c", "d"])
    assert (whole.value, whole.ci, whole.n) == (holed.value, holed.ci, holed.n)
    assert holed.n_unscored == 1


def test_one_prompt_has_no_interval():
    found = mean_result([1.0, 0.0, 1.0], ["p", "p", "p"])
    assert found.value == pytest.approx(2 / 3)
    assert all(map(math.isnan, found.ci))
    assert (found.clusters, found.method) == (1, "none")
    assert mean_result([1.0, 0.0], replicates=0).ci is None


def test_ten_of_ten_is_not_certain():
    found = mean_result([1.0] * 10)
    assert found.ci == pytest.approx((0.7224672, 1.0))
    assert (found.method, found.seed) == ("wilson", None)
    assert mean_result([1.0] * 30, np.repeat(np.arange(10), 3)).ci == found.ci  # ten prompts, however many rows
    assert mean_result([2.0] * 10).ci == (2.0, 2.0)  # no share: nothing else to go by


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="2 clusters for 3 values"):
        mean_result([1.0, 2.0, 3.0], ["a", "b"])
    with pytest.raises(ValueError, match="lengths differ"):
        paired_difference([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="dimensions"):
        mean_result([[1.0, 2.0]])
    with pytest.raises(ValueError, match="no array of numbers"):
        mean_result(["good", "bad"])
    for values, replicates in (([1.0, 0.0], 2000), ([1.0, 0.0], 0), ([1.0], 2000), ([], 2000)):
        with pytest.raises(ValueError, match="the level is 95"):
            mean_result(values, replicates=replicates, level=95)
    for estimate in (mean_result, bootstrap_mean):
        with pytest.raises(ValueError, match="-1 replicates"):
            estimate([1.0, 0.0], replicates=-1)


def test_arguments_come_back_unchanged():
    values, clusters = np.array([1.0, math.nan, 0.0]), ["a", "b", "a"]
    mean_result(values, clusters)
    assert clusters == ["a", "b", "a"]
    assert np.array_equal(values, [1.0, math.nan, 0.0], equal_nan=True)


def test_draws_in_parts_are_the_draws_at_once(monkeypatch):
    """What is promised is one call of the generator; memory is saved without anybody noticing."""
    at_once = np.random.default_rng(5).integers(0, 37, size=(101, 37))
    monkeypatch.setattr(_bootstrap, "_DRAWS_AT_ONCE", 300)
    parts = list(_bootstrap.cluster_draws(37, 101, 5))
    assert len(parts) > 1
    assert np.array_equal(np.concatenate(parts), at_once)
    counts = np.concatenate(list(_bootstrap.cluster_counts(37, 101, 5)))
    assert np.array_equal(counts, [np.bincount(draw, minlength=37) for draw in at_once])


@given(st.lists(st.integers(-3, 3), max_size=20))
def test_clusters_are_numbered_by_first_appearance(clusters):
    order = list(dict.fromkeys(clusters))
    expected = [order.index(cluster) for cluster in clusters]
    assert numbered(clusters).tolist() == numbered(np.array(clusters, dtype=int)).tolist() == expected
    assert numbered([str(cluster) for cluster in clusters]).tolist() == expected


def test_twice_the_rows_are_surer_only_if_they_are_other_prompts():
    values = np.random.default_rng(2).normal(size=400)
    prompts = np.arange(400) // 2
    once, again = bootstrap_mean(values, prompts), bootstrap_mean(np.tile(values, 2), np.tile(prompts, 2))
    others = bootstrap_mean(np.tile(values, 2), np.concatenate([prompts, prompts + 200]))
    assert again == pytest.approx(once)
    assert (once.high - once.low) / (others.high - others.low) == pytest.approx(math.sqrt(2), rel=0.1)


def test_a_difference_turns_with_its_sides_and_loses_what_either_lost():
    a, b = [3.0, 1.0, math.nan, 2.0], [1.0, 1.0, 1.0, math.nan]
    found, turned = paired_difference(a, b), paired_difference(b, a)
    assert (found.value, found.n, found.n_unscored) == (1.0, 2, 2)
    assert turned.value == -found.value


def test_standard_error_with_and_without_clusters():
    values = np.random.default_rng(3).normal(size=50)
    assert clustered_standard_error(values) == pytest.approx(values.std(ddof=1) / math.sqrt(50))
    tripled = clustered_standard_error(np.repeat(values, 3), np.repeat(np.arange(50), 3))
    assert tripled == pytest.approx(clustered_standard_error(values))
    assert math.isnan(clustered_standard_error([1.0, 2.0], ["p", "p"]))


def test_the_binomial_test_is_scipys():
    for k, n, p in ((0, 0, 0.5), (3, 10, 0.5), (9, 12, 0.7), (40, 2000, 0.02), (5, 5, 1.0), (1, 5, 0.0)):
        assert binomial_test(k, n, p) == pytest.approx(binomtest(k, n, p).pvalue if n else 1.0, rel=1e-9)
    with pytest.raises(ValueError, match="6 successes of 5"):
        binomial_test(6, 5)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0.01, 0.5))
def test_step_up_is_its_definition(p_values, q):
    kept = benjamini_hochberg(p_values, q)
    count = len(p_values)
    k = max((k for k in range(1, count + 1) if sorted(p_values)[k - 1] <= q * k / count), default=0)
    assert kept.tolist() == [k > 0 and p <= sorted(p_values)[k - 1] for p in p_values]


def test_a_test_that_was_not_made_does_not_count():
    assert benjamini_hochberg([0.01, math.nan, 0.04]).tolist() == [True, False, True]
    assert benjamini_hochberg([]).tolist() == []


def test_pairs_needed_grow_towards_a_half():
    assert pairs_needed(0.45) == pairs_needed(0.55)
    assert pairs_needed(0.55, power=0.9) > pairs_needed(0.55)
    for wrong in (0.5, 1.2):
        with pytest.raises(ValueError, match="expected"):
            pairs_needed(wrong)


@pytest.mark.slow
def test_intervals_cover_the_truth():
    """1,000 campaigns of 60 prompts with three correlated responses each: 95% intervals hold the truth in 93-97%."""
    rng, clusters, hits = np.random.default_rng(7), np.repeat(np.arange(60), 3), 0
    for campaign in range(1000):
        values = np.repeat(rng.normal(0.3, 1.0, 60), 3) + rng.normal(0, 0.5, 180)
        low, high = bootstrap_mean(values, clusters, replicates=500, seed=campaign)
        hits += low <= 0.3 <= high
    assert 930 <= hits <= 970
