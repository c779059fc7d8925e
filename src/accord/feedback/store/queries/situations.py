"""What is known about an annotator in a campaign, gathered for `steps.next_step`."""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy import exists, func, or_, select
from sqlalchemy.orm import Session

from accord.feedback.store.order import ON_DEMAND
from accord.feedback.store.queries.common import role_of
from accord.feedback.store.queries.projects import consent_in_force, has_confirmed
from accord.feedback.store.settings import CampaignSettings
from accord.feedback.store.steps import Situation
from accord.feedback.store.tables import (
    Campaign,
    Event,
    Exclusion,
    Item,
    ItemResponse,
    Judgment,
    Prompt,
    Qualification,
    Response,
    Slot,
)

__all__ = ["is_paused", "pause_subject", "situation", "unanswered", "wrote"]


def situation(session: Session, campaign: Campaign, annotator_id: str, now: int) -> Situation:
    """Gather what decides on the annotator's next task."""
    done = _revisions(session, campaign.id, annotator_id)
    attempts = session.scalars(
        select(Qualification.passed)
        .where(Qualification.campaign_id == campaign.id, Qualification.annotator_id == annotator_id)
        .order_by(Qualification.attempt)
    ).all()
    items = partial(_items, session, campaign.id, annotator_id)
    screening = items("qualification")
    left = unanswered(screening, done, len(attempts))
    settings = CampaignSettings.model_validate(campaign.settings)
    pilot = items("normal", settings.pilot_items) if campaign.state == "pilot" else []
    held = session.scalar(
        select(Slot.item_id)
        .join(Item, Item.id == Slot.item_id)
        .where(Slot.campaign_id == campaign.id, Slot.annotator_id == annotator_id)
        .where(Slot.state == "leased", Item.state != "withdrawn")
        .order_by(Slot.queue)
        .limit(1)
    )
    return Situation(
        campaign_state=campaign.state,
        annotator=annotator_id,
        finished=len(done),
        member=role_of(session, annotator_id, campaign.project_id) is not None,
        excluded=_is_excluded(session, campaign.id, annotator_id, now),
        consented=consent_in_force(session, annotator_id, campaign.project_id) is not None,
        confirmed=has_confirmed(session, annotator_id, campaign.guideline_id),
        paused=is_paused(session, campaign.id, annotator_id),
        holds=held,
        attempts=attempts,
        unqualified=left,
        ungraded=bool(screening) and not left,
        pilot=[item for item in pilot if item not in done],
        gold=[item for item in items("gold") if item not in done],
        attention=[item for item in items("attention") if item not in done],
    )


def unanswered(screening: list[str], done: dict[str, int], attempts: int) -> list[str]:
    """Qualification items that have fewer answers than there are attempts, this one included."""
    return [item for item in screening if done.get(item, 0) <= attempts]


def _revisions(session: Session, campaign_id: str, annotator_id: str) -> dict[str, int]:
    """Item -> how many times this annotator has answered it, for the items with an answer."""
    query = (
        select(Judgment.item_id, func.max(Judgment.revision))
        .join(Item, Item.id == Judgment.item_id)
        .where(Item.campaign_id == campaign_id, Judgment.annotator_id == annotator_id)
        .group_by(Judgment.item_id)
    )
    return dict(session.execute(query).all())


def _items(session: Session, campaign_id: str, annotator_id: str, kind: str, limit: int | None = None) -> list[str]:
    """Items of a kind that are not withdrawn, nor the annotator's own words, in the order of the queue."""
    first = select(func.min(Slot.queue)).where(Slot.item_id == Item.id, Slot.queue != ON_DEMAND).scalar_subquery()
    query = select(Item.id).where(Item.campaign_id == campaign_id, Item.kind == kind, Item.state != "withdrawn")
    query = query.order_by(first, Item.id) if kind == "normal" else query.order_by(Item.id)
    return list(session.scalars(query.where(~wrote(annotator_id)).limit(limit)))


def _is_excluded(session: Session, campaign_id: str, annotator_id: str, now: int) -> bool:
    query = select(Exclusion.id).where(
        Exclusion.annotator_id == annotator_id,
        Exclusion.reversed_at.is_(None),
        or_(Exclusion.campaign_id.is_(None), Exclusion.campaign_id == campaign_id),
        or_(Exclusion.since.is_(None), Exclusion.since <= now),
        or_(Exclusion.until.is_(None), Exclusion.until > now),
    )
    return session.scalar(query.limit(1)) is not None


def pause_subject(campaign_id: str, annotator_id: str) -> str:
    """What the events `paused` and `resumed` are about."""
    return f"{campaign_id}:{annotator_id}"


def is_paused(session: Session, campaign_id: str, annotator_id: str) -> bool:
    """Whether the last such event is a pause."""
    query = select(Event.kind).where(
        Event.kind.in_(("paused", "resumed")), Event.subject == pause_subject(campaign_id, annotator_id)
    )
    return session.scalar(query.order_by(Event.created_at.desc(), Event.id.desc()).limit(1)) == "paused"


def wrote(annotator_id: str) -> Any:
    """Condition on Item: the annotator wrote its prompt (or led that conversation) or one of its responses."""
    prompt = exists(Prompt.id).where(Prompt.id == Item.prompt_id, Prompt.author_id == annotator_id)
    response = (
        exists(Response.id)
        .where(Response.id == ItemResponse.response_id, ItemResponse.item_id == Item.id)
        .where(Response.author_id == annotator_id)
    )
    return or_(prompt, response)
