"""What an admin's or a reviewer's program may do: projects, campaigns, items, figures, decisions, the log."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from sqlalchemy import select
from sqlalchemy.orm import Session

from accord.feedback.analysis.rogue import evidence_of
from accord.feedback.analysis.tables import sections
from accord.feedback.store import (
    ExportOptions,
    MissingError,
    add_campaign,
    add_guideline,
    add_judge,
    add_model,
    add_model_judgment,
    add_review,
    change_campaign,
    exclude,
    exported_rows,
    import_records,
    reverse_exclusion,
)
from accord.feedback.store.queries.common import must_have, role_of
from accord.feedback.store.queries.overview import guidelines_of, progress
from accord.feedback.store.tables import Campaign, Event, Exclusion, Item, Membership
from accord.feedback.studio.access import may_administer, may_administer_campaign, may_review, may_run_site
from accord.feedback.studio.api.annotating import PROBLEMS
from accord.feedback.studio.api.callers import Admin, Reviewer
from accord.feedback.studio.api.shapes import (
    AiJudgmentsIn,
    CampaignIn,
    CampaignOut,
    EventOut,
    ExclusionIn,
    GuidelineIn,
    Id,
    ItemsIn,
    Made,
    ProjectIn,
    ReversalIn,
    ReviewIn,
)
from accord.feedback.studio.context import StudioOf
from accord.feedback.studio.pages.admin import make_project
from accord.records import Message, ResponseSet
from accord.records import Response as ResponseRecord

__all__ = ["router"]

router = APIRouter(tags=["manage"], responses=PROBLEMS)  # type: ignore[arg-type]

After = Annotated[str, Query(max_length=36, description="last id seen")]
Limit = Annotated[int, Query(ge=1, le=200)]
Form = Literal["demonstrations", "rankings", "comparisons", "judgments", "conversations"]
Unit = Literal["annotator", "share", "consensus"]


@router.post("/projects", status_code=201)
def new_project(studio: StudioOf, who: Admin, project: ProjectIn) -> Made:
    """Make a project; admins of the site only."""
    studio.store.read(may_run_site, who.user_id)
    made = studio.store.run(
        make_project,
        who.user_id,
        slug=project.slug.strip(),
        consent=project.consent.strip(),
        guideline=project.guideline.strip(),
        warning=project.content_warning,
        retention_days=project.retention_days,
        on_withdrawal=project.on_withdrawal,
    )
    return Made(id=made)


@router.post("/campaigns", status_code=201)
def new_campaign(studio: StudioOf, who: Admin, campaign: CampaignIn) -> Made:
    """Make a campaign."""
    studio.store.read(may_administer, who.user_id, campaign.project)
    return Made(id=studio.store.run(_new_campaign, who.user_id, campaign))


def _new_campaign(session: Session, user_id: str, given: CampaignIn) -> str:
    guidelines = guidelines_of(session, given.project)
    taken = select(Campaign.id).where(Campaign.project_id == given.project, Campaign.name == given.name)
    if not guidelines or session.scalar(taken) is not None:
        raise ValueError(f"there is a campaign {given.name!r} already, or the project has no guideline; change that")
    made = add_campaign(
        session,
        project_id=given.project,
        name=given.name,
        task_type=given.task_type,
        guideline_id=guidelines[0].id,
        overlap=given.overlap,
        lease_minutes=given.lease_minutes,
    )
    change_campaign(session, campaign_id=made.id, actor_id=user_id, state=given.state)
    return made.id


@router.get("/campaigns")
def list_campaigns(studio: StudioOf, who: Reviewer, after: After = "", limit: Limit = 50) -> list[CampaignOut]:
    """Campaigns of the projects one reviews or administers, oldest first."""
    return studio.store.read(_campaigns, who.user_id, after, limit)


def _campaigns(session: Session, user_id: str, after: str, limit: int) -> list[CampaignOut]:
    mine = select(Membership.project_id).where(
        Membership.user_id == user_id, Membership.role.in_(("reviewer", "admin"))
    )
    query = select(Campaign).where(Campaign.project_id.in_(mine), Campaign.id > after)
    return [_out(session, one) for one in session.scalars(query.order_by(Campaign.id).limit(limit))]


def _out(session: Session, campaign: Campaign) -> CampaignOut:
    slots, filled = progress(session, campaign.id)
    return CampaignOut(
        id=campaign.id,
        project=campaign.project_id,
        name=campaign.name,
        task_type=campaign.task_type,
        state=campaign.state,
        overlap=campaign.overlap,
        slots=slots,
        filled=filled,
    )


@router.get("/campaigns/{campaign_id}")
def read_campaign(studio: StudioOf, who: Reviewer, campaign_id: Id) -> CampaignOut:
    """A campaign and how far it is."""
    campaign = studio.store.read(may_review, who.user_id, campaign_id)
    return studio.store.read(_out, campaign)


@router.post("/campaigns/{campaign_id}/items", status_code=201)
def new_items(studio: StudioOf, who: Admin, campaign_id: Id, given: ItemsIn) -> list[str]:
    """Add items; those that are there already are not added again. Personal data that patterns find is replaced."""
    studio.store.read(may_administer_campaign, who.user_id, campaign_id)
    records = [
        ResponseSet(
            id=one.id,
            prompt=(Message(role="user", content=one.prompt),),
            responses=tuple(ResponseRecord(id=r.id, text=r.text, model=r.model) for r in one.responses),
        )
        for one in given.items
    ]
    return list(import_records(studio.store, records, campaign_id=campaign_id, source="api").items)


@router.get("/campaigns/{campaign_id}/agreement")
def read_agreement(studio: StudioOf, who: Reviewer, campaign_id: Id) -> list[dict[str, Any]]:
    """The tables of the report, as the dashboard shows them."""
    studio.store.read(may_review, who.user_id, campaign_id)
    _, report = studio.reports.of(studio.store, campaign_id)
    return [
        {
            "name": one.identity,
            "title": one.title,
            "header": list(one.table.header),
            "rows": [*map(list, one.table.rows)],
        }
        for one in sections(report)
        if one.table is not None
    ]


@router.get("/campaigns/{campaign_id}/flags")
def read_flags(studio: StudioOf, who: Admin, campaign_id: Id) -> list[dict[str, Any]]:
    """Annotators there is evidence on; a person decides."""
    studio.store.read(may_administer_campaign, who.user_id, campaign_id)
    material, report = studio.reports.of(studio.store, campaign_id)
    return [
        {"pseudonym": one.annotator, "annotator": material.people[one.annotator].user_id, **evidence_of(one)}
        for one in report.suspects
        if one.annotator in material.people
    ]


@router.get("/campaigns/{campaign_id}/export")
def read_export(
    studio: StudioOf,
    who: Admin,
    campaign_id: Id,
    form: Annotated[Form, Query(alias="as", description="conversations: of chats and attempts")] = "rankings",
    unit: Annotated[Unit, Query(description="a row per judgment, per share of annotators, or per item")] = "annotator",
    hash_annotators: Annotated[bool, Query(description="keyed hashes in place of pseudonyms")] = False,
) -> dict[str, list[dict[str, Any]]]:
    """Rows by split, by the rules of `accord feedback export`, with the same line in the log."""
    studio.store.read(may_administer_campaign, who.user_id, campaign_id)
    options = ExportOptions(form=form, unit=unit, hash_annotators=hash_annotators)
    return exported_rows(studio.store, options, campaign_id=campaign_id, actor_id=who.user_id)


@router.post("/judgments/ai", status_code=201)
def new_ai_judgments(studio: StudioOf, who: Admin, given: AiJudgmentsIn) -> list[str]:
    """Add verdicts of models; they never look like a person's."""
    return studio.store.run(_ai_judgments, who.user_id, given, studio.clock())


def _ai_judgments(session: Session, user_id: str, given: AiJudgmentsIn, now: int) -> list[str]:
    made = []
    for one in given.judgments:
        may_administer_campaign(session, user_id, must_have(session, Item, one.item).campaign_id)
        name, _, revision = one.model.partition("@")
        judge = add_judge(session, model_id=add_model(session, name=name, revision=revision).id, prompt=one.prompt)
        row = add_model_judgment(
            session,
            item_id=one.item,
            judge_id=judge.id,
            payload=one.payload,
            display_order=one.display_order,
            client_key=f"{judge.id}:{one.key}",
            started_at=now,
            submitted_at=now,
        )
        made.append(row.id)
    return made


@router.post("/guidelines", status_code=201)
def new_guideline(studio: StudioOf, who: Admin, given: GuidelineIn) -> Made:
    """Add the next version of a guideline."""
    studio.store.read(may_administer, who.user_id, given.project)
    row = studio.store.run(add_guideline, project_id=given.project, markdown=given.markdown, note=given.note)
    return Made(id=row.id)


@router.post("/exclusions", status_code=201)
def new_exclusion(studio: StudioOf, who: Admin, given: ExclusionIn) -> Made:
    """Leave an annotator's judgments out of a campaign."""
    campaign = studio.store.read(may_administer_campaign, who.user_id, given.campaign)
    if studio.store.read(role_of, given.annotator, campaign.project_id) is None:
        raise MissingError("there is no such annotator in this project")
    row = studio.store.run(
        exclude,
        annotator_id=given.annotator,
        reason=given.reason,
        evidence=given.evidence,
        decided_by=who.user_id,
        campaign_id=given.campaign,
        replace=given.replace,
    )
    return Made(id=row.id)


@router.post("/exclusions/{exclusion_id}/reverse")
def reverse(studio: StudioOf, who: Admin, exclusion_id: Id, given: ReversalIn) -> Made:
    """Take an exclusion back."""
    row = studio.store.read(must_have, Exclusion, exclusion_id)
    if row.campaign_id is None:
        studio.store.read(may_run_site, who.user_id)
    else:
        studio.store.read(may_administer_campaign, who.user_id, row.campaign_id)
    studio.store.run(
        reverse_exclusion,
        exclusion_id=exclusion_id,
        reversed_by=who.user_id,
        reason=given.reason,
        now=studio.clock(),
    )
    return Made(id=exclusion_id)


@router.post("/reviews", status_code=201)
def new_review(studio: StudioOf, who: Reviewer, given: ReviewIn) -> Made:
    """Accept or reject a judgment, or adjudicate an item."""
    studio.store.read(may_review, who.user_id, given.campaign)
    row = studio.store.run(
        add_review,
        reviewer_id=who.user_id,
        decision=given.decision,
        reason=given.reason,
        judgment_id=given.judgment,
        item_id=given.item,
        payload=given.payload,
    )
    return Made(id=row.id)


@router.get("/events")
def list_events(studio: StudioOf, who: Admin, after: After = "", limit: Limit = 50) -> list[EventOut]:
    """The audit log of the site, oldest first; admins of the site only."""
    studio.store.read(may_run_site, who.user_id)
    return studio.store.read(_events, after, limit)


def _events(session: Session, after: str, limit: int) -> list[EventOut]:
    rows = session.scalars(select(Event).where(Event.id > after).order_by(Event.id).limit(limit))
    return [
        EventOut(id=one.id, at=one.created_at, kind=one.kind, subject=one.subject, detail=one.detail) for one in rows
    ]
