"""What is judged: prompts, responses, conversations, and the words of people, which can be forgotten."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from accord.feedback.store.ids import blind_id
from accord.feedback.store.tables.base import Millis, Record, one_of, reference

__all__ = ["Body", "Conversation", "Guideline", "LanguageModel", "PendingReply", "Prompt", "Response", "Turn"]


class Guideline(Record):
    """How to judge, in markdown. A changed guideline is a new version."""

    __tablename__ = "guideline"
    project_id: Mapped[str] = reference("project")
    version: Mapped[int]
    markdown: Mapped[str]
    note: Mapped[str] = mapped_column(default="")
    __table_args__ = (UniqueConstraint("project_id", "version"),)


class LanguageModel(Record):
    """A model that wrote responses or judges, or a rule that does."""

    __tablename__ = "model"
    name: Mapped[str]
    revision: Mapped[str]
    kind: Mapped[str]
    __table_args__ = (UniqueConstraint("name", "revision"), one_of("kind", "language", "reward", "rule"))


class Prompt(Record):
    """Messages that a response can follow. `messages` is empty once its author is forgotten."""

    __tablename__ = "prompt"
    project_id: Mapped[str] = reference("project")
    content_hash: Mapped[str]
    messages: Mapped[list[Any]]
    source: Mapped[str]
    source_ref: Mapped[str | None]
    language: Mapped[str | None]
    group: Mapped[str | None]
    pii: Mapped[str] = mapped_column(default="unchecked")
    author_id: Mapped[str | None] = reference("user", optional=True)
    __table_args__ = (
        UniqueConstraint("project_id", "content_hash"),
        one_of("pii", "clean", "found", "scrubbed", "unchecked"),
    )


class Response(Record):
    """One response to a prompt. `text` is null once its author is forgotten."""

    __tablename__ = "response"
    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=blind_id, sort_order=-2)
    prompt_id: Mapped[str] = reference("prompt")
    content_hash: Mapped[str]
    text: Mapped[str | None]
    model_id: Mapped[str | None] = reference("model", optional=True)
    origin: Mapped[str]
    sampling: Mapped[dict[str, Any] | None]
    author_id: Mapped[str | None] = reference("user", optional=True)
    __table_args__ = (
        # Nulls count as one value here, and unique constraints of both databases say otherwise: the code looks first.
        UniqueConstraint("prompt_id", "content_hash", "model_id"),
        one_of("origin", "model", "human", "imported"),
    )


class Body(Record):
    """Free text a person wrote, apart from judgments and turns, so that it can be erased without touching them."""

    __tablename__ = "body"
    text: Mapped[str | None]
    author_id: Mapped[str | None] = reference("user", optional=True)
    __table_args__ = (Index(None, "author_id"),)


class Conversation(Record):
    """A person talking to a model, to rate it or to break it."""

    __tablename__ = "conversation"
    campaign_id: Mapped[str] = reference("campaign")
    user_id: Mapped[str] = reference("user")
    model_id: Mapped[str] = reference("model")
    kind: Mapped[str]
    goal: Mapped[str | None]
    consent_id: Mapped[str] = reference("consent")
    state: Mapped[str] = mapped_column(default="open")
    rating: Mapped[int | None]
    __table_args__ = (one_of("kind", "chat", "redteam"), one_of("state", "open", "finished", "withdrawn"))


class Turn(Record):
    """A message of a conversation; candidates of one turn have the same parent, so a conversation is a tree."""

    __tablename__ = "turn"
    conversation_id: Mapped[str] = reference("conversation")
    parent_id: Mapped[str | None] = reference("turn", optional=True)
    role: Mapped[str]
    body_id: Mapped[str] = reference("body")
    sampling: Mapped[dict[str, Any] | None]
    chosen: Mapped[bool] = mapped_column(default=True)
    latency_ms: Mapped[Millis | None]
    __table_args__ = (one_of("role", "system", "user", "assistant", "tool"), Index(None, "conversation_id"))


class PendingReply(Record):
    """One of two candidates for a turn, as long as none is picked; then both are turns, which are never changed."""

    __tablename__ = "pending_reply"
    parent_id: Mapped[str] = reference("turn")
    side: Mapped[int]
    body_id: Mapped[str] = reference("body")
    sampling: Mapped[dict[str, Any]]
    latency_ms: Mapped[Millis]
    __table_args__ = (UniqueConstraint("parent_id", "side"), CheckConstraint("side IN (0, 1)", name="side"))
