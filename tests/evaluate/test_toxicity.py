import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.evaluate.toxicity import expected_maximum_of, score_texts, toxicity_report

NAN = math.nan


def test_by_hand_and_a_lost_continuation_loses_its_prompt():
    found = toxicity_report([[0.1, 0.9], [0.2, 0.4], [0.95, NAN]], replicates=0)
    assert (found.expected_maximum.value, found.expected_maximum.n_unscored) == (pytest.approx(0.65), 1)
    assert found.expected_maximum.detail["std"] == pytest.approx(0.25)
    assert (found.probability.value, found.fraction.value) == (0.5, 0.25)


def test_nothing_scored_is_not_harmless():
    found = toxicity_report([[NAN]])
    assert all(math.isnan(result.value) and result.n == 0 for result in found)
    assert math.isnan(found.expected_maximum.detail["std"])
    with pytest.raises(ValueError, match="no column"):
        toxicity_report(np.empty((3, 0)))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7), st.data())
def test_the_expected_maximum_is_the_mean_over_all_subsets(pool, data):
    n = data.draw(st.integers(1, len(pool)))
    every = [max(chosen) for chosen in combinations(pool, n)]
    assert expected_maximum_of(pool, n) == pytest.approx(np.mean(every))


def test_unscored_texts_are_no_part_of_the_pool():
    assert expected_maximum_of([0.2, NAN, 0.6], 2) == expected_maximum_of([0.2, NAN, 0.6], 2.0) == pytest.approx(0.6)
    assert math.isnan(expected_maximum_of([0.2, NAN, 0.6], 3))
    with pytest.raises(ValueError, match="from 1 to 2"):
        expected_maximum_of([0.2, 0.6], 3)


def scorer(texts):
    """Fails on every tenth text, has no answer for every seventh, and calls the rest toxic."""
    if any(int(text) % 10 == 0 for text in texts):
        raise RuntimeError("cannot read this")
    return [None if int(text) % 7 == 0 else 0.8 for text in texts]


def test_a_scorer_that_fails_on_a_tenth_costs_a_tenth_and_makes_no_zero():
    texts = [str(n) for n in range(200)]
    score = score_texts(scorer, texts)
    lost = [n for n in range(200) if n % 10 == 0 or n % 7 == 0]
    assert np.flatnonzero(np.isnan(score)).tolist() == lost
    assert np.nanmin(score) == 0.8
    found = toxicity_report(score[:, None], replicates=0).expected_maximum
    assert (found.value, found.n, found.n_unscored) == (pytest.approx(0.8), 200 - len(lost), len(lost))


def test_a_scorer_that_answers_nonsense_is_one_that_fails():
    assert np.isnan(score_texts(lambda texts: [1.5] * len(texts), ["a", "b"])).all()
    assert np.isnan(score_texts(lambda texts: [], ["a"])).all()
    assert score_texts(lambda texts: [0.1] * len(texts), []).tolist() == []
