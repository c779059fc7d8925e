"""What an analysis reads of a campaign, in one transaction: verdicts, texts, known answers, people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from accord.feedback.store.grading import is_right
from accord.feedback.store.queries.common import must_have
from accord.feedback.store.queries.rewards import rewarded
from accord.feedback.store.queries.verdicts import Content, Verdict, adjudications, contents, verdicts
from accord.feedback.store.settings import CampaignSettings
from accord.feedback.store.tables import Campaign, Event, Exclusion, Item, Judgment, Project, User

__all__ = ["Annotator", "Material", "gather"]


@dataclass(frozen=True, kw_only=True)
class Annotator:
    """A person by pseudonym, for whoever has to find the account. `exclusions` are those in force, with reasons."""

    pseudonym: str
    user_id: str
    exclusions: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Material:
    """A campaign as analyses read it.

    Attributes:
        campaign_id: of the store.
        name: PROJECT/CAMPAIGN.
        task_type: rank, pairwise, ...
        state: draft, pilot, open, paused, closed.
        verdicts: latest revisions on normal items, of people, models and rules; excluded and surplus ones, and skips,
            marked; and the orders of reward models, where those have said nothing else of an item.
        contents: texts by item.
        answers: (pseudonym, kind of item) -> right or wrong, oldest first; kinds gold, attention, qualification.
        adjudicated: item -> a reviewer's payload.
        people: by pseudonym.
        settings: of the campaign.
        pasted: judgment -> characters that came into its text in large pieces.
    """

    campaign_id: str
    name: str
    task_type: str
    state: str
    verdicts: tuple[Verdict, ...]
    contents: Mapping[str, Content]
    answers: Mapping[tuple[str, str], tuple[bool, ...]] = field(default_factory=dict)
    adjudicated: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    people: Mapping[str, Annotator] = field(default_factory=dict)
    settings: CampaignSettings = field(default_factory=CampaignSettings)
    pasted: Mapping[str, int] = field(default_factory=dict)

    def human(self, *, excluded: bool = False) -> tuple[Verdict, ...]:
        """What people said that counts; with `excluded` what excluded annotators said too."""
        return tuple(
            one for one in self.verdicts if one.source == "human" and one.counted and (excluded or not one.excluded)
        )

    def only(self, verdicts: Sequence[Verdict]) -> Material:
        """The same campaign with these verdicts."""
        return replace(self, verdicts=tuple(verdicts))


def gather(session: Session, *, campaign_id: str) -> Material:
    """Read a campaign.

    Raises:
        MissingError: it is not there.
    """
    campaign = must_have(session, Campaign, campaign_id)
    project = must_have(session, Project, campaign.project_id)
    found = verdicts(session, campaign_id=campaign_id, include_excluded=True, include_surplus=True)
    said = {(one.item_id, one.judge[:2]) for one in found if one.judge is not None}
    found += [one for one in rewarded(session, campaign_id=campaign_id) if (one.item_id, _name(one)) not in said]
    return Material(
        campaign_id=campaign_id,
        name=f"{project.slug}/{campaign.name}",
        task_type=campaign.task_type,
        state=campaign.state,
        verdicts=tuple(found),
        contents=contents(session, campaign_id=campaign_id),
        answers=_answers(session, campaign),
        adjudicated=adjudications(session, campaign_id=campaign_id),
        people=_people(session, campaign_id),
        settings=CampaignSettings.model_validate(campaign.settings),
        pasted=_pasted(session, campaign_id),
    )


def _name(verdict: Verdict) -> tuple[str, str] | None:
    return None if verdict.judge is None else verdict.judge[:2]


def _answers(session: Session, campaign: Campaign) -> dict[tuple[str, str], tuple[bool, ...]]:
    """First answers to known items, by the known answer; those a person has to grade are not here."""
    rows = session.execute(
        select(Judgment, Item, User.pseudonym)
        .join(Item, Item.id == Judgment.item_id)
        .join(User, User.id == Judgment.annotator_id)
        .where(Item.campaign_id == campaign.id, Item.kind != "normal", Judgment.revision == 1)
        .order_by(Judgment.submitted_at, Judgment.id)
    )
    found: dict[tuple[str, str], tuple[bool, ...]] = {}
    for judgment, item, pseudonym in rows:
        right = is_right(campaign.task_type, item.expected or {}, judgment.payload, list(judgment.display_order))
        if right is not None:
            found[pseudonym, item.kind] = (*found.get((pseudonym, item.kind), ()), right)
    return found


def _pasted(session: Session, campaign_id: str) -> dict[str, int]:
    """Judgment -> characters that were pasted into it, for those into which many were."""
    judgments = select(Judgment.id).join(Item, Item.id == Judgment.item_id).where(Item.campaign_id == campaign_id)
    query = select(Event).where(Event.kind == "pasted", Event.subject.in_(judgments))
    return {event.subject: int(event.detail["characters"]) for event in session.scalars(query)}


def _people(session: Session, campaign_id: str) -> dict[str, Annotator]:
    users = session.scalars(
        select(User)
        .join(Judgment, Judgment.annotator_id == User.id)
        .join(Item, Item.id == Judgment.item_id)
        .where(Item.campaign_id == campaign_id)
        .distinct()
        .order_by(User.pseudonym)
    ).all()
    here = (Exclusion.campaign_id == campaign_id) | Exclusion.campaign_id.is_(None)
    reasons: dict[str, list[str]] = {}
    for exclusion in session.scalars(select(Exclusion).where(Exclusion.reversed_at.is_(None), here)):
        reasons.setdefault(exclusion.annotator_id, []).append(exclusion.reason)
    return {
        user.pseudonym: Annotator(pseudonym=user.pseudonym, user_id=user.id, exclusions=tuple(reasons.get(user.id, ())))
        for user in users
    }
