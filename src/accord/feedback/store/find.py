"""Stores, projects, campaigns and people by the names people use for them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from accord.feedback.store.queries.common import MissingError
from accord.feedback.store.tables import Campaign, Item, Judgment, Project, User

__all__ = ["CampaignLine", "arms_of", "campaign_lines", "find_campaign", "find_person", "find_project"]


@dataclass(frozen=True, kw_only=True)
class CampaignLine:
    """A campaign in a list: what it is, and its normal items, judgments of anybody, and people who judged."""

    campaign: Campaign
    project: str
    items: int
    judgments: int
    people: int


def find_project(session: Session, slug: str) -> Project | None:
    """A project by its slug; None: there is none."""
    return session.scalar(select(Project).where(Project.slug == slug))


def find_campaign(session: Session, name: str) -> Campaign:
    """A campaign by id, by PROJECT/NAME, or by its name where only one has it.

    Raises:
        MissingError: none has it, or several have; the message names them.
    """
    rows = session.execute(select(Campaign, Project.slug).join(Project, Project.id == Campaign.project_id)).all()
    by_name = [(campaign, slug) for campaign, slug in rows if name in (campaign.name, f"{slug}/{campaign.name}")]
    exact = next((campaign for campaign, _ in rows if campaign.id == name), None)
    if exact is not None or len(by_name) == 1:
        return exact if exact is not None else by_name[0][0]
    full = [f"{slug}/{campaign.name}" for campaign, slug in (by_name or rows)]
    if by_name:
        raise MissingError(f"campaign {name!r} is in several projects; expected one of {', '.join(full)}")
    close = difflib.get_close_matches(name, full, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]}?" if close else "`accord feedback status` lists those there are"
    raise MissingError(f"there is no campaign {name!r}; {hint}")


def find_person(session: Session, name: str) -> User:
    """A person by handle, pseudonym, e-mail address or id.

    Raises:
        MissingError: there is none.
    """
    lowered = func.lower(User.email) == name.lower()
    found = session.scalars(
        select(User).where((User.handle == name) | (User.pseudonym == name) | (User.id == name) | lowered)
    ).all()
    if len(found) != 1:
        what = "no person" if not found else f"{len(found)} people"
        raise MissingError(f"found {what} of the name {name!r}; expected a handle, pseudonym, address or id; check it")
    return found[0]


def campaign_lines(session: Session) -> list[CampaignLine]:
    """All campaigns with their counts, by project and name."""
    items = _counts(session, select(Item.campaign_id, func.count()).where(Item.kind == "normal"))
    judged = select(Item.campaign_id, func.count(Judgment.id)).join(Judgment, Judgment.item_id == Item.id)
    people = select(Item.campaign_id, func.count(func.distinct(Judgment.annotator_id))).join(
        Judgment, Judgment.item_id == Item.id
    )
    judgments, annotators = _counts(session, judged), _counts(session, people)
    rows = session.execute(
        select(Campaign, Project.slug)
        .join(Project, Project.id == Campaign.project_id)
        .order_by(Project.slug, Campaign.name)
    )
    return [
        CampaignLine(
            campaign=one,
            project=slug,
            items=items.get(one.id, 0),
            judgments=judgments.get(one.id, 0),
            people=annotators.get(one.id, 0),
        )
        for one, slug in rows
    ]


def _counts(session: Session, query: Any) -> dict[str, int]:
    return dict(session.execute(query.group_by(Item.campaign_id)).all())


def arms_of(session: Session, campaign_id: str) -> dict[str, str]:
    """Normal item -> "random" or "selected": how it came to its place in the queue."""
    query = select(Item.id, Item.arm).where(Item.campaign_id == campaign_id, Item.kind == "normal")
    return {item: arm for item, arm in session.execute(query).all()}  # noqa: C416 - rows are no pairs for mypy
