"""Chat logs -> conversations that may be looked at: screened, capped by person, each kind of question once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from accord.data.collections import ChatLog
from accord.feedback.store.personal_data import Detector, scrub
from accord.feedback.store.splits import near_duplicates
from accord.records import Message

__all__ = ["Prepared", "prepare"]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What is left of the logs, and what became of the others: conversations = logs + dropped + capped + duplicates.

    Attributes:
        logs: conversations, with placeholders for personal data.
        conversations: that came in.
        finds: personal data by type.
        with_finds: conversations with any.
        dropped: left out for personal data.
        capped: left out because their person has said enough.
        duplicates: left out because their first turn is nearly that of an earlier one.
        largest: (first turn, how many) of the largest groups of near-duplicates.
    """

    logs: tuple[ChatLog, ...]
    conversations: int
    finds: Mapping[str, int]
    with_finds: int
    dropped: int
    capped: int
    duplicates: int
    largest: tuple[tuple[str, int], ...]


def prepare(
    logs: Sequence[ChatLog],
    *,
    screen: Literal["replace", "drop", "off"] = "replace",
    detectors: Sequence[Detector] = (),
    per_user: int = 200,
    threshold: float = 0.8,
    seed: int = 0,
    step: Callable[[str, int, int], object] = lambda title, done, total: None,
) -> Prepared:
    """Screen, cap and deduplicate.

    Args:
        logs: as they were read.
        screen: replace personal data by placeholders, drop the conversation, or off.
        detectors: beyond the patterns.
        per_user: conversations of one person at most, drawn by hash; people are known where the logs tell them apart.
        threshold: share of 5-word shingles of the first turns from which two are one.
        seed: of that draw.
        step: called with what is done, for a progress bar.
    """
    finds: Counter[str] = Counter()
    screened: list[ChatLog] = []
    with_finds = dropped = 0
    for number, log in enumerate(logs, 1):
        step("personal data", number, len(logs))
        clean, found = _screened(log, detectors) if screen != "off" else (log, Counter())
        finds += found
        with_finds += bool(found)
        if found and screen == "drop":
            dropped += 1
        else:
            screened.append(clean)
    capped = _capped(screened, per_user, seed)
    step("near-duplicates", 0, len(capped))
    groups = near_duplicates([log.first for log in capped], threshold)
    first: dict[int, ChatLog] = {}
    for group, log in zip(groups, capped, strict=True):
        first.setdefault(group, log)
    sizes = Counter(groups)
    return Prepared(
        logs=tuple(first.values()),
        conversations=len(logs),
        finds=dict(finds),
        with_finds=with_finds,
        dropped=dropped,
        capped=len(screened) - len(capped),
        duplicates=len(capped) - len(first),
        largest=tuple((first[group].first, size) for group, size in sizes.most_common(5) if size > 1),
    )


def _screened(log: ChatLog, detectors: Sequence[Detector]) -> tuple[ChatLog, Counter[str]]:
    texts, finds = scrub([turn.content for turn in log.messages], detectors)
    found = Counter(one.type for turn in finds for one in turn)
    if not found:
        return log, found
    turns = tuple(Message(role=turn.role, content=text) for turn, text in zip(log.messages, texts, strict=True))
    return replace(log, messages=turns), found


def _capped(logs: Sequence[ChatLog], per_user: int, seed: int) -> list[ChatLog]:
    """At most so many of one person, whatever order they come in; the order of the logs stays."""
    by_person: dict[str, list[int]] = {}
    for place, log in enumerate(logs):
        if log.user is not None:
            by_person.setdefault(log.user, []).append(place)
    kept = {place for place, log in enumerate(logs) if log.user is None}
    for places in by_person.values():
        drawn = sorted(places, key=lambda place: hashlib.sha256(f"{seed}\0{logs[place].id}".encode()).digest())
        kept.update(drawn[:per_user])
    return [log for place, log in enumerate(logs) if place in kept]
