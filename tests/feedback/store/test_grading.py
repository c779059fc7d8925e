"""Known answers: a gold rank is right when it agrees on every expected strict pair."""

from __future__ import annotations

import pytest

from accord.feedback.store.grading import check_expected, is_right, must_pause

A, B, C = "abc"


@pytest.mark.parametrize(
    ("expected", "found", "right"),
    [
        ({A: 1, B: 2, C: 3}, {A: 1, B: 2, C: 3}, True),
        ({A: 1, B: 2, C: 3}, {A: 2, B: 5, C: 9}, True),  # gaps mean nothing
        ({A: 1, B: 2, C: 3}, {A: 1, B: 2, C: 2}, False),  # a tie is no order
        ({A: 1, B: 2, C: 3}, {A: 2, B: 1, C: 3}, False),
        ({A: 1, B: 2, C: 2}, {A: 1, B: 3, C: 2}, True),  # where a tie is expected any order will do
        ({A: 1, B: 2, C: None}, {A: 1, B: 2, C: None}, True),
        ({A: 1, B: 2, C: None}, {A: 1, B: 2, C: 3}, True),  # failed is below
        ({A: 1, B: 2, C: None}, {A: 1, B: None, C: None}, False),
    ],
)
def test_ranks(expected, found, right):
    assert is_right("rank", {"ranks": expected}, {"ranks": found}, [A, B, C]) is right


def test_choices_flags_skips_and_free_text():
    assert (
        is_right("pairwise", {"choice": A, "both_failed": False}, {"choice": A, "both_failed": False}, [A, B]) is True
    )
    assert (
        is_right("pairwise", {"choice": A, "both_failed": False}, {"choice": None, "both_failed": False}, [A, B])
        is False
    )
    assert is_right("pairwise", {"ranks": {A: 1, B: 2}}, {"choice": A, "both_failed": False}, [A, B]) is True
    flags = {"spam": True, "toxicity": 0.5, "pii": False}
    assert is_right("labels", {"spam": True}, flags, []) is True
    assert is_right("labels", {"spam": True, "pii": True}, flags, []) is False
    assert (
        is_right("attributes", {"responses": {A: {"violent": True}}}, {"responses": {A: {"violent": True}}}, [A])
        is True
    )
    assert is_right("rank", {"ranks": {A: 1, B: 2}}, {"skip": "language"}, [A, B]) is False
    assert is_right("demonstrate", {"text": "x"}, {"schema": 1}, []) is None


@pytest.mark.parametrize("ranks", [{A: 1}, {A: 1, B: 1}, {A: None, B: None}])
def test_an_expected_answer_that_nobody_can_get_wrong_is_refused(ranks):
    with pytest.raises(ValueError, match="expected"):
        check_expected("rank", {"ranks": ranks}, [A, B])
    check_expected("rank", {"ranks": {A: 1, B: 2}}, [A, B])


def test_two_failures_in_the_last_ten_pause():
    assert must_pause([False, True, False], 10, 2)
    assert not must_pause([False] + [True] * 9 + [False], 10, 2)  # eleven checks
    assert not must_pause([False], 10, 2)
