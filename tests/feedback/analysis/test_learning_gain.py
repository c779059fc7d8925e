"""Whether choosing items taught more than drawing them: found where it is planted, and not where it is not."""

from __future__ import annotations

import random

from accord.feedback.analysis import analyse
from accord.feedback.analysis.learning import learning_curves
from feedback.analysis.verdicts import content, material, verdict

GOOD, BAD = "kind clear useful honest", "rude vague useless false"
FILLER = ["table", "river", "cloud", "paper", "stone", "window", "garden", "market", "bridge", "letter"]


def case(noise_of_selected, noise_of_random, items=140):
    """Good responses have a good word; verdicts of an arm are turned with its noise."""
    draw = random.Random(0)
    said, contents = [], []
    for number in range(items):
        arm = "random" if number % 2 else "selected"
        # Test items are random ones too, so the noise of that arm lowers both curves alike.
        noise = noise_of_selected if arm == "selected" else noise_of_random
        good = " ".join([draw.choice(GOOD.split()), *draw.sample(FILLER, 4)])
        bad = " ".join([draw.choice(BAD.split()), *draw.sample(FILLER, 4)])
        swap = draw.random() < 0.5
        ranks = (2, 1) if swap else (1, 2)
        ranks = (ranks[1], ranks[0]) if draw.random() < noise else ranks
        contents.append(content(f"i{number:03}", (bad, good) if swap else (good, bad)))
        said.append(verdict(f"i{number:03}", "p", ranks=ranks, arm=arm))
    return material(said, contents)


def test_labels_without_information_teach_nothing_and_the_gain_is_negative():
    *_, last = learning_curves(case(noise_of_selected=0.5, noise_of_random=0.0))
    assert last.items == 20
    assert last.random > 0.9
    assert last.gain.ci[1] < 0


def test_arms_of_equal_labels_teach_alike():
    *_, last = learning_curves(case(noise_of_selected=0.0, noise_of_random=0.0))
    assert last.random > 0.9
    assert abs(last.gain.value) < 0.1


def test_more_items_teach_more():
    first, *_, last = learning_curves(case(0.0, 0.0))
    assert last.random > first.random


def test_the_report_has_it_only_with_enough_items_of_both_arms():
    assert learning_curves(case(0.0, 0.0, items=60)) == []
    assert len(analyse(case(0.0, 0.0)).learning) == 2
