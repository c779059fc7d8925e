"""Screening, checks, reviews and exclusions: whose judgments count, and who decided that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from accord.feedback.store import payloads
from accord.feedback.store.grading import is_right, must_pause
from accord.feedback.store.queries.campaigns import requeue, reserve_slots
from accord.feedback.store.queries.common import keep_words, must_be, must_have, write_event
from accord.feedback.store.queries.content import texts_of
from accord.feedback.store.queries.situations import is_paused, pause_subject, unanswered
from accord.feedback.store.settings import CampaignSettings
from accord.feedback.store.tables import (
    Campaign,
    Event,
    Exclusion,
    Item,
    Judgment,
    Qualification,
    Review,
)

__all__ = [
    "add_review",
    "dismiss_evidence",
    "dismissed",
    "exclude",
    "known_answers",
    "pause_annotator",
    "pause_if_failing",
    "resume_annotator",
    "reverse_exclusion",
    "settle_qualification",
]


def known_answers(
    session: Session, campaign: Campaign, annotator_id: str, kind: str, *, since: int = 0
) -> list[tuple[str, bool | None]]:
    """(item, right) of an annotator's latest answers to items of a kind, oldest first; None: a person has to say."""
    rows = session.execute(
        select(Judgment, Item)
        .join(Item, Item.id == Judgment.item_id)
        .where(Item.campaign_id == campaign.id, Item.kind == kind, Judgment.annotator_id == annotator_id)
        .where(Judgment.submitted_at >= since)
        .order_by(Judgment.submitted_at, Judgment.id)
    )
    latest = {item.id: (judgment, item) for judgment, item in rows}
    return [(item.id, _right(session, campaign, judgment, item)) for judgment, item in latest.values()]


def _right(session: Session, campaign: Campaign, judgment: Judgment, item: Item) -> bool | None:
    """By the known answer, or where that cannot say, by the last review of the judgment."""
    right = is_right(campaign.task_type, item.expected or {}, judgment.payload, list(judgment.display_order))
    if right is not None:
        return right
    graded = select(Review.decision).where(Review.judgment_id == judgment.id, Review.decision != "adjudicate")
    decision = session.scalar(graded.order_by(Review.created_at.desc(), Review.id.desc()).limit(1))
    return None if decision is None else decision == "accept"


def settle_qualification(session: Session, campaign: Campaign, annotator_id: str) -> Qualification | None:
    """Record the attempt if there is one left and all its items are answered and graded; return it, or None."""
    settings = CampaignSettings.model_validate(campaign.settings)
    items = session.scalars(
        select(Item.id).where(Item.campaign_id == campaign.id, Item.kind == "qualification", Item.state != "withdrawn")
    ).all()
    passed = session.scalars(
        select(Qualification.passed).where(
            Qualification.campaign_id == campaign.id, Qualification.annotator_id == annotator_id
        )
    ).all()
    if any(passed) or len(passed) >= settings.attempts:
        return None
    answers = select(Judgment.item_id, func.max(Judgment.revision)).where(
        Judgment.annotator_id == annotator_id, Judgment.item_id.in_(items)
    )
    done = dict(session.execute(answers.group_by(Judgment.item_id)).all())
    right = dict(known_answers(session, campaign, annotator_id, "qualification"))
    graded = [right.get(item) for item in items]
    if unanswered(list(items), done, len(passed)) or None in graded:
        return None
    score = graded.count(True) / len(graded)
    result = Qualification(
        campaign_id=campaign.id,
        annotator_id=annotator_id,
        attempt=len(passed) + 1,
        score=score,
        passed=score >= settings.pass_mark,
        detail={item: right[item] for item in items},
    )
    session.add(result)
    session.flush()
    return result


def pause_if_failing(session: Session, campaign: Campaign, annotator_id: str) -> None:
    """Pause an annotator who failed too many attention checks since a reviewer last looked."""
    subject = pause_subject(campaign.id, annotator_id)
    since = session.scalar(select(func.max(Event.created_at)).where(Event.kind == "resumed", Event.subject == subject))
    answers = known_answers(session, campaign, annotator_id, "attention", since=since or 0)
    settings = CampaignSettings.model_validate(campaign.settings)
    failing = must_pause([bool(right) for _, right in answers], settings.attention_window, settings.attention_failures)
    if failing and not is_paused(session, campaign.id, annotator_id):
        failed = [item for item, right in answers if not right]
        write_event(session, "paused", subject, actor_id=None, failed=failed)
        session.flush()


def pause_annotator(session: Session, *, campaign_id: str, annotator_id: str, actor_id: str) -> None:
    """Give an annotator no further task until somebody has looked; what they have said stays as it is.

    Raises:
        ValueError: no admin of the project.
    """
    campaign = must_have(session, Campaign, campaign_id)
    must_be(session, actor_id, campaign.project_id, "admin")
    if not is_paused(session, campaign_id, annotator_id):
        write_event(session, "paused", pause_subject(campaign_id, annotator_id), actor_id=actor_id)
        session.flush()


def dismiss_evidence(
    session: Session, *, campaign_id: str, annotator_id: str, actor_id: str, kinds: Sequence[str]
) -> None:
    """Note that somebody has looked at these kinds of evidence and finds nothing wrong; it is shown again with others.

    Raises:
        ValueError: no admin of the project.
    """
    campaign = must_have(session, Campaign, campaign_id)
    must_be(session, actor_id, campaign.project_id, "admin")
    subject = pause_subject(campaign_id, annotator_id)
    write_event(session, "evidence dismissed", subject, actor_id=actor_id, kinds=sorted(set(kinds)))
    session.flush()


def dismissed(session: Session, *, campaign_id: str) -> dict[str, frozenset[str]]:
    """Annotator -> the kinds of evidence on them that were dismissed."""
    prefix = pause_subject(campaign_id, "")
    query = select(Event).where(Event.kind == "evidence dismissed", Event.subject.startswith(prefix))
    found: dict[str, frozenset[str]] = {}
    for event in session.scalars(query):
        annotator = event.subject.removeprefix(prefix)
        found[annotator] = found.get(annotator, frozenset()) | frozenset(event.detail["kinds"])
    return found


def resume_annotator(session: Session, *, campaign_id: str, annotator_id: str, reviewer_id: str) -> None:
    """Let a paused annotator go on, after a look; what was failed before no longer counts."""
    campaign = must_have(session, Campaign, campaign_id)
    must_be(session, reviewer_id, campaign.project_id, "reviewer", "admin")
    write_event(session, "resumed", pause_subject(campaign_id, annotator_id), actor_id=reviewer_id)
    session.flush()


def add_review(
    session: Session,
    *,
    reviewer_id: str,
    decision: str,
    reason: str,
    judgment_id: str | None = None,
    item_id: str | None = None,
    payload: Mapping[str, Any] | None = None,
) -> Review:
    """Accept or reject a judgment, or adjudicate an item with a payload of the reviewer's own.

    Raises:
        ValueError: no reviewer, one's own judgment, or a decision that does not fit its subject.
    """
    if (decision == "adjudicate") != (item_id is not None and judgment_id is None and payload is not None):
        raise ValueError(
            "expected `accept` or `reject` with a judgment, or `adjudicate` with an item and a payload; correct it"
        )
    judgment = None if judgment_id is None else must_have(session, Judgment, judgment_id)
    item = must_have(session, Item, judgment.item_id if judgment is not None else str(item_id))
    campaign = must_have(session, Campaign, item.campaign_id)
    must_be(session, reviewer_id, campaign.project_id, "reviewer", "admin")
    if judgment is not None and judgment.annotator_id == reviewer_id:
        raise ValueError("this judgment is your own; expected one of someone else; leave it to another reviewer")
    kept = None
    if payload is not None:
        kept, _ = payloads.split(payloads.parse(campaign.task_type, payload, texts_of(session, item.id)))
    body_id = keep_words(session, reason, author_id=reviewer_id)
    review = Review(
        judgment_id=judgment_id,
        item_id=item_id,
        reviewer_id=reviewer_id,
        decision=decision,
        payload=kept,
        body_id=body_id,
    )
    session.add(review)
    session.flush()
    if judgment is not None and judgment.annotator_id is not None and item.kind == "qualification":
        settle_qualification(session, campaign, judgment.annotator_id)
    return review


def exclude(
    session: Session,
    *,
    annotator_id: str,
    reason: str,
    evidence: dict[str, Any],
    decided_by: str,
    campaign_id: str | None = None,
    since: int | None = None,
    until: int | None = None,
    replace: bool = False,
) -> Exclusion:
    """Leave an annotator's judgments out when reading, in one campaign or all, and give no more tasks; logged.

    Args:
        session: of the transaction.
        annotator_id: whose.
        reason: why, in a sentence.
        evidence: what the person who decided saw: figures, limits, examples.
        decided_by: the person.
        campaign_id: where; None: everywhere.
        since: from this time of submission on; None: from the first.
        until: up to it, not included; None: from then on for good.
        replace: ask one more annotator for each item they were counted on.
    """
    if not reason.strip() or not evidence:
        raise ValueError("an exclusion has to have a reason and the evidence that was seen; add them")
    row = Exclusion(
        annotator_id=annotator_id,
        campaign_id=campaign_id,
        since=since,
        until=until,
        reason=reason,
        evidence=evidence,
        decided_by=decided_by,
    )
    session.add(row)
    session.flush()
    write_event(session, "excluded", annotator_id, actor_id=decided_by, exclusion=row.id, campaign=campaign_id)
    if replace:
        _replace(session, row)
    return row


def _replace(session: Session, row: Exclusion) -> None:
    query = (
        select(Judgment.item_id, Item.campaign_id)
        .join(Item, Item.id == Judgment.item_id)
        .where(Judgment.annotator_id == row.annotator_id, Judgment.counted, Item.kind == "normal")
        .where(Judgment.submitted_at >= (row.since or 0), Item.state != "withdrawn")
        .distinct()
    )
    query = query if row.until is None else query.where(Judgment.submitted_at < row.until)
    query = query if row.campaign_id is None else query.where(Item.campaign_id == row.campaign_id)
    campaigns = set()
    for item_id, campaign_id in session.execute(query).all():
        reserve_slots(session, item_id, 1)
        campaigns.add(campaign_id)
    for campaign_id in campaigns:
        requeue(session, campaign_id)


def reverse_exclusion(session: Session, *, exclusion_id: str, reversed_by: str, reason: str, now: int) -> None:
    """Take an exclusion back: all judgments are read again; the row stays, with who and why."""
    row = must_have(session, Exclusion, exclusion_id)
    row.reversed_at, row.reversed_by, row.reversal_reason = now, reversed_by, reason
    write_event(session, "exclusion reversed", row.annotator_id, actor_id=reversed_by, exclusion=row.id)
    session.flush()
