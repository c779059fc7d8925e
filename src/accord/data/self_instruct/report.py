"""What came of it: yield of each step, reasons, how near accepted instructions are to others, verbs and their nouns."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["report_of", "size_class", "verb_and_noun"]

Row = Mapping[str, Any]
LONGEST_REASON = 160
_NOT_NOUNS = frozenset(
    [
        "a",
        "an",
        "the",
        "this",
        "that",
        "these",
        "those",
        "some",
        "any",
        "all",
        "each",
        "every",
        "of",
        "for",
        "to",
        "in",
        "on",
        "at",
        "from",
        "by",
        "with",
        "and",
        "or",
        "following",
        "given",
        "next",
        "my",
        "your",
        "his",
        "her",
        "its",
        "our",
        "their",
        "one",
        "two",
        "three",
        "four",
        "five",
        "ten",
        "several",
        "many",
        "few",
        "more",
        "most",
        "short",
        "brief",
        "new",
        "simple",
        "list",
        "me",
        "us",
        "you",
        "it",
        "them",
        "if",
        "whether",
        "how",
        "what",
        "when",
        "where",
        "why",
        "which",
        "who",
        "below",
        "above",
        "is",
        "are",
        "be",
        "between",
        "about",
        "into",
    ]
)


def report_of(
    accepted: Sequence[Row], classified: Sequence[Row], instances: Sequence[Row], rejected: Sequence[Row]
) -> dict[str, Any]:
    """Figures of a job as JSON; shares are 0 to 1."""
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rejected:
        step, reason = row["step"], row["reason"]
        reasons[step][reason[:LONGEST_REASON] if step == "request" else reason.split(":")[0]] += 1
    offered = len(accepted) + reasons["instruction"].total()
    with_instances = len({row["id"] for row in instances})
    first = [row["nearest"][0]["f1"] for row in accepted if row["nearest"]]
    return {
        "instructions": {
            "offered": offered,
            "accepted": len(accepted),
            "yield": len(accepted) / offered if offered else 0.0,
            "rejected": dict(reasons["instruction"].most_common()),
        },
        "classification": {
            "yes": sum(row["is_classification"] for row in classified),
            "no": sum(not row["is_classification"] for row in classified),
        },
        "instances": {
            "kept": len(instances),
            "instructions_with_one": with_instances,
            "yield": len(instances) / max(1, len(instances) + reasons["instance"].total()),
            "rejected": dict(reasons["instance"].most_common()),
        },
        "requests_without_reply": reasons["request"].total(),
        "why_without_reply": dict(reasons["request"].most_common(5)),
        "nearest_f1": _histogram(first),
        "verbs": _verbs([row["instruction"] for row in accepted]),
    }


def size_class(size: int) -> str:
    """The size of a pool in round numbers, for a cost that grows with it.

    >>> size_class(700), size_class(12_000)
    ('up to 1,000', 'up to 20,000')
    """
    limits = (step * 10**power for power in range(3, 12) for step in (1, 2, 5))
    return f"up to {next(limit for limit in limits if size <= limit):,}"


def _histogram(values: Sequence[float]) -> dict[str, int]:
    """Counts by tenths: how close accepted instructions are to their nearest neighbour."""
    bins = Counter(min(int(value * 10), 9) for value in values)
    return {f"{tenth / 10:.1f}-{(tenth + 1) / 10:.1f}": bins[tenth] for tenth in range(10)}


def _verbs(texts: Sequence[str]) -> list[dict[str, Any]]:
    """The 20 commonest first words with their 4 commonest objects."""
    nouns: dict[str, Counter[str]] = defaultdict(Counter)
    for verb, noun in filter(None, map(verb_and_noun, texts)):
        nouns[verb][noun] += 1
    common = sorted(nouns.items(), key=lambda pair: (-pair[1].total(), pair[0]))[:20]
    return [{"verb": verb, "count": counts.total(), "nouns": dict(counts.most_common(4))} for verb, counts in common]


def verb_and_noun(text: str) -> tuple[str, str] | None:
    """The first word of an instruction and the first word after it that can be its object, without a parser.

    >>> verb_and_noun("Write a short poem about rain.")
    ('write', 'poem')
    """
    found = re.findall(r"[a-z'-]+", text.lower())
    after = [word for word in found[1:] if word not in _NOT_NOUNS]
    return (found[0], after[0]) if after else None
