"""Tokens of the REST API."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.orm import Session

from accord.feedback.store.ids import new_secret, token_hash
from accord.feedback.store.queries.common import MissingError, write_event
from accord.feedback.store.tables import ApiToken, User

__all__ = ["SCOPES", "add_token", "revoke_token", "token_of", "tokens_of"]

SCOPES = ("annotate", "review", "admin")


def add_token(session: Session, *, user_id: str, name: str, scopes: Collection[str], expires_at: int) -> str:
    """Make a token and return it; it is kept nowhere.

    Raises:
        ValueError: it has no name, or an unknown scope.
    """
    if not name.strip() or not scopes or not set(scopes) <= set(SCOPES):
        raise ValueError(f"a token has to have a name and scopes among {', '.join(SCOPES)}; choose them")
    token = new_secret()
    row = ApiToken(
        token_hash=token_hash(token), user_id=user_id, name=name.strip(), scopes=sorted(scopes), expires_at=expires_at
    )
    session.add(row)
    session.flush()
    write_event(session, "token", user_id, actor_id=user_id, token=row.id, scopes=sorted(scopes))
    return token


def token_of(session: Session, *, token: str, now: int) -> ApiToken | None:
    """The row of a token; None: unknown, revoked, expired, or its person's account is closed."""
    row = session.scalar(
        select(ApiToken)
        .join(User, User.id == ApiToken.user_id)
        .where(ApiToken.token_hash == token_hash(token), ApiToken.revoked_at.is_(None), User.disabled_at.is_(None))
    )
    return None if row is None or now >= row.expires_at else row


def tokens_of(session: Session, *, user_id: str, now: int) -> list[ApiToken]:
    """A person's tokens that are in force."""
    query = select(ApiToken).where(ApiToken.user_id == user_id, ApiToken.revoked_at.is_(None))
    return [row for row in session.scalars(query.order_by(ApiToken.created_at)) if now < row.expires_at]


def revoke_token(session: Session, *, token_id: str, user_id: str, now: int) -> None:
    """End a token of one's own.

    Raises:
        MissingError: no such token, or someone else's.
    """
    row = session.get(ApiToken, token_id)
    if row is None or row.user_id != user_id:
        raise MissingError("there is no such token of yours")
    row.revoked_at = now
