"""Payloads: every verdict is a value, and the words of people are taken out."""

from __future__ import annotations

import pytest

from accord.feedback.store.payloads import Skip, parse, ranks_of, split

TEXTS = {"a": "four", "b": "five"}
FLAGS = (
    "fails_task",
    "inappropriate",
    "sexual",
    "violent",
    "encourages_harm",
    "denigrates",
    "harmful_advice",
    "opinion",
)
ONE = {"quality": 7, "hallucination": "n/a", "satisfies_constraint": True, "moral_judgment": False} | dict.fromkeys(
    FLAGS, False
)

GOOD = [
    ("demonstrate", {"text": "Four."}, {"schema": 1}, "Four."),
    ("rank", {"ranks": {"a": 1, "b": None}, "reason": "b is wrong"}, {"ranks": {"a": 1, "b": None}}, "b is wrong"),
    ("rank", {"ranks": {"a": 1, "b": 1}, "spans": [{"response": "a", "start": 0, "end": 4, "tag": "x"}]}, {}, None),
    ("pairwise", {"choice": "a", "strength": 3}, {"choice": "a", "strength": 3, "both_failed": False}, None),
    ("winrate", {"choice": None}, {"choice": None}, None),
    ("attributes", {"responses": {"a": ONE, "b": ONE}}, {"responses": {"a": ONE, "b": ONE}}, None),
    ("labels", {"spam": False, "fails_task": True, "humor": 0.25},
     {"humor": 0.25, "pii": False, "quality": None}, None),
    ("chat", {"conversation_id": "c", "rating": 5}, {"rating": 5}, None),
    ("redteam", {"conversation_id": "c", "success": 4, "tried": "asked twice"}, {"success": 4}, "asked twice"),
    ("review", {"decision": "reject", "reason": "too short"}, {"decision": "reject"}, "too short"),
    ("rank", {"skip": "language"}, {"skip": "language", "schema": 1}, None),
    ("labels", {"skip": "other", "text": "I know them"}, {"skip": "other"}, "I know them"),
]  # fmt: skip


@pytest.mark.parametrize(("task", "raw", "kept", "words"), GOOD)
def test_a_payload_is_kept_without_the_words(task, raw, kept, words):
    found, said = split(parse(task, raw, TEXTS))
    assert {name: found[name] for name in kept} == kept
    assert said == words
    assert not found.keys() & {"text", "reason", "tried"}
    assert found["schema"] == 1
    assert parse(task, {**found, **({name: raw[name] for name in ("text", "reason", "tried") if name in raw})}, TEXTS)


BAD = [
    ("rank", {"ranks": {"a": 1}}, "expected each response"),
    ("rank", {"ranks": {"a": 1, "b": 2, "c": 3}}, "expected each response"),
    ("rank", {"ranks": {"a": 0, "b": 1}}, "greater than or equal to 1"),
    ("rank", {"ranks": {"a": 1.5, "b": 1}}, "valid integer"),
    ("rank", {"rank": {"a": 1, "b": 1}}, "missing"),
    ("rank", {"ranks": {"a": 1, "b": 1}, "schema": 2}, "schema"),
    ("rank", {"ranks": {"a": 1, "b": 1}, "spans": [{"response": "a", "start": 2, "end": 9, "tag": "x"}]},
     "4 characters"),
    ("pairwise", {"choice": "c"}, "expected one of"),
    ("pairwise", {"choice": "a", "both_failed": True}, "both_failed"),
    ("pairwise", {"choice": None, "strength": 1}, "strength"),
    ("demonstrate", {"text": "  "}, "blank"),
    ("demonstrate", {"text": "x" * 8001}, "8000"),
    ("attributes", {"responses": {"a": ONE}}, "expected each response"),
    ("attributes", {"responses": {"a": {**ONE, "quality": 8}, "b": ONE}}, "less than or equal to 7"),
    ("attributes", {"responses": {"a": {**ONE, "violent": "n/a"}, "b": ONE}}, "violent"),
    ("labels", {"spam": False}, "fails_task"),
    ("labels", {"spam": False, "fails_task": True, "humor": 0.3}, "0.25"),
    ("redteam", {"conversation_id": "c", "success": 5}, "less than or equal to 4"),
    ("rank", {"skip": "bored"}, "unclear prompt"),
    ("rank", {"skip": "other"}, "goes with the reason"),
    ("rank", {"skip": "language", "text": "why"}, "goes with the reason"),
]  # fmt: skip


@pytest.mark.parametrize(("task", "raw", "said"), BAD)
def test_a_wrong_payload_is_refused_and_says_where(task, raw, said):
    with pytest.raises(ValueError, match=said):
        parse(task, raw, TEXTS)


@pytest.mark.parametrize(
    ("payload", "ranks"),
    [
        ({"choice": "b", "both_failed": False}, {"a": 2, "b": 1}),
        ({"choice": None, "both_failed": False}, {"a": 1, "b": 1}),
        ({"choice": None, "both_failed": True}, {"a": None, "b": None}),
        ({"skip": "language"}, None),
    ],
)
def test_a_choice_reads_as_ranks_and_both_bad_is_no_tie(payload, ranks):
    assert ranks_of("pairwise", payload, ["a", "b"]) == ranks


def test_every_task_can_be_skipped():
    for task in ("demonstrate", "rank", "pairwise", "winrate", "attributes", "labels", "chat", "redteam", "review"):
        assert isinstance(parse(task, {"skip": "disturbing"}, {}), Skip)
