"""Ratings of all responses to a prompt in one call, shown in an order drawn by hash, which is kept.

Cheaper than one call a response, and a comparison in disguise: what stands beside a response, and where, colours its
rating. Rate one by one where the ratings are to mean something alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from accord.feedback.ai.draws import shuffled
from accord.feedback.ai.forms import inert, quoted
from accord.feedback.ai.ratings import Criterion, Rated, RatingPlan
from accord.protocols import LanguageModel, Prompt, Reply, Sampling
from accord.records import Message, ResponseSet

__all__ = ["JointlyRated", "joint_question", "rate_jointly"]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, kw_only=True)
class JointlyRated:
    """Ratings of a prompt's responses, in their own order, by criterion; `order` are their places as shown."""

    rated: list[list[Rated]]
    order: list[int]


def rate_jointly(sets: Sequence[ResponseSet], model: LanguageModel, plan: RatingPlan) -> list[JointlyRated]:
    """Rate by every criterion, all responses to a prompt in one question.

    Raises: ValueError: a prompt has more responses than there are letters.
    """
    for one in sets:
        if len(one.responses) > len(LETTERS):
            raise ValueError(
                f"response set {one.id} has {len(one.responses)} responses; --joint takes {len(LETTERS)}; "
                "leave --joint out"
            )
    criteria = plan.rubric.criteria
    orders = [shuffled(range(len(one.responses)), "joint", plan.seed, one.id) for one in sets]
    prompts = [
        joint_question(one, order, criterion) for one, order in zip(sets, orders, strict=True) for criterion in criteria
    ]
    sampling = Sampling(temperature=0.7, max_new_tokens=plan.reasoning_tokens, seed=plan.seed)
    replies = iter([only for (only,) in model.generate(prompts, 1, sampling)])
    found = []
    for order in orders:
        by_criterion = [_read(criterion, next(replies), order) for criterion in criteria]
        found.append(JointlyRated(rated=[list(row) for row in zip(*by_criterion, strict=True)], order=list(order)))
    return found


def joint_question(one: ResponseSet, order: Sequence[int], criterion: Criterion) -> Prompt:
    """The prompt of one criterion."""
    low, high = criterion.scale
    shown = [
        f"Reply ({letter}):\n<reply>\n{inert(one.responses[place].text)}\n</reply>"
        for letter, place in zip(LETTERS, order, strict=False)
    ]
    lines = [
        "Here is a conversation between a person and an assistant, and several possible next replies.",
        f"<conversation>\n{quoted(one.prompt)}\n</conversation>",
        *shown,
        *([f"A reference answer:\n<reply>\n{inert(criterion.reference)}\n</reply>"] if criterion.reference else []),
        criterion.question,
        *(f"({step}) {criterion.anchors[step]}" for step in sorted(criterion.anchors)),
        f"Rate each reply by itself from ({low}), the worst, to ({high}), the best.",
        "End with one line for each reply, such as `Rating A: N`.",
    ]
    return (Message(role="user", content="\n".join(lines)),)


def _read(criterion: Criterion, reply: Reply, order: Sequence[int]) -> list[Rated]:
    """One rating per response, in the responses' own order; of several lines for a letter the last counts."""
    rated: dict[int, Rated] = {}
    for letter, place in zip(LETTERS, order, strict=False):
        lines = re.findall(
            rf"^\W*rating\W*{letter}\W*:\W*(?<![-\u2212])(\d+)\W*$", reply.text, re.IGNORECASE | re.MULTILINE
        )
        value = int(lines[-1]) if lines else None
        good = value is not None and value in criterion.steps and reply.error is None
        rated[place] = Rated(
            criterion=criterion.id,
            value=float(value) if good and value is not None else None,
            reply=reply.text,
            problem=None if good else reply.error or f"no line `Rating {letter}: N` with a step of the scale",
        )
    return [rated[place] for place in range(len(order))]
