"""Every common format, one row at a time."""

from __future__ import annotations

import pytest

from accord.data.formats import parse
from accord.records import Comparison, Demonstration, Feedback, Message, Ranking


def turns(*texts: str) -> list[dict[str, str]]:
    """Turns of user and assistant in alternation."""
    return [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]


def messages(*texts: str) -> tuple[Message, ...]:
    return tuple(Message(**turn) for turn in turns(*texts))


def complaint(row: object, kind: str) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        parse(row, kind)
    return str(caught.value)


PAIR = Comparison(prompt="2+2=", chosen="4", rejected="5")


@pytest.mark.parametrize(
    ("form", "row"),
    [
        ("named prompt", {"prompt": "2+2=", "chosen": "4", "rejected": "5"}),
        ("named prompt", {"prompt": "2+2=", "chosen": "4", "rejected": "5", "score_chosen": 1, "prompt_id": "a"}),
        ("named prompt", {"prompt": "2+2=", "chosen": "4", "rejected": "5", "probability": None}),
        (
            "named prompt",
            {
                "prompt": turns("2+2="),
                "chosen": [{"role": "assistant", "content": "4"}],
                "rejected": [{"role": "assistant", "content": "5", "name": "bot"}],
            },
        ),
        ("named prompt", {"instruction": "2+2=", "input": "", "output": "4", "chosen": "4", "rejected": "5"}),
        (
            "named prompt",
            {
                "conversations": [{"from": "human", "value": "2+2="}],
                "chosen": {"from": "gpt", "value": "4"},
                "rejected": {"from": "gpt", "value": "5"},
            },
        ),
        ("whole conversations", {"chosen": turns("2+2=", "4"), "rejected": turns("2+2=", "5")}),
        ("whole conversations", {"prompt": "2+2=", "chosen": turns("2+2=", "4"), "rejected": turns("2+2=", "5")}),
        (
            "HH-RLHF transcripts",
            {
                "chosen": "\n\nHuman: 2+2=\n\nAssistant: 4",
                "rejected": "\n\nHuman: 2+2=\n\nAssistant: 5 ",
                "subset": "x",
            },
        ),
        ("named prompt", {"prompt": "\n\nHuman: 2+2=\n\nAssistant:", "chosen": " 4", "rejected": " 5"}),
    ],
)
def test_comparisons_in_every_common_form(form, row):
    assert parse(row, "comparison") == (PAIR, form)
    assert parse(row, "preference") == (PAIR, form)
    assert parse(row, "prompts")[0] == PAIR.prompt


def test_texts_that_share_a_beginning_are_split_as_trl_does():
    row = {"chosen": "The sky is blue.", "rejected": "The sky is green."}  # the example of TRL's documentation
    expected = Comparison(prompt="The sky is", chosen=" blue.", rejected=" green.")
    assert parse(row, "comparison") == (expected, "shared beginning")


def test_probability_and_margin_are_read():
    record, _ = parse({"prompt": "q", "chosen": "a", "rejected": "b", "probability": 1, "margin": 0.5}, "comparison")
    assert (record.probability, record.margin) == (1.0, 0.5)


def test_a_long_transcript_keeps_its_turns():
    shared = "\n\nHuman: hi\n\nAssistant: Hello.\n\nTwo paragraphs.\n\nHuman: name a colour"
    record, _ = parse(
        {"chosen": f"{shared}\n\nAssistant: red", "rejected": f"{shared}\n\nAssistant: seven"}, "comparison"
    )
    assert record.prompt == messages("hi", "Hello.\n\nTwo paragraphs.", "name a colour")
    assert (record.chosen, record.rejected) == ("red", "seven")


def test_a_transcripts_second_turn_in_a_row_joins_the_first():
    row = {
        "chosen": "\n\nHuman: hi\n\nAssistant: one\n\nAssistant: two",
        "rejected": "\n\nHuman: hi\n\nAssistant: three",
    }
    assert parse(row, "comparison")[0] == Comparison(prompt="hi", chosen="one\n\ntwo", rejected="three")


def test_a_mention_of_a_speaker_is_no_turn():
    row = {"prompt": "Human: what is that?", "chosen": "\n\nHuman: a person", "rejected": "b"}
    record, _ = parse(row, "comparison")
    assert record.prompt[0].content == "Human: what is that?"
    assert record.chosen == "\n\nHuman: a person"


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ({"chosen": turns("q", "a", "r", "b"), "rejected": turns("q", "x", "r", "y")}, ("first 1 turns", "cut both")),
        ({"chosen": turns("q", "a"), "rejected": turns("q", "a", "more", "b")}, ("[assistant, user, assistant]",)),
        ({"chosen": turns("q", "a"), "rejected": turns("other", "a")}, ("first 0 turns",)),
        ({"chosen": turns("q", "a"), "rejected": turns("q", "a")}, ("same text",)),
        ({"chosen": "\n\nHuman: q\n\nAssistant:", "rejected": "\n\nHuman: q\n\nAssistant: x"}, ("`chosen` is empty",)),
        ({"chosen": "yes", "rejected": "no"}, ("`prompt` is missing",)),
        ({"chosen": {"role": "assistant", "content": "a"}, "rejected": "b"}, ("`prompt` is missing",)),
        ({"prompt": "p", "chosen": turns("q", "a"), "rejected": turns("q", "b")}, ("`prompt` is not what",)),
        ({"prompt": "p", "chosen": turns("q", "a"), "rejected": "b"}, ("`chosen`", "one assistant turn")),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "probabilty": 0.5}, ("`probabilty`", "`probability`")),
        ({"prompt": "p", "chosen": "a", "rejcted": "b"}, ("did you mean `rejected` by `rejcted`",)),
        ({"prompt": {"text": "p"}, "chosen": "a", "rejected": "b"}, ("`prompt`", "{'text': 'p'}")),
        ({"prompt": [{"role": "alien", "content": "p"}], "chosen": "a", "rejected": "b"}, ("`prompt[0].role`",)),
        ({"prompt": [{"content": "p"}], "chosen": "a", "rejected": "b"}, ("`prompt[0].role` is missing",)),
        ({"prompt": [["user", "p"]], "chosen": "a", "rejected": "b"}, ("`prompt[0]`",)),
        ({"prompt": [{"role": "user", "content": 3}], "chosen": "a", "rejected": "b"}, ("`prompt[0].content`", "3")),
        ({"prompt": "p", "chosen": 4, "rejected": "b"}, ("`chosen`", "4")),
        ({"messages": turns("q", "a")}, ("these look like demonstrations", "accord train sft")),
        ({"prompt": "q", "responses": ["a", "b"], "ranks": [1, 2]}, ("these look like rankings",)),
        ({"prompt": "q"}, ("these look like prompts", "accord train ppo")),
        ([1], ("found list", "expected an object")),
        ({}, ("found no field",)),
    ],
)
def test_a_bad_comparison_is_explained(row, parts):
    message = complaint(row, "comparison")
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("form", "row"),
    [
        ("prompt and response", {"prompt": "2+2=", "response": "4"}),
        ("prompt and response", {"prompt": turns("2+2="), "response": "4", "id": 3}),
        ("prompt and completion", {"prompt": "2+2=", "completion": "4"}),
        (
            "prompt and completion",
            {"prompt": turns("2+2="), "completion": [{"role": "assistant", "content": "4"}], "source": "x"},
        ),
        ("Alpaca", {"instruction": "2+2=", "input": "", "output": "4"}),
        ("Dolly", {"instruction": "2+2=", "context": None, "response": "4", "category": "qa"}),
    ],
)
def test_demonstrations_of_one_response(form, row):
    assert parse(row, "demonstration") == (Demonstration(prompt="2+2=", response="4"), form)
    assert parse(row, "prompts")[0] == messages("2+2=")


@pytest.mark.parametrize(
    ("form", "row"),
    [
        ("messages", {"messages": turns("a", "b", "c", "d"), "prompt": "a", "prompt_id": "1"}),
        (
            "ShareGPT",
            {
                "id": "x",
                "conversations": [
                    {"from": "human", "value": "a"},
                    {"from": "gpt", "value": "b"},
                    {"from": "user", "value": "c"},
                    {"from": "assistant", "value": "d"},
                ],
            },
        ),
        ("prompt and completion", {"prompt": "a", "completion": turns("", "b", "c", "d")[1:]}),
    ],
)
def test_demonstrations_of_every_turn(form, row):
    assert parse(row, "demonstration") == (Demonstration(messages=messages("a", "b", "c", "d")), form)


def test_an_alpaca_input_follows_the_instruction_and_the_rounds_before():
    row = {"instruction": "Add", "input": "2, 2", "output": "4", "system": "Be brief.", "history": [["hi", "Hello."]]}
    record, _ = parse(row, "demonstration")
    assert record.prompt == (Message(role="system", content="Be brief."), *messages("hi", "Hello.", "Add\n\n2, 2"))


def test_content_parts_are_joined_and_pictures_refused():
    parts = [{"type": "text", "text": "2+"}, {"type": "text", "text": "2="}]
    record, _ = parse({"messages": [{"role": "user", "content": parts}, *turns("", "4")[1:]]}, "demonstration")
    assert record.conversation == messages("2+2=", "4")
    picture = [{"role": "user", "content": [{"type": "image"}]}, *turns("", "4")[1:]]
    assert "`messages[0].content`" in complaint({"messages": picture}, "demonstration")


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, ("comparisons", "accord train dpo")),
        ({"conversations": [], "chosen": "a", "rejected": "b"}, ("these look like comparisons",)),
        ({"messages": turns("q", "a"), "label": False}, ("`label` is False", "KTO")),
        ({"messages": turns("q")}, ("no assistant turn",)),
        ({"messages": "q"}, ("`messages`", "list of messages")),
        ({"messages": turns("q", " ")}, ("`messages[1].content` is empty",)),
        ({"messages": turns("q", "a"), "response": "b"}, ("remove the other",)),
        ({"prompt": "q", "completion": ""}, ("`completion` is empty",)),
        ({"instruction": "q", "output": ""}, ("`output` is empty",)),
        ({"instruction": "q", "output": 3}, ("`output`", "3")),
        ({"instruction": "q", "output": "a", "history": ["hi"]}, ("`history`",)),
        ({"promt": "q", "response": "a"}, ("did you mean `prompt` by `promt`",)),
        ({"text": "once upon a time"}, ("found `text`", "`messages`", "look like plain text", "--ptx-data")),
        ({"messages": [*turns("q"), {"role": "assistant", "content": "", "tool_calls": [{}]}]}, ("tool_calls",)),
    ],
)
def test_a_bad_demonstration_is_explained(row, parts):
    message = complaint(row, "demonstration")
    assert all(part in message for part in parts), message


def test_texts_are_read_as_they_are():
    assert parse({"text": " once\nupon ", "source": "x"}, "text") == (" once\nupon ", "text")
    assert parse({"text": [{"type": "text", "text": "2+"}, {"type": "text", "text": "2"}]}, "text")[0] == "2+2"
    assert parse({"text": "once"}, "corpus") == ("once", "text")
    asked = {"prompt": "q", "response": "a", "text": "q a"}  # a demonstration with a column of its own text
    assert parse(asked, "corpus") == (Demonstration(prompt="q", response="a"), "prompt and response")


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ({"text": " "}, ("`text` is empty", "remove the row")),
        ({"text": None}, ("expected `text`",)),
        ({"text": 3}, ("`text`: found 3", "expected a text")),
        ({"text": "a\ud800b"}, ("`text`", "half a character", "position 2")),
        ({"txet": "a"}, ("did you mean `text` by `txet`",)),
        ({"prompt": "q", "response": "a"}, ("these look like demonstrations",)),
    ],
)
def test_a_bad_text_is_explained(row, parts):
    message = complaint(row, "text")
    assert all(part in message for part in parts), message


@pytest.mark.parametrize("kind", ["comparison", "ranking", "preference", "prompts", "demonstration"])
def test_a_plain_text_is_known_for_what_it_is(kind):
    assert "these look like plain text" in complaint({"text": "once upon a time"}, kind)


def test_rankings_are_read_as_they_are():
    row = {"prompt": "q", "responses": ["a", "b", "c"], "ranks": [1, 2, None], "model": "x"}
    expected = Ranking(prompt="q", responses=("a", "b", "c"), ranks=(1, 2, None))
    assert parse(row, "ranking") == parse(row, "preference") == (expected, "ranking")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "q"}, ("q",)),
        ({"prompt": turns("q", "a", "r")}, ("q", "a", "r")),
        ({"messages": turns("q", "a", "r", "b")}, ("q", "a", "r")),
        ({"messages": turns("q")}, ("q",)),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, ("q",)),
        ({"prompt": "\n\nHuman: q\n\nAssistant: a\n\nHuman: r\n\nAssistant:"}, ("q", "a", "r")),
    ],
)
def test_prompts_of_any_record(row, expected):
    assert parse(row, "prompts")[0] == messages(*expected)


@pytest.mark.parametrize("row", [{"prompt": ""}, {"prompt": turns("q", "a")}, {"prompt": []}, {"prompt": [], "x": 1}])
def test_a_prompt_has_to_be_answerable(row):
    assert "`prompt`" in complaint(row, "prompts")


@pytest.mark.parametrize(
    ("form", "row"),
    [
        ("prompt, completion and label", {"prompt": "q", "completion": "a", "label": True}),
        ("prompt, completion and label", {"prompt": turns("q"), "completion": turns("", "a")[1:], "label": True}),
        ("prompt, response and label", {"prompt": "q", "response": "a", "label": True}),
        ("messages and label", {"messages": turns("q", "a"), "label": True}),
    ],
)
def test_thumbs_as_trl_and_llama_factory_write_them(form, row):
    assert parse(row, "feedback") == (Feedback(prompt="q", response="a", label=True), form)
    assert parse({**row, "label": False}, "feedback")[0].label is False


def test_feedback_may_be_ranked_too():
    assert parse({"prompt": "q", "chosen": "a", "rejected": "b"}, "feedback")[1] == "named prompt"
    assert parse({"prompt": "q", "responses": ["a", "b"], "ranks": [1, 2]}, "feedback")[1] == "ranking"


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ({"prompt": "q", "completion": "a", "label": 1}, ("`label`: found 1", "boolean")),
        ({"prompt": "q", "completion": "a", "label": "good"}, ("`label`: found 'good'",)),
        ({"prompt": "q", "completion": " ", "label": True}, ("`response` is empty",)),
        ({"messages": turns("q", "a", "r"), "label": True}, ("`messages` ends with user", "`label` judges")),
        ({"messages": [], "label": True}, ("`messages` ends with no turn",)),
        ({"prompt": "q", "completion": "a"}, ("expected `prompt` + `response` + `label`", "demonstrations")),
    ],
)
def test_bad_feedback_is_explained(row, parts):
    message = complaint(row, "feedback")
    assert all(part in message for part in parts), message


def test_scores_and_cut_off_responses_of_a_ranking():
    row = {"prompt": "q", "responses": ["a", "b"], "ranks": [1, 2], "scores": [0.5, -1], "finished": [True, False]}
    record, _ = parse(row, "ranking")
    assert (record.scores, record.finished) == ((0.5, -1.0), (True, False))
    assert "`scores` has 1 entries for 2 responses" in complaint({**row, "scores": [1]}, "ranking")
    assert "`finished` has 3 entries" in complaint({**row, "finished": [True] * 3}, "ranking")
    assert "`scores[1]`: found nan" in complaint({**row, "scores": [1.0, float("nan")]}, "ranking")
    assert parse({"prompt": "q", "response": "a", "finished": False}, "demonstration")[0].finished is False
