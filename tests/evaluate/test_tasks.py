import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.evaluate.tasks import choice_score, cluster_average, exact_match, token_f1


def test_options_that_tie_share_the_point():
    assert choice_score([-1.0, -1.0, -1.0, -5.0], [1, 1, 1, 1], 0).accuracy == pytest.approx(1 / 3)
    assert choice_score([-1.0, -1.0, -1.0, -5.0], [1, 1, 1, 1], 3).accuracy == 0
    assert choice_score([-7.0] * 4, [2.0] * 4, 1) == pytest.approx((0.25, 0.25, 0.75))
    assert choice_score([-7.0, -8.0], [2, 2], 1.0) == choice_score([-7.0, -8.0], [2, 2], 1)


def test_length_decides_between_the_two_accuracies():
    """-4 over 2 characters is worse than -6 over 6."""
    found = choice_score([-4.0, -6.0], [2, 6], 1)
    assert (found.accuracy, found.accuracy_normalised) == (0, 1)
    assert all(map(math.isnan, choice_score([-4.0, math.nan], [2, 6], 1)))
    for lengths, answer in (([2, 0], 1), ([2, 6], 2)):
        with pytest.raises(ValueError, match="expected"):
            choice_score([-4.0, -6.0], lengths, answer)


def test_certainty_has_the_brier_score_of_its_right_or_wrong():
    assert choice_score([0.0, -900.0], [1, 1], 0).brier == 0
    assert choice_score([0.0, -900.0], [1, 1], 1).brier == 2


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_text_matches_itself_and_f1_is_symmetric(first, second):
    assert exact_match(first, [second, first]) == token_f1(first, [second, first]) == 1
    assert token_f1(first, [second]) == token_f1(second, [first])
    assert exact_match(first, [second]) <= token_f1(first, [second]) <= 1


def test_words_are_counted_as_often_as_they_stand():
    assert token_f1("no no no", ["no"]) == pytest.approx(2 * 1 / 4)
    assert exact_match("An apple,  a day.", ["apple day"]) == 1
    assert exact_match("the", [""]) == 1
    for references in ([], "yes"):
        with pytest.raises(ValueError, match="expected a list"):
            exact_match("yes", references)


def test_a_large_cluster_weighs_no_more():
    """Three tasks at 0 in one cluster, one task at 1, templates .5 and 1.5 of mean 1, in the other."""
    found = cluster_average({"large": {str(n): {"t": 0.0} for n in range(3)}, "small": {"x": {"t": 0.5, "u": 1.5}}})
    assert found == (0.5, 0.75, {"large": 0.0, "small": 1.0})


def test_what_was_not_scored_is_left_out():
    found = cluster_average({"one": {"x": {"t": math.nan, "u": 1.0}, "y": {"t": None}}, "two": {"z": {}}})
    assert (found.mean, found.best_template) == (1.0, 1.0)
    assert math.isnan(found.by_cluster["two"])
    assert math.isnan(cluster_average({}).mean)
