import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from accord.evaluate.reward import best_of_n, best_of_n_kl, calibration, pairwise_accuracy, preference_calibration

NAN = math.nan


def test_accuracy_by_hand():
    found = pairwise_accuracy([2.0, 1.0, 0.0, NAN], [1.0, 1.0, 1.0, 0.0], replicates=0)
    assert (found.value, found.n, found.n_unscored, found.detail) == (0.5, 3, 1, {"ties": 1})
    with pytest.raises(ValueError, match="`chosen_N` 2, `rejected_N` 1"):
        pairwise_accuracy([1.0, 2.0], [1.0])


SCORES = arrays(float, st.tuples(st.integers(1, 4), st.just(5)), elements=st.sampled_from([0.0, 1.0, 2.0, 3.5]))


@given(SCORES, SCORES.filter(lambda a: True), st.integers(1, 5))
def test_best_of_n_is_the_mean_over_all_subsets(proxy, gold, n):
    gold = np.resize(gold, proxy.shape)
    for row, (scores, truths) in enumerate(zip(proxy, gold, strict=True)):
        values = []
        for chosen in combinations(range(5), n):
            best = [k for k in chosen if scores[k] == max(scores[list(chosen)])]
            values.append(np.mean(truths[best]))
        if len(set(scores)) == 5 or n in (1, 5):  # which of several equals is drawn depends on the subset
            assert best_of_n(proxy, gold, n)[row] == pytest.approx(np.mean(values))


def test_best_of_one_is_the_mean_and_of_all_the_best():
    rng = np.random.default_rng(0)
    proxy, gold = rng.normal(size=(2, 20, 16))
    assert best_of_n(proxy, gold, 1) == pytest.approx(gold.mean(axis=1))
    assert best_of_n(proxy, gold, 16) == pytest.approx(gold[np.arange(20), proxy.argmax(axis=1)])
    curve = [best_of_n(proxy, proxy, n).mean() for n in (1, 2, 4, 8, 16)]
    assert curve == sorted(curve)
    with pytest.raises(ValueError, match="same"):
        best_of_n(proxy, gold[:, :3], 1)


def test_one_unscored_response_loses_its_prompt_and_no_other():
    found = best_of_n([[1.0, NAN], [1.0, 2.0]], [[5.0, 6.0], [7.0, 8.0]], 2.0)
    assert np.isnan(found[0])
    assert found[1] == 8


def test_kl_of_best_of_n():
    assert best_of_n_kl(1) == 0
    assert [best_of_n_kl(2**k) for k in range(9)] == sorted(best_of_n_kl(2**k) for k in range(9))
    with pytest.raises(ValueError, match="1 or more"):
        best_of_n_kl(0.5)


def test_saying_the_truth_is_calibrated_and_overconfidence_is_not():
    rng = np.random.default_rng(0)
    p = rng.random(20_000)
    y = (rng.random(20_000) < p).astype(float)
    assert calibration(p, y).ece < 0.02
    over = np.clip(0.5 + 2 * (p - 0.5), 0, 1)
    assert calibration(over, y).ece > 0.1
    assert calibration(p, p).ece == pytest.approx(0)


@given(arrays(float, st.integers(1, 30), elements=st.floats(0, 1)), st.data())
def test_folding_keeps_the_brier_score_and_does_not_see_the_order(p, data):
    y = data.draw(arrays(float, len(p), elements=st.sampled_from([0.0, 1.0])))
    folded = preference_calibration(p, y)
    if not (p == 0.5).any():
        assert folded.brier == pytest.approx(calibration(p, y).brier)
    turned = preference_calibration(1 - p, 1 - y)
    assert turned.brier == pytest.approx(folded.brier)
    assert turned.n == folded.n == folded.count_B.sum()


def test_nothing_to_calibrate():
    found = calibration([NAN], [1.0])
    assert (found.n, found.n_unscored) == (0, 1)
    assert all(math.isnan(value) for value in found[:4])
    with pytest.raises(ValueError, match="bins"):
        calibration([0.5], [1.0], bins=0)
