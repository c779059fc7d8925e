"""The first page: my projects and tasks; my history; help; consent and guidelines of a project."""

from __future__ import annotations

import difflib

from fastapi import APIRouter, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from accord.feedback.store import confirm_guideline, consent_in_force, give_consent, has_confirmed
from accord.feedback.store.queries.common import must_have
from accord.feedback.store.queries.messages import dismiss_note, notes_for
from accord.feedback.store.queries.overview import done_by, guidelines_of, my_work
from accord.feedback.store.queries.screening import screenings_of
from accord.feedback.store.tables import Campaign, ConsentText, Event, Guideline
from accord.feedback.studio.access import may_annotate, may_see_project
from accord.feedback.studio.context import Form, Me, StudioOf
from accord.feedback.studio.view import page, redirect

__all__ = ["router"]

router = APIRouter()

USES = {
    "train": "Models may be trained on what I write.",
    "publish": "What I write may be published, without my name, with the data set.",
}
TALKED = ("chat", "redteam")


@router.get("/")
def show_home(request: Request, studio: StudioOf, me: Me) -> Response:
    """Campaigns I can work on, by project."""
    work = studio.store.read(my_work, user_id=me.user_id, now=studio.clock(), count=studio.counts.of)
    tests = {one.id: test for one, test in studio.store.read(screenings_of, user_id=me.user_id)}
    notes = studio.store.read(notes_for, user_id=me.user_id)
    return page(request, "home.html", work=work, tests=tests, notes=notes)


@router.post("/notes/{note_id}/dismiss")
def dismiss(studio: StudioOf, me: Me, note_id: str, form: Form) -> Response:
    """Put a note away that was read."""
    studio.store.run(dismiss_note, note_id=note_id, user_id=me.user_id)
    return redirect("/")


@router.get("/history")
def show_history(request: Request, studio: StudioOf, me: Me) -> Response:
    """What I judged, newest first."""
    return page(request, "history.html", done=studio.store.read(done_by, user_id=me.user_id)[:200])


@router.get("/help/keys")
def show_keys(request: Request, me: Me) -> Response:
    """The keyboard."""
    return page(request, "keys.html")


@router.get("/c/{campaign_id}/consent")
def show_consent(request: Request, studio: StudioOf, me: Me, campaign_id: str) -> Response:
    """What I agree to, in two steps: first the text, then a box per use, none of them ticked."""
    campaign = studio.store.read(may_annotate, me.user_id, campaign_id)
    text, given = studio.store.read(_consent_text, campaign, me.user_id)
    return page(
        request,
        "consent.html",
        campaign=campaign,
        project=studio.store.read(may_see_project, me.user_id, campaign.project_id),
        text=text,
        given=given,
        read=text is not None and request.query_params.get("read") == text.id,
        uses=USES,
    )


def _consent_text(session: Session, campaign: Campaign, user_id: str) -> tuple[ConsentText | None, bool]:
    query = select(ConsentText).where(ConsentText.project_id == campaign.project_id, ConsentText.version > 0)
    text = session.scalar(query.order_by(ConsentText.version.desc()).limit(1))
    return text, consent_in_force(session, user_id, campaign.project_id) is not None


@router.post("/c/{campaign_id}/consent")
def consent(studio: StudioOf, me: Me, campaign_id: str, form: Form) -> Response:
    """Note the consent and the uses that were ticked. What someone says to a model needs the text that was read."""
    campaign = studio.store.read(may_annotate, me.user_id, campaign_id)
    text, _ = studio.store.read(_consent_text, campaign, me.user_id)
    read = form.get("text", None if campaign.task_type in TALKED or text is None else text.id)
    if text is None or read != text.id:
        return redirect(f"/c/{campaign_id}/consent")  # not read yet, or a newer one came meanwhile: it is shown first
    if form.get("agree") != "yes":
        raise ValueError("the box that says you agree is not ticked; tick it, or leave the page and nothing is kept")
    uses = tuple(use for use in USES if form.get(f"use-{use}") == "yes")
    studio.store.run(_agree, me.user_id, campaign.project_id, text.id, uses, studio.clock())
    return redirect(f"/c/{campaign_id}/task", done="consented")


def _agree(session: Session, user_id: str, project_id: str, text_id: str, uses: tuple[str, ...], now: int) -> None:
    """Sign the text that was read, or nothing."""
    given = give_consent(session, user_id=user_id, project_id=project_id, now=now, uses=uses)
    if given.consent_text_id != text_id:
        raise ValueError("a newer text came meanwhile, and nothing was agreed to; load the page again and read it")


@router.get("/c/{campaign_id}/guidelines")
def show_guidelines(request: Request, studio: StudioOf, me: Me, campaign_id: str) -> Response:
    """The guideline of a campaign, what changed since the version I confirmed, and the versions there were."""
    campaign = studio.store.read(may_annotate, me.user_id, campaign_id)
    now, before, confirmed, versions = studio.store.read(_guideline, campaign, me.user_id)
    return page(
        request,
        "guidelines.html",
        campaign=campaign,
        guideline=now,
        before=before,
        confirmed=confirmed,
        versions=versions,
        difference=_difference(before, now),
    )


def _guideline(
    session: Session, campaign: Campaign, user_id: str
) -> tuple[Guideline, Guideline | None, bool, list[Guideline]]:
    now = must_have(session, Guideline, campaign.guideline_id)
    query = (
        select(Guideline)
        .join(Event, Event.subject == Guideline.id)
        .where(Event.kind == "guideline confirmed", Event.actor_id == user_id)
        .where(Guideline.project_id == campaign.project_id, Guideline.version < now.version)
        .order_by(Guideline.version.desc())
        .limit(1)
    )
    before = session.scalar(query)
    return now, before, has_confirmed(session, user_id, now.id), guidelines_of(session, campaign.project_id)


def _difference(before: Guideline | None, now: Guideline) -> list[tuple[str, str]]:
    """Lines that changed: ("+", line) and ("-", line), with a line of context."""
    if before is None:
        return []
    lines = difflib.unified_diff(before.markdown.splitlines(), now.markdown.splitlines(), lineterm="", n=1)
    return [(line[:1], line[1:]) for line in lines if not line.startswith(("+++", "---", "@@"))]


@router.post("/c/{campaign_id}/guidelines")
def confirm(studio: StudioOf, me: Me, campaign_id: str, form: Form) -> Response:
    """Note that the version that was shown has been read."""
    campaign = studio.store.read(may_annotate, me.user_id, campaign_id)
    if form.get("guideline") == campaign.guideline_id:  # else a newer one came meanwhile, and is shown next
        studio.store.run(confirm_guideline, user_id=me.user_id, guideline_id=campaign.guideline_id)
    return redirect(f"/c/{campaign_id}/task", done="confirmed")
