"""Answer labels such as (A) and (B): how a model may spell them, and what each is given over all its spellings.

A label is what is left of a continuation such as " (A)" without space and brackets. A model spells it in several ways
("A", " A", "(A"), and which one it prefers says nothing of its answer, so

    P(label) = sum over its spellings s of P(the reply begins with s)

From a model in this process all `spellings` are had, and summed by `total`; from a server that tells its likeliest
first tokens, `from_top` reads them off; from one that tells neither, `from_votes` counts.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Container, Hashable, Iterable, Mapping, Sequence
from typing import TypeAlias, TypeVar

__all__ = [
    "FLOOR",
    "LEAST_MASS",
    "TopTokens",
    "bare",
    "from_top",
    "from_votes",
    "label_of",
    "said_label",
    "shortest",
    "spellings",
    "total",
]

Tokens = TypeVar("Tokens", bound=tuple[Hashable, ...])
TopTokens: TypeAlias = Sequence[tuple[str, Mapping[str, float]]]
"""Per new token: the token that was said, and the log-probability (nats) of the likeliest tokens there."""

FLOOR = math.log(1e-6)
"""Nats: what a label has that no token and no answer spoke for; its true probability is unknown, and small."""
LEAST_MASS = 0.05
"""A server's first tokens that give all labels together less than this are about something else: unscored."""
_WRAPPING = " \t\n()[]{}\"'*`.:\u0120\u2581"  # the last two stand for a space in the tokens some servers tell
_CLOSING = (")", ".", ":", ",", "\n", "\n\n")


def label_of(text: str) -> str:
    """A continuation without its wrapping. " (A)" and "A." are "A"."""
    return text.strip(_WRAPPING)


def spellings(continuation: str) -> tuple[str, ...]:
    """How a reply may begin that gives the label of a continuation: "(A", " (A", "A)", " A.", ...

    A bare letter is one only with what closes it, or it would be the article of "A machete is a good tool". A reply
    that is the letter alone ends behind one of `bare`, which these are not.
    """
    label = label_of(continuation)
    return (f"({label}", f" ({label}", *(f"{text}{end}" for text in bare(continuation) for end in _CLOSING))


def bare(continuation: str) -> tuple[str, str]:
    """A label without any wrapping, at once and behind a space: an answer if the reply ends there."""
    label = label_of(continuation)
    return label, f" {label}"


def total(spelled: Sequence[Mapping[Tokens, float]]) -> list[float]:
    """Log-probability of each label, summed over its spellings.

    A spelling that continues another of the same label ("(A)" behind "(A") is counted in that one already; one that is
    continued by a spelling of another label ("1" by "10") does not count where that one is meant.

    Args:
        spelled: per label, the tokens of each spelling and its log-probability, nats. Not empty.

    Example: `total([{("1",): log(0.6)}, {("1", "0"): log(0.2)}])` is about `[log(0.4), log(0.2)]`.
    """
    sums = []
    for own in spelled:
        others = {tokens: value for other in spelled if other is not own for tokens, value in other.items()}
        begun = shortest(own)
        meant = shortest(tokens for tokens in others if _continues(tokens, begun))
        mass = math.fsum(math.exp(own[t]) for t in begun) - math.fsum(math.exp(others[t]) for t in meant)
        sums.append(math.log(mass) if mass > 0 else FLOOR)
    return sums


def shortest(spelled: Iterable[Tokens]) -> list[Tokens]:
    """The spellings, as tokens, that continue none of the others: all that `total` needs of a label."""
    known = dict.fromkeys(spelled)
    return [tokens for tokens in known if not _continues(tokens, known)]


def _continues(tokens: tuple[Hashable, ...], others: Container[Tokens]) -> bool:
    return any(tokens[:length] in others for length in range(1, len(tokens)))


def from_top(continuations: Sequence[str], tokens: TopTokens) -> list[float | None] | None:
    """Log-probability of each label at the first new tokens.

        P(label) = sum over steps t of P(wrapping said before t) * sum over tokens v with label_of(v) = label of P_t(v)

    The steps are those that the model said at temperature 0: wrapping before the label ("(", a space) is stepped over.
    What would follow a bare letter is not told, so it counts whatever that is.

    Args:
        continuations: the labels in their wrapping, all different.
        tokens: first tokens of a reply at temperature 0.

    Returns: one number per continuation, at least FLOOR; all None if no label is among the likeliest tokens; None
        (instead of a list) if one label begins another ("1", "10") and no token spells the longer: tokens cannot tell.
    """
    labels = [label_of(text) for text in continuations]
    mass: dict[str, float] = defaultdict(float)
    before = 1.0
    for said, top in tokens:
        for token, logprob in top.items():
            mass[label_of(token)] += before * math.exp(logprob)
        if label_of(said):  # a label; or something else, and what follows is no answer to the question
            break
        before *= math.exp(top.get(said, max(top.values(), default=0.0)))
    found = [mass[label] for label in labels]
    if not any(found):
        return [None] * len(continuations)
    if _ambiguous(labels, found):
        return None
    return [math.log(value) if value > 1e-6 else FLOOR for value in found]


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
