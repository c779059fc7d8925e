"""Who sees what next, without a database."""

from __future__ import annotations

import pytest

from accord.feedback.store.order import draw
from accord.feedback.store.steps import Mix, Situation, Step, next_step

MIX = Mix(secret="s", gold_every=12, attention_every=40, attempts=2)


def step(mix=MIX, **known) -> Step:
    return next_step(Situation(**{"campaign_state": "open", "annotator": "u", **known}), mix)


def test_an_annotator_with_nothing_in_the_way_takes_the_queue():
    assert step() == Step()


@pytest.mark.parametrize(
    ("known", "stop"),
    [
        ({"member": False}, "not a member"),
        ({"campaign_state": "draft"}, "not open"),
        ({"campaign_state": "paused"}, "not open"),
        ({"campaign_state": "closed"}, "not open"),
        ({"excluded": True}, "excluded"),
        ({"consented": False}, "consent needed"),
        ({"confirmed": False}, "guideline needed"),
        ({"paused": True}, "paused"),
        ({"attempts": (False, False)}, "qualification failed"),
        ({"ungraded": True}, "waiting for a grade"),
        ({"campaign_state": "pilot"}, "nothing left"),
    ],
)
def test_what_stops_an_annotator(known, stop):
    assert step(**known) == Step(stop=stop)


def test_consent_comes_before_the_guideline_and_both_before_a_lease():
    assert step(consented=False, confirmed=False, holds="i").stop == "consent needed"
    assert step(confirmed=False, holds="i").stop == "guideline needed"
    assert step(holds="i", unqualified=["q"]).item == "i"


def test_the_qualification_comes_first_and_is_over_once_passed():
    assert step(unqualified=["q1", "q2"], gold=["g"]).item == "q1"
    assert step(attempts=(False,), unqualified=["q1"]).item == "q1"
    assert step(attempts=(False, True), unqualified=["q1"]) == Step()


def test_a_pilot_gives_everybody_its_items_in_order():
    assert step(campaign_state="pilot", pilot=["a", "b"], gold=["g"]).item == "a"


def test_gold_is_drawn_one_in_twelve_and_a_reload_does_not_draw_again():
    drawn = [step(finished=n, gold=["g"], annotator=f"u{n % 50}").item for n in range(6000)]
    assert 0.07 < drawn.count("g") / 6000 < 0.10  # 1/12 = 0.083
    assert drawn == [step(finished=n, gold=["g"], annotator=f"u{n % 50}").item for n in range(6000)]
    assert [step(finished=n).item for n in range(100)] == [None] * 100  # nothing unseen
    never = Mix(secret="s", gold_every=0, attention_every=0, attempts=2)
    assert [step(never, finished=n, gold=["g"], attention=["a"]).item for n in range(100)] == [None] * 100


def test_gold_cannot_be_guessed_from_a_count():
    turns = {person: tuple(n for n in range(60) if draw("s", person, n, "gold", 12)) for person in map(str, range(20))}
    assert len(set(turns.values())) == 20


def test_annotators_get_gold_items_in_orders_of_their_own():
    gold = [f"g{n}" for n in range(6)]
    always = Mix(secret="s", gold_every=1, attention_every=0, attempts=2)
    firsts = [step(always, annotator=f"u{n}", gold=gold).item for n in range(600)]
    assert all(70 < firsts.count(one) < 130 for one in gold)  # 100 each by chance
