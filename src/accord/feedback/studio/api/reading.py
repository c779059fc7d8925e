"""What an admin's program may read of a project and fill a campaign with: progress, people, prompts, responses."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from accord.feedback.store import import_records
from accord.feedback.store.ids import content_hash
from accord.feedback.store.queries.overview import progress
from accord.feedback.store.tables import LanguageModel, Prompt, Response, Slot
from accord.feedback.studio.access import may_administer, may_administer_campaign, may_review
from accord.feedback.studio.api.annotating import PROBLEMS
from accord.feedback.studio.api.callers import Admin, Reviewer
from accord.feedback.studio.api.shapes import Id, ProgressOut, PromptOut, ResponseOut, SampleIn
from accord.feedback.studio.context import Studio, StudioOf
from accord.feedback.studio.talking import sampled
from accord.records import Message, ResponseSet
from accord.records import Response as ResponseRecord

__all__ = ["router"]

router = APIRouter(tags=["read"], responses=PROBLEMS)  # type: ignore[arg-type]

Project = Annotated[Id, Query(description="id of the project")]
After = Annotated[str, Query(max_length=36, description="last id seen")]
Limit = Annotated[int, Query(ge=1, le=200)]


@router.get("/campaigns/{campaign_id}/progress")
def read_progress(studio: StudioOf, who: Reviewer, campaign_id: Id) -> ProgressOut:
    """How far a campaign is."""
    campaign = studio.store.read(may_review, who.user_id, campaign_id)
    slots, filled = studio.store.read(progress, campaign_id)
    leased = studio.store.read(_leased, campaign_id)
    return ProgressOut(state=campaign.state, slots=slots, filled=filled, leased=leased)


def _leased(session: Session, campaign_id: str) -> int:
    query = select(func.count()).where(Slot.campaign_id == campaign_id, Slot.state == "leased")
    return session.scalar(query) or 0


@router.get("/campaigns/{campaign_id}/annotators")
def read_annotators(studio: StudioOf, who: Reviewer, campaign_id: Id) -> list[dict[str, Any]]:
    """Everyone beside the others, by pseudonym, those who agree least first."""
    studio.store.read(may_review, who.user_id, campaign_id)
    _, report = studio.reports.of(studio.store, campaign_id)
    return [
        {
            "pseudonym": line.annotator,
            "agrees": line.rate if line.n else None,
            "of": line.n,
            "judgments": line.judgments,
            "skipped": line.skipped,
            "minutes": line.minutes,
            "excluded": line.excluded,
        }
        for line in report.annotators
    ]


@router.get("/prompts")
def list_prompts(
    studio: StudioOf, who: Admin, project: Project, after: After = "", limit: Limit = 50
) -> list[PromptOut]:
    """Prompts of a project, oldest first."""
    studio.store.read(may_administer, who.user_id, project)
    return studio.store.read(_prompts, project, after, limit)


def _prompts(session: Session, project: str, after: str, limit: int) -> list[PromptOut]:
    query = select(Prompt).where(Prompt.project_id == project, Prompt.id > after).order_by(Prompt.id).limit(limit)
    return [
        PromptOut(
            id=one.id, messages=one.messages, source=one.source, language=one.language, group=one.group, pii=one.pii
        )
        for one in session.scalars(query)
    ]


@router.get("/responses")
def list_responses(
    studio: StudioOf, who: Admin, project: Project, after: After = "", limit: Limit = 50
) -> list[ResponseOut]:
    """Responses to the prompts of a project with their models, by id, which says nothing of their age."""
    studio.store.read(may_administer, who.user_id, project)
    return studio.store.read(_responses, project, after, limit)


def _responses(session: Session, project: str, after: str, limit: int) -> list[ResponseOut]:
    query = (
        select(Response, LanguageModel)
        .join(Prompt, Prompt.id == Response.prompt_id)
        .outerjoin(LanguageModel, LanguageModel.id == Response.model_id)
        .where(Prompt.project_id == project, Response.id > after)
        .order_by(Response.id)
        .limit(limit)
    )
    return [
        ResponseOut(
            id=one.id,
            prompt=one.prompt_id,
            text=one.text,
            origin=one.origin,
            model=None if model is None else "@".join(filter(None, (model.name, model.revision))),
        )
        for one, model in session.execute(query)
    ]


@router.post("/campaigns/{campaign_id}/sample", status_code=201)
def sample(studio: StudioOf, who: Admin, campaign_id: Id, given: SampleIn) -> list[str]:
    """Let the studio's models answer prompts, and make items of that. Long lists: `accord feedback sample`."""
    campaign = studio.store.read(may_administer_campaign, who.user_id, campaign_id)
    if not studio.models:
        raise ValueError("the studio has no models; start it with `--models`")
    records = [_answered(studio, one, given.count) for one in given.prompts]
    if campaign.task_type == "rank" and any(len(one.responses) < 2 for one in records):
        raise ValueError("the models said the same each time, and a ranking takes two responses; raise `count`")
    return list(import_records(studio.store, records, campaign_id=campaign_id, source="api").items)


def _answered(studio: Studio, prompt: str, count: int) -> ResponseSet:
    messages = (Message(role="user", content=prompt),)
    said = [
        (name, text)
        for name, model in studio.models.items()
        for text in sampled(model, name, messages, count, max_new_tokens=studio.config.max_new_tokens)
    ]
    responses = [ResponseRecord(id=str(n), text=text, model=name) for n, (name, text) in enumerate(dict.fromkeys(said))]
    return ResponseSet(id=content_hash(prompt), prompt=messages, responses=tuple(responses))
