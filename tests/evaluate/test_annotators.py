import math

import numpy as np
import pytest

from accord.evaluate.agreement import leave_one_out_agreement
from accord.evaluate.annotators import low_agreement
from accord.evaluate.intervals import wilson


def test_the_upper_limit_has_to_be_low_and_not_the_rate():
    """Median .8, margin .1: .65 of 400 is surely under .7, .65 of 40 is not, and nobody is judged on ten items."""
    flags = low_agreement([0.8, 0.8, 0.8, 0.65, 0.65, 0.1], [400, 400, 400, 400, 40, 10])
    assert flags.tolist() == [False, False, False, True, False, False]
    assert wilson(0.65 * 400, 400).high < 0.7 < wilson(0.65 * 40, 40).high


def test_nobody_reaches_the_minimum():
    assert low_agreement([0.1, math.nan], [19, 0]).tolist() == [False, False]


def test_a_rate_is_a_share():
    with pytest.raises(ValueError, match=r"holds 1\.2"):
        low_agreement([1.2, 0.5], [30, 30])


def test_the_one_who_guesses_is_found():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 2, 400)
    labels = np.where(rng.random((8, 400)) < 0.9, truth, 1 - truth).astype(float)
    labels[5] = rng.integers(0, 2, 400)
    assert np.flatnonzero(low_agreement(*leave_one_out_agreement(labels))).tolist() == [5]
