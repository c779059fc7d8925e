"""People, what they may do and what they agreed to."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from accord.feedback.store.ids import blind_id, now_ms
from accord.feedback.store.tables.base import Base, Millis, Record, one_of, reference

__all__ = ["ApiToken", "Consent", "ConsentText", "Event", "Invite", "LoginSession", "Membership", "Project", "User"]


class User(Record):
    """A person. Exports know the pseudonym only; forgetting erases the rest and renews the pseudonym."""

    __tablename__ = "user"
    handle: Mapped[str] = mapped_column(unique=True)
    email: Mapped[str | None]
    password_hash: Mapped[str | None]
    pseudonym: Mapped[str] = mapped_column(unique=True, default=blind_id)
    is_admin: Mapped[bool] = mapped_column(default=False)
    disabled_at: Mapped[Millis | None]
    __table_args__ = (Index("uq_user_email", text("lower(email)"), unique=True),)


class LoginSession(Record):
    """A logged-in browser. The token itself is in its cookie only."""

    __tablename__ = "session"
    token_hash: Mapped[str] = mapped_column(unique=True)
    user_id: Mapped[str] = reference("user")
    csrf: Mapped[str]
    seen_at: Mapped[Millis]
    expires_at: Mapped[Millis]
    revoked_at: Mapped[Millis | None]


class ApiToken(Record):
    """What a program shows to act for a person, within `scopes`. The token itself is kept nowhere."""

    __tablename__ = "api_token"
    token_hash: Mapped[str] = mapped_column(unique=True)
    user_id: Mapped[str] = reference("user")
    name: Mapped[str]
    scopes: Mapped[list[Any]]
    expires_at: Mapped[Millis]
    revoked_at: Mapped[Millis | None]


class Invite(Record):
    """A link that lets one person in, once. Without a project it makes a site admin."""

    __tablename__ = "invite"
    token_hash: Mapped[str] = mapped_column(unique=True)
    project_id: Mapped[str | None] = reference("project", optional=True)
    role: Mapped[str]
    expires_at: Mapped[Millis]
    used_by: Mapped[str | None] = reference("user", optional=True)
    __table_args__ = (one_of("role", "annotator", "reviewer", "admin"),)


class Project(Record):
    """Prompts, people and campaigns under one consent text and one rule for withdrawals."""

    __tablename__ = "project"
    slug: Mapped[str] = mapped_column(unique=True)
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    content_warning: Mapped[str | None]
    retention_days: Mapped[int | None]
    on_withdrawal: Mapped[str] = mapped_column(default="keep_verdicts")
    __table_args__ = (one_of("on_withdrawal", "keep_verdicts", "delete"),)


class Membership(Base):
    """What a person may do in a project."""

    __tablename__ = "membership"
    user_id: Mapped[str] = reference("user", key=True)
    project_id: Mapped[str] = reference("project", key=True)
    role: Mapped[str]
    created_at: Mapped[Millis] = mapped_column(default=now_ms)
    __table_args__ = (one_of("role", "annotator", "reviewer", "admin"),)


class ConsentText(Record):
    """What people are asked to agree to. A changed text is a new version."""

    __tablename__ = "consent_text"
    project_id: Mapped[str] = reference("project")
    version: Mapped[int]
    markdown: Mapped[str]
    __table_args__ = (UniqueConstraint("project_id", "version"),)


class Consent(Record):
    """Given or withdrawn; the last row of a person in a project is in force."""

    __tablename__ = "consent"
    user_id: Mapped[str] = reference("user")
    consent_text_id: Mapped[str] = reference("consent_text")
    action: Mapped[str]
    uses: Mapped[list[Any]] = mapped_column(default=list)  # what beyond judging was agreed to: "train", "publish"
    at: Mapped[Millis]
    __table_args__ = (one_of("action", "given", "withdrawn"), Index(None, "user_id", "at"))


class Event(Record):
    """The audit log: roles, exclusions, exports, settings, confirmations. Holds ids, never names or texts."""

    __tablename__ = "event"
    actor_id: Mapped[str | None] = reference("user", optional=True)
    kind: Mapped[str]
    subject: Mapped[str]
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)
    __table_args__ = (Index(None, "kind", "subject"),)
