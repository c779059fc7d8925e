"""Log-probabilities of answer labels from what a server tells of its first new tokens, or from counted answers.

A label is what is left of a continuation such as " (A)" without space and brackets. A model spells it in several ways
("A", " A", "(A"), so the probability of a label is the sum over the tokens that come to the same label.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

__all__ = ["FLOOR", "TopTokens", "from_top", "from_votes", "label_of", "said_label"]

TopTokens = Sequence[tuple[str, Mapping[str, float]]]
"""Per new token: the token that was said, and the log-probability (nats) of the likeliest tokens there."""

FLOOR = math.log(1e-6)
"""Nats: what a label has that no token and no answer spoke for; its true probability is unknown, and small."""
_WRAPPING = " \t\n()[]{}\"'*`.:"


def label_of(text: str) -> str:
    """A continuation without its wrapping. " (A)" and "A." are "A"."""
    return text.strip(_WRAPPING)


def from_top(continuations: Sequence[str], tokens: TopTokens) -> list[float | None] | None:
    """Log-probability of each label at the first new token that can tell them apart.

        log P(label) = log sum over tokens v with label_of(v) = label of P(v)

    Wrapping before the label ("(", a space) is stepped over, as far as the model said it.

    Args:
        continuations: the labels in their wrapping, all different.
        tokens: first tokens of a reply at temperature 0.

    Returns: one number per continuation, at least FLOOR; all None if no label is among the likeliest tokens; None
        (instead of a list) if one label begins another ("1", "10") and no token spells the longer: tokens cannot tell.
    """
    labels = [label_of(text) for text in continuations]
    for said, top in tokens:
        mass: dict[str, float] = defaultdict(float)
        for token, logprob in top.items():
            mass[label_of(token)] += math.exp(logprob)
        found = [mass[label] for label in labels]
        if any(found):
            if _ambiguous(labels, found):
                return None
            return [math.log(value) if value > 1e-6 else FLOOR for value in found]
        if label_of(said):  # the model said something else: what follows is no answer to the question
            break
    return [None] * len(continuations)


def _ambiguous(labels: Sequence[str], found: Sequence[float]) -> bool:
    return any(
        seen and other != label and other.startswith(label) and not also
        for label, seen in zip(labels, found, strict=True)
        for other, also in zip(labels, found, strict=True)
    )


def from_votes(continuations: Sequence[str], answers: Sequence[str]) -> list[float | None]:
    """Log of the share of answers that say each label; all None if none of the answers says one."""
    said = Counter(said_label(continuations, answer) for answer in answers)
    del said[None]
    if not said:
        return [None] * len(continuations)
    return [math.log(said[number] / len(answers)) if said[number] else FLOOR for number in range(len(continuations))]


def said_label(continuations: Sequence[str], answer: str) -> int | None:
    """Which label an answer says, by index; None if it says none, or more than one.

    The whole answer may be the label; else a label in brackets counts; else one that stands alone as a word, read
    exactly as it is written.
    """
    labels = [label_of(text) for text in continuations]
    if label_of(answer) in labels:
        return labels.index(label_of(answer))
    bracketed = {number for number, label in enumerate(labels) if re.search(rf"[(\[]{re.escape(label)}[)\]]", answer)}
    words = {number for number, label in enumerate(labels) if re.search(rf"(?<!\w){re.escape(label)}(?!\w)", answer)}
    for found in (bracketed, words):
        if found:
            return found.pop() if len(found) == 1 else None
    return None
