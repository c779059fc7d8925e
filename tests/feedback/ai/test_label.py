"""Labels: both orders, principles, the clamp, what is unscored; by hand on scripted models."""

from math import exp, log

import pytest

from accord.feedback.ai import label as labels
from accord.feedback.ai.constitution import load_constitution
from accord.feedback.ai.label import LabelPlan, Pair, label, usable_pairs
from accord.protocols import Reply
from accord.records import Message
from fakes import Scripted

SHIPPED = load_constitution()
ASK = (Message(role="user", content="Say something."),)
PAIR = Pair(id="p", prompt=ASK, first="good reply", second="bad reply")


def plan(**changes) -> LabelPlan:
    return LabelPlan(**{"constitution": SHIPPED, "principles": 1, **changes})


def odds(p: float) -> list[float]:
    return [log(p), log(1 - p)]


def test_both_orders_are_averaged():
    """0.9 for the first shown, then 0.6 for the first shown in the other order: (0.9 + 0.4) / 2."""
    (verdict,) = label([PAIR], Scripted(odds(0.9), odds(0.6)), plan())
    assert verdict.probability == pytest.approx(0.65)
    assert verdict.first_wins("12") == pytest.approx(0.9)
    assert verdict.first_wins("21") == pytest.approx(0.6)


def test_a_judge_that_always_takes_the_first_gives_one_half():
    verdicts = label([PAIR], Scripted(lambda prompt, texts: odds(0.99)), plan(principles=4))
    assert verdicts[0].probability == pytest.approx(0.5)
    assert len(verdicts[0].answers) == 8


def test_a_judge_that_reads_the_replies_is_believed_in_either_order():
    def judge(prompt, texts):
        return odds(0.8) if prompt[-1].content.index("good") < prompt[-1].content.index("bad") else odds(0.2)

    there = label([PAIR], Scripted(judge), plan(principles=3))
    swapped = Pair(id="p", prompt=ASK, first=PAIR.second, second=PAIR.first)
    back = label([swapped], Scripted(judge), plan(principles=3))
    assert there[0].probability == pytest.approx(0.8)
    assert back[0].probability == pytest.approx(0.2)


def test_principles_are_drawn_without_replacement_by_seed_and_pair():
    drawn = [one.id for one in plan(principles=4).principles_of(PAIR)]
    assert len(set(drawn)) == 4
    assert drawn == [one.id for one in plan(principles=4).principles_of(PAIR)]
    others = {tuple(one.id for one in plan(principles=4, seed=seed).principles_of(PAIR)) for seed in range(8)}
    assert len(others) > 4
    counted = {one.id for n in range(200) for one in plan(principles=4).principles_of(
        Pair(id=str(n), prompt=ASK, first=f"a{n}", second="b"))}  # fmt: skip
    assert len(counted) == 13


def test_the_twin_of_an_unscored_answer_is_dropped():
    script = Scripted(odds(0.9), [None, None], odds(0.7), odds(0.7))
    (verdict,) = label([PAIR], script, plan(principles=2))
    assert verdict.probability == pytest.approx(0.5)  # of the second principle alone: (0.7 + 0.3) / 2
    assert len(verdict.scored) == 2


def test_nothing_scored_is_unscored_and_no_tie():
    (verdict,) = label([PAIR], Scripted([None, None], odds(0.5)), plan())
    assert verdict.probability is None
    assert verdict.problem == "no answer could be read"
    assert labels.as_comparison(verdict, {}) is None
    row = labels.as_evidence(verdict)
    assert row["probability"] is None
    assert row["unscored"] == "no answer could be read"


def test_tokens_about_something_else_are_unscored():
    class Top(Scripted):
        method = "top"

    (verdict,) = label([PAIR], Top([log(0.02), log(0.01)], odds(0.5)), plan())
    assert verdict.problem == "the model speaks of something else"
    assert label([PAIR], Scripted([log(0.02), log(0.01)], odds(0.5)), plan())[0].probability is not None


def test_what_was_said_instead_of_an_answer_is_kept():
    class Talks(Scripted):
        def unread(self, prompt):
            return "I prefer neither."

    (verdict,) = label([PAIR], Talks([None, None], odds(0.5)), plan())
    asked = labels.as_evidence(verdict)["asked"]
    assert asked[0]["raw"] == "I prefer neither."
    assert "raw" not in asked[1]


def test_reasoning_comes_before_the_answer_and_clamps():
    script = Scripted("(A) is good.", "(A) is bad.", odds(0.999), odds(0.001))
    (verdict,) = label([PAIR], script, plan(cot=True))
    assert verdict.probability == 0.60
    assert "Think step by step" in script.asked[0][-1].content
    assert [message.content for message in script.asked[2][-2:]] == ["(A) is good.", "So the answer is:"]
    (other,) = label([PAIR], Scripted("x", "y", odds(0.001), odds(0.999)), plan(cot=True))
    assert other.probability == 0.40


def test_cut_or_failed_reasoning_is_unscored_with_its_text():
    cut = Reply(text="I think", finish="length", prompt_tokens=1, new_tokens=2, seconds=0)
    (verdict,) = label([PAIR], Scripted(cut, "fine", odds(0.9)), plan(cot=True))
    assert verdict.probability is None
    assert verdict.answers[0].problem == "the reasoning was cut"
    assert verdict.answers[0].reasoning == "I think"


def test_transcript_scores_answers_with_their_space():
    script = Scripted(odds(0.9), odds(0.1))
    label([PAIR], script, plan(form="transcript"))
    assert set(script.continuations) == {(" (A)", " (B)")}
    assert script.asked[0].endswith("\nThe answer is:")


def test_a_soft_label_stays_soft_and_names_its_judge():
    (verdict,) = label([PAIR], Scripted(odds(0.3), odds(0.7)), plan())
    row = labels.as_comparison(verdict, {"judge": "j"})
    assert (row["chosen"], row["rejected"]) == ("bad reply", "good reply")
    assert row["probability"] == pytest.approx(0.7)
    assert row["meta"]["judge"] == "j"


def test_evidence_comes_back_as_it_was():
    (verdict,) = label([PAIR], Scripted(odds(0.9), [None, None]), plan())
    assert labels.from_evidence(labels.as_evidence(verdict), clamp=False) == verdict


def test_pairs_without_a_choice_are_set_aside_with_a_reason():
    def pair(first, second):
        return Pair(id=f"{first}-{second}", prompt=ASK, first=first, second=second)

    kept, rejected = usable_pairs([pair("a", "b"), pair("a", " a "), pair("", "b"), pair("a", "b"), pair("b", "a")])
    assert [one.id for one in kept] == ["a-b", "b-a"]
    assert [row["reason"] for row in rejected] == [
        "both replies are the same", "a reply is empty", "the pair was there before"]  # fmt: skip


def test_certainty_beyond_floating_point_is_no_error():
    (verdict,) = label([PAIR], Scripted([-0.0, -5000.0], [-5000.0, -0.0]), plan())
    assert verdict.probability == pytest.approx(1.0)
    assert exp(-5000.0) == 0.0
