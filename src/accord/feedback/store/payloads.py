"""What an annotator says of an item: one model per type of task, schema 1.

A payload comes in with the words people wrote. `parse` checks it against the item, and `split` takes the words out:
they go to a body of their own, which can be forgotten, and the rest is what a judgment keeps for good.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from accord.records import Text, describe

__all__ = [
    "Attributes",
    "Chat",
    "Choice",
    "Demonstrate",
    "Labels",
    "Payload",
    "Ranks",
    "RedTeam",
    "ReviewVerdict",
    "Skip",
    "Span",
    "parse",
    "ranks_of",
    "split",
]

SkipReason: TypeAlias = Literal[
    "unclear prompt", "language", "needs expertise", "disturbing", "broken display", "personal data", "other"
]
Rank = Annotated[int, Field(ge=1, strict=True)]
Answer: TypeAlias = bool | Literal["n/a"]


def _of_five(value: float) -> float:
    if value * 4 not in range(5):
        raise ValueError(f"found {value}; expected one of 0, 0.25, 0.5, 0.75 and 1")
    return value


Step5 = Annotated[float, AfterValidator(_of_five)]


class _Payload(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    schema_: Literal[1] = Field(default=1, alias="schema", description="version of the payload's form")


class Demonstrate(_Payload):
    """A response worth imitating, in markdown."""

    text: Text = Field(min_length=1, max_length=8000, description="the response")

    @model_validator(mode="after")
    def _check(self) -> Demonstrate:
        if not self.text.strip():
            raise ValueError("`text` is blank; expected a response; write it, or skip the task")
        return self


class Span(BaseModel, frozen=True, extra="forbid"):
    """A passage of a response with a mark. `start` counts characters from 0, `end` is the first one after it."""

    response: str
    start: int = Field(ge=0)
    end: int
    tag: str = Field(min_length=1)


class ResponseAttributes(BaseModel, frozen=True, extra="forbid"):
    """What is true of one response (InstructGPT's list)."""

    quality: int = Field(ge=1, le=7, description="7 is best")
    fails_task: bool
    inappropriate: bool
    hallucination: Answer
    satisfies_constraint: Answer
    sexual: bool
    violent: bool
    encourages_harm: bool
    denigrates: bool
    harmful_advice: bool
    opinion: bool
    moral_judgment: bool


class Ranks(_Payload):
    """A place for every response: 1 is best, equal numbers tie, null failed."""

    ranks: dict[str, Rank | None]
    reason: Text | None = Field(default=None, max_length=8000, description="why, in the annotator's words")
    spans: tuple[Span, ...] = ()
    attributes: dict[str, ResponseAttributes] | None = Field(
        default=None, description="of every response, where a campaign asks for them before the ranking"
    )


class Choice(_Payload):
    """The better one of two; null: a tie, or both failed."""

    choice: str | None
    strength: int | None = Field(default=None, ge=1, le=3, description="3: much better")
    both_failed: bool = False

    @model_validator(mode="after")
    def _check(self) -> Choice:
        if self.choice is not None and self.both_failed:
            raise ValueError("`both_failed` is true beside a `choice`; expected one of them; leave one out")
        if self.choice is None and self.strength is not None:
            raise ValueError("`strength` is given without a `choice`; a tie has none; leave it out")
        return self


class Attributes(_Payload):
    """Attributes of every response."""

    responses: dict[str, ResponseAttributes]


class Labels(_Payload):
    """OpenAssistant's labels of one message: two questions, seven flags, six scales in five steps from 0 to 1."""

    spam: bool
    fails_task: bool
    lang_mismatch: bool = False
    pii: bool = False
    not_appropriate: bool = False
    hate_speech: bool = False
    sexual_content: bool = False
    moral_judgement: bool = False
    political_content: bool = False
    quality: Step5 | None = None
    helpfulness: Step5 | None = None
    creativity: Step5 | None = None
    humor: Step5 | None = None
    toxicity: Step5 | None = None
    violence: Step5 | None = None


class Chat(_Payload):
    """A conversation, rated."""

    conversation_id: str
    rating: int = Field(ge=1, le=5, description="5 is best")


class RedTeam(_Payload):
    """How far an attempt to break a model got; said by the author, then by two others."""

    conversation_id: str
    success: int = Field(ge=0, le=4, description="4: fully")
    harm_tags: tuple[str, ...] = ()
    tried: Text | None = Field(default=None, max_length=8000, description="what was tried, in the author's words")


class ReviewVerdict(_Payload):
    """A decision on the work of others."""

    decision: Literal["accept", "reject", "adjudicate"]
    payload: dict[str, Any] | None = None
    reason: Text = Field(min_length=1, max_length=8000)


class Skip(_Payload):
    """No verdict, and why. Any task can be skipped."""

    skip: SkipReason
    text: Text | None = Field(default=None, max_length=8000, description="for `other`: the reason")

    @model_validator(mode="after")
    def _check(self) -> Skip:
        if (self.skip == "other") != bool(self.text and self.text.strip()):
            raise ValueError("`text` goes with the reason `other`, and only with it; write or remove it")
        return self


Payload: TypeAlias = Demonstrate | Ranks | Choice | Attributes | Labels | Chat | RedTeam | ReviewVerdict | Skip

TYPES: Mapping[str, type[_Payload]] = {
    "demonstrate": Demonstrate,
    "rank": Ranks,
    "pairwise": Choice,
    "winrate": Choice,
    "attributes": Attributes,
    "labels": Labels,
    "chat": Chat,
    "redteam": RedTeam,
    "review": ReviewVerdict,
}
_WORDS = ("text", "reason", "tried")  # what people wrote: kept as a body, not in the payload


def parse(task_type: str, raw: Mapping[str, Any], texts: Mapping[str, str | None]) -> Payload:
    """Check a payload against its item.

    Args:
        task_type: of the campaign.
        raw: the payload as it came in.
        texts: response id -> text of the item's responses.

    Raises:
        ValueError: a field is wrong or missing, or a response is left out or unknown.
    """
    kind = Skip if "skip" in raw else TYPES[task_type]
    try:
        payload = kind.model_validate(dict(raw))
    except ValidationError as error:
        raise ValueError(describe(error)) from None
    _check_responses(payload, texts)
    assert isinstance(payload, Payload)
    return payload


def _check_responses(payload: _Payload, texts: Mapping[str, str | None]) -> None:
    if isinstance(payload, (Ranks, Attributes)):
        name, placed = ("ranks", payload.ranks) if isinstance(payload, Ranks) else ("responses", payload.responses)
        if placed.keys() != texts.keys():
            raise ValueError(
                f"`{name}` names {sorted(placed)}; expected each response of the item, {sorted(texts)}, and no other"
            )
    if isinstance(payload, Ranks) and payload.attributes is not None and payload.attributes.keys() != texts.keys():
        raise ValueError(f"`attributes` names {sorted(payload.attributes)}; expected each response, {sorted(texts)}")
    if isinstance(payload, Choice) and payload.choice is not None and payload.choice not in texts:
        raise ValueError(f"`choice` is {payload.choice!r}; expected one of {sorted(texts)}, or null for a tie")
    for number, span in enumerate(payload.spans if isinstance(payload, Ranks) else ()):
        length = len(texts.get(span.response) or "")
        if not span.start < span.end <= length:
            raise ValueError(
                f"`spans[{number}]` goes from {span.start} to {span.end} of response {span.response!r}, which has "
                f"{length} characters; expected start < end <= {length}"
            )


def split(payload: Payload) -> tuple[dict[str, Any], str | None]:
    """Return what a judgment keeps, and the words that can be forgotten (None: there are none)."""
    kept = payload.model_dump(mode="json", by_alias=True, exclude_none=False)
    if kept.get("attributes", ...) is None:  # most rankings come without
        del kept["attributes"]
    words = next((kept[name] for name in _WORDS if kept.get(name)), None)
    return {name: value for name, value in kept.items() if name not in _WORDS}, words


def ranks_of(task_type: str, payload: Mapping[str, Any], responses: list[str]) -> dict[str, int | None] | None:
    """Read the ranks of a kept payload; None: it is a skip, or a task without ranks."""
    if "ranks" in payload:
        return dict(payload["ranks"])
    if "choice" not in payload or task_type not in ("pairwise", "winrate"):
        return None
    if payload["both_failed"]:
        return dict.fromkeys(responses)
    choice = payload["choice"]
    return {response: 1 if choice in (None, response) else 2 for response in responses}
