"""The task: what is asked, the responses in this annotator's order, the form beside them; drafts, submit, skip.

`GET /c/CAMPAIGN/task` gives the task one holds, or takes the next one: the same again on reload. It is the one page
whose reading takes a lease, which ends by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.datastructures import FormData
from starlette.responses import HTMLResponse, JSONResponse

from accord.feedback.store import (
    CampaignSettings,
    DraftConflictError,
    MissingError,
    Receipt,
    Stop,
    Submission,
    Task,
    next_task,
    save_draft,
    submit,
)
from accord.feedback.store.personal_data import without
from accord.feedback.store.queries.common import must_have
from accord.feedback.store.queries.examples import accepted_demonstrations
from accord.feedback.store.queries.leases import task_again
from accord.feedback.store.queries.overview import Count, Done, Work, done_by, work_in
from accord.feedback.store.tables import Campaign, Draft, Guideline, Item, Judgment, Project
from accord.feedback.studio import label_texts
from accord.feedback.studio.access import may_annotate, my_assignment
from accord.feedback.studio.context import Form, Me, Studio, StudioOf
from accord.feedback.studio.forms import RESERVED, fields_of, payload_of
from accord.feedback.studio.rendering import anchors, render
from accord.feedback.studio.view import page, redirect
from accord.feedback.studio.wording import STOPS

__all__ = ["LABELS", "filled", "router"]

router = APIRouter()

DAY_MS = 86_400_000  # nobody works longer on a task: what a browser says beyond it is not believed

LABELS = {
    "attributes": label_texts.ATTRIBUTES,
    "questions": label_texts.QUESTIONS,
    "flags": label_texts.FLAGS,
    "scales": label_texts.SCALES,
}


@dataclass(frozen=True, kw_only=True)
class _Around:
    """What stands around a task: campaign, guideline, progress, the last answer, neighbours in the history."""

    campaign: Campaign
    guideline: Guideline
    work: Work
    warning: str | None
    last: Done | None
    earlier: str | None
    later: str | None


@router.get("/c/{campaign_id}/task")
def show_task(request: Request, studio: StudioOf, me: Me, campaign_id: str) -> Response:
    """The task at hand, or what has to come first, or why there is none."""
    rates = bool(request.query_params.get("rate"))
    campaign, task = studio.store.run(_take, me.user_id, campaign_id, rates, studio.clock())
    if task is None:
        return redirect(f"/c/{campaign_id}/chat", done=request.query_params.get("done", ""))
    if task == "consent needed":
        return redirect(f"/c/{campaign_id}/consent")
    if task == "guideline needed":
        return redirect(f"/c/{campaign_id}/guidelines")
    if isinstance(task, str):
        work = studio.store.read(work_in, campaign, user_id=me.user_id, now=studio.clock(), count=studio.counts.of)
        title, detail = STOPS[task]
        tested = task in ("qualification failed", "waiting for a grade")
        return page(request, "stop.html", title=title, detail=detail, campaign=campaign, work=work, tested=tested)
    return _task_page(request, studio, me, task)


def _take(
    session: Session, user_id: str, campaign_id: str, rates: bool, now: int
) -> tuple[Campaign, Task | Stop | None]:
    """The campaign, and the task or why there is none; None: here one talks first, and rates what others said after."""
    campaign = may_annotate(session, user_id, campaign_id)
    if campaign.task_type in ("chat", "redteam") and not rates:
        return campaign, None
    return campaign, next_task(session, campaign_id=campaign_id, annotator_id=user_id, now=now)


@router.get("/t/{assignment_id}")
def show_again(request: Request, studio: StudioOf, me: Me, assignment_id: str) -> Response:
    """A task of the history, with the last answer filled in."""
    task = studio.store.read(task_again, assignment_id=assignment_id, annotator_id=me.user_id)
    return _task_page(request, studio, me, task)


def _task_page(
    request: Request,
    studio: Studio,
    me: Me,
    task: Task,
    *,
    fields: Mapping[str, str] | None = None,
    error: str | None = None,
    status: int = 200,
) -> HTMLResponse:
    around = studio.store.read(_around, task, me.user_id, studio.clock(), studio.counts.of)
    if fields is None:
        last = fields_of(around.last.payload, around.last.words) if around.last else {}
        fields = _drafted(task) or last
    return page(
        request,
        "task.html",
        status=status,
        task=task,
        around=around,
        campaign=around.campaign,
        fields=fields,
        labels=LABELS,
        anchors=anchors(around.guideline.markdown),
        settings=settings_of(around.campaign),
        error=error,
    )


def _drafted(task: Task) -> dict[str, str]:
    """The fields of a draft. A program may keep what it likes as its own."""
    fields = (task.draft or {}).get("fields")
    given = fields.items() if isinstance(fields, Mapping) else ()
    return {name: value for name, value in given if isinstance(value, str)}


def _around(session: Session, task: Task, user_id: str, now: int, count: Count) -> _Around:
    query = (
        select(Campaign, Guideline, Project)
        .join(Item, Item.campaign_id == Campaign.id)
        .join(Guideline, Guideline.id == Campaign.guideline_id)
        .join(Project, Project.id == Campaign.project_id)
        .where(Item.id == task.item_id)
    )
    campaign, guideline, project = session.execute(query).one()
    done = done_by(session, user_id=user_id)[::-1] if task.revision > 1 else []
    at = next((place for place, one in enumerate(done) if one.assignment_id == task.assignment_id), None)
    return _Around(
        campaign=campaign,
        guideline=guideline,
        work=work_in(session, campaign, user_id=user_id, now=now, count=count),
        warning=project.content_warning,
        last=None if at is None else done[at],
        earlier=done[at - 1].assignment_id if at else None,
        later=done[at + 1].assignment_id if at is not None and at + 1 < len(done) else None,
    )


def settings_of(campaign: Campaign) -> CampaignSettings:
    """How a campaign runs."""
    return CampaignSettings.model_validate(campaign.settings)


def filled(form: FormData) -> dict[str, str]:
    """The fields a person filled in, without those of the page; files are none of them."""
    return {name: value for name, value in form.items() if isinstance(value, str) and name not in RESERVED and value}


def _whole(value: Any, otherwise: int | None = None) -> int | None:
    text = str(value or "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else otherwise


@router.post("/t/{assignment_id}/draft")
def keep_draft(studio: StudioOf, me: Me, assignment_id: str, form: Form) -> Response:
    """Keep what is typed. 409 with the other version where a second tab kept something meanwhile."""
    version = _whole(form.get("version"), 0) or 0
    try:
        kept = studio.store.run(
            save_draft,
            assignment_id=assignment_id,
            annotator_id=me.user_id,
            payload={"fields": filled(form)},
            version=version,
            now=studio.clock(),
        )
    except DraftConflictError as conflict:
        other = {"version": conflict.version, "fields": conflict.payload.get("fields", {})}
        return JSONResponse(other, status_code=409)
    return JSONResponse({"version": kept})


@router.post("/t/{assignment_id}/draft/drop")
def drop_draft(studio: StudioOf, me: Me, assignment_id: str, form: Form) -> Response:
    """Forget a draft and go back to the last answer."""
    studio.store.run(_drop_draft, me.user_id, assignment_id)
    return redirect(f"/t/{assignment_id}")


def _drop_draft(session: Session, user_id: str, assignment_id: str) -> None:
    my_assignment(session, user_id, assignment_id)
    draft = session.get(Draft, assignment_id)
    if draft is not None:
        session.delete(draft)


@router.post("/t/{assignment_id}/submit")
def submit_task(request: Request, studio: StudioOf, me: Me, assignment_id: str, form: Form) -> Response:
    """Take the answer. What does not fit comes back with all that was filled in."""
    assignment, item, campaign = studio.store.read(my_assignment, me.user_id, assignment_id)
    fields, order = filled(form), list(assignment.display_order)
    try:
        # What people write goes into data sets, so what patterns find in it is replaced at the door.
        describes = campaign.task_type == "rank" and settings_of(campaign).attributes_first
        payload = without(payload_of(campaign.task_type, fields, order, item.source_ref, describes=describes))
        receipt = _send(studio, me, form, assignment_id, payload)
    except ValueError as error:
        if _wants_json(request):
            return JSONResponse({"error": str(error)}, status_code=400)
        task = studio.store.read(task_again, assignment_id=assignment_id, annotator_id=me.user_id)
        return _task_page(request, studio, me, task, fields=fields, error=str(error), status=400)
    return _next(request, campaign, receipt, revises=_whole(form.get("revision"), 1) != 1)


def _send(studio: Studio, me: Me, form: FormData, assignment_id: str, payload: Mapping[str, Any]) -> Receipt:
    active = _whole(form.get("active_ms"))
    sent = Submission(
        assignment_id=assignment_id,
        annotator_id=me.user_id,
        revision=_whole(form.get("revision"), 1) or 1,
        payload=payload,
        active_ms=active if active is not None and active <= DAY_MS else None,
        pasted=_whole(form.get("pasted"), 0) or 0,
        session_id=me.session_id,
    )
    return studio.store.run(submit, sent, now=studio.clock())


def _wants_json(request: Request) -> bool:
    return "application/json" in request.headers.get("accept", "")


def _next(request: Request, campaign: Campaign, receipt: Receipt, *, revises: bool) -> Response:
    """On to the next task, or to the explanation of this one; back to the history after a revision."""
    done = "again" if receipt.repeated else "revised" if revises else "submitted" if receipt.counted else "late"
    if receipt.screened:
        where = f"/c/{campaign.id}/qualify"
    elif receipt.explanation is not None and not receipt.repeated:
        where = f"/t/explained/{receipt.judgment_id}"
    elif revises:
        where = f"/history?done={done}"
    else:
        rate = "&rate=1" if campaign.task_type in ("chat", "redteam") else ""
        where = f"/c/{campaign.id}/task?done={done}{rate}"
    return JSONResponse({"next": where}) if _wants_json(request) else redirect(where)


@router.post("/t/{assignment_id}/skip")
def skip_task(request: Request, studio: StudioOf, me: Me, assignment_id: str, form: Form) -> Response:
    """No verdict, and why."""
    _, _, campaign = studio.store.read(my_assignment, me.user_id, assignment_id)
    reason, text = str(form.get("skip", "")), str(form.get("skip_text", "")).strip()
    payload = without({"skip": reason, **({"text": text} if text and reason == "other" else {})})
    _send(studio, me, form, assignment_id, payload)
    rate = {"rate": "1"} if campaign.task_type in ("chat", "redteam") else {}
    return redirect(f"/c/{campaign.id}/task", done="skipped", **rate)


@router.get("/t/explained/{judgment_id}")
def show_explanation(request: Request, studio: StudioOf, me: Me, judgment_id: str) -> Response:
    """What a known answer would have been, in campaigns that teach."""
    campaign, explanation, answer = studio.store.read(_explanation, me.user_id, judgment_id)
    return page(request, "explained.html", campaign=campaign, explanation=explanation, answer=answer)


def _explanation(session: Session, user_id: str, judgment_id: str) -> tuple[Campaign, str, Done]:
    query = select(Judgment).where(Judgment.id == judgment_id, Judgment.annotator_id == user_id)
    judgment = session.scalar(query)
    item = None if judgment is None else must_have(session, Item, judgment.item_id)
    campaign = None if item is None else must_have(session, Campaign, item.campaign_id)
    if judgment is None or item is None or campaign is None or item.explanation is None or item.kind != "gold":
        raise MissingError("there is no such explanation for you")
    if not settings_of(campaign).teach:
        raise MissingError("there is no such explanation for you")
    answer = next(one for one in done_by(session, user_id=user_id) if one.assignment_id == judgment.assignment_id)
    return campaign, item.explanation, answer


@router.get("/c/{campaign_id}/examples")
def show_examples(request: Request, studio: StudioOf, me: Me, campaign_id: str) -> Response:
    """Good responses: those the campaign brings, and those a reviewer has accepted. Never of what one may write for."""
    campaign = studio.store.read(may_annotate, me.user_id, campaign_id)
    task = request.query_params.get("task")
    item = studio.store.read(my_assignment, me.user_id, task)[1] if task else None
    shown: dict[str, Any] = {"campaign": campaign, "given": settings_of(campaign).examples}
    prompt = None if item is None else item.prompt_id
    accepted = studio.store.read(
        accepted_demonstrations, campaign=campaign, reader_id=me.user_id, now=studio.clock(), but_prompt=prompt
    )
    template = "examples_list.html" if request.headers.get("hx-request") else "examples.html"
    return page(request, template, accepted=accepted, **shown)


@router.post("/preview")
def preview(me: Me, form: Form) -> HTMLResponse:
    """Markdown as others will see it."""
    return HTMLResponse(render(str(form.get("text", ""))[:20_000]) or "<p>Nothing to show yet.</p>")
