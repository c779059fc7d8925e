from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from accord.feedback.store import by_disagreement, by_diversity, by_uncertainty


def test_entropy_of_votes_by_hand():
    votes = [["a", "b"], ["a", "a", "a"], [], ["a", "a", "b"], [1, 2, 3, 4]]
    # three to one-third: -(2/3 ln 2/3 + 1/3 ln 1/3) = 0.63651
    assert_allclose(by_disagreement(votes), [np.log(2), 0, 0, 0.6365142, np.log(4)], rtol=1e-6)


def test_uncertainty_is_one_at_a_half_and_none_at_the_ends():
    assert_allclose(by_uncertainty([0.5, 0.75, 0.25, 0, 1]), [1, 0.5, 0.5, 0, 0])
    for wrong in (1.1, -0.1, float("nan")):
        with pytest.raises(ValueError, match="expected 0 to 1"):
            by_uncertainty([0.5, wrong])


def test_diversity_is_the_distance_to_the_nearest_labelled_one():
    items = [[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [1.0, 1.0]]
    assert_allclose(by_diversity(items, [[5.0, 0.0]]), [0, 1, 2, 1 - np.sqrt(0.5)], atol=1e-12)
    assert_allclose(by_diversity(items, [[5.0, 0.0], [0.0, 1.0]]), [0, 0, 1, 1 - np.sqrt(0.5)], atol=1e-12)
    assert_allclose(by_diversity(items, np.zeros((0, 2))), [2, 2, 2, 2])
