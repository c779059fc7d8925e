"""Logging in and out, and invitations: how people get in."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session

from accord.feedback.store import MissingError, accept_invite, add_user, revoke_session, start_session
from accord.feedback.store.queries.common import must_have, write_event
from accord.feedback.store.queries.logins import account_of, invitation_of, revoke_all, seen_session
from accord.feedback.store.tables import User
from accord.feedback.studio.context import Form, Me, OpenForm, Studio, StudioOf, TooManyError, cookie_name
from accord.feedback.studio.demo import join_demo
from accord.feedback.studio.passwords import check_new, hash_password, matches, needs_rehash
from accord.feedback.studio.view import page, redirect

__all__ = ["router"]

router = APIRouter()

WRONG = "The name or the password is wrong."
SESSION_SECONDS = 7 * 86_400


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"


def _let_in(studio: Studio, user_id: str, where: str) -> Response:
    """Start a session of a new id, whatever cookie was there before."""
    token, _ = studio.store.run(start_session, user_id=user_id, now=studio.clock())
    response = redirect(where)
    response.set_cookie(
        cookie_name(studio.config),
        token,
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="lax",
        secure=studio.config.secure,
        path="/",
    )
    return response


def inside(where: str) -> str:
    """An address of ours, or the first page: a login must not send people elsewhere."""
    return where if where.startswith("/") and not where.startswith(("//", "/\\")) and where.isprintable() else "/"


@router.get("/login")
def show_login(request: Request, next: str = "/") -> Response:
    """The form."""
    return page(request, "login.html", where=inside(next))


@router.post("/login")
def log_in(request: Request, studio: StudioOf, form: OpenForm) -> Response:
    """Check the password; what fails looks and lasts the same whether there is such an account or not."""
    name, password = str(form.get("name", "")).strip(), str(form.get("password", ""))
    where, now = inside(str(form.get("next", "/"))), studio.clock()
    wait = studio.limits.login_try(name, _address(request), now)
    if wait:
        raise TooManyError(-(-wait // 1000))
    account = studio.store.read(account_of, name)
    right = matches(account.password_hash if account else None, password)
    if account is None or not right or account.disabled:
        return page(request, "login.html", status=401, where=where, error=WRONG)
    studio.limits.login_succeeded(name, _address(request))
    if account.password_hash is not None and needs_rehash(account.password_hash):
        studio.store.run(_set_password, account.user_id, password)
    return _let_in(studio, account.user_id, where)


def _set_password(session: Session, user_id: str, password: str) -> None:
    must_have(session, User, user_id).password_hash = hash_password(password)


@router.post("/logout")
def log_out(studio: StudioOf, me: Me, form: Form) -> Response:
    """End this session, here and in the store."""
    studio.store.run(revoke_session, session_id=me.session_id, now=studio.clock())
    response = redirect("/login")
    response.delete_cookie(cookie_name(studio.config), path="/", secure=studio.config.secure, httponly=True)
    return response


@router.get("/join/{token}")
def show_invitation(request: Request, studio: StudioOf, token: str) -> Response:
    """What the invitation is for, and the form of a new account; looking at it does not use it."""
    invitation = studio.store.read(invitation_of, token=token, now=studio.clock())
    cookie = request.cookies.get(cookie_name(studio.config), "")
    known = seen_session(studio.store, token=cookie, now=studio.clock()) if cookie else None
    return page(request, "join.html", invitation=invitation, token=token, name="", known=known)


@router.post("/join/{token}")
def join(request: Request, studio: StudioOf, token: str, form: OpenForm) -> Response:
    """Make the account, use the invitation, log in."""
    invitation = studio.store.read(invitation_of, token=token, now=studio.clock())
    name = str(form.get("name", "")).strip()
    try:
        if not 2 <= len(name) <= 60 or not name.isprintable():
            raise ValueError("the name has to have 2 to 60 visible characters")
        check_new(str(form.get("password", "")))
        hashed = hash_password(str(form["password"]))
        user = studio.store.run(_join, token, name, str(form.get("email", "")).strip() or None, hashed, studio.clock())
    except MissingError:
        raise
    except ValueError as error:
        shown = {"invitation": invitation, "token": token, "name": name, "known": None, "error": str(error)}
        return page(request, "join.html", status=400, **shown)
    return _let_in(studio, user, "/")


def _join(session: Session, token: str, name: str, email: str | None, password_hash: str, now: int) -> str:
    user = add_user(session, handle=name, email=email, password_hash=password_hash)
    accept_invite(session, token=token, user_id=user.id, now=now)
    if user.is_admin:
        join_demo(session, user_id=user.id)  # so that whoever starts a demonstration can also work in it
    return user.id


@router.post("/join/{token}/accept")
def accept(studio: StudioOf, me: Me, token: str, form: Form) -> Response:
    """Use an invitation with the account that is logged in; a new role starts a new session."""
    studio.store.run(_accept, token, me.user_id, studio.clock())
    return _let_in(studio, me.user_id, "/")


def _accept(session: Session, token: str, user_id: str, now: int) -> None:
    accept_invite(session, token=token, user_id=user_id, now=now)
    revoke_all(session, user_id=user_id, now=now)
    write_event(session, "sessions renewed", user_id, actor_id=user_id)
