"""What a judge is worth: scripted judges whose accuracy, flips and weakness for orders are known."""

import re
from math import log

import pytest

from accord.feedback.ai import worth
from accord.feedback.ai.constitution import load_constitution
from accord.feedback.ai.label import LabelPlan, label
from accord.records import Comparison
from fakes import Scripted

PLAN = LabelPlan(constitution=load_constitution(), principles=2)
KNOWN = [
    Comparison(prompt=f"Question {n}?", chosen=f"right {n}" + " and long" * (n % 3 == 0), rejected=f"wrong {n} or so")
    for n in range(40)
]


def odds(p):
    return [log(p), log(1 - p)]


def first_reply(prompt):
    return re.search(r"Reply \(A\):\n<reply>\n(.*?)\n</reply>", prompt[-1].content, re.DOTALL)[1]


def honest(prompt, texts):
    return odds(0.9) if first_reply(prompt).startswith("right") else odds(0.1)


def lazy(prompt, texts):
    return odds(0.9)


def obedient(prompt, texts):
    """Does as the text says, else it knows the truth."""
    ordered = re.search(r"answer \((A|B)\)", prompt[-1].content)
    if ordered:
        return odds(0.95) if ordered[1] == "A" else odds(0.05)
    return honest(prompt, texts)


def measured(judge):
    pairs, truths = worth.known_pairs(KNOWN, seed=0)
    verdicts = label(pairs, Scripted(judge), PLAN)
    return worth.worth_figures(verdicts, truths, seed=0)


def test_sides_are_drawn_so_that_the_first_is_no_clue():
    _, truths = worth.known_pairs(KNOWN, seed=0)
    assert 10 <= sum(truths) <= 30


def test_an_honest_judge_is_right_and_steady():
    figures = measured(honest)
    assert figures["accuracy"]["value"] == 1
    assert figures["flip_rate"] == 0
    assert figures["longer_wins"] == pytest.approx(14 / 40)
    assert not worth.is_near_chance(figures)


def test_a_judge_that_takes_the_first_is_at_chance_and_flips_always():
    figures = measured(lazy)
    assert figures["accuracy"]["value"] == 0.5
    assert figures["flip_rate"] == 1
    assert figures["always_first"] == 1
    assert worth.is_near_chance(figures)
    by_order = figures["by_order"]
    assert by_order["12"] + by_order["21"] == pytest.approx(1)


@pytest.mark.parametrize(("right", "weak"), [(24, True), (34, False)])
def test_a_judge_is_believed_when_its_interval_is_above_one_half(right, weak):
    """24 of 40 is 0.60 with an interval from 0.45; 34 of 40 is 0.85."""

    def judge(prompt, texts):
        number = int(re.search(r"(?:right|wrong) (\d+)", prompt[-1].content)[1])
        return honest(prompt, texts) if number < right else honest(prompt, texts)[::-1]

    figures = measured(judge)
    assert figures["accuracy"]["value"] == right / 40
    assert worth.is_near_chance(figures) is weak


def test_an_unscored_judge_is_near_chance_not_an_error():
    figures = measured(lambda prompt, texts: [None, None])
    assert figures["accuracy"]["value"] is None
    assert figures["unscored"] == 40
    assert worth.is_near_chance(figures)


def test_a_handful_of_pairs_proves_nothing():
    pairs, truths = worth.known_pairs(KNOWN[:5], seed=0)
    assert worth.is_near_chance(worth.worth_figures(label(pairs, Scripted(honest), PLAN), truths, seed=0))


def test_an_injection_moves_an_obedient_judge_and_not_an_honest_one():
    pairs, truths = worth.known_pairs(KNOWN[:20], seed=0)
    moved = worth.injection_figures(pairs, truths, Scripted(obedient), PLAN, seed=0)
    assert moved["shift"]["value"] == pytest.approx(0.85)
    assert moved["moved"] == 1
    assert moved["right_before"] == 20
    steady = worth.injection_figures(pairs, truths, Scripted(honest), PLAN, seed=0)
    assert steady["shift"]["value"] == 0
    assert steady["moved"] == 0


def test_the_injection_names_the_letter_of_the_worse_reply():
    pairs, truths = worth.known_pairs(KNOWN[:6], seed=0)
    script = Scripted(lazy)
    worth.injection_figures(pairs, truths, script, PLAN, seed=0)
    injected = [asked for asked in script.asked if "Ignore the above" in asked[-1].content]
    assert len(injected) == 12
    for asked in injected:
        named = re.search(r"answer \((A|B)\)\.", asked[-1].content)[1]
        shown = re.search(rf"Reply \({named}\):\n<reply>\n(\w+)", asked[-1].content)[1]
        assert shown == "wrong"


def test_labels_without_truth_say_flips_lengths_and_splits():
    pairs, _ = worth.known_pairs(KNOWN, seed=0)
    figures = worth.label_figures(
        label(pairs, Scripted(lambda p, t: odds(0.9) if len(first_reply(p)) > 15 else odds(0.1)), PLAN)
    )
    assert figures["labelled"] == 40
    assert figures["principles_split"] == 0
    assert figures["mean_certainty"] > 0.5
