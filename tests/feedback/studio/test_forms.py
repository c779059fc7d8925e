"""Forms and payloads, both ways."""

from __future__ import annotations

import pytest

from accord.feedback.store.payloads import parse, split
from accord.feedback.studio.forms import fields_of, payload_of

PAIR = {"a": "one", "b": "two"}
QUALITIES = {
    name: value
    for one in PAIR
    for name, value in {
        f"{one}.quality": "6",
        f"{one}.hallucination": "n/a",
        f"{one}.satisfies_constraint": "yes",
    }.items()
}
FORMS = [
    ("rank", {"rank.a": "1", "rank.b": "F", "reason": "b is nonsense"}),
    ("rank", {"rank.a": "1", "rank.b": "1"}),
    ("pairwise", {"choice": "b", "strength": "3"}),
    ("pairwise", {"choice": "tie"}),
    ("winrate", {"choice": "failed"}),
    ("attributes", {**QUALITIES, "b.violent": "on"}),
    ("labels", {"spam": "no", "fails_task": "yes", "pii": "on", "quality": "5", "humor": "1"}),
    ("demonstrate", {"text": "Eight."}),
    ("chat", {"rating": "4"}),
    ("redteam", {"success": "0", "tag.privacy": "on", "tried": "asked nicely"}),
    ("review", {"decision": "reject", "reason": "copied"}),
]


@pytest.mark.parametrize(("task_type", "fields"), FORMS)
def test_a_form_comes_back_as_it_was_filled_in(task_type, fields):
    payload = payload_of(task_type, fields, list(PAIR), "talk")
    kept, words = split(parse(task_type, payload, PAIR))  # the store takes it
    assert fields_of(kept, words) == fields


def test_a_passage_marked_twice_as_the_same_is_marked_once():
    fields = {"rank.a": "1", "rank.b": "2", "span.0": "a:0:2:wrong", "span.1": "a:0:2:wrong", "span.7": "a:0:2:good"}
    payload = payload_of("rank", fields, list(PAIR))
    assert [(one["start"], one["end"], one["tag"]) for one in payload["spans"]] == [(0, 2, "good"), (0, 2, "wrong")]


def test_a_scale_of_five_is_kept_from_zero_to_one():
    kept = payload_of("labels", {"spam": "no", "fails_task": "no", "quality": "4"}, ["a"])
    assert kept["quality"] == 0.75
    assert kept["toxicity"] is None


@pytest.mark.parametrize(
    ("task_type", "fields", "words"),
    [
        ("rank", {"rank.a": "1"}, "a place is missing for B"),
        ("rank", {"rank.a": "1", "rank.b": "first"}, "expected a number"),
        ("pairwise", {}, "no answer is chosen"),
        ("attributes", {"a.quality": "3"}, "the quality is missing for B"),
        ("labels", {"spam": "no"}, "Does it fail the task"),
        ("demonstrate", {"text": " \n"}, "empty"),
        ("chat", {}, "no rating"),
        ("redteam", {}, "how far it got"),
        ("review", {"decision": "accept"}, "a reason"),
    ],
)
def test_what_is_missing_is_named_by_letter(task_type, fields, words):
    with pytest.raises(ValueError, match=words):
        payload_of(task_type, fields, list(PAIR))
