"""A project's campaigns: making one, filling it from a file, opening and closing it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.datastructures import FormData, UploadFile

from accord.feedback.store import CampaignSettings, add_campaign, change_campaign
from accord.feedback.store.queries.campaigns import change_surroundings
from accord.feedback.store.queries.common import write_event
from accord.feedback.store.queries.overview import guidelines_of, progress
from accord.feedback.store.tables import TASK_TYPES, Campaign, Guideline
from accord.feedback.studio.access import may_administer, may_administer_campaign
from accord.feedback.studio.context import Form, Me, StudioOf
from accord.feedback.studio.view import page, redirect
from accord.records import describe

__all__ = ["router"]

MOST_COMPLAINTS = 20
LONGEST_EXAMPLE = 8000  # characters: as long as a demonstration may be

router = APIRouter(prefix="/admin")

STATES = ("draft", "pilot", "open", "paused", "closed")


@router.get("/project/{project_id}")
def show_project(request: Request, studio: StudioOf, me: Me, project_id: str) -> Response:
    """Campaigns of a project, and the form of a new one."""
    project = studio.store.read(may_administer, me.user_id, project_id)
    campaigns, guidelines = studio.store.read(_campaigns, project_id)
    return page(
        request,
        "admin_project.html",
        project=project,
        campaigns=campaigns,
        guidelines=guidelines,
        task_types=[one for one in TASK_TYPES if studio.models or one not in ("chat", "redteam")],
        settings=CampaignSettings(),
    )


def _campaigns(session: Session, project_id: str) -> tuple[list[tuple[Campaign, int, int]], list[Guideline]]:
    query = select(Campaign).where(Campaign.project_id == project_id).order_by(Campaign.created_at)
    return [(one, *progress(session, one.id)) for one in session.scalars(query)], guidelines_of(session, project_id)


@router.post("/project/{project_id}/campaigns")
def make_campaign(studio: StudioOf, me: Me, project_id: str, form: Form) -> Response:
    """Make a campaign, as a draft."""
    studio.store.read(may_administer, me.user_id, project_id)
    campaign = studio.store.run(_make_campaign, me.user_id, project_id, form)
    return redirect(f"/admin/campaign/{campaign}", done="added")


def _make_campaign(session: Session, user_id: str, project_id: str, form: FormData) -> str:
    name = str(form.get("name", "")).strip()
    if not name:
        raise ValueError("the campaign has no name; write one")
    if session.scalar(select(Campaign.id).where(Campaign.project_id == project_id, Campaign.name == name)):
        raise ValueError(f"there is a campaign {name!r} already; choose another name")
    task_type = str(form.get("task_type", ""))
    if task_type not in TASK_TYPES:
        raise ValueError(f"found the task {task_type!r}; expected one of {', '.join(TASK_TYPES)}")
    campaign = add_campaign(
        session,
        project_id=project_id,
        name=name,
        task_type=task_type,
        guideline_id=str(form.get("guideline", "")),
        overlap=_between("overlap", form, 1, 50),
        lease_minutes=_between("lease_minutes", form, 1, 24 * 60),
        settings=_settings(form),
    )
    write_event(session, "campaign", campaign.id, actor_id=user_id, state="draft")
    return campaign.id


def _between(name: str, form: FormData, least: int, most: int) -> int:
    value = str(form.get(name, ""))
    if not (value.isascii() and value.isdigit() and least <= int(value) <= most):
        raise ValueError(f"`{name}` is {value!r}; expected a whole number from {least} to {most}")
    return int(value)


def _settings(form: FormData) -> CampaignSettings:
    given: dict[str, object] = {name: form[name] for name in CampaignSettings.model_fields if name in form}
    given |= {name: form.get(name) == "yes" for name in ("teach", "attributes_first")}
    if "examples" in form:
        given["examples"] = _examples(form)
    if "span_tags" in form:
        given["span_tags"] = tuple(one.strip() for one in str(form["span_tags"]).split(",") if one.strip())
    try:
        return CampaignSettings.model_validate(given)
    except ValidationError as error:
        raise ValueError(describe(error)) from None


def _examples(form: FormData) -> tuple[str, ...]:
    """Examples with a line of --- between two."""
    parts = re.split(r"(?m)^-{3,}\s*$", str(form["examples"]).replace("\r\n", "\n"))
    found = tuple(one.strip() for one in parts if one.strip())
    longest = max(map(len, found), default=0)
    if longest > LONGEST_EXAMPLE:
        raise ValueError(f"one of the `examples` has {longest:,} characters; expected {LONGEST_EXAMPLE:,} at most")
    return found


@router.post("/campaign/{campaign_id}/change")
def change(studio: StudioOf, me: Me, campaign_id: str, form: Form) -> Response:
    """Change the state, the guideline, the price of an hour, the examples, or the overlap upwards."""
    studio.store.read(may_administer_campaign, me.user_id, campaign_id)
    state = str(form.get("state", "")) or None
    if state is not None and state not in STATES:
        raise ValueError(f"found the state {state!r}; expected one of {', '.join(STATES)}")
    studio.store.run(_change, me.user_id, campaign_id, state, form)
    return redirect(f"/admin/campaign/{campaign_id}", done="saved")


def _change(session: Session, user_id: str, campaign_id: str, state: str | None, form: FormData) -> None:
    """All that a form has, or nothing of it."""
    overlap = _between("overlap", form, 1, 50) if form.get("overlap") else None
    guideline = str(form["guideline"]) if form.get("guideline") else None
    if (state, overlap, guideline) != (None, None, None):
        change_campaign(
            session,
            campaign_id=campaign_id,
            actor_id=user_id,
            state=state,
            overlap=overlap,
            guideline_id=guideline,
        )
    change_surroundings(
        session,
        campaign_id=campaign_id,
        actor_id=user_id,
        hourly_rate=_price(form) if "hourly_rate" in form else None,
        examples=_examples(form) if "examples" in form else None,
    )


def _price(form: FormData) -> float:
    value = str(form["hourly_rate"]).strip()
    try:
        price = float(value or 0)
    except ValueError:
        price = -1
    if not 0 <= price < float("inf"):
        raise ValueError(f"`hourly_rate` is {value!r}; expected a number, 0 or more")
    return price


@router.post("/campaign/{campaign_id}/import")
def import_rows(request: Request, studio: StudioOf, me: Me, campaign_id: str, form: Form) -> Response:
    """Make items of an uploaded file, in any format the command reads; bad rows are named and left out."""
    campaign = studio.store.read(may_administer_campaign, me.user_id, campaign_id)
    project = studio.store.read(may_administer, me.user_id, campaign.project_id)
    upload, kind = form.get("file"), str(form.get("kind", "normal"))
    if not isinstance(upload, UploadFile):
        raise ValueError("no file was sent; choose one")
    if studio.importer is None:
        raise ValueError("this studio reads no files; use `accord feedback import`")
    name = Path(upload.filename or "upload").name
    error, outcome = None, None
    with TemporaryDirectory() as folder:
        kept = Path(folder, "upload" + _ending(name))
        with kept.open("wb") as file:
            shutil.copyfileobj(upload.file, file)
        try:
            outcome = studio.importer(studio.store, kept, campaign_id=campaign_id, source=name, kind=kind)
        except ValueError as refused:
            error = str(refused).replace(str(kept), name)
    bad = [] if outcome is None else [f"row {one.row}: {one.message}" for one in outcome.bad_rows]
    if outcome is not None and not outcome.items and bad:
        error = f"no row of {name} fits this campaign"
    return page(
        request,
        "admin_import.html",
        status=400 if error else 200,
        project=project,
        campaign=campaign,
        outcome=outcome,
        complaints=bad[:MOST_COMPLAINTS],
        more=max(0, len(bad) - MOST_COMPLAINTS),
        error=error,
    )


def _ending(name: str) -> str:
    """The part of a file's name that says how it is read; an unknown one is read as rows of JSON."""
    found = re.search(r"\.(jsonl?|csv|tsv|parquet)(\.gz)?$", name.lower())
    return found[0] if found else ".jsonl"
