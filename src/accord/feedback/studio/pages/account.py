"""My account: password, logged-in browsers, consent, what is known about me."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from accord.feedback.store import MissingError, consent_in_force, revoke_session, withdraw_consent
from accord.feedback.store.queries.common import must_have
from accord.feedback.store.queries.logins import my_sessions, revoke_all
from accord.feedback.store.queries.tokens import SCOPES, add_token, revoke_token, tokens_of
from accord.feedback.store.tables import Membership, Project, User
from accord.feedback.studio.access import may_see_project
from accord.feedback.studio.context import Form, Me, Studio, StudioOf, TooManyError, Visitor
from accord.feedback.studio.passwords import check_new, hash_password, matches
from accord.feedback.studio.view import page, redirect

__all__ = ["router"]

router = APIRouter()


TOKEN_DAYS = 90


@router.get("/account")
def show_account(request: Request, studio: StudioOf, me: Me) -> Response:
    """Sessions, projects with consent, password, display."""
    return _account_page(request, studio, me)


@router.post("/account/tokens")
def new_token(request: Request, studio: StudioOf, me: Me, form: Form) -> Response:
    """Make a token for a program, and show it once."""
    scopes = [scope for scope in SCOPES if form.get(f"scope-{scope}") == "yes"]
    until = studio.clock() + TOKEN_DAYS * 86_400_000
    name = str(form.get("name", ""))[:60]
    token = studio.store.run(add_token, user_id=me.user_id, name=name, scopes=scopes, expires_at=until)
    return _account_page(request, studio, me, token)


@router.post("/account/tokens/{token_id}/revoke")
def end_token(studio: StudioOf, me: Me, token_id: str, form: Form) -> Response:
    """End a token."""
    studio.store.run(revoke_token, token_id=token_id, user_id=me.user_id, now=studio.clock())
    return redirect("/account", done="saved")


def _account_page(request: Request, studio: Studio, me: Visitor, token: str | None = None) -> Response:
    sessions = studio.store.read(my_sessions, user_id=me.user_id, now=studio.clock())
    projects = studio.store.read(_projects, me.user_id)
    tokens = studio.store.read(tokens_of, user_id=me.user_id, now=studio.clock())
    return page(
        request, "account.html", sessions=sessions, projects=projects, tokens=tokens, scopes=SCOPES, token=token
    )


def _projects(session: Session, user_id: str) -> list[tuple[Project, str, bool]]:
    """(project, role, consent is in force) of a person."""
    query = select(Project, Membership.role).join(Membership, Membership.project_id == Project.id)
    rows = session.execute(query.where(Membership.user_id == user_id).order_by(Project.slug)).all()
    return [(project, role, consent_in_force(session, user_id, project.id) is not None) for project, role in rows]


@router.post("/account/password")
def change_password(request: Request, studio: StudioOf, me: Me, form: Form) -> Response:
    """Set a new password, by the old one; log all other browsers out."""
    user = studio.store.read(must_have, User, me.user_id)
    subject = (
        f"password of {me.user_id}"  # whoever took over a session must not guess here what they cannot at the door
    )
    wait = studio.limits.login_try(subject, subject, studio.clock())
    if wait:
        raise TooManyError(-(-wait // 1000))
    if not matches(user.password_hash, str(form.get("old", ""))):
        raise ValueError("the old password is wrong; nothing was changed")
    studio.limits.login_succeeded(subject, subject)
    check_new(str(form.get("new", "")))
    hashed = hash_password(str(form["new"]))
    studio.store.run(_change_password, me.user_id, hashed, me.session_id, studio.clock())
    return redirect("/account", done="password")


def _change_password(session: Session, user_id: str, hashed: str, keep: str, now: int) -> None:
    must_have(session, User, user_id).password_hash = hashed
    revoke_all(session, user_id=user_id, now=now, but=keep)


@router.post("/account/sessions/{session_id}/revoke")
def revoke(studio: StudioOf, me: Me, session_id: str, form: Form) -> Response:
    """Log one of my browsers out."""
    mine = {one.id for one in studio.store.read(my_sessions, user_id=me.user_id, now=studio.clock())}
    if session_id not in mine:
        raise MissingError("there is no such session of yours")
    studio.store.run(revoke_session, session_id=session_id, now=studio.clock())
    return redirect("/account", done="revoked")


@router.post("/account/withdraw/{project_id}")
def withdraw(studio: StudioOf, me: Me, project_id: str, form: Form) -> Response:
    """Take consent back for a project."""
    project = studio.store.read(may_see_project, me.user_id, project_id)
    studio.store.run(withdraw_consent, user_id=me.user_id, project_id=project.id, now=studio.clock())
    return redirect("/account", done="withdrawn")
