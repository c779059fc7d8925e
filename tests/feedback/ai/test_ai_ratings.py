"""Ratings: expectations by hand, the last rating line, rubrics and their mistakes."""

import re
from math import log

import pytest
import yaml

from accord.feedback.ai.joint import rate_jointly
from accord.feedback.ai.ratings import (
    DIRECT,
    Criterion,
    RatingPlan,
    Rubric,
    as_row,
    expected_value,
    load_rubric,
    overall,
    rate,
    said_rating,
)
from accord.records import Message, Response, ResponseSet
from fakes import Scripted

ASK = (Message(role="user", content="Say something."),)
STEPS = range(1, 11)


def test_expectation_by_hand():
    assert expected_value([1, 2, 3], [log(0.2), log(0.2), log(0.4)]) == pytest.approx((0.2 + 0.4 + 1.2) / 0.8)
    assert expected_value(STEPS, [-7.0] * 10) == pytest.approx(5.5)


@pytest.mark.parametrize(("step", "scaled"), [(1, -1.0), (10, 1.0)])
def test_direct_scores_lie_between_minus_one_and_one(step, scaled):
    row = [0.0 if v == step else -900.0 for v in STEPS]
    ((rated,),) = rate([(ASK, "x")], Scripted(row), RatingPlan(rubric=DIRECT))
    assert rated.value == pytest.approx(step)
    assert overall([rated], DIRECT) == pytest.approx(scaled)


def test_continuations_cannot_begin_one_another():
    script = Scripted([-1.0] * 10)
    rate([(ASK, "x")], script, RatingPlan(rubric=DIRECT))
    (texts,) = script.continuations
    assert not any(a != b and b.startswith(a) for a in texts for b in texts)


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("Rating: 2\nOn reflection better.\nRating: 4", 4),
        ("**Rating: 3**", 3),
        ("I would give it a rating: 5 maybe", None),
        ("Rating: 9", None),
        ("Rating: -3", None),
        ("Rating: \u22123", None),
        ("Rating - 3", 3),
        ("", None),
    ],
)
def test_only_the_last_rating_line_on_the_scale_is_read(reply, value):
    assert said_rating(reply, Criterion(id="a", question="?", scale=(1, 5))) == value


def test_overall_is_the_mean_of_the_criteria_and_a_lost_one_leaves_none():
    rubric = Rubric(
        name="r",
        criteria=(Criterion(id="a", question="A?", scale=(1, 5)), Criterion(id="b", question="B?", scale=(0, 1))),
        reasoning=True,
    )
    good, lost = rate([(ASK, "x"), (ASK, "y")], Scripted("Rating: 5", "Rating: 0", "Rating: 5", "no idea"),
                      RatingPlan(rubric=rubric))  # fmt: skip
    assert overall(good, rubric) == pytest.approx((1 - 1) / 2)
    assert overall(lost, rubric) is None
    row = as_row("q", [good, lost], rubric)
    assert row["overall"] == [0.0, None]
    assert row["rated"][1][1]["reply"] == "no idea"
    assert "problem" in row["rated"][1][1]


def test_joint_ratings_go_back_to_their_responses_whatever_the_order():
    rubric = Rubric(name="r", criteria=(Criterion(id="a", question="A?", scale=(1, 5)),))
    sets = [
        ResponseSet(id=str(n), prompt=ASK, responses=tuple(Response(id=str(k), text=f"text {k}") for k in range(3)))
        for n in range(6)
    ]

    def judge(prompt):
        shown = re.findall(r"Reply \((.)\):\n<reply>\ntext (\d)", prompt[-1].content)
        ratings = [f"Rating {letter}: {int(k) + 1}" for letter, k in shown if k != "2"]
        return "\n".join(["Rating A: 5", "Rating A: -4", *ratings])

    found = rate_jointly(sets, Scripted(judge), RatingPlan(rubric=rubric))
    assert {tuple(one.rated[k][0].value for k in (0, 1)) for one in found} == {(1.0, 2.0)}
    # Nobody rated text 2, but where it is shown first the earlier line of its letter stands.
    assert {(one.order[0] == 2, one.rated[2][0].value) for one in found} <= {(True, 5.0), (False, None)}
    assert len({tuple(one.order) for one in found}) > 1


def test_a_rubric_file_and_its_mistakes(tmp_path):
    path = tmp_path / "r.yaml"
    criterion = {"id": "true", "question": "True?", "scale": [1, 3], "anchors": {1: "no", 3: "yes"}}
    path.write_text(yaml.safe_dump({"name": "mine", "criteria": [criterion]}))
    assert load_rubric(path).criteria[0].anchors[3] == "yes"
    path.write_text(yaml.safe_dump({"name": "mine", "criteria": [{**criterion, "anchors": {7: "x"}}]}))
    with pytest.raises(ValueError, match="an anchor for 7, outside the scale 1 to 3"):
        load_rubric(path)
