import math

import numpy as np
import pytest

from accord.evaluate.judge import judge_report


def items(n=2000, seed=0):
    rng = np.random.default_rng(seed)
    return rng, rng.choice([0.0, 0.5, 1.0], n, p=[0.45, 0.1, 0.45]), rng.integers(50, 500, n), rng.integers(50, 500, n)


def test_a_coin_is_right_half_the_time_and_flips_half_the_time():
    rng, truth, length_A, length_B = items()
    ab, ba = rng.integers(0, 2, (2, len(truth))).astype(float)
    found = judge_report(ab, ba, truth, length_A, length_B, replicates=200)
    assert found.accuracy.ci[0] < 0.5 < found.accuracy.ci[1]
    assert found.flips.flip_rate == pytest.approx(0.5, abs=0.03)
    assert found.prefers_longer == pytest.approx(0.5, abs=0.03)


def test_a_judge_that_always_says_first():
    _, truth, length_A, length_B = items(200)
    found = judge_report(np.ones(200), np.ones(200), truth, length_A, length_B, replicates=0)
    assert (found.accuracy.value, found.flips.flip_rate, found.flips.first_rate) == (0.5, 1, 1)
    assert found.prefers_longer == 0.5


def test_a_judge_that_knows_and_one_that_loves_length():
    _, truth, length_A, length_B = items()
    knows = judge_report(truth, 1 - truth, truth, length_A, length_B, replicates=0)
    assert (knows.accuracy.value, knows.flips.flip_rate, knows.calibration.ece) == (1, 0, 0)
    assert knows.prefers_longer == pytest.approx(knows.gold_prefers_longer, abs=0.01)
    longer = (length_A > length_B) + 0.5 * (length_A == length_B)
    loves = judge_report(longer, 1 - longer, truth, length_A, length_B, replicates=0)
    assert loves.prefers_longer == 1
    assert loves.accuracy.value == loves.longer_wins == pytest.approx(0.5, abs=0.03)


def test_by_hand():
    """Right, cannot tell, wrong, people cannot tell, unscored: (1 + 1/2 + 0) / 3. A is longer throughout."""
    ab, ba = [0.9, 0.5, 0.9, 0.9, math.nan], [0.3, 0.5, 0.1, 0.1, 0.1]
    found = judge_report(ab, ba, [1, 1, 0, 0.5, 1], [100] * 5, [50, 50, 50, 95, 50], replicates=0)
    assert (found.accuracy.value, found.accuracy.n, found.accuracy.n_unscored) == (0.5, 3, 1)
    assert (found.first_wins, found.longer_wins, found.n_gold_ties) == (pytest.approx(2 / 3), pytest.approx(2 / 3), 1)
    assert found.prefers_longer == pytest.approx(2.5 / 3)  # 95 against 100 is no clear difference
    assert found.gold_prefers_longer == pytest.approx(3 / 4)


def test_swapping_the_names_of_the_responses_changes_no_verdict():
    rng, truth, length_A, length_B = items(300)
    ab, ba = rng.random((2, 300))
    found = judge_report(ab, ba, truth, length_A, length_B, replicates=0)
    swapped = judge_report(ba, ab, 1 - truth, length_B, length_A, replicates=0)
    assert swapped.accuracy == found.accuracy
    assert swapped.first_wins == pytest.approx(1 - found.first_wins)
    assert swapped[3] == found[3]
    assert swapped[5:] == pytest.approx(found[5:])


def test_truth_is_a_verdict():
    with pytest.raises(ValueError, match=r"holds 0\.7"):
        judge_report([0.5], [0.5], [0.7], [1], [1])
