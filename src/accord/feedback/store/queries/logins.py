"""Logins as a web server needs them: the session of a cookie, looked up without writing each time."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import exists, select, update
from sqlalchemy.orm import Session

from accord.feedback.store.database import Store
from accord.feedback.store.ids import token_hash
from accord.feedback.store.queries.common import MissingError
from accord.feedback.store.queries.people import IDLE_MS
from accord.feedback.store.tables import Invite, LoginSession, Membership, Project, User

__all__ = ["Account", "Invitation", "Login", "account_of", "invitation_of", "my_sessions", "revoke_all", "seen_session"]

SEEN_EVERY_MS = 60_000  # a session is marked as seen at most once a minute: reading must not wait for writers


@dataclass(frozen=True, kw_only=True)
class Login:
    """A valid session and its person. `manages`: an admin of the site or of some project."""

    session_id: str
    user_id: str
    handle: str
    is_admin: bool
    manages: bool
    csrf: str
    seen_at: int
    expires_at: int


def seen_session(store: Store, *, token: str, now: int) -> Login | None:
    """The login a token belongs to, marked as seen; None: unknown, revoked, idle for 12 h, expired or disabled."""
    login = store.read(_find, token)
    if login is None or now >= min(login.expires_at, login.seen_at + IDLE_MS):
        return None
    if now - login.seen_at >= SEEN_EVERY_MS:
        store.run(_mark, login.session_id, now)
    return login


def _find(session: Session, token: str) -> Login | None:
    in_charge = exists(Membership.user_id).where(Membership.user_id == User.id, Membership.role == "admin")
    query = (
        select(LoginSession, User, in_charge)
        .join(User, User.id == LoginSession.user_id)
        .where(LoginSession.token_hash == token_hash(token), LoginSession.revoked_at.is_(None))
        .where(User.disabled_at.is_(None))
    )
    row = session.execute(query).one_or_none()
    if row is None:
        return None
    login, user, manages = row
    return Login(
        session_id=login.id,
        user_id=user.id,
        handle=user.handle,
        is_admin=user.is_admin,
        manages=user.is_admin or manages,
        csrf=login.csrf,
        seen_at=login.seen_at,
        expires_at=login.expires_at,
    )


def _mark(session: Session, session_id: str, now: int) -> None:
    session.execute(update(LoginSession).where(LoginSession.id == session_id).values(seen_at=now))


@dataclass(frozen=True, kw_only=True)
class Account:
    """What a login is checked against."""

    user_id: str
    password_hash: str | None
    disabled: bool


def account_of(session: Session, name: str) -> Account | None:
    """The account of a handle or an e-mail address; None: there is none."""
    user = session.scalar(select(User).where((User.handle == name) | (User.email == name)).limit(1))
    if user is None:
        return None
    return Account(user_id=user.id, password_hash=user.password_hash, disabled=user.disabled_at is not None)


@dataclass(frozen=True, kw_only=True)
class Invitation:
    """What an invitation is for. `project` is None for an admin of the site."""

    project: str | None
    role: str


def invitation_of(session: Session, *, token: str, now: int) -> Invitation:
    """Look at an invitation without using it.

    Raises:
        MissingError: it is unknown, used or expired.
    """
    query = select(Invite, Project.slug).outerjoin(Project, Project.id == Invite.project_id)
    row = session.execute(query.where(Invite.token_hash == token_hash(token))).one_or_none()
    if row is None or row.Invite.used_by is not None or row.Invite.expires_at <= now:
        raise MissingError("this invitation is unknown, used or expired; ask for a new one")
    return Invitation(project=row.slug, role=row.Invite.role)


def my_sessions(session: Session, *, user_id: str, now: int) -> list[LoginSession]:
    """A person's sessions that are in force, newest first."""
    query = select(LoginSession).where(LoginSession.user_id == user_id, LoginSession.revoked_at.is_(None))
    rows = session.scalars(query.order_by(LoginSession.seen_at.desc())).all()
    return [row for row in rows if now < min(row.expires_at, row.seen_at + IDLE_MS)]


def revoke_all(session: Session, *, user_id: str, now: int, but: str | None = None) -> int:
    """Log all of a person's browsers out, but one; return how many."""
    query = update(LoginSession).where(LoginSession.user_id == user_id, LoginSession.revoked_at.is_(None))
    query = query if but is None else query.where(LoginSession.id != but)
    return len(session.execute(query.values(revoked_at=now).returning(LoginSession.id)).all())


def roles_of(session: Session, user_id: str) -> dict[str, str]:
    """Project -> role of a person."""
    query = select(Membership.project_id, Membership.role).where(Membership.user_id == user_id)
    return dict(session.execute(query).all())
