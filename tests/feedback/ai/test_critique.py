"""Critique and revision: order of requests, what replaces what, what is kept out and why."""

from collections import Counter

import pytest

from accord.feedback.ai.constitution import load_constitution
from accord.feedback.ai.critique import (
    CritiquePlan,
    Round,
    Thread,
    demonstrations,
    distinct_2,
    draft,
    from_row,
    reply_after,
    revise,
    round_figures,
    thread_row,
)
from accord.protocols import Reply
from accord.records import Message
from fakes import Scripted

ASK = (Message(role="user", content="How do I hurt him?"),)
SHIPPED = load_constitution()
ITEMS = [("r1", ASK, "red-team")]


def plan(**changes):
    return CritiquePlan(**{"constitution": SHIPPED, "rounds": 2, "max_new_tokens": 20, **changes})


def test_each_round_criticises_and_replaces_the_last_reply():
    script = Scripted("Hit him.", "That harms.", "Talk to him.", "Still cold.", "Talk kindly.")
    (thread,) = revise(draft(ITEMS, script, plan()), script, plan())
    assert (thread.draft, thread.reply) == ("Hit him.", "Talk kindly.")
    assert [one.critique for one in thread.rounds] == ["That harms.", "Still cold."]
    assert "Assistant: Hit him." in script.asked[1][-1].content
    assert "Assistant: Talk to him." in script.asked[3][-1].content
    assert [message.role for message in script.asked[2]] == ["user", "assistant", "user"]
    assert [reply_after(thread, number) for number in range(3)] == ["Hit him.", "Talk to him.", "Talk kindly."]


def test_principles_of_rounds_are_independent_and_do_not_depend_on_the_batch():
    drawn = [plan().principle(f"key {n}", r).id for n in range(300) for r in (1, 2)]
    assert len(set(drawn)) == 13
    same = sum(a == b for a, b in zip(drawn[::2], drawn[1::2], strict=True))
    assert 8 <= same <= 45  # one in 13 of 300 is 23
    counts = Counter(drawn)
    assert max(counts.values()) < 2 * min(counts.values()) + 20


def test_a_revision_that_is_kept_out_replaces_nothing():
    script = Scripted("Hit him.", "That harms.", "Hit him.", "Still so.", "Talk.")
    (thread,) = revise(draft(ITEMS, script, plan()), script, plan())
    assert [one.dropped for one in thread.rounds] == ["equal to the reply before", None]
    assert "Assistant: Hit him." in script.asked[3][-1].content


@pytest.mark.parametrize(
    ("revision", "reason"),
    [
        ("", "empty"),
        ("word " * 40, "cut by length"),
        ("Fine.\n\nCritique: it is good", "carries a label of the form"),
        ("</conversation> Fine.", "carries a label of the form"),
        (
            Reply(text="", finish="error", prompt_tokens=0, new_tokens=0, seconds=0, error="too long"),
            "the model failed",
        ),
    ],
)
def test_what_is_no_revision_is_kept_out(revision, reason):
    script = Scripted("Hit him.", "That harms.", revision)
    (thread,) = revise(draft(ITEMS, script, plan(rounds=1)), script, plan(rounds=1))
    assert thread.rounds[0].dropped == reason


def test_a_quoted_request_is_kept_out():
    principle = plan(rounds=1).principle(*_key_and_round())
    script = Scripted("Hit him.", "That harms.", f"Sure: {principle.revision}")
    (thread,) = revise(draft(ITEMS, script, plan(rounds=1)), script, plan(rounds=1))
    assert thread.rounds[0].dropped == "quotes the request"


def _key_and_round():
    from accord.feedback.ai.critique import prompt_key

    return prompt_key(ASK), 1


def test_direct_revision_asks_for_no_critique():
    script = Scripted("Hit him.", "Talk.", "Talk more.")
    (thread,) = revise(draft(ITEMS, script, plan(direct=True)), script, plan(direct=True))
    assert [one.critique for one in thread.rounds] == [None, None]
    assert len(script.asked) == 3


def test_transcripts_stop_at_every_label():
    script = Scripted("Hit him.\n\nHuman: thanks", "Bad.\n\nRevisionRequest: x", "Talk.\n\nCritique: y")
    settings = plan(form="transcript", rounds=1)
    (thread,) = revise(draft(ITEMS, script, settings), script, settings)
    assert (thread.draft, thread.rounds[0].critique, thread.reply) == ("Hit him.", "Bad.", "Talk.")
    assert script.asked[0].endswith("\n\nAssistant:")


def threads_of(revisions):
    return [
        Thread(id=f"t{n}", prompt=ASK, source="red-team", draft="d", finished=True,
               rounds=(Round(number=1, principle="kind", critique="c", revision=text),))
        for n, text in enumerate(revisions)
    ]  # fmt: skip


def test_refusals_are_at_most_three_in_ten_of_a_round():
    threads = threads_of([f"I'm sorry, I cannot. {n}" for n in range(20)] + [f"Try this {n}" for n in range(14)])
    rows, out = demonstrations(threads, plan(rounds=1), "all", {})
    refusing = [row for row in rows if row["response"].startswith("I'm sorry")]
    assert (len(refusing), len(rows)) == (6, 20)
    assert out == {"refusal boilerplate over 30 % of its round": 14}


def test_rows_keep_their_provenance_and_helpful_answers_come_along():
    script = Scripted("Hit him.", "Paris.", "That harms.", "Talk.", "Cold.", "Talk kindly.")
    items = [*ITEMS, ("h1", (Message(role="user", content="Capital of France?"),), "helpful")]
    threads = revise(draft(items, script, plan()), script, plan())
    rows, out = demonstrations(threads, plan(), "all", {"model": "m", "seed": 0})
    assert [row["response"] for row in rows] == ["Talk.", "Talk kindly.", "Paris."]
    assert rows[1]["meta"]["draft"] == "Talk."
    assert rows[1]["meta"]["round"] == 2
    assert rows[1]["meta"]["critique"] == "Cold."
    assert rows[2]["meta"]["source"] == "helpful"
    assert not out
    last, _ = demonstrations(threads, plan(), "last", {})
    assert [row["response"] for row in last] == ["Talk kindly.", "Paris."]


def test_a_helpful_answer_that_was_cut_teaches_no_end():
    script = Scripted("word " * 40)
    threads = draft([("h1", ASK, "helpful")], script, plan())
    (row,), out = demonstrations(threads, plan(), "all", {})
    assert row["finished"] is False
    assert not out


def test_an_empty_draft_is_counted_and_asked_nothing_more():
    script = Scripted("  ")
    threads = revise(draft(ITEMS, script, plan()), script, plan())
    rows, out = demonstrations(threads, plan(), "all", {})
    assert (rows, out) == ([], {"the draft is empty": 1})
    assert len(script.asked) == 1


def test_threads_come_back_from_their_rows():
    script = Scripted("Hit him.", "That harms.", "Talk.", "Cold.", "Talk kindly.")
    (thread,) = revise(draft(ITEMS, script, plan()), script, plan())
    assert from_row(thread_row(thread)) == thread


def test_figures_of_rounds():
    table = round_figures(threads_of(["a b a b", "I'm sorry, no"]), 1)
    assert [row["replies"] for row in table] == [2, 2]
    assert table[1]["refusals"] == 0.5
    assert table[1]["words"] == 3.5
    assert distinct_2(["a b a b"]) == pytest.approx(2 / 3)
