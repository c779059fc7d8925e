"""One row of a data file -> one record, whatever common format the row is in.

Each kind of record has a list of forms, tried in order; the first one that matches reads the row. Errors are
ValueErrors that name the field, what was found, what was expected and what to do; `readers` adds file and row.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

from pydantic import BaseModel, ValidationError

from accord.data import chats, comparisons, prompts
from accord.data.prompts import Row
from accord.records import (
    Conversation,
    Demonstration,
    Feedback,
    Judgment,
    Ranking,
    ResponseSet,
    check_prompt,
    check_text,
    describe,
)

__all__ = ["KINDS", "Form", "Kind", "parse"]

Kind: TypeAlias = Literal[
    "demonstration",
    "comparison",
    "ranking",
    "preference",
    "feedback",
    "prompts",
    "response_set",
    "judgment",
    "text",
    "corpus",
]


class Form(NamedTuple):
    """A way to write a record: its name, the fields that are there, how to read it, and what else tells it apart."""

    name: str
    fields: tuple[str, ...]
    build: Callable[[Row], Any]
    matches: Callable[[Row], bool] = lambda row: True


def parse(row: Any, kind: Kind) -> tuple[Any, str]:
    """Return the record of a row and the name of the form it was in.

    Raises:
        ValueError: The row is no such record; the message says why.
    """
    if not isinstance(row, Mapping):
        raise ValueError(f'found {type(row).__name__}; expected an object, {{"field": ...}}; correct the row')
    present = {name: value for name, value in row.items() if value is not None}
    for form in KINDS[kind]:
        if all(name in present for name in form.fields) and form.matches(present):
            try:
                return form.build(present), form.name
            except ValidationError as error:
                raise ValueError(describe(error)) from None
    raise ValueError(_no_form(present, kind))


# --- demonstrations


def _is_praised(row: Row) -> bool:
    """A conversation with a verdict of its own (KTO) may be a bad example."""
    if isinstance(row.get("label"), bool):
        raise ValueError(
            f"`label` is {row['label']}: these look like unpaired feedback (KTO), good and bad responses mixed; "
            "expected demonstrations only; use `accord train dpo --loss kto`, or keep the good rows without `label`"
        )
    return True


def _messages(row: Row) -> Demonstration:
    if "response" in row:
        raise ValueError("found `messages` beside `response`; expected one of them; remove the other")
    return Demonstration(messages=prompts.turns(row, "messages"))


def _answered(row: Row, field: str) -> Demonstration:
    """A prompt and its response. Of TRL's completions of several turns all are trained on: the prompt may have none."""
    asked, value = chats.conversation(row["prompt"], "prompt"), row[field]
    if isinstance(value, list) and len(value) > 1 and all(turn.role != "assistant" for turn in asked):
        return Demonstration(messages=asked + chats.conversation(value, field))
    text = chats.reply(value, field)
    check_text(field, text)
    said = text.strip() if prompts.from_transcript(row) else text
    return Demonstration(prompt=asked, response=said, finished=row.get("finished"))


def _sharegpt(row: Row) -> Demonstration:
    return Demonstration(messages=prompts.sharegpt(row))


def _alpaca(row: Row, field: str) -> Demonstration:
    text = chats.text(row[field], field)
    check_text(field, text)
    return Demonstration(prompt=prompts.instruction(row), response=text)


def _is_unpaired(row: Row) -> bool:
    """ShareGPT's comparisons keep the prompt in `conversations`: nothing there to learn to say."""
    return not ("chosen" in row and "rejected" in row)


# --- feedback on single responses


def _thumb(row: Row, field: str) -> Feedback:
    """A prompt, its response and `label`, as TRL's KTO writes them."""
    asked = chats.conversation(row["prompt"], "prompt")
    said = chats.reply(row[field], field)
    said = said.strip() if prompts.from_transcript(row) else said
    return Feedback.model_validate({"prompt": asked, "response": said, "label": row["label"]})


def _labelled_messages(row: Row) -> Feedback:
    """A conversation and `label`, as LLaMA-Factory's KTO writes it: the last turn is what was judged."""
    turns = prompts.turns(row, "messages")
    if not turns or turns[-1].role != "assistant":
        found = turns[-1].role if turns else "no turn"
        raise ValueError(
            f"`messages` ends with {found}; expected the assistant turn that `label` judges; correct the row"
        )
    return Feedback.model_validate({"prompt": turns[:-1], "response": turns[-1].content, "label": row["label"]})


# --- the other records


def _ranking(row: Row) -> Ranking:
    asked = chats.conversation(row["prompt"], "prompt")
    said = {name: row[name] for name in ("responses", "ranks", "scores", "finished") if name in row}
    return Ranking.model_validate({"prompt": asked, **said})


def _own(model: type[BaseModel]) -> Callable[[Row], Any]:
    """Read a record that nobody else writes: an unknown field is a mistake."""
    return model.model_validate


def _prompt(row: Row) -> Conversation:
    """The prompt of any record; of a conversation, what comes before a last assistant turn."""
    if "chosen" in row and "rejected" in row:
        asked: Conversation | None = comparisons.split(row)[0]
    elif "prompt" in row:
        asked = prompts.prompt(row)
    else:
        asked = prompts.turns(row, "messages") if "messages" in row else prompts.prompt(row)
        asked = asked[:-1] if asked and asked[-1].role == "assistant" else asked
    assert asked is not None
    check_prompt(asked)
    return asked


def _text(row: Row) -> str:
    """Text as people wrote it, of no conversation."""
    text = chats.text(row["text"], "text")
    if not text.strip():
        raise ValueError(f"`text` is empty (found {text!r}); expected a text; remove the row")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = text[error.start : error.end]
        raise ValueError(f"`text`: found {half!r} at position {error.start + 1}, half a character; remove it") from None
    return text


_DEMONSTRATIONS = [
    Form("messages", ("messages",), _messages, _is_praised),
    Form("prompt and response", ("prompt", "response"), partial(_answered, field="response"), _is_praised),
    Form("prompt and completion", ("prompt", "completion"), partial(_answered, field="completion"), _is_praised),
    Form("ShareGPT", ("conversations",), _sharegpt, _is_unpaired),
    Form("Alpaca", ("instruction", "output"), partial(_alpaca, field="output")),
    Form("Dolly", ("instruction", "response"), partial(_alpaca, field="response")),
]
_COMPARISONS = [
    Form(name, ("chosen", "rejected"), partial(comparisons.comparison, name=name), matches)
    for name, (matches, _) in comparisons.SPLITS.items()
]
_TEXTS = [Form("text", ("text",), _text)]
_RANKINGS = [Form("ranking", ("prompt", "responses", "ranks"), _ranking)]
_FEEDBACK = [
    Form("prompt, response and label", ("prompt", "response", "label"), partial(_thumb, field="response")),
    Form("prompt, completion and label", ("prompt", "completion", "label"), partial(_thumb, field="completion")),
    Form("messages and label", ("messages", "label"), _labelled_messages),
]
_PROMPT_FIELDS = [("chosen", "rejected"), ("prompt",), ("messages",), ("conversations",), ("instruction",)]
KINDS: dict[Kind, list[Form]] = {
    "demonstration": _DEMONSTRATIONS,
    "comparison": _COMPARISONS,
    "ranking": _RANKINGS,
    "preference": _RANKINGS + _COMPARISONS,
    "feedback": _FEEDBACK + _RANKINGS + _COMPARISONS,
    "prompts": [Form(" and ".join(fields), fields, _prompt) for fields in _PROMPT_FIELDS],
    "response_set": [Form("response set", ("id", "responses"), _own(ResponseSet))],
    "judgment": [Form("judgment", ("annotator", "response_set"), _own(Judgment))],
    "text": _TEXTS,
    "corpus": _DEMONSTRATIONS + _TEXTS,
}

# What a row of no form of the wanted kind seems to be instead, by its fields, and what to do with such rows.
_LOOKS: list[tuple[tuple[str, ...], str]] = [
    (("annotator", "response_set"), "judgments; make rankings or comparisons of them"),
    (("chosen", "rejected"), "comparisons; use `accord train dpo` or `accord train reward`"),
    (("prompt", "responses", "ranks"), "rankings; use `accord train reward` or `accord train dpo`"),
    *((form.fields, "feedback on single responses; use `accord train dpo --loss kto`") for form in _FEEDBACK),
    (("id", "prompt", "responses"), "response sets nobody has judged; rank the responses first"),
    *((form.fields, "demonstrations; use `accord train sft`") for form in _DEMONSTRATIONS),
    (("text",), "plain text, with no prompt or response; `accord train ppo --ptx-data` trains on it beside the policy"),
]
_KNOWN = {name for forms in KINDS.values() for form in forms for name in form.fields}


def _no_form(row: Row, kind: Kind) -> str:
    """Say what was found and expected, and the likely reason: a misspelt field, or data of another kind."""
    wanted = list(dict.fromkeys(form.fields for form in KINDS[kind]))
    choices = ", or ".join(" + ".join(f"`{name}`" for name in fields) for fields in wanted)
    found = ", ".join(f"`{name}`" for name in list(row)[:12]) or "no field"
    complaint = f"found {found}; expected {choices}"
    unknown = [str(name) for name in row if name not in _KNOWN]
    for name in dict.fromkeys(name for fields in wanted for name in fields if name not in row):
        close = difflib.get_close_matches(name, unknown, n=1, cutoff=0.75)
        if close:
            return f"{complaint}; did you mean `{name}` by `{close[0]}`? Rename the field"
    look = next((look for fields, look in _LOOKS if all(name in row for name in fields)), None)
    if look is None and isinstance(row.get("prompt"), (str, list)):
        look = "prompts, with no response in a known field; rename its field, or use `accord train ppo`"
    return f"{complaint}; these look like {look}" if look else f"{complaint}; rename the fields"
