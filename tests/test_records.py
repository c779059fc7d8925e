"""Records: what they accept, what they refuse, and whether the refusal helps the person who has to mend the row."""

from __future__ import annotations

import math
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from accord.records import (
    Comparison,
    Demonstration,
    Judgment,
    Message,
    Model,
    Person,
    Ranking,
    Response,
    ResponseSet,
    describe,
    pairs_from_ranks,
    to_row,
)

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
USER = Message(role="user", content="2+2=")
ASSISTANT = Message(role="assistant", content="4")


def complaint(model: type[BaseModel], **fields: object) -> str:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(fields)
    return describe(caught.value)


def judgment(**changes: object) -> dict[str, object]:
    whole = {
        "annotator": {"kind": "person", "id": "p7"},
        "response_set": "q1",
        "display_order": ["b", "a"],
        "ranks": {"a": 1, "b": None},
        "submitted_at": NOON,
        "guideline": "v3",
    }
    return {**whole, **changes}


def test_a_text_prompt_is_one_user_message():
    assert Comparison(prompt="2+2=", chosen="4", rejected="5").prompt == (USER,)


def test_a_demonstration_trains_on_its_response_or_on_all_turns():
    last = Demonstration(prompt="2+2=", response="4")
    every = Demonstration(messages=(USER, ASSISTANT, USER, ASSISTANT))
    assert (last.conversation, last.trained) == ((USER, ASSISTANT), "last")
    assert (every.conversation, every.trained) == ((USER, ASSISTANT, USER, ASSISTANT), "all")


def test_ranks_as_ids_write_failed_as_zero():
    ranking = Ranking(prompt="q", responses=("a", "b", "c", "d"), ranks=(1, 2, 2, None))
    assert ranking.ranks_as_ids() == (1, 2, 2, 0)


def test_pairs_read_a_rank_that_is_no_number_as_failed():
    """Ranks from an array have NaN for None: nothing is below it, and it must not win."""
    for ties, failed in product(("drop", "half"), ("last", "drop")):
        expected = pairs_from_ranks([2, None, 1, None, 1], ties, failed)
        assert pairs_from_ranks([2.0, math.nan, 1.0, math.nan, 1.0], ties, failed) == expected
    assert pairs_from_ranks([math.nan, 1.0]) == [(1, 0, 1.0)]


def test_an_empty_response_can_only_have_failed():
    assert Ranking(prompt="q", responses=("a", ""), ranks=(1, None)).ranks_as_ids() == (1, 0)
    assert "`responses[1]` is empty" in complaint(Ranking, prompt="q", responses=["a", " "], ranks=[1, 2])


def test_records_are_frozen():
    record = Comparison(prompt="q", chosen="a", rejected="b")
    with pytest.raises(ValidationError):
        record.chosen = "c"


@pytest.mark.parametrize(
    ("model", "fields", "parts"),
    [
        (Comparison, {"prompt": "q", "chosen": "a"}, ("`rejected`", "missing", "add")),
        (Comparison, {"prompt": "q", "chosen": 4, "rejected": "b"}, ("`chosen`", "4", "expected a valid string")),
        (Comparison, {"prompt": "q", "chosen": "", "rejected": "b"}, ("`chosen` is empty", "''")),
        (Comparison, {"prompt": "q", "chosen": "a", "rejected": "\n "}, ("`rejected` is empty",)),
        (Comparison, {"prompt": "q", "chosen": "a", "rejected": "a"}, ("same text", "remove the row")),
        (Comparison, {"prompt": " ", "chosen": "a", "rejected": "b"}, ("`prompt`", "without text")),
        (Comparison, {"prompt": [], "chosen": "a", "rejected": "b"}, ("`prompt` is empty",)),
        (Comparison, {"prompt": (USER, ASSISTANT), "chosen": "a", "rejected": "b"}, ("ends in an assistant turn",)),
        (
            Comparison,
            {"prompt": [{"role": "usr", "content": "q"}], "chosen": "a", "rejected": "b"},
            ("`prompt[0].role`", "'usr'", "'user'"),
        ),
        (
            Comparison,
            {"prompt": "q", "chosen": "\ud800", "rejected": "b"},
            ("`chosen`", "'\\ud800'", "half a character"),
        ),
        (Ranking, {"prompt": "q", "responses": ["a", "b"], "ranks": [1]}, ("1 entries for 2", "one per")),
        (Ranking, {"prompt": "q", "responses": ["a"], "ranks": [1]}, ("at least 2",)),
        (Ranking, {"prompt": "q", "responses": ["a", "b"], "ranks": [0, 1]}, ("`ranks[0]`", "0", "equal to 1")),
        (Ranking, {"prompt": "q", "responses": ["a", "b"], "ranks": [1.5, 1]}, ("`ranks[0]`", "1.5")),
        (Ranking, {"prompt": "q", "responses": ["a", "b"], "ranks": ["1", 2]}, ("`ranks[0]`", "'1'")),
        (Ranking, {"prompt": "q", "responses": ["a", "b"], "ranks": [True, 2]}, ("`ranks[0]`", "True")),
        (Ranking, {"prompt": "q", "responses": ["a", "a"], "ranks": [1, 2]}, ("twice", "1 and 2")),
        (Demonstration, {"prompt": "q"}, ("`response` is missing",)),
        (Demonstration, {"response": "a"}, ("`prompt` is missing",)),
        (Demonstration, {"prompt": "q", "response": " "}, ("`response` is empty",)),
        (Demonstration, {"messages": []}, ("no assistant turn",)),
        (Demonstration, {"messages": (USER,)}, ("no assistant turn",)),
        (Demonstration, {"messages": (ASSISTANT, USER)}, ("begins with an assistant turn",)),
        (Demonstration, {"messages": (USER, ASSISTANT), "response": "a"}, ("expected one form",)),
        (ResponseSet, {"id": "q", "prompt": "q", "responses": [{"id": "a", "text": "x"}] * 2}, ("'a' twice",)),
        (Judgment, judgment(ranks={"a": 1}), ("`ranks` names ['a']", "['a', 'b']")),
        (Judgment, judgment(skipped="language"), ("none if skipped",)),
        (Judgment, judgment(display_order=["a", "a"]), ("`display_order`", "twice")),
        (Judgment, judgment(shown_at=NOON + timedelta(seconds=1)), ("before `shown_at`",)),
        (Judgment, judgment(submitted_at=datetime(2026, 5, 1)), ("`submitted_at`", "timezone")),
    ],
)
def test_a_refusal_names_field_finding_and_remedy(model, fields, parts):
    message = complaint(model, **fields)
    assert all(part in message for part in parts), message
    assert "\n" not in message
    assert len(message) < 300


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf, "0.5", True])
def test_a_probability_is_a_finite_number_from_0_to_1(value):
    assert "`probability`" in complaint(Comparison, prompt="q", chosen="a", rejected="b", probability=value)


@pytest.mark.parametrize("value", [math.nan, -math.inf, "1", False])
def test_a_margin_is_a_finite_number(value):
    assert "`margin`" in complaint(Comparison, prompt="q", chosen="a", rejected="b", margin=value)


def test_a_misspelt_field_names_the_right_one():
    message = complaint(Comparison, prompt="q", chosen="a", rejected="b", probabilty=0.5)
    assert "`probabilty`" in message
    assert "did you mean `probability`" in message


def test_a_models_judgment_is_told_apart_from_a_persons():
    person = Judgment.model_validate(judgment())
    model = Judgment.model_validate(
        judgment(annotator={"kind": "model", "name": "judge", "revision": "a1", "prompt": "Which is better?"})
    )
    assert isinstance(person.annotator, Person)
    assert isinstance(model.annotator, Model)
    assert "annotator" in complaint(Judgment, **judgment(annotator={"id": "p7"}))


def test_a_skipped_judgment_is_a_value():
    assert Judgment.model_validate(judgment(skipped="language", ranks={})).ranks == {}


def test_a_row_leaves_out_what_is_not_said_but_keeps_failures():
    assert to_row(Comparison(prompt="q", chosen="a", rejected="b")) == {
        "prompt": [{"role": "user", "content": "q"}],
        "chosen": "a",
        "rejected": "b",
    }
    assert to_row(Ranking(prompt="q", responses=("a", "b"), ranks=(1, None)))["ranks"] == [1, None]
    assert to_row(Judgment.model_validate(judgment()))["ranks"] == {"a": 1, "b": None}


TEXT = st.text(min_size=1).filter(str.strip)
RESPONSES = st.lists(TEXT, min_size=2, max_size=9, unique=True)


@given(TEXT, RESPONSES, st.data())
def test_records_survive_their_rows(prompt, texts, data):
    ranks = tuple(data.draw(st.none() | st.integers(1, 9)) for _ in texts)
    margin = data.draw(st.none() | st.floats(allow_nan=False, allow_infinity=False))
    for record in (
        Ranking(prompt=prompt, responses=tuple(texts), ranks=ranks),
        Comparison(prompt=prompt, chosen=texts[0], rejected=texts[1], probability=0.25, margin=margin),
        Demonstration(prompt=prompt, response=texts[0]),
        ResponseSet(id="q", prompt=prompt, responses=(Response(id="a", text=texts[0], sampling={"top_p": 0.9}),)),
    ):
        assert type(record).model_validate(to_row(record)) == record


def test_records_start_without_torch():
    code = "import sys, accord.records; assert not sys.modules.keys() & {'torch', 'transformers', 'pyarrow', 'numpy'}"
    subprocess.run([sys.executable, "-c", code], check=True)
