"""What all queries need: a row that has to be there, the audit log, the people's rights."""

from __future__ import annotations

from typing import Any, TypeVar

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session, aliased

from accord.feedback.store.tables import Base, Body, Event, Judgment, Membership, User

__all__ = ["MissingError", "is_newest", "keep_words", "must_be", "must_have", "role_of", "write_event"]

Row = TypeVar("Row", bound=Base)


class MissingError(ValueError):
    """No such row, or one that is none of the asker's business: the two look alike on purpose."""


def must_have(session: Session, table: type[Row], key: str, *, lock: bool = False) -> Row:
    """Return a row by id, locked against other writers if asked for.

    Raises:
        MissingError: it is not there.
    """
    options: dict[str, Any] = {"with_for_update": {"key_share": True}, "populate_existing": True} if lock else {}
    row = session.get(table, key, **options)
    if row is None:
        raise MissingError(f"there is no {table.__tablename__} {key!r}; expected the id of one; check the id")
    return row


def role_of(session: Session, user_id: str, project_id: str, *, lock: bool = False) -> str | None:
    """Role of a person in a project; None: no member, or the account is disabled.

    `lock` makes a second transaction of the same person wait (two tabs that ask for a task at once).
    """
    query = select(Membership.role).join(User, User.id == Membership.user_id)
    query = query.where(Membership.user_id == user_id, Membership.project_id == project_id, User.disabled_at.is_(None))
    return session.scalar(query.with_for_update(key_share=True, of=Membership) if lock else query)


def must_be(session: Session, user_id: str, project_id: str, *roles: str) -> None:
    """Raise ValueError unless the person has one of the roles in the project, or is a site admin."""
    role = role_of(session, user_id, project_id)
    if role not in roles and not must_have(session, User, user_id).is_admin:
        raise ValueError(
            f"found the role {role or 'none'!r}; expected {' or '.join(roles)}; ask an admin of the project"
        )


def keep_words(session: Session, text: str, *, author_id: str | None) -> str:
    """Keep what a person wrote apart from all that refers to it, so that it can be forgotten; the id of the body."""
    body = Body(text=text, author_id=author_id)
    session.add(body)
    session.flush()
    return body.id


def is_newest() -> ColumnElement[bool]:
    """Whether a judgment is the newest revision of its author on its item."""
    other = aliased(Judgment)
    newest = select(func.max(other.revision)).where(
        other.item_id == Judgment.item_id, other.annotator_id == Judgment.annotator_id
    )
    return Judgment.revision == newest.correlate(Judgment).scalar_subquery()


def write_event(session: Session, kind: str, subject: str, *, actor_id: str | None, **detail: Any) -> None:
    """Add a line to the audit log. Ids and counts only: no name, no text."""
    session.add(Event(actor_id=actor_id, kind=kind, subject=subject, detail=detail))
