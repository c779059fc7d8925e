import importlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.evaluate.intervals import bootstrap, bootstrap_mean, estimate_mean, wilson

VECTORS = Path(__file__).parents[3] / "shared" / "spec" / "vectors" / "evaluation.json"


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


def test_bootstrap_undefined_too_often_is_nan():
    assert all(map(math.isnan, bootstrap(lambda rows: math.nan, [0, 1, 2])))
    assert all(map(math.isnan, bootstrap(lambda rows: 1.0, ["only", "only"])))


def test_nothing_scored_is_none_and_not_zero():
    empty, lost = estimate_mean([]), estimate_mean([math.nan, math.nan])
    assert (empty.value, empty.lo, empty.hi, empty.n, empty.n_unscored) == (None, None, None, 0, 0)
    assert (lost.value, lost.n, lost.n_unscored) == (None, 0, 2)


def test_unscored_rows_move_nothing():
    whole, holed = estimate_mean([0.1, 0.4, 0.9]), estimate_mean([0.1, math.nan, 0.4, 0.9], ["a", "b", "c", "d"])
    assert (whole.value, whole.lo, whole.hi, whole.n) == (holed.value, holed.lo, holed.hi, holed.n)
    assert holed.n_unscored == 1


def test_one_prompt_has_no_interval():
    estimate = estimate_mean([1.0, 0.0, 1.0], ["p", "p", "p"])
    assert estimate.value == pytest.approx(2 / 3)
    assert (estimate.lo, estimate.hi) == (None, None)


def test_ten_of_ten_is_not_certain():
    estimate = estimate_mean([1.0] * 10)
    assert (estimate.lo, estimate.hi) == pytest.approx((0.7224672, 1.0))


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="2 clusters for 3 values"):
        estimate_mean([1.0, 2.0, 3.0], ["a", "b"])


def test_arguments_come_back_unchanged():
    values, clusters = np.array([1.0, math.nan, 0.0]), ["a", "b", "a"]
    estimate_mean(values, clusters)
    assert clusters == ["a", "b", "a"]
    assert np.array_equal(values, [1.0, math.nan, 0.0], equal_nan=True)


@pytest.mark.slow
def test_intervals_cover_the_truth():
    """1,000 campaigns of 60 prompts with three correlated responses each: 95% intervals hold the truth in 93-97%."""
    rng, clusters, hits = np.random.default_rng(7), np.repeat(np.arange(60), 3), 0
    for campaign in range(1000):
        values = np.repeat(rng.normal(0.3, 1.0, 60), 3) + rng.normal(0, 0.5, 180)
        low, high = bootstrap_mean(values, clusters, replicates=500, seed=campaign)
        hits += low <= 0.3 <= high
    assert 930 <= hits <= 970


def vector_cases():
    if not VECTORS.exists():
        return []
    names = {"wilson", "bootstrap_mean", "bootstrap"}
    cases = json.loads(VECTORS.read_text())["cases"]
    return [case for case in cases if case["call"] in {f"accord.evaluate.intervals:{name}" for name in names}]


def decoded(value):
    if isinstance(value, dict) and "f64" in value:
        return np.array([math.nan if entry is None else entry for entry in value["f64"]])
    if isinstance(value, dict) and "median_of" in value:
        numbers = np.array(value["median_of"])
        return lambda rows: float(np.median(numbers[rows]))
    return value


@pytest.mark.skipif(not VECTORS.exists(), reason="the shared test vectors are not beside this clone")
@pytest.mark.parametrize("case", vector_cases(), ids=lambda case: case["id"])
def test_vectors(case):
    module, name = case["call"].split(":")
    function = getattr(importlib.import_module(module), name)
    arguments = {key: decoded(value) for key, value in case["args"].items()}
    if "raises" in case:
        with pytest.raises(ValueError, match="expected"):
            function(**arguments)
    else:
        assert function(**arguments)._asdict() == pytest.approx(case["expect"], rel=1e-9, abs=1e-12)
