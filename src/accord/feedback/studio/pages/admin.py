"""The admin's first page, and the frame of all pages below /admin."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.datastructures import FormData

from accord.feedback.store import MissingError, add_consent_text, add_guideline, add_project, set_role
from accord.feedback.store.queries.common import must_have, write_event
from accord.feedback.store.queries.overview import progress
from accord.feedback.store.tables import Campaign, Membership, Project, User
from accord.feedback.studio.access import may_run_site
from accord.feedback.studio.context import Form, Me, StudioOf
from accord.feedback.studio.view import page, redirect
from accord.feedback.studio.wording import WITHDRAWALS

__all__ = ["make_project", "managed_projects", "overview", "router", "rules_of"]

LONGEST_DAYS = 36_500

router = APIRouter(prefix="/admin")


def managed_projects(session: Session, user_id: str) -> list[Project]:
    """Projects a person is an admin of; all of them for an admin of the site.

    Raises:
        MissingError: none, and no admin of the site.
    """
    query = select(Project).order_by(Project.slug)
    if not must_have(session, User, user_id).is_admin:
        query = query.join(Membership, Membership.project_id == Project.id)
        query = query.where(Membership.user_id == user_id, Membership.role == "admin")
    found = list(session.scalars(query))
    if not found and not must_have(session, User, user_id).is_admin:
        raise MissingError("there is no such page for you")
    return found


def overview(session: Session, user_id: str) -> list[tuple[Project, list[tuple[Campaign, int, int]]]]:
    """Projects a person manages, with their campaigns: (campaign, slots, filled)."""
    found = []
    for project in managed_projects(session, user_id):
        query = select(Campaign).where(Campaign.project_id == project.id).order_by(Campaign.created_at)
        found.append((project, [(one, *progress(session, one.id)) for one in session.scalars(query)]))
    return found


@router.get("")
def show_admin(request: Request, studio: StudioOf, me: Me) -> Response:
    """Projects and their campaigns."""
    return page(request, "admin.html", projects=studio.store.read(overview, me.user_id))


@router.post("/projects")
def new_project(studio: StudioOf, me: Me, form: Form) -> Response:
    """Make a project with its consent text and first guideline."""
    studio.store.read(may_run_site, me.user_id)
    project = studio.store.run(
        make_project,
        me.user_id,
        slug=str(form.get("slug", "")).strip(),
        consent=str(form.get("consent", "")).strip(),
        guideline=str(form.get("guideline", "")).strip(),
        warning=str(form.get("warning", "")).strip() or None,
        **rules_of(form),
    )
    return redirect(f"/admin/project/{project}", done="added")


def rules_of(form: FormData) -> dict[str, Any]:
    """How long words are kept, and what goes with a withdrawn consent, as a form has them.

    Raises:
        ValueError: one of them is none.
    """
    days, rule = str(form.get("retention_days", "")).strip(), str(form.get("on_withdrawal", "keep_verdicts"))
    if days and not (days.isascii() and days.isdigit() and 0 < int(days) <= LONGEST_DAYS):
        raise ValueError(f"found {days!r} days; expected a whole number from 1 to {LONGEST_DAYS}, or nothing for ever")
    if rule not in WITHDRAWALS:
        raise ValueError(f"found the rule {rule!r}; expected one of {', '.join(WITHDRAWALS)}")
    return {"retention_days": int(days) if days else None, "on_withdrawal": rule}


def make_project(
    session: Session,
    user_id: str,
    *,
    slug: str,
    consent: str,
    guideline: str,
    warning: str | None,
    retention_days: int | None = None,
    on_withdrawal: str = "keep_verdicts",
) -> str:
    """Make a project with its consent text and first guideline; whoever makes it is its admin.

    Raises:
        ValueError: a text is missing, or the name is taken.
    """
    if not (slug and consent and guideline):
        raise ValueError("a project has to have a name, a consent text and a guideline; fill in all three")
    if session.scalar(select(Project.id).where(Project.slug == slug)) is not None:
        raise ValueError(f"there is a project {slug!r} already; choose another name")
    project = add_project(
        session, slug=slug, content_warning=warning, retention_days=retention_days, on_withdrawal=on_withdrawal
    )
    add_consent_text(session, project_id=project.id, markdown=consent)
    add_guideline(session, project_id=project.id, markdown=guideline)
    set_role(session, user_id=user_id, project_id=project.id, role="admin", actor_id=user_id)
    write_event(session, "project", project.id, actor_id=user_id)
    return project.id
