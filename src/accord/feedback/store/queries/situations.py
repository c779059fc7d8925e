"""What is known about an annotator in a campaign, gathered for `steps.next_step`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, and_, bindparam, exists, func, or_, select
from sqlalchemy.orm import Session

from accord.feedback.store.order import ON_DEMAND
from accord.feedback.store.queries.projects import confirming, consenting
from accord.feedback.store.settings import CampaignSettings
from accord.feedback.store.steps import Situation
from accord.feedback.store.tables import (
    Campaign,
    Event,
    Exclusion,
    Item,
    ItemResponse,
    Judgment,
    Membership,
    Prompt,
    Qualification,
    Response,
    Slot,
    User,
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
    known = _known_items(session, campaign.id, annotator_id)
    screening = known["qualification"]
    left = unanswered(screening, done, len(attempts))
    pilot: list[str] = []
    if campaign.state == "pilot":
        settings = CampaignSettings.model_validate(campaign.settings)
        pilot = _pilot_items(session, campaign.id, annotator_id, settings.pilot_items)
    names = {"me": annotator_id, "project": campaign.project_id, "campaign": campaign.id, "now": now}
    about = {"guideline": campaign.guideline_id, "pause": pause_subject(campaign.id, annotator_id)}
    standing = session.execute(_STANDING, names | about).one()
    return Situation(
        campaign_state=campaign.state,
        annotator=annotator_id,
        finished=len(done),
        member=standing.member,
        excluded=standing.excluded,
        consented=standing.consented,
        confirmed=standing.confirmed,
        paused=standing.last == "paused",
        holds=standing.holds,
        attempts=attempts,
        unqualified=left,
        ungraded=bool(screening) and not left,
        pilot=[item for item in pilot if item not in done],
        gold=[item for item in known["gold"] if item not in done],
        attention=[item for item in known["attention"] if item not in done],
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


_KNOWN = ("qualification", "gold", "attention")


def _items(campaign_id: str, annotator_id: str, *kinds: str) -> Select[str, str]:
    """Items of some kinds that are not withdrawn, nor the annotator's own words."""
    query = select(Item.id, Item.kind).where(Item.campaign_id == campaign_id, Item.kind.in_(kinds))
    return query.where(Item.state != "withdrawn", ~wrote(annotator_id))


def _known_items(session: Session, campaign_id: str, annotator_id: str) -> dict[str, list[str]]:
    """Kind -> items of it, of the kinds whose answer is known."""
    found: dict[str, list[str]] = {kind: [] for kind in _KNOWN}
    for item, kind in session.execute(_items(campaign_id, annotator_id, *_KNOWN).order_by(Item.id)):
        found[kind].append(item)
    return found


def _pilot_items(session: Session, campaign_id: str, annotator_id: str, count: int) -> list[str]:
    """The first items of the queue."""
    first = select(func.min(Slot.queue)).where(Slot.item_id == Item.id, Slot.queue != ON_DEMAND).scalar_subquery()
    return list(session.scalars(_items(campaign_id, annotator_id, "normal").order_by(first, Item.id).limit(count)))


def _standing() -> Select[Any]:
    """All that one row can say of an annotator, made once: a page is mostly the cost of its statements."""
    me: Any = bindparam("me")
    project: Any = bindparam("project")
    campaign: Any = bindparam("campaign")
    now: Any = bindparam("now")
    member = exists(Membership.user_id).where(Membership.user_id == me, Membership.project_id == project)
    excluded = exists(Exclusion.id).where(
        Exclusion.annotator_id == me,
        Exclusion.reversed_at.is_(None),
        or_(Exclusion.campaign_id.is_(None), Exclusion.campaign_id == campaign),
        or_(Exclusion.since.is_(None), Exclusion.since <= now),
        or_(Exclusion.until.is_(None), Exclusion.until > now),
    )
    holds = (
        select(Slot.item_id)
        .join(Item, Item.id == Slot.item_id)
        .where(Slot.campaign_id == campaign, Slot.annotator_id == me)
        .where(Slot.state == "leased", Item.state != "withdrawn")
        .order_by(Slot.queue)
        .limit(1)
    )
    return select(
        and_(member, exists(User.id).where(User.id == me, User.disabled_at.is_(None))).label("member"),
        excluded.label("excluded"),
        consenting(me, project).exists().label("consented"),
        confirming(me, bindparam("guideline")).exists().label("confirmed"),
        _last_pause(bindparam("pause")).scalar_subquery().label("last"),
        holds.scalar_subquery().label("holds"),
    )


def pause_subject(campaign_id: str, annotator_id: str) -> str:
    """What the events `paused` and `resumed` are about."""
    return f"{campaign_id}:{annotator_id}"


def is_paused(session: Session, campaign_id: str, annotator_id: str) -> bool:
    """Whether the last such event is a pause."""
    return session.scalar(_last_pause(pause_subject(campaign_id, annotator_id))) == "paused"


def _last_pause(subject: Any) -> Select[str]:
    query = select(Event.kind).where(Event.kind.in_(("paused", "resumed")), Event.subject == subject)
    return query.order_by(Event.created_at.desc(), Event.id.desc()).limit(1)


def wrote(annotator_id: str) -> Any:
    """Condition on Item: the annotator wrote its prompt (or led that conversation) or one of its responses."""
    prompt = exists(Prompt.id).where(Prompt.id == Item.prompt_id, Prompt.author_id == annotator_id)
    response = (
        exists(Response.id)
        .where(Response.id == ItemResponse.response_id, ItemResponse.item_id == Item.id)
        .where(Response.author_id == annotator_id)
    )
    return or_(prompt, response)


_STANDING = _standing()
