"""Position and length: shares worked by hand."""

from __future__ import annotations

import pytest

from accord.feedback.analysis.bias import bias_of, ends_pair
from feedback.analysis.verdicts import content, verdict


def by_item(*contents):
    return {one.item_id: one for one in contents}


def test_whoever_takes_the_first_shown_has_share_one_whatever_was_first():
    contents = by_item(content("a"), content("b"))
    said = [verdict("a", "p", ranks=(1, 2), order=(0, 1)), verdict("b", "p", ranks=(2, 1), order=(1, 0))]
    assert bias_of(said, contents).first.value == 1.0
    turned = [verdict("a", "p", ranks=(1, 2), order=(1, 0)), verdict("b", "p", ranks=(2, 1), order=(0, 1))]
    assert bias_of(turned, contents).first.value == 0.0


def test_ties_are_no_choice():
    found = bias_of([verdict("a", "p", ranks=(1, 1))], by_item(content("a")))
    assert found.first is None
    assert found.longer is None


def test_by_place_counts_every_pair_a_place_is_in():
    # Shown c, a, b; a is best, then b, c failed: place 2 wins twice, place 3 once of two, place 1 never.
    contents = by_item(content("i", ("x", "y", "z")), content("j", ("x", "y", "z")))
    said = [verdict(item, "p", ranks=(1, 2, None), order=(2, 0, 1)) for item in contents]
    found = bias_of(said, contents).by_place[3]
    assert {place: result.value for place, result in found.items()} == {1: 0.0, 2: 1.0, 3: 0.5}


def test_longer_by_how_much_longer():
    contents = by_item(content("a", ("x" * 100, "x" * 105)), content("b", ("x" * 100, "x" * 300)))
    said = [verdict("a", "p", ranks=(1, 2)), verdict("b", "p", ranks=(2, 1)), verdict("b", "q", ranks=(2, 1))]
    found = bias_of(said, contents)
    assert found.longer.value == pytest.approx(2 / 3)
    assert {ratio: result.value for ratio, result in found.by_ratio.items()} == {"1-1.1": 0.0, "over 2": 1.0}


def test_the_ends_of_a_ranking_are_one_trial_per_verdict():
    assert ends_pair(verdict("a", "p", ranks=(1, 2, 3), order=(2, 1, 0))) is False
    assert ends_pair(verdict("a", "p", ranks=(1, 2, 3))) is True
    assert ends_pair(verdict("a", "p", ranks=(1, 2, 1))) is None
