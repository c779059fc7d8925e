"""What admins and reviewers look at: people of a project, the audit log, judgments side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from accord.feedback.store.queries.situations import pause_subject
from accord.feedback.store.tables import (
    Body,
    Campaign,
    Event,
    Exclusion,
    Guideline,
    Invite,
    Item,
    Judgment,
    Membership,
    Prompt,
    Qualification,
    Review,
    User,
)

__all__ = ["Answer", "Member", "answers_of", "events_of", "exclusions_of", "members_of", "open_invites", "paused_in"]


@dataclass(frozen=True, kw_only=True)
class Member:
    """A person in a project. `judgments` are all of theirs in it."""

    user_id: str
    handle: str
    email: str | None
    pseudonym: str
    role: str
    disabled: bool
    judgments: int


def members_of(session: Session, project_id: str) -> list[Member]:
    """People of a project, by name."""
    counts = dict(
        session.execute(
            select(Judgment.annotator_id, func.count())
            .join(Item, Item.id == Judgment.item_id)
            .join(Campaign, Campaign.id == Item.campaign_id)
            .where(Campaign.project_id == project_id, Judgment.annotator_id.is_not(None))
            .group_by(Judgment.annotator_id)
        ).all()
    )
    query = select(User, Membership.role).join(Membership, Membership.user_id == User.id)
    rows = session.execute(query.where(Membership.project_id == project_id).order_by(User.handle))
    return [
        Member(
            user_id=user.id,
            handle=user.handle,
            email=user.email,
            pseudonym=user.pseudonym,
            role=role,
            disabled=user.disabled_at is not None,
            judgments=counts.get(user.id, 0),
        )
        for user, role in rows
    ]


def open_invites(session: Session, project_id: str, now: int) -> list[Invite]:
    """Invitations that can still be used; their links are kept nowhere."""
    query = select(Invite).where(Invite.project_id == project_id, Invite.used_by.is_(None), Invite.expires_at > now)
    return list(session.scalars(query.order_by(Invite.created_at)))


def events_of(session: Session, project_id: str | None, *, limit: int = 200) -> list[tuple[Event, str | None]]:
    """The audit log, newest first, with who did it: of a project (its campaigns, texts and people), or all of it."""
    query = select(Event, User.handle).outerjoin(User, User.id == Event.actor_id)
    if project_id is not None:
        campaigns = select(Campaign.id).where(Campaign.project_id == project_id)
        people = select(Membership.user_id).where(Membership.project_id == project_id)
        texts = select(Guideline.id).where(Guideline.project_id == project_id)
        here = [Event.subject.in_(one) for one in (campaigns, people, texts)]
        query = query.where(or_(Event.subject == project_id, *here))
    query = query.order_by(Event.created_at.desc(), Event.id.desc()).limit(limit)
    return [(event, who) for event, who in session.execute(query)]


def exclusions_of(session: Session, campaign_id: str) -> list[tuple[Exclusion, str]]:
    """Exclusions that bear on a campaign, reversed ones too, with the pseudonym, newest first."""
    query = select(Exclusion, User.pseudonym).join(User, User.id == Exclusion.annotator_id)
    query = query.where((Exclusion.campaign_id == campaign_id) | Exclusion.campaign_id.is_(None))
    return [(row, who) for row, who in session.execute(query.order_by(Exclusion.created_at.desc()))]


def paused_in(session: Session, campaign_id: str) -> list[User]:
    """Annotators who are paused in a campaign until a reviewer has looked."""
    query = select(Event).where(Event.kind.in_(("paused", "resumed")), Event.subject.startswith(f"{campaign_id}:"))
    last: dict[str, str] = {
        event.subject: event.kind for event in session.scalars(query.order_by(Event.created_at, Event.id))
    }
    ids = [subject.removeprefix(pause_subject(campaign_id, "")) for subject, kind in last.items() if kind == "paused"]
    return list(session.scalars(select(User).where(User.id.in_(ids)).order_by(User.handle)))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One judgment as a reviewer sees it: by pseudonym, with what was decided on it."""

    judgment_id: str
    annotator_id: str | None
    pseudonym: str
    source: str
    payload: dict[str, Any]
    words: str | None
    display_order: list[str]
    guideline: int | None
    active_ms: int | None
    submitted_at: int
    revision: int
    counted: bool
    decision: str | None


def answers_of(session: Session, item_id: str) -> list[Answer]:
    """Latest judgments of an item, oldest first."""
    query = (
        select(Judgment, User.pseudonym, Body.text, Guideline.version)
        .outerjoin(User, User.id == Judgment.annotator_id)
        .outerjoin(Body, Body.id == Judgment.body_id)
        .outerjoin(Guideline, Guideline.id == Judgment.guideline_id)
        .where(Judgment.item_id == item_id)
        .order_by(Judgment.submitted_at, Judgment.revision)
    )
    decided = dict(
        session.execute(
            select(Review.judgment_id, Review.decision)
            .join(Judgment, Judgment.id == Review.judgment_id)
            .where(Judgment.item_id == item_id)
            .order_by(Review.created_at, Review.id)
        ).all()
    )
    latest = {
        (one.annotator_id or one.judge_id): (one, who, words, version)
        for one, who, words, version in session.execute(query)
    }
    return [
        Answer(
            judgment_id=one.id,
            annotator_id=one.annotator_id,
            pseudonym=who or f"{one.source} {one.judge_id}",
            source=one.source,
            payload=one.payload,
            words=words,
            display_order=list(one.display_order),
            guideline=version,
            active_ms=one.active_ms,
            submitted_at=one.submitted_at,
            revision=one.revision,
            counted=one.counted,
            decision=decided.get(one.id),
        )
        for one, who, words, version in latest.values()
    ]


def ungraded(session: Session, campaign_id: str) -> list[tuple[Judgment, Prompt, str | None]]:
    """Answers to qualification items in words, which no reviewer has decided on, oldest first."""
    reviewed = select(Review.id).where(Review.judgment_id == Judgment.id)
    query = (
        select(Judgment, Prompt, Body.text)
        .join(Item, Item.id == Judgment.item_id)
        .join(Prompt, Prompt.id == Item.prompt_id)
        .outerjoin(Body, Body.id == Judgment.body_id)
        .where(Item.campaign_id == campaign_id, Item.kind == "qualification", ~reviewed.exists())
        .order_by(Judgment.submitted_at)
    )
    return [(judgment, prompt, words) for judgment, prompt, words in session.execute(query)]


def qualifications_of(session: Session, campaign_id: str) -> list[tuple[Qualification, str]]:
    """Attempts at the qualification of a campaign, with the pseudonym, newest first."""
    query = select(Qualification, User.pseudonym).join(User, User.id == Qualification.annotator_id)
    query = query.where(Qualification.campaign_id == campaign_id).order_by(Qualification.created_at.desc())
    return [(one, who) for one, who in session.execute(query)]
