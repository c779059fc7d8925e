"""A person's qualification as they may see it: scores at once, and every answer explained once it is over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from accord.feedback.store.queries.leases import task_again
from accord.feedback.store.queries.quality import known_answers
from accord.feedback.store.queries.situations import unanswered
from accord.feedback.store.settings import CampaignSettings
from accord.feedback.store.tables import Body, Campaign, Item, Judgment, Qualification, Review
from accord.records import Conversation

__all__ = ["Screened", "Screening", "screening_of", "screenings_of"]


@dataclass(frozen=True, kw_only=True)
class Screened:
    """An item of the test with what was said and what was to be said.

    Attributes:
        prompt: its messages.
        responses: texts in the order they were shown.
        payload: the answer, with its `words` and `display_order`.
        expected: the known answer, as much of a payload as counts; nothing where a reviewer grades.
        explanation: why, in the words of whoever made the item.
        right: None: not graded yet.
        reason: of the reviewer who graded it.
    """

    prompt: Conversation
    responses: tuple[str, ...]
    payload: Mapping[str, Any]
    words: str | None
    display_order: tuple[str, ...]
    expected: Mapping[str, Any]
    explanation: str | None
    right: bool | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class Screening:
    """A person's attempts at the test of a campaign.

    Attributes:
        attempts: (score, passed), oldest first.
        left: attempts that are left; none after one that was passed.
        waits: all is answered, and a reviewer has to grade.
        answers: of the last attempt; empty until the test is over, since a second attempt asks the same.
    """

    attempts: tuple[tuple[float, bool], ...]
    left: int
    waits: bool
    answers: tuple[Screened, ...] = ()


def screening_of(session: Session, campaign: Campaign, annotator_id: str, *, explains: bool = True) -> Screening | None:
    """The test of a campaign as one of its people may see it, with answers if asked for; None: it has none."""
    query = select(Item.id).where(Item.campaign_id == campaign.id, Item.kind == "qualification")
    items = list(session.scalars(query.where(Item.state != "withdrawn").order_by(Item.id)))
    query_ = select(Qualification).where(Qualification.campaign_id == campaign.id)
    rows = session.scalars(query_.where(Qualification.annotator_id == annotator_id).order_by(Qualification.attempt))
    attempts = tuple((one.score, one.passed) for one in rows)
    if not items and not attempts:
        return None
    latest = _latest(session, items, annotator_id)
    passed = any(one[1] for one in attempts)
    left = 0 if passed else CampaignSettings.model_validate(campaign.settings).attempts - len(attempts)
    done = {item: judgment.revision for item, (judgment, _) in latest.items()}
    waits = bool(items) and left > 0 and not unanswered(items, done, len(attempts))
    if left > 0 or not attempts:
        return Screening(attempts=attempts, left=left, waits=waits)
    if not explains:
        return Screening(attempts=attempts, left=0, waits=False)
    right = dict(known_answers(session, campaign, annotator_id, "qualification"))
    answers = tuple(_screened(session, *latest[item], right.get(item)) for item in items if item in latest)
    return Screening(attempts=attempts, left=0, waits=False, answers=answers)


def _latest(session: Session, items: list[str], annotator_id: str) -> dict[str, tuple[Judgment, str | None]]:
    query = select(Judgment, Body.text).outerjoin(Body, Body.id == Judgment.body_id)
    query = query.where(Judgment.annotator_id == annotator_id, Judgment.item_id.in_(items))
    return {one.item_id: (one, words) for one, words in session.execute(query.order_by(Judgment.revision))}


def _screened(session: Session, judgment: Judgment, words: str | None, right: bool | None) -> Screened:
    shown = task_again(session, assignment_id=str(judgment.assignment_id), annotator_id=str(judgment.annotator_id))
    item = session.get_one(Item, judgment.item_id)
    graded = select(Body.text).join(Review, Review.body_id == Body.id).where(Review.judgment_id == judgment.id)
    return Screened(
        prompt=shown.prompt,
        responses=tuple(one.text for one in shown.responses),
        payload=judgment.payload,
        words=words,
        display_order=tuple(judgment.display_order),
        expected=item.expected or {},
        explanation=item.explanation,
        right=right,
        reason=session.scalar(graded.order_by(Review.created_at.desc(), Review.id.desc()).limit(1)),
    )


def screenings_of(session: Session, *, user_id: str) -> list[tuple[Campaign, Screening]]:
    """The tests a person has begun, newest campaign first; answers are not among them."""
    begun = select(Item.campaign_id).join(Judgment, Judgment.item_id == Item.id)
    begun = begun.where(Judgment.annotator_id == user_id, Item.kind == "qualification")
    campaigns = session.scalars(select(Campaign).where(Campaign.id.in_(begun)).order_by(Campaign.created_at.desc()))
    found = [(one, screening_of(session, one, user_id, explains=False)) for one in campaigns.all()]
    return [(one, screening) for one, screening in found if screening is not None]
