"""People of a project: roles, invitations, closing an account."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session

from accord.feedback.store import MissingError, invite, set_role
from accord.feedback.store.queries.administration import members_of, open_invites
from accord.feedback.store.queries.common import must_have, role_of, write_event
from accord.feedback.store.queries.logins import revoke_all
from accord.feedback.store.tables import User
from accord.feedback.studio.access import may_administer, may_run_site
from accord.feedback.studio.context import Form, Me, Studio, StudioOf, Visitor
from accord.feedback.studio.view import page, redirect

__all__ = ["router"]

router = APIRouter(prefix="/admin/people")

ROLES = ("annotator", "reviewer", "admin")
INVITE_DAYS = 14


@router.get("/{project_id}")
def show_people(request: Request, studio: StudioOf, me: Me, project_id: str) -> Response:
    """Who belongs to a project."""
    return _people_page(request, studio, me, project_id)


def _people_page(request: Request, studio: Studio, me: Visitor, project_id: str, link: str | None = None) -> Response:
    project = studio.store.read(may_administer, me.user_id, project_id)
    members = studio.store.read(members_of, project_id)
    invites = studio.store.read(open_invites, project_id, studio.clock())
    return page(
        request,
        "admin_people.html",
        project=project,
        members=members,
        invites=invites,
        link=link,
        days=INVITE_DAYS,
        roles=ROLES,
    )


@router.post("/{project_id}/invite")
def make_invite(request: Request, studio: StudioOf, me: Me, project_id: str, form: Form) -> Response:
    """Make an invitation and show its link, once: it is kept nowhere."""
    studio.store.read(may_administer, me.user_id, project_id)
    role = str(form.get("role", ""))
    if role not in ROLES:
        raise ValueError(f"found the role {role!r}; expected one of {', '.join(ROLES)}")
    until = studio.clock() + INVITE_DAYS * 86_400_000
    token = studio.store.run(_invite, me.user_id, project_id, role, until)
    base = str(request.base_url).rstrip("/")
    return _people_page(request, studio, me, project_id, link=f"{base}/join/{token}")


def _invite(session: Session, user_id: str, project_id: str, role: str, until: int) -> str:
    write_event(session, "invitation", project_id, actor_id=user_id, role=role)
    return invite(session, project_id=project_id, role=role, expires_at=until)


@router.post("/{project_id}/{user_id}/role")
def change_role(studio: StudioOf, me: Me, project_id: str, user_id: str, form: Form) -> Response:
    """Change a member's role; their browsers are logged out, so that no page of the old role stays open."""
    studio.store.read(may_administer, me.user_id, project_id)
    role = str(form.get("role", ""))
    if role not in ROLES:
        raise ValueError(f"found the role {role!r}; expected one of {', '.join(ROLES)}")
    if user_id == me.user_id:
        raise ValueError("this is your own role; ask another admin, so that a project keeps one")
    studio.store.run(_change_role, me.user_id, project_id, user_id, role, studio.clock())
    return redirect(f"/admin/people/{project_id}", done="saved")


def _change_role(session: Session, actor_id: str, project_id: str, user_id: str, role: str, now: int) -> None:
    if role_of(session, user_id, project_id) is None:
        raise MissingError("there is no such member of the project")
    set_role(session, user_id=user_id, project_id=project_id, role=role, actor_id=actor_id)
    revoke_all(session, user_id=user_id, now=now)


@router.post("/{project_id}/{user_id}/disable")
def switch_account(studio: StudioOf, me: Me, project_id: str, user_id: str, form: Form) -> Response:
    """Close an account, or open it again: an admin of the site only, as it holds for all projects."""
    studio.store.read(may_run_site, me.user_id)
    if user_id == me.user_id:
        raise ValueError("this is your own account; expected another one")
    studio.store.run(_switch, me.user_id, user_id, form.get("disabled") == "yes", studio.clock())
    return redirect(f"/admin/people/{project_id}", done="saved")


def _switch(session: Session, actor_id: str, user_id: str, disabled: bool, now: int) -> None:
    must_have(session, User, user_id).disabled_at = now if disabled else None
    if disabled:
        revoke_all(session, user_id=user_id, now=now)
    write_event(session, "account closed" if disabled else "account opened", user_id, actor_id=actor_id)
