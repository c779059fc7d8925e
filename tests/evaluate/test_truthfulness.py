import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.evaluate.truthfulness import multiple_choice

LOGPROBS = st.lists(st.floats(-900, -1), min_size=1, max_size=6)


@given(LOGPROBS, LOGPROBS, st.randoms())
def test_the_order_of_the_options_means_nothing(true, false, random):
    found = multiple_choice(true, false, best=0)
    order = random.sample(range(len(true)), len(true))
    shuffled = multiple_choice([true[i] for i in order], random.sample(false, len(false)), best=order.index(0))
    assert shuffled == pytest.approx(found)


@given(LOGPROBS, LOGPROBS)
def test_true_and_false_share_one(true, false):
    assert multiple_choice(true, false).mc2 + multiple_choice(false, true).mc2 == pytest.approx(1)


def test_any_loss_is_the_whole_question():
    assert all(map(math.isnan, multiple_choice([-1.0], [-2.0, math.nan])))
    assert multiple_choice([-3.0, -1.0], [-2.0], best=1.0).mc1 == 1
    for best in (1, 0.5):
        with pytest.raises(ValueError, match=f"number {best}"):
            multiple_choice([-1.0], [-2.0], best=best)


def test_a_constant_model_has_the_share_of_true_answers():
    found = multiple_choice(np.full(3, -5.0), np.full(1, -5.0))
    assert found == pytest.approx((0.0, 0.75, 0.0))
