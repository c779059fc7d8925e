"""People: accounts, roles, invitations, logins."""

from __future__ import annotations

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from accord.feedback.store.ids import new_secret, token_hash
from accord.feedback.store.queries.common import MissingError, must_have, write_event
from accord.feedback.store.tables import Invite, LoginSession, Membership, User

__all__ = ["accept_invite", "add_user", "invite", "revoke_session", "session_of", "set_role", "start_session"]

IDLE_MS = 12 * 3600 * 1000


def add_user(
    session: Session,
    *,
    handle: str,
    email: str | None = None,
    password_hash: str | None = None,
    is_admin: bool = False,
) -> User:
    """Add a person.

    Raises:
        ValueError: the handle or the address, in whatever case, is taken.
    """
    taken = select(User.id).where((User.handle == handle) | (func.lower(User.email) == (email or "").lower()))
    if session.scalar(taken.limit(1)) is not None:
        raise ValueError(f"the handle {handle!r} or its e-mail address is taken; choose another")
    user = User(handle=handle, email=email, password_hash=password_hash, is_admin=is_admin)
    session.add(user)
    session.flush()
    return user


def set_role(session: Session, *, user_id: str, project_id: str, role: str, actor_id: str | None) -> None:
    """Make a person annotator, reviewer or admin of a project; logged."""
    membership = session.get(Membership, (user_id, project_id))
    if membership is None:
        session.add(Membership(user_id=user_id, project_id=project_id, role=role))
    else:
        membership.role = role
    write_event(session, "role", user_id, actor_id=actor_id, project=project_id, role=role)
    session.flush()


def invite(session: Session, *, project_id: str | None, role: str, expires_at: int) -> str:
    """Make an invitation and return its token, which is kept nowhere."""
    token = new_secret()
    session.add(Invite(token_hash=token_hash(token), project_id=project_id, role=role, expires_at=expires_at))
    session.flush()
    return token


def accept_invite(session: Session, *, token: str, user_id: str, now: int) -> None:
    """Use an invitation: a role in its project, or without a project the site.

    Raises:
        MissingError: it is unknown, used or expired.
    """
    mine = update(Invite).where(
        Invite.token_hash == token_hash(token), Invite.used_by.is_(None), Invite.expires_at > now
    )
    row = session.execute(mine.values(used_by=user_id).returning(Invite.project_id, Invite.role)).one_or_none()
    if row is None:
        raise MissingError("this invitation is unknown, used or expired; ask for a new one")
    if row.project_id is None:
        must_have(session, User, user_id).is_admin = True
        write_event(session, "site admin", user_id, actor_id=user_id)
    else:
        set_role(session, user_id=user_id, project_id=row.project_id, role=row.role, actor_id=user_id)


def start_session(session: Session, *, user_id: str, now: int, days: int = 7) -> tuple[str, str]:
    """Log a person in; return the token of the cookie, which is kept nowhere, and the CSRF token."""
    token, csrf = new_secret(), new_secret()
    session.add(
        LoginSession(
            token_hash=token_hash(token), user_id=user_id, csrf=csrf, seen_at=now, expires_at=now + days * 86_400_000
        )
    )
    write_event(session, "login", user_id, actor_id=user_id)
    session.flush()
    return token, csrf


def session_of(session: Session, *, token: str, now: int) -> LoginSession | None:
    """The login a token belongs to, marked as seen; None: unknown, revoked, idle for 12 h, expired or disabled."""
    login = session.scalar(select(LoginSession).where(LoginSession.token_hash == token_hash(token)))
    if login is None or login.revoked_at is not None or now >= min(login.expires_at, login.seen_at + IDLE_MS):
        return None
    if must_have(session, User, login.user_id).disabled_at is not None:
        return None
    login.seen_at = now
    return login


def revoke_session(session: Session, *, session_id: str, now: int) -> None:
    """Log a session out, for good."""
    must_have(session, LoginSession, session_id).revoked_at = now
