"""Text and verdicts: what people write, models say and annotators decide. No tensors, no torch.

Everything in alignment is a prompt and K responses: a Demonstration has one, a Comparison two, a Ranking K; a
ResponseSet has K that nobody has judged yet, and a Judgment is what one annotator said of it. All records are frozen
and refuse what they do not know. `to_row` is the JSON object of a record; `describe` turns a validation error into a
sentence for whoever has to mend the row.
"""

from __future__ import annotations

import difflib
import json
import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, Field, ValidationError, model_validator

__all__ = [
    "Comparison",
    "Conversation",
    "Demonstration",
    "Feedback",
    "Judgment",
    "Message",
    "Model",
    "Person",
    "RankedPair",
    "Ranking",
    "Response",
    "ResponseSet",
    "Role",
    "check_prompt",
    "check_text",
    "describe",
    "pairs_from_ranks",
    "to_row",
]

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]


def _encodable(text: str) -> str:
    """JSON can hold half a character (a lone surrogate), which no file and no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = text[error.start : error.end]
        raise ValueError(f"found {found!r} at position {error.start + 1}, half a character; remove it") from None
    return text


Text = Annotated[str, AfterValidator(_encodable)]


class Message(BaseModel, frozen=True, extra="forbid"):
    """One turn of a conversation. Example: `Message(role="user", content="2+2=")`."""

    role: Role = Field(description="who speaks")
    content: Text = Field(description="what is said, as it stands")


Conversation: TypeAlias = tuple[Message, ...]


def _as_conversation(value: Any) -> Any:
    """A plain string is one user message; a list is checked message by message."""
    return (Message(role="user", content=value),) if isinstance(value, str) else value


def _as_number(value: Any) -> Any:
    """Refuse what pydantic would turn into a number silently, and what is none although its type says so."""
    if isinstance(value, (bool, str)) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"found {value!r}; expected a finite number, without quotes; correct it or leave it out")
    return value


def _as_object(value: Any) -> Any:
    """Table columns hold free-form objects as JSON text."""
    return json.loads(value) if isinstance(value, str) else value


PromptField = Annotated[Conversation, BeforeValidator(_as_conversation)]
Rank = Annotated[int, BeforeValidator(_as_number), Field(ge=1)]
RankMap = Annotated[dict[str, Rank | None], BeforeValidator(_as_object)]
Number = Annotated[float, BeforeValidator(_as_number)]
Probability = Annotated[float, BeforeValidator(_as_number), Field(ge=0, le=1)]


def check_prompt(prompt: Conversation) -> None:
    """Raise ValueError unless a response can follow: a last message that has text and is not the assistant's."""
    if not prompt:
        raise ValueError(
            "`prompt` is empty; expected a text or at least one message; write the question that was asked"
        )
    if prompt[-1].role == "assistant":
        raise ValueError(
            "`prompt` ends in an assistant turn; expected the turn that is answered, e.g. of the user; "
            "move the last turn to the response"
        )
    if not prompt[-1].content.strip():
        raise ValueError(
            f"`prompt` ends in a {prompt[-1].role} turn without text; expected the text that is answered; "
            "write it or remove the row"
        )


def check_text(field: str, text: str) -> None:
    """Raise ValueError if the text of a field is empty or blank."""
    if not text.strip():
        raise ValueError(f"`{field}` is empty (found {text!r}); expected a text; write the response or remove the row")


class Demonstration(BaseModel, frozen=True, extra="forbid"):
    """What a good response looks like: training data of supervised fine-tuning.

    Either a prompt and its response, or a conversation of which every assistant turn is trained on.
    Example: `Demonstration(prompt="2+2=", response="4")`.
    """

    prompt: PromptField | None = Field(default=None, description="messages, or a text: one user message")
    response: Text | None = Field(
        default=None, description="the assistant turn that follows the prompt and is trained on"
    )
    messages: Conversation | None = Field(default=None, description="a conversation instead of prompt and response")
    finished: bool | None = Field(
        default=None,
        strict=True,
        description="of a prompt's response: false if it was cut off by length, then no end is trained; none: true",
    )

    @model_validator(mode="after")
    def _check(self) -> Demonstration:
        if self.messages is not None:
            if self.finished is not None:
                raise ValueError("found `finished` beside `messages`; it belongs to a `prompt` and its `response`")
            if self.prompt is not None or self.response is not None:
                raise ValueError("found `messages` beside `prompt` or `response`; expected one form; remove the other")
            self._check_messages(self.messages)
        elif self.prompt is None or self.response is None:
            missing = "response" if self.response is None else "prompt"
            raise ValueError(
                f"`{missing}` is missing; expected `prompt` and `response`, or `messages`; add `{missing}`"
            )
        else:
            check_prompt(self.prompt)
            check_text("response", self.response)
        return self

    @staticmethod
    def _check_messages(messages: Conversation) -> None:
        if not any(message.role == "assistant" for message in messages):
            raise ValueError(
                "`messages` has no assistant turn; expected at least one to train on; add it or remove the row"
            )
        if messages[0].role == "assistant":
            raise ValueError(
                "`messages` begins with an assistant turn; expected a system or user turn; add the prompt before it"
            )
        for number, message in enumerate(messages):
            if message.role == "assistant":
                check_text(f"messages[{number}].content", message.content)

    @property
    def conversation(self) -> Conversation:
        """All turns, the response as the last one."""
        if self.messages is not None:
            return self.messages
        assert self.prompt is not None
        assert self.response is not None
        return (*self.prompt, Message(role="assistant", content=self.response))

    @property
    def trained(self) -> Literal["last", "all"]:
        """Which assistant turns of `conversation` are trained on."""
        return "last" if self.messages is None else "all"


class Response(BaseModel, frozen=True, extra="forbid"):
    """One response of a ResponseSet, not yet judged; an empty text is what a model that stopped at once has said."""

    id: str = Field(min_length=1, description="unique in its set")
    text: Text = Field(description="what was said")
    model: str | None = Field(
        default=None, description="name and revision of the model that said it; none: a person, or unknown"
    )
    sampling: Annotated[dict[str, Any], BeforeValidator(_as_object)] | None = Field(
        default=None, description="settings of the sampler, e.g. temperature"
    )


class ResponseSet(BaseModel, frozen=True, extra="forbid"):
    """A prompt and K responses to judge. Example: "2+2=" with "4" (id "a") and "5" (id "b")."""

    id: str = Field(min_length=1, description="unique in its data set; judgments refer to it")
    prompt: PromptField = Field(description="messages, or a text: one user message")
    responses: tuple[Response, ...] = Field(min_length=1, description="K responses")

    @model_validator(mode="after")
    def _check(self) -> ResponseSet:
        check_prompt(self.prompt)
        _check_distinct("responses", [response.id for response in self.responses])
        return self


class Comparison(BaseModel, frozen=True, extra="forbid"):
    """Two responses to a prompt, one of them preferred.

    Example: `Comparison(prompt="2+2=", chosen="4", rejected="5")`.
    """

    prompt: PromptField = Field(description="messages, or a text: one user message")
    chosen: Text = Field(description="the better response")
    rejected: Text = Field(description="the worse response")
    probability: Probability | None = Field(default=None, description="P(chosen is better), 0 to 1; none: certain")
    margin: Number | None = Field(default=None, description="how much better, in reward units; none: not said")

    @model_validator(mode="after")
    def _check(self) -> Comparison:
        check_prompt(self.prompt)
        check_text("chosen", self.chosen)
        check_text("rejected", self.rejected)
        if self.chosen == self.rejected:
            raise ValueError(
                f"`chosen` and `rejected` are the same text, {_short(self.chosen)}; expected two; remove the row"
            )
        return self


class Feedback(BaseModel, frozen=True, extra="forbid"):
    """Thumbs up or down on one response: unpaired, so good and bad responses may answer different prompts.

    Example: `Feedback(prompt="2+2=", response="5", label=False)`.
    """

    prompt: PromptField = Field(description="messages, or a text: one user message")
    response: Text = Field(description="the response that was judged")
    label: bool = Field(strict=True, description="true: thumbs up")
    finished: bool | None = Field(
        default=None, strict=True, description="false: cut off by length, so no end is trained; none: true"
    )

    @model_validator(mode="after")
    def _check(self) -> Feedback:
        check_prompt(self.prompt)
        check_text("response", self.response)
        return self


class Ranking(BaseModel, frozen=True, extra="forbid"):
    """K responses to a prompt and their places.

    Example: `Ranking(prompt="2+2=", responses=("4", "four", "5", "!"), ranks=(1, 1, 2, None))`: the first two tie,
    the third is worse, the last one failed.
    """

    prompt: PromptField = Field(description="messages, or a text: one user message")
    responses: tuple[Text, ...] = Field(description="K >= 2 responses; one without text can only have failed")
    ranks: tuple[Rank | None, ...] = Field(description="1 is best, equal numbers tie, null failed; one per response")
    scores: tuple[Number, ...] | None = Field(
        default=None, description="how good each response is, in units of the reward that ranked them; none: not said"
    )
    finished: tuple[bool, ...] | None = Field(
        default=None, description="false: the response was cut off by length and has no end; none: all are finished"
    )

    @model_validator(mode="after")
    def _check(self) -> Ranking:
        check_prompt(self.prompt)
        if len(self.responses) < 2:
            raise ValueError(f"`responses` has {len(self.responses)} entries; expected at least 2; remove the row")
        if len(self.ranks) != len(self.responses):
            raise ValueError(
                f"`ranks` has {len(self.ranks)} entries for {len(self.responses)} responses; expected one per "
                "response; write equal numbers for a tie, null for a failed one"
            )
        for name, values in (("scores", self.scores), ("finished", self.finished)):
            if values is not None and len(values) != len(self.responses):
                raise ValueError(
                    f"`{name}` has {len(values)} entries for {len(self.responses)} responses; expected one per "
                    f"response; add the missing ones or leave `{name}` out"
                )
        seen: dict[str, int | None] = {}
        for number, (response, rank) in enumerate(zip(self.responses, self.ranks, strict=True)):
            if rank is not None:
                check_text(f"responses[{number}]", response)
            if seen.setdefault(response, rank) != rank:
                raise ValueError(
                    f"`responses` holds {_short(response)} twice, with ranks {seen[response]} and {rank}; "
                    "expected one rank per text; remove one of them or let them tie"
                )
        return self

    def ranks_as_ids(self) -> tuple[int, ...]:
        """The ranks as losses take them: places from 1, and 0 (FAILED) for a failed response."""
        return tuple(0 if rank is None else rank for rank in self.ranks)


class Person(BaseModel, frozen=True, extra="forbid"):
    """A human annotator, under a name that need not be the real one."""

    kind: Literal["person"] = "person"
    id: str = Field(min_length=1, description="pseudonym, the same in all judgments of this person")


class Model(BaseModel, frozen=True, extra="forbid"):
    """A model that judged: its verdict never looks like a person's."""

    kind: Literal["model"] = "model"
    name: str = Field(min_length=1, description="hub id or folder")
    revision: str = Field(min_length=1, description="commit or version of the weights")
    prompt: str = Field(description="the text it was given, its guideline included")


class Judgment(BaseModel, frozen=True, extra="forbid"):
    """What one annotator said of one ResponseSet. Evidence: never edited; a changed mind is a new judgment.

    Example: `Judgment(annotator=Person(id="p7"), response_set="q1", display_order=("b", "a"),
    ranks={"a": 1, "b": None}, submitted_at=datetime.now(UTC), guideline="v3")`: b was shown first, a is best, b failed.
    """

    annotator: Annotated[Person | Model, Field(discriminator="kind")] = Field(description="who judged")
    response_set: str = Field(min_length=1, description="id of the ResponseSet")
    display_order: tuple[str, ...] = Field(
        min_length=1, description="response ids as shown: position bias is measurable"
    )
    ranks: RankMap = Field(description="response id to place: 1 is best, equal numbers tie, null failed; {} if skipped")
    skipped: str | None = Field(default=None, min_length=1, description="why the annotator did not judge; none: judged")
    shown_at: AwareDatetime | None = Field(default=None, description="when the responses were shown, with time zone")
    submitted_at: AwareDatetime = Field(description="when the verdict was given, with time zone")
    guideline: str = Field(min_length=1, description="version of the guideline the annotator followed")

    @model_validator(mode="after")
    def _check(self) -> Judgment:
        _check_distinct("display_order", self.display_order)
        expected = set() if self.skipped is not None else set(self.display_order)
        if set(self.ranks) != expected:
            raise ValueError(
                f"`ranks` names {sorted(self.ranks)}; expected {sorted(expected)}: every response that was shown, "
                "none if skipped; write null for a failed one"
            )
        if self.shown_at is not None and self.shown_at > self.submitted_at:
            raise ValueError(
                f"`submitted_at` {self.submitted_at} is before `shown_at` {self.shown_at}; expected it after; "
                "check the clocks"
            )
        return self


class RankedPair(NamedTuple):
    """Two responses of a ranking, by index, and how sure it is that `winner` is better: 1, or 1/2 for a tie."""

    winner: int
    loser: int
    probability: float


def pairs_from_ranks(
    ranks: Sequence[int | None],
    ties: Literal["drop", "half"] = "drop",
    failed: Literal["last", "drop"] = "last",
) -> list[RankedPair]:
    """All pairs a ranking speaks of, in the order (0, 1), (0, 2), ... (1, 2), ..., the better one first.

    Args:
        ranks: 1 is best, equal numbers tie, None or NaN failed; gaps in the numbers mean nothing.
        ties: "half" adds (i, j, 1/2) for equal ranks, "drop" leaves them out.
        failed: "last" puts a failed response below every ranked one, "drop" leaves it out; two failures never pair.

    Returns: ranks (1, 2, None) give (0, 1), (0, 2) and (1, 2), all at probability 1.

    Raises:
        ValueError: an unknown word.
    """
    if ties not in ("drop", "half") or failed not in ("last", "drop"):
        raise ValueError(f"ties {ties!r}, failed {failed!r}; expected ties 'drop' or 'half', failed 'last' or 'drop'")
    pairs = []
    known = [None if rank is None or rank != rank else rank for rank in ranks]  # NaN is above and below nothing
    for (i, first), (j, second) in combinations(enumerate(known), 2):
        if first is None or second is None:
            if first is not second and failed == "last":
                pairs.append(RankedPair(i, j, 1.0) if second is None else RankedPair(j, i, 1.0))
        elif first != second:
            pairs.append(RankedPair(i, j, 1.0) if first < second else RankedPair(j, i, 1.0))
        elif ties == "half":
            pairs.append(RankedPair(i, j, 0.5))
    return pairs


def _check_distinct(field: str, ids: Any) -> None:
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise ValueError(f"`{field}` names {twice[0]!r} twice; expected distinct ids; rename or remove one")


def _short(value: Any, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def to_row(record: BaseModel) -> dict[str, Any]:
    """Return the JSON object of a record: what JSONL files hold. Fields that say nothing (None) are left out."""
    return {name: value for name, value in record.model_dump(mode="json").items() if value is not None}


def describe(error: ValidationError) -> str:
    """Return the first complaint of a validation error as one sentence: field, found, expected, what to do."""
    first = error.errors(include_url=False)[0]
    field = _path(first["loc"])
    found = _short(first["input"])
    if first["type"] == "value_error":
        message = str(first["ctx"]["error"])
        return message if "`" in message else f"`{field}`: {message}"
    if first["type"] == "missing":
        return f"`{field}` is missing; add it"
    if first["type"] == "extra_forbidden":
        return f"`{field}` is not a field of a {error.title}{_nearest(str(first['loc'][-1]))}"
    expected = first["msg"].replace("Input should be", "expected").replace("Input should have", "expected")
    return f"`{field}`: found {found}; {expected}; correct the row"


def _path(loc: tuple[int | str, ...]) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc]
    return "".join(parts).lstrip(".")


_KINDS = (Message, Demonstration, Response, ResponseSet, Comparison, Feedback, Ranking, Judgment)
_NAMES = sorted({name for kind in _KINDS for name in kind.model_fields})


def _nearest(name: str) -> str:
    close = difflib.get_close_matches(name, _NAMES, n=1, cutoff=0.6)
    return f"; did you mean `{close[0]}`?" if close else "; remove it"
