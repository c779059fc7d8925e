"""What people see of their work: campaigns they can work on, what they did, where they left off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from accord.feedback.store.order import ON_DEMAND
from accord.feedback.store.tables import (
    Assignment,
    Body,
    Campaign,
    Guideline,
    Item,
    Judgment,
    Membership,
    Project,
    Prompt,
    Slot,
)

__all__ = ["Count", "Done", "Work", "done_by", "guidelines_of", "my_work", "progress", "work_in"]

DAY_MS = 86_400_000


@dataclass(frozen=True, kw_only=True)
class Work:
    """A campaign as one of its people sees it.

    Attributes:
        slots: judgments wanted of normal items; `filled` of them are in.
        mine: tasks I have submitted or skipped, `today` of them in the last 24 h.
        role: mine in the project.
    """

    campaign_id: str
    name: str
    task_type: str
    state: str
    project_id: str
    project: str
    role: str
    slots: int
    filled: int
    mine: int
    today: int


Count: TypeAlias = Callable[[Session, str], tuple[int, int]]
"""Says slots and filled slots of a campaign: `progress`, or something that has counted them before."""


def my_work(session: Session, *, user_id: str, now: int, count: Count | None = None) -> list[Work]:
    """Campaigns of the projects a person belongs to, without drafts, newest first."""
    query = (
        select(Campaign, Project.slug, Membership.role)
        .join(Project, Project.id == Campaign.project_id)
        .join(Membership, (Membership.project_id == Project.id) & (Membership.user_id == user_id))
        .where(Campaign.state != "draft")
        .order_by(Project.slug, Campaign.created_at, Campaign.id)
    )
    rows = session.execute(query)
    return [_work(session, campaign, project, role, user_id, now, count) for campaign, project, role in rows]


def work_in(session: Session, campaign: Campaign, *, user_id: str, now: int, count: Count | None = None) -> Work:
    """The same of one campaign."""
    project = session.get(Project, campaign.project_id)
    return _work(session, campaign, "" if project is None else project.slug, "", user_id, now, count)


def _work(
    session: Session, campaign: Campaign, project: str, role: str, user_id: str, now: int, count: Count | None
) -> Work:
    slots, filled = (count or progress)(session, campaign.id)
    today = case((Judgment.submitted_at > now - DAY_MS, Judgment.item_id))
    counts = select(func.count(func.distinct(Judgment.item_id)), func.count(func.distinct(today)))
    counts = counts.join(Item, Item.id == Judgment.item_id)
    counts = counts.where(Item.campaign_id == campaign.id, Judgment.annotator_id == user_id)
    mine, lately = session.execute(counts).one()
    return Work(
        campaign_id=campaign.id,
        name=campaign.name,
        task_type=campaign.task_type,
        state=campaign.state,
        project_id=campaign.project_id,
        project=project,
        role=role,
        slots=slots,
        filled=filled,
        mine=mine,
        today=lately,
    )


def progress(session: Session, campaign_id: str) -> tuple[int, int]:
    """Slots of normal items in the queue, and how many of them are done; withdrawn items count no more."""
    query = (
        select(Slot.state, func.count())
        .join(Item, Item.id == Slot.item_id)
        .where(Slot.campaign_id == campaign_id, Slot.queue != ON_DEMAND, Item.kind == "normal")
        .where(Item.state != "withdrawn")
        .group_by(Slot.state)
    )
    counts = dict(session.execute(query).all())
    return sum(counts.values()), counts.get("done", 0)


@dataclass(frozen=True, kw_only=True)
class Done:
    """The latest judgment of a task, for its author. `number` counts from 1, oldest first."""

    number: int
    assignment_id: str
    campaign: str
    task_type: str
    prompt: str
    payload: dict[str, Any]
    words: str | None
    display_order: list[str]
    submitted_at: int
    first_at: int
    revision: int


def done_by(session: Session, *, user_id: str) -> list[Done]:
    """A person's own judgments, latest revisions, newest first. Whether an item was a known one is not told."""
    query = (
        select(Judgment, Campaign, Prompt.messages, Body.text)
        .join(Item, Item.id == Judgment.item_id)
        .join(Campaign, Campaign.id == Item.campaign_id)
        .join(Prompt, Prompt.id == Item.prompt_id)
        .outerjoin(Body, Body.id == Judgment.body_id)
        .where(Judgment.annotator_id == user_id, Judgment.assignment_id.is_not(None))
        .order_by(Judgment.submitted_at, Judgment.revision)
    )
    latest: dict[str, Any] = {}
    first: dict[str, int] = {}
    for judgment, campaign, messages, words in session.execute(query):
        latest[judgment.item_id] = (judgment, campaign, messages, words)
        first.setdefault(judgment.item_id, judgment.submitted_at)
    rows = sorted(latest.values(), key=lambda row: first[row[0].item_id])
    done = [
        Done(
            number=number,
            assignment_id=str(judgment.assignment_id),
            campaign=campaign.name,
            task_type=campaign.task_type,
            prompt=messages[-1]["content"] if messages else "",
            payload=judgment.payload,
            words=words,
            display_order=list(judgment.display_order),
            submitted_at=judgment.submitted_at,
            first_at=first[judgment.item_id],
            revision=judgment.revision,
        )
        for number, (judgment, campaign, messages, words) in enumerate(rows, 1)
    ]
    return done[::-1]


def guidelines_of(session: Session, project_id: str) -> list[Guideline]:
    """Versions of a project's guideline that are followed here, newest first."""
    query = select(Guideline).where(Guideline.project_id == project_id, Guideline.version > 0)
    return list(session.scalars(query.order_by(Guideline.version.desc())))


def assignment_of(session: Session, *, item_id: str, annotator_id: str) -> Assignment | None:
    """What a person was shown of an item."""
    return session.scalar(
        select(Assignment).where(Assignment.item_id == item_id, Assignment.annotator_id == annotator_id)
    )
