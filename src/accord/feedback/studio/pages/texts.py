"""A project's guideline and consent text, in versions; and its audit log."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from accord.feedback.store import add_consent_text, add_guideline
from accord.feedback.store.queries.administration import events_of
from accord.feedback.store.queries.common import write_event
from accord.feedback.store.queries.overview import guidelines_of
from accord.feedback.store.queries.projects import change_project
from accord.feedback.store.tables import Campaign, ConsentText
from accord.feedback.studio.access import may_administer
from accord.feedback.studio.context import Form, Me, StudioOf
from accord.feedback.studio.pages.admin import rules_of
from accord.feedback.studio.view import page, redirect

__all__ = ["router"]

router = APIRouter(prefix="/admin")


@router.get("/texts/{project_id}")
def show_texts(request: Request, studio: StudioOf, me: Me, project_id: str) -> Response:
    """Both texts, newest version first, and forms for a next version."""
    project = studio.store.read(may_administer, me.user_id, project_id)
    guidelines = studio.store.read(guidelines_of, project_id)
    consents = studio.store.read(_consents, project_id)
    return page(request, "admin_texts.html", project=project, guidelines=guidelines, consents=consents)


def _consents(session: Session, project_id: str) -> list[ConsentText]:
    query = select(ConsentText).where(ConsentText.project_id == project_id, ConsentText.version > 0)
    return list(session.scalars(query.order_by(ConsentText.version.desc())))


@router.post("/texts/{project_id}/guideline")
def new_guideline(studio: StudioOf, me: Me, project_id: str, form: Form) -> Response:
    """Add a version; campaigns that are ticked follow it from now on, and everyone confirms it before the next task."""
    studio.store.read(may_administer, me.user_id, project_id)
    markdown = str(form.get("markdown", "")).strip()
    if not markdown:
        raise ValueError("the guideline is empty; write it")
    follows = form.get("follow") == "yes"
    studio.store.run(_new_guideline, me.user_id, project_id, markdown, str(form.get("note", "")).strip(), follows)
    return redirect(f"/admin/texts/{project_id}", done="added")


def _new_guideline(session: Session, user_id: str, project_id: str, markdown: str, note: str, follows: bool) -> None:
    guideline = add_guideline(session, project_id=project_id, markdown=markdown, note=note)
    write_event(session, "guideline", guideline.id, actor_id=user_id, version=guideline.version)
    if follows:
        for campaign in session.scalars(
            select(Campaign).where(Campaign.project_id == project_id, Campaign.state != "closed")
        ):
            campaign.guideline_id = guideline.id
            write_event(session, "campaign", campaign.id, actor_id=user_id, guideline=guideline.id)


@router.post("/texts/{project_id}/consent")
def new_consent(studio: StudioOf, me: Me, project_id: str, form: Form) -> Response:
    """Add a version of the consent text; everyone is asked again before the next task."""
    studio.store.read(may_administer, me.user_id, project_id)
    markdown = str(form.get("markdown", "")).strip()
    if not markdown:
        raise ValueError("the consent text is empty; write it")
    studio.store.run(_new_consent, me.user_id, project_id, markdown)
    return redirect(f"/admin/texts/{project_id}", done="added")


def _new_consent(session: Session, user_id: str, project_id: str, markdown: str) -> None:
    text = add_consent_text(session, project_id=project_id, markdown=markdown)
    write_event(session, "consent text", project_id, actor_id=user_id, version=text.version)


@router.post("/texts/{project_id}/kept")
def change_kept(studio: StudioOf, me: Me, project_id: str, form: Form) -> Response:
    """Set how long words are kept, and what goes with a consent that is taken back."""
    studio.store.read(may_administer, me.user_id, project_id)
    on_export = str(form.get("on_export", "count"))
    rules = rules_of(form)
    studio.store.run(change_project, project_id=project_id, actor_id=me.user_id, on_export=on_export, **rules)
    return redirect(f"/admin/texts/{project_id}", done="saved")


@router.get("/events/{project_id}")
def show_events(request: Request, studio: StudioOf, me: Me, project_id: str) -> Response:
    """The audit log of a project."""
    project = studio.store.read(may_administer, me.user_id, project_id)
    events = studio.store.read(events_of, project_id)
    return page(request, "admin_events.html", project=project, events=events)
