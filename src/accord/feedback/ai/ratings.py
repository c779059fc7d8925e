"""Ratings of single responses by a model: one number from 1 to 10, or a rubric's criteria one by one.

    expectation  s = sum_v v P(v) / sum_v P(v)   over the steps v of the scale
    scaled       to (s - middle) / half the width, -1..1: (s - 5.5) / 4.5 for 1 to 10
    overall      mean of the criteria's scaled values; a separate "overall" question is never asked

With reasoning the number is read from the last line `Rating: N`; a reply without one is unscored, and kept.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from accord.feedback.ai.forms import inert, quoted
from accord.labels import LEAST_MASS
from accord.protocols import LanguageModel, Prompt, Reply, Sampling
from accord.records import Conversation, Message

__all__ = ["DIRECT", "Criterion", "Rated", "RatingPlan", "Rubric", "as_row", "load_rubric", "rate"]

_RATING = re.compile(r"^\W*rating\W*:?\W*(?<![-\u2212])(\d+)\W*$", re.IGNORECASE)  # a number with a minus is no step


class Criterion(BaseModel, frozen=True, extra="forbid"):
    """One question about a response, answered on a scale."""

    id: str = Field(pattern=r"^[\w-]+$", description="unique in its rubric")
    question: str = Field(min_length=1, description="what is rated")
    scale: tuple[int, int] = Field((1, 5), description="lowest and highest step; higher is better")
    anchors: dict[int, str] = Field({}, description="what a step means, in words")
    reference: str | None = Field(None, description="a reference answer to show: for mathematics and code")

    @model_validator(mode="after")
    def _check(self) -> Criterion:
        low, high = self.scale
        if not 0 <= low < high <= 100:
            raise ValueError(f"criterion `{self.id}`: scale is {low} to {high}; expected two rising whole numbers")
        outside = [step for step in self.anchors if not low <= step <= high]
        if outside:
            raise ValueError(f"criterion `{self.id}`: an anchor for {outside[0]}, outside the scale {low} to {high}")
        return self

    @property
    def steps(self) -> range:
        """All steps, from the lowest."""
        return range(self.scale[0], self.scale[1] + 1)

    def scaled(self, value: float) -> float:
        """A value on the scale as -1 (lowest) to 1 (highest)."""
        low, high = self.scale
        return (value - (low + high) / 2) / ((high - low) / 2)


class Rubric(BaseModel, frozen=True, extra="forbid"):
    """Criteria, each rated by a question of its own."""

    name: str = Field(min_length=1)
    criteria: tuple[Criterion, ...] = Field(min_length=1)
    reasoning: bool = Field(False, description="let the model reason, then write `Rating: N`")

    @model_validator(mode="after")
    def _check(self) -> Rubric:
        ids = [one.id for one in self.criteria]
        twice = next((one for one in ids if ids.count(one) > 1), None)
        if twice:
            raise ValueError(f"two criteria have the id `{twice}`; rename one")
        return self


DIRECT = Rubric(
    name="direct 1-10",
    criteria=(Criterion(id="quality", question="How good is this reply to the person who asked?", scale=(1, 10)),),
)


def load_rubric(path: Path) -> Rubric:
    """Read a rubric. Raises: ValueError: not a rubric, in one line. OSError: the file cannot be read."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Rubric.model_validate(content)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{path}: {where + ': ' if where else ''}{message}") from None


@dataclass(frozen=True, kw_only=True)
class RatingPlan:
    """How responses are rated."""

    rubric: Rubric
    reasoning_tokens: int = 256
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Rated:
    """What a model said of one response for one criterion.

    Attributes:
        criterion: its id.
        value: on the criterion's scale, the expectation or the step that was said; None: unscored.
        mass: probability of all steps together; None with reasoning.
        method: how the log-probabilities were had; None with reasoning.
        reply: what was said, with reasoning.
        problem: why it is unscored.
    """

    criterion: str
    value: float | None
    mass: float | None = None
    method: str | None = None
    reply: str | None = None
    problem: str | None = None


def rate(responses: Sequence[tuple[Conversation, str]], model: LanguageModel, plan: RatingPlan) -> list[list[Rated]]:
    """Rate responses by every criterion, one response a question; all questions in one call."""
    criteria = plan.rubric.criteria
    prompts = [
        question(prompt, text, criterion, plan.rubric.reasoning) for prompt, text in responses for criterion in criteria
    ]
    asked = [criterion for _ in responses for criterion in criteria]
    if plan.rubric.reasoning:
        sampling = Sampling(temperature=0.7, max_new_tokens=plan.reasoning_tokens, seed=plan.seed)
        found = [_said(criterion, reply) for criterion, (reply,) in
                 zip(asked, model.generate(prompts, 1, sampling), strict=True)]  # fmt: skip
    else:
        scores = model.score_labels(prompts, [[f"({step})" for step in criterion.steps] for criterion in asked])
        found = [
            _expected(criterion, row, model.method_of(prompt))
            for criterion, row, prompt in zip(asked, scores, prompts, strict=True)
        ]
    return [found[start : start + len(criteria)] for start in range(0, len(found), len(criteria))]


def question(conversation: Conversation, reply: str, criterion: Criterion, reasoning: bool) -> Prompt:
    """The prompt of one criterion."""
    low, high = criterion.scale
    lines = [
        "Here is a conversation between a person and an assistant, and the assistant's next reply.",
        f"<conversation>\n{quoted(conversation)}\n</conversation>",
        f"Reply:\n<reply>\n{inert(reply)}\n</reply>",
        *([f"A reference answer:\n<reply>\n{inert(criterion.reference)}\n</reply>"] if criterion.reference else []),
        criterion.question,
        *(f"({step}) {criterion.anchors[step]}" for step in sorted(criterion.anchors)),
        f"Rate it from ({low}), the worst, to ({high}), the best.",
        "Think step by step, then write a last line `Rating: N`." if reasoning else
        f"Answer with one of {', '.join(f'({step})' for step in criterion.steps)} only.",
    ]  # fmt: skip
    return (Message(role="user", content="\n".join(lines)),)


def expected_value(steps: Sequence[int], logprobs: Sequence[float]) -> float:
    """Sum of v P(v) over sum of P(v), from log-probabilities in nats. Equal ones give the middle of the scale."""
    top = max(logprobs)
    weights = [math.exp(one - top) for one in logprobs]
    return math.fsum(v * w for v, w in zip(steps, weights, strict=True)) / math.fsum(weights)


def said_rating(reply: str, criterion: Criterion) -> int | None:
    """The number of the last line that says `Rating: N`, if it is on the scale."""
    lines = [match for line in reply.splitlines() if (match := _RATING.match(line.strip()))]
    value = int(lines[-1][1]) if lines else None
    return value if value in criterion.steps else None


def _expected(criterion: Criterion, row: Sequence[float | None], method: str) -> Rated:
    known = [one for one in row if one is not None]
    if len(known) < len(row):
        return Rated(criterion=criterion.id, value=None, method=method, problem="no answer could be read")
    mass = math.fsum(map(math.exp, known))
    value: float | None = expected_value(criterion.steps, known)
    problem = None
    if method == "top" and mass < LEAST_MASS:
        value, problem = None, "the model speaks of something else"
    return Rated(criterion=criterion.id, value=value, mass=mass, method=method, problem=problem)


def _said(criterion: Criterion, reply: Reply) -> Rated:
    value = None if reply.error else said_rating(reply.text, criterion)
    problem = reply.error or (None if value is not None else "no line `Rating: N` with a step of the scale")
    number = None if value is None else float(value)
    return Rated(criterion=criterion.id, value=number, reply=reply.text, problem=problem)


def overall(rated: Sequence[Rated], rubric: Rubric) -> float | None:
    """Mean of the criteria, each as -1..1; None if one of them is unscored."""
    values = {one.criterion: one.value for one in rated}
    scaled: list[float] = []
    for criterion in rubric.criteria:
        value = values[criterion.id]
        if value is None:
            return None
        scaled.append(criterion.scaled(value))
    return sum(scaled) / len(scaled)


def as_row(identity: str, rated: Sequence[Sequence[Rated]], rubric: Rubric) -> dict[str, Any]:
    """The ratings of the responses to one prompt, with everything that was said."""
    return {
        "id": identity,
        "overall": [overall(of_response, rubric) for of_response in rated],
        "rated": [
            [{key: value for key, value in vars(one).items() if value is not None} for one in of_response]
            for of_response in rated
        ],
    }
