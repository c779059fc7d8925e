import math

import pytest

from accord.evaluate.attributes import binary_rate
from accord.evaluate.intervals import wilson


def test_prompts_weigh_the_same_however_often_they_were_rated():
    """One prompt with three yes, one with a no: 1/2, where the ratings say 3/4."""
    found = binary_rate([1, 1, 1, 0, math.nan], ["p", "p", "p", "q", "q"])
    assert (found.value, found.n, found.n_unscored, found.clusters) == (0.5, 4, 1, 2)
    assert found.ci == wilson(1, 2)


def test_every_rating_its_own_prompt():
    assert binary_rate([1, 0, 0, 0]).ci == wilson(1, 4)
    assert binary_rate([True, True]).value == 1


def test_no_rating_no_knowledge():
    found = binary_rate([math.nan])
    assert math.isnan(found.value)
    assert found.ci == (0.0, 1.0)
    with pytest.raises(ValueError, match="2 clusters for 1"):
        binary_rate([1], ["p", "q"])
