"""What people ask: chat logs of a project as a map, and campaigns of a selection."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Request, Response
from markupsafe import Markup
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.datastructures import FormData, UploadFile

from accord.feedback.explore import Exploration, choose
from accord.feedback.explore.campaign import TASKS, fill_campaign
from accord.feedback.explore.page import cluster_rows, map_data, summary
from accord.feedback.store import add_campaign
from accord.feedback.store.queries.common import write_event
from accord.feedback.store.queries.overview import guidelines_of
from accord.feedback.store.tables import Campaign
from accord.feedback.studio.access import may_administer
from accord.feedback.studio.context import Form, Me, Studio, StudioOf, in_thread
from accord.feedback.studio.explorations import Exploring, Upload
from accord.feedback.studio.view import page, part, redirect

__all__ = ["router"]

router = APIRouter(prefix="/admin")

MOST_ITEMS = 10_000
MOST_COMPLAINTS = 20


@router.get("/explore/{project_id}")
def show_explore(request: Request, studio: StudioOf, me: Me, project_id: str) -> Response:
    """The form for files, how far the exploration is, or the map."""
    project = studio.store.read(may_administer, me.user_id, project_id)
    exploring = studio.explorations.of(project_id)
    return page(
        request,
        "admin_explore.html",
        project=project,
        exploring=exploring,
        guidelines=studio.store.read(guidelines_of, project_id),
        tasks=TASKS,
        **_shown(exploring),
    )


def _shown(exploring: Exploring | None) -> dict[str, Any]:
    found = None if exploring is None else exploring.found
    if exploring is None or found is None:
        return {"found": None, "clusters": [], "data": "", "facts": None, "complaints": [], "more": 0}
    rows = cluster_rows(found)
    return {
        "found": found,
        "clusters": rows,
        "data": Markup(map_data(found.points, rows)),
        "facts": summary(found, sources=exploring.names),
        "complaints": exploring.bad_rows[:MOST_COMPLAINTS],
        "more": max(0, len(exploring.bad_rows) - MOST_COMPLAINTS),
    }


@router.get("/explore/{project_id}/progress")
def show_progress(request: Request, studio: StudioOf, me: Me, project_id: str) -> Response:
    """How far it is; the page is loaded anew once it is done."""
    project = studio.store.read(may_administer, me.user_id, project_id)
    exploring = studio.explorations.of(project_id)
    answer = part(request, "admin_explore_progress.html", project=project, exploring=exploring)
    if exploring is None or not exploring.running:
        answer.headers["HX-Refresh"] = "true"
    return answer


@router.post("/explore/{project_id}/import")
async def import_logs(studio: StudioOf, me: Me, project_id: str, form: Form) -> Response:
    """Take files and explore them in the background."""
    uploads = [
        Upload(name=one.filename or "upload", data=await one.read(), compared=name == "compare")
        for name in ("files", "compare")
        for one in form.getlist(name)
        if isinstance(one, UploadFile) and one.filename
    ]
    await in_thread(_start, studio, me.user_id, project_id, uploads, str(form.get("clusters", "")).strip())
    return redirect(f"/admin/explore/{project_id}")


def _start(studio: Studio, user_id: str, project_id: str, uploads: list[Upload], clusters: str) -> None:
    studio.store.read(may_administer, user_id, project_id)
    if not any(not one.compared for one in uploads):
        raise ValueError("no file of chat logs was sent; choose one")
    if clusters and not (clusters.isascii() and clusters.isdigit() and 2 <= int(clusters) <= 200):
        raise ValueError(f"`clusters` is {clusters!r}; expected a whole number from 2 to 200, or nothing")
    studio.explorations.start(project_id, uploads, clusters=int(clusters) if clusters else None)
    studio.store.run(_note, user_id, project_id, len(uploads))


def _note(session: Session, user_id: str, project_id: str, files: int) -> None:
    write_event(session, "explored", project_id, actor_id=user_id, files=files)


@router.post("/explore/{project_id}/drop")
def drop(studio: StudioOf, me: Me, project_id: str, form: Form) -> Response:
    """Forget the logs."""
    studio.store.read(may_administer, me.user_id, project_id)
    studio.explorations.drop(project_id)
    return redirect(f"/admin/explore/{project_id}")


@router.post("/explore/{project_id}/campaign")
def make_campaign(studio: StudioOf, me: Me, project_id: str, form: Form) -> Response:
    """Make a draft campaign of the selection, drawn by the shares of its clusters."""
    studio.store.read(may_administer, me.user_id, project_id)
    exploring = studio.explorations.of(project_id)
    if exploring is None or exploring.found is None:
        raise ValueError("there is no map of this project any more; send the logs again")
    points = choose(_selected(exploring.found, form), _items(form))
    if not points:
        raise ValueError("the selection is empty; clear a filter, or select more")
    campaign = studio.store.run(_add_campaign, me.user_id, project_id, form)
    names = {cluster.number: cluster.name for cluster in exploring.found.clusters}
    fill_campaign(studio.store, points, names, campaign_id=campaign)
    return redirect(f"/admin/campaign/{campaign}", done="added")


def _selected(found: Exploration, form: FormData) -> list[Any]:
    """The points whose ids the page sent; without a selection, and without a script, a cluster or all."""
    ids = _ids(str(form.get("selection", "")))
    cluster = str(form.get("cluster", ""))
    return [
        point
        for point in found.points
        if (ids is None or point.log.id in ids) and (not cluster or str(point.cluster) == cluster)
    ]


def _ids(text: str) -> frozenset[str] | None:
    if not text:
        return None
    try:
        ids = json.loads(text)
    except ValueError:
        ids = None
    if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
        raise ValueError("the selection cannot be read; load the page again")
    return frozenset(ids)


def _items(form: FormData) -> int:
    value = str(form.get("items", ""))
    if not (value.isascii() and value.isdigit() and 1 <= int(value) <= MOST_ITEMS):
        raise ValueError(f"`items` is {value!r}; expected a whole number from 1 to {MOST_ITEMS}")
    return int(value)


def _add_campaign(session: Session, user_id: str, project_id: str, form: FormData) -> str:
    name, task = str(form.get("name", "")).strip(), str(form.get("task_type", ""))
    if not name:
        raise ValueError("the campaign has no name; write one")
    if task not in TASKS:
        raise ValueError(f"found the task {task!r}; expected one of {', '.join(TASKS)}")
    if session.scalar(select(Campaign.id).where(Campaign.project_id == project_id, Campaign.name == name)):
        raise ValueError(f"there is a campaign {name!r} already; choose another name")
    guideline = str(form.get("guideline", ""))
    campaign = add_campaign(
        session, project_id=project_id, name=name, task_type=task, guideline_id=guideline, overlap=3
    )
    write_event(session, "campaign", campaign.id, actor_id=user_id, state="draft", of="explorer")
    return campaign.id
