"""A language model that says which of two responses is better, asked in both orders.

    q = sigma(logp "(A)" - logp "(B)") = P(the response shown first is better)

One question about each pair; for principles, chain of thought and soft labels to train on see `accord feedback label`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from accord.pipelines.evaluation import Items, key_of, measured
from accord.protocols import Score
from accord.records import Conversation, Message
from accord.train.progress import Display

__all__ = ["QUESTION", "Pair", "judge_pairs", "prompt_of"]

QUESTION = "Which reply is better: more helpful, more accurate, and safe? A longer reply is not better for its length."
ANSWERS = ("(A)", "(B)")
ROLES = {"user": "Person", "assistant": "Assistant", "system": "System", "tool": "Tool"}


class Pair(NamedTuple):
    """Two responses to a prompt: the candidate's and the baseline's."""

    prompt: Conversation
    candidate: str
    baseline: str


def prompt_of(prompt: Conversation, first: str, second: str, question: str) -> Conversation:
    """What the judge is given. Marks inside the texts are spelled apart, so that none can close its own quotation."""
    turns = "\n\n".join(f"{ROLES[turn.role]}: {_inert(turn.content)}" for turn in prompt)
    text = (
        "Here is a conversation between a person and an assistant, and two possible next replies.\n"
        f"<conversation>\n{turns}\n</conversation>\n"
        f"Reply (A):\n<reply>\n{_inert(first)}\n</reply>\nReply (B):\n<reply>\n{_inert(second)}\n</reply>\n"
        f"{question}\nAnswer with (A) or (B) only."
    )
    return (Message(role="user", content=text),)


def judge_pairs(
    judge: Score, pairs: Sequence[Pair], question: str, items: Items, display: Display
) -> tuple[list[str], list[tuple[float, float]]]:
    """(first_AB, first_BA) of each pair, NaN where unscored, and the keys of the rows.

    first_AB is P(the response shown first wins) with the candidate first, first_BA with the baseline first. Identical
    texts tie without asking.
    """
    keys = [
        key_of(judge.name, question, [turn.model_dump() for turn in pair.prompt], pair.candidate, pair.baseline)
        for pair in pairs
    ]

    def work(chosen: Sequence[int]) -> list[dict[str, Any]]:
        asked = [at for at in chosen if pairs[at].candidate != pairs[at].baseline]
        prompts = [
            prompt_of(pairs[at].prompt, *texts, question)
            for at in asked
            for texts in ((pairs[at].candidate, pairs[at].baseline), (pairs[at].baseline, pairs[at].candidate))
        ]
        scores = iter(judge(prompts, [ANSWERS] * len(prompts)) if prompts else [])
        rows = {at: _row(next(scores), next(scores)) for at in asked}
        return [{"judge": judge.name} | rows.get(at, {"first_AB": 0.5, "first_BA": 0.5, "same": True}) for at in chosen]

    rows = measured(items, keys, work, display, "verdicts", batch=8)
    return keys, [(_number(row["first_AB"]), _number(row["first_BA"])) for row in rows]


def _row(candidate_first: Sequence[float | None], baseline_first: Sequence[float | None]) -> dict[str, Any]:
    row: dict[str, Any] = {"first_AB": _first_wins(candidate_first), "first_BA": _first_wins(baseline_first)}
    row |= {"logp_AB": list(candidate_first), "logp_BA": list(baseline_first)}
    return row | ({"error": "an answer could not be read"} if None in (row["first_AB"], row["first_BA"]) else {})


def _first_wins(logp: Sequence[float | None]) -> float | None:
    a, b = logp
    return None if a is None or b is None else 1 / (1 + math.exp(min(700.0, b - a)))


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _inert(text: str) -> str:
    for mark in ("conversation", "reply"):
        text = text.replace(f"<{mark}>", f"< {mark}>").replace(f"</{mark}>", f"< /{mark}>")
    return text
