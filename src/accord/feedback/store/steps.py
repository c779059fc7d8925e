"""Who sees what next: a pure function of what is known about an annotator in a campaign."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from accord.feedback.store.order import draw, shuffled

__all__ = ["Mix", "Situation", "Step", "Stop", "next_step"]

Stop = Literal[
    "not a member",
    "not open",
    "excluded",
    "consent needed",
    "guideline needed",
    "paused",
    "qualification failed",
    "waiting for a grade",
    "nothing left",
]


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What decides on an annotator's next task.

    Example: a campaign that is open, an annotator who has done 3 tasks and holds none:
    `Situation(campaign_state="open", annotator="u", finished=3)`.

    Attributes:
        campaign_state: draft, pilot, open, paused or closed.
        annotator: id of the annotator.
        finished: tasks of this campaign the annotator has submitted or skipped.
        member: is an annotator of the project, and not disabled.
        excluded: an exclusion is in force now.
        consented: the project's newest consent text is agreed to.
        confirmed: the campaign's guideline, in its version of now, is confirmed.
        paused: failed too many attention checks, and no reviewer has looked yet.
        holds: item of the annotator's lease, which is resumed first.
        attempts: results of the attempts at the qualification, oldest first.
        unqualified: qualification items not yet answered in this attempt; empty where there is no qualification.
        ungraded: all of them are answered and a reviewer has to grade.
        pilot: items everybody gets in the pilot, without those the annotator is done with.
        gold: gold items the annotator has not seen.
        attention: attention checks the annotator has not seen.
    """

    campaign_state: str
    annotator: str
    finished: int = 0
    member: bool = True
    excluded: bool = False
    consented: bool = True
    confirmed: bool = True
    paused: bool = False
    holds: str | None = None
    attempts: Sequence[bool] = ()
    unqualified: Sequence[str] = ()
    ungraded: bool = False
    pilot: Sequence[str] = ()
    gold: Sequence[str] = ()
    attention: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Mix:
    """How known answers are mixed in: 1 in so many tasks, drawn under the campaign's secret."""

    secret: str
    gold_every: int
    attention_every: int
    attempts: int


@dataclass(frozen=True, kw_only=True)
class Step:
    """What to do: nothing and why (`stop`), this item (`item`), or any normal item that is free (neither)."""

    stop: Stop | None = None
    item: str | None = None


def next_step(now: Situation, mix: Mix) -> Step:
    """Return the step of an annotator.

    First what forbids a task, then the lease held, the screening, the pilot, an attention check or a gold item where
    it is their turn, and else the queue.
    """
    stop = _forbidden(now)
    if stop is not None:
        return Step(stop=stop)
    if now.holds is not None:
        return Step(item=now.holds)
    screening = _screening(now, mix)
    if screening is not None:
        return screening
    if now.campaign_state == "pilot":
        return Step(item=now.pilot[0]) if now.pilot else Step(stop="nothing left")
    for what, unseen, one_in in (("attention", now.attention, mix.attention_every), ("gold", now.gold, mix.gold_every)):
        if unseen and draw(mix.secret, now.annotator, now.finished, what, one_in):
            return Step(item=shuffled(mix.secret, unseen, salt=now.annotator)[0])
    return Step()


def _forbidden(now: Situation) -> Stop | None:
    """The first reason why this annotator gets no task, in the order a person can do something about it."""
    reasons: tuple[tuple[bool, Stop], ...] = (
        (not now.member, "not a member"),
        (now.campaign_state not in ("pilot", "open"), "not open"),
        (now.excluded, "excluded"),
        (not now.consented, "consent needed"),
        (not now.confirmed, "guideline needed"),
        (now.paused, "paused"),
    )
    return next((stop for holds, stop in reasons if holds), None)


def _screening(now: Situation, mix: Mix) -> Step | None:
    """None once the qualification is passed, or where there is none."""
    if any(now.attempts):
        return None
    if now.ungraded:
        return Step(stop="waiting for a grade")
    if len(now.attempts) >= mix.attempts:
        return Step(stop="qualification failed")
    return Step(item=now.unqualified[0]) if now.unqualified else None
