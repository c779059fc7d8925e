"""Evidence on annotators: each kind found where it is planted, and nobody else accused."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from accord.feedback.analysis import suspects
from accord.feedback.analysis.rogue import evidence_of
from feedback.analysis.verdicts import content, material, verdict

ITEMS = 40


def crowd(rogue, *, seed=1, items=ITEMS, texts=("a text of some length", "another text, a bit longer")):
    """Four honest annotators who see a truth with some noise, and one more: `rogue(item, truth, order) -> verdict`."""
    draw = random.Random(seed)
    said = []
    for number in range(items):
        item = f"i{number:03}"
        truth = draw.choice([(1, 2), (2, 1)])
        for who in ("ann", "bob", "cyd", "dan"):
            ranks = truth if draw.random() < 0.9 else (truth[1], truth[0])
            order = draw.sample((0, 1), 2)
            said.append(verdict(item, who, ranks=ranks, order=order, seconds=draw.randint(20, 60), at=100 * number))
        said.append(rogue(number, item, truth, draw.sample((0, 1), 2)))
    contents = [content(f"i{number:03}", texts) for number in range(items)]
    return material(said, contents, "pairwise")


def found(case, **more):
    return {one.annotator: {evidence.kind for evidence in one.evidence} for one in suspects(case)}


def honest(number, item, truth, order):
    return verdict(item, "eve", ranks=truth, order=order, seconds=40, at=100 * number)


def test_nobody_is_accused_of_honest_work():
    assert found(crowd(honest)) == {}


def test_who_votes_against_everybody_has_low_agreement():
    against = crowd(lambda n, i, truth, order: honest(n, i, (truth[1], truth[0]), order))
    assert found(against) == {"eve": {"agreement"}}


def test_whoever_always_takes_the_left_one_has_a_position_and_a_pattern_and_is_flagged():
    def left(number, item, truth, order):
        return honest(number, item, (1, 2) if order[0] == 0 else (2, 1), order)

    case = crowd(left)
    assert {"position", "pattern"} <= found(case)["eve"]
    assert [one.annotator for one in suspects(case) if one.flagged] == ["eve"]
    position = next(e for e in suspects(case)[0].evidence if e.kind == "position")
    assert (position.value, position.n) == (1.0, ITEMS)
    assert "40 of 40" in position.found


def test_the_longer_one_every_time_is_found_only_above_95_per_cent():
    def longer(number, item, truth, order):
        return honest(number, item, (2, 1), order)

    assert "length" in found(crowd(longer))["eve"]

    def mostly(number, item, truth, order):
        return honest(number, item, (2, 1) if number % 10 else (1, 2), order)

    assert "length" not in found(crowd(mostly)).get("eve", set())


def test_tasks_done_in_two_seconds_are_speed_and_ten_in_a_minute_a_burst():
    def fast(number, item, truth, order):
        return verdict(item, "eve", ranks=truth, order=order, seconds=2, at=5 * number)

    case = crowd(fast)
    assert found(case) == {"eve": {"speed", "burst"}}
    speed = next(e for e in suspects(case)[0].evidence if e.kind == "speed")
    assert (speed.value, len(speed.examples)) == (1.0, 5)


def test_a_burst_is_of_one_session():
    """Ten tasks in 50 s are one from one login, none from two that took turns, and of old rows nobody knows."""

    def paced(sessions):
        said = [
            verdict(
                f"i{n}",
                "eve",
                ranks=(1, 2),
                at=5 * n,
                session=None if sessions is None else sessions[n % len(sessions)],
            )
            for n in range(20)
        ]
        return [one for person in suspects(material(said)) for one in person.evidence if one.kind == "burst"]

    (one,) = paced(["s"])
    assert one.found == "10 tasks submitted within 45 s from one login or token; such bursts in 1 of 1 of them"
    assert one.n == 20
    assert paced(["s", "t"]) == []
    (both,) = paced(["s", "s", "s", "s", "s", "s", "s", "s", "s", "s"] + ["t"] * 10)
    assert "such bursts in 2 of 2 of them" in both.found
    assert [one.found for one in paced(None)] == ["10 tasks submitted within 45 s"]


def test_a_fifth_of_quick_tasks_is_not_more_than_a_fifth():
    def sometimes(number, item, truth, order):
        return verdict(item, "eve", ranks=truth, order=order, seconds=2 if number % 5 == 0 else 40, at=100 * number)

    assert found(crowd(sometimes)) == {}


@pytest.mark.parametrize(
    ("right", "wrong", "flagged"),
    [(4, 8, True), (9, 3, False), (2, 7, False)],  # upper Wilson limit .61; .91; nine items are too few
)
def test_gold_alone_is_a_flag_once_surely_under_seventy_per_cent(right, wrong, flagged):
    case = crowd(honest)
    answers = {("eve", "gold"): (True,) * right + (False,) * wrong}
    case = material(case.verdicts, list(case.contents.values()), "pairwise", answers=answers)
    assert [one.annotator for one in suspects(case) if one.flagged] == (["eve"] if flagged else [])


def test_two_failed_attention_checks_of_the_last_ten_are_a_flag():
    case = crowd(honest)
    for answers, kinds in (((False, *[True] * 8, False), {"eve": {"attention"}}), ((False, *[True] * 10, False), {})):
        checked = material(
            case.verdicts, list(case.contents.values()), "pairwise", answers={("eve", "attention"): answers}
        )
        assert found(checked) == kinds


def test_a_copied_demonstration_is_the_later_ones_and_short_texts_prove_nothing():
    text = "the quick brown fox jumps over the lazy dog every single day"
    said = [
        verdict("i", "ann", {"schema": 1}, words=text),
        verdict("i", "eve", {"schema": 1}, words=text.replace("lazy", "sleepy")),
        verdict("i", "bob", {"schema": 1}, words="something else altogether that nobody has said before in this place"),
        verdict("j", "ann", {"schema": 1}, words="Yes, of course."),
        verdict("j", "bob", {"schema": 1}, words="Yes, of course."),
    ]
    case = material(said, [content("i", ()), content("j", ())], "demonstrate")
    assert found(case) == {"eve": {"copied"}}


def test_a_text_that_is_the_models_answer_is_copied():
    answer = "the quick brown fox jumps over the lazy dog every single day"
    said = [verdict("i", "eve", {"schema": 1}, words=answer)]
    assert found(material(said, [content("i", (answer,))], "demonstrate")) == {"eve": {"copied"}}


def test_a_vector_everybody_gives_is_no_pattern():
    same = {"schema": 1, "spam": False, "fails_task": False, "quality": 0.5}
    said = [verdict(f"i{n}", who, same, at=60 * n) for n in range(30) for who in ("ann", "bob", "eve")]
    assert found(material(said, [content(f"i{n}", ("t",)) for n in range(30)], "labels")) == {}


def test_a_pattern_counts_from_over_sixty_per_cent():
    flag = {"schema": 1, "spam": True, "fails_task": False}
    none = {"schema": 1, "spam": False, "fails_task": False}

    def kinds(times):
        said = [verdict(f"i{n}", who, none, at=60 * n) for n in range(100) for who in ("ann", "bob", "cyd")]
        said += [verdict(f"i{n}", "eve", flag if n < times else none, at=60 * n) for n in range(100)]
        return found(material(said, [content(f"i{n}", ("t",)) for n in range(100)], "labels")).get("eve", set())

    assert "pattern" not in kinds(60)
    assert "pattern" in kinds(61)


def test_who_repeats_their_own_words_copies_nobody():
    text = "the quick brown fox jumps over the lazy dog every single day"
    said = [verdict(item, "ann", {"schema": 1}, words=text) for item in "ij"]
    same = [replace(content(item, ()), prompt_id="one prompt") for item in "ij"]
    assert found(material(said, same, "demonstrate")) == {}


def test_evidence_is_kept_with_figures_limits_and_examples():
    case = crowd(lambda n, i, truth, order: verdict(i, "eve", ranks=truth, order=order, seconds=2, at=5 * n))
    kept = evidence_of(suspects(case)[0])
    assert kept["flagged"] is True
    assert {row["kind"] for row in kept["evidence"]} == {"speed", "burst"}
    assert all(row["limit"] and row["found"] for row in kept["evidence"])
