"""The work: campaigns, the items in them, who holds what until when, and what is half done."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from accord.feedback.store.ids import new_secret, now_ms
from accord.feedback.store.tables.base import Base, Millis, Record, one_of, reference

__all__ = ["Assignment", "Campaign", "Draft", "Item", "ItemResponse", "Slot"]

TASK_TYPES = ("demonstrate", "rank", "pairwise", "winrate", "attributes", "labels", "chat", "redteam", "review")


class Campaign(Record):
    """One kind of task on one set of items, n annotators each."""

    __tablename__ = "campaign"
    project_id: Mapped[str] = reference("project")
    name: Mapped[str]
    task_type: Mapped[str]
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    guideline_id: Mapped[str] = reference("guideline")
    overlap: Mapped[int]
    lease_minutes: Mapped[int] = mapped_column(default=30)
    queue_seed: Mapped[str] = mapped_column(default=new_secret)
    secret: Mapped[str] = mapped_column(default=new_secret)
    state: Mapped[str] = mapped_column(default="draft")
    __table_args__ = (
        UniqueConstraint("project_id", "name"),
        CheckConstraint("overlap BETWEEN 1 AND 50", name="overlap"),
        CheckConstraint("lease_minutes >= 1", name="lease_minutes"),
        one_of("task_type", *TASK_TYPES),
        one_of("state", "draft", "pilot", "open", "paused", "closed"),
    )


class Item(Record):
    """One thing to judge. Kinds other than normal have a known answer and look like the rest."""

    __tablename__ = "item"
    campaign_id: Mapped[str] = reference("campaign")
    prompt_id: Mapped[str] = reference("prompt")
    content_hash: Mapped[str]
    source_ref: Mapped[str | None]  # the id it had where it was imported from
    kind: Mapped[str] = mapped_column(default="normal")
    expected: Mapped[dict[str, Any] | None]
    explanation: Mapped[str | None]
    priority: Mapped[float] = mapped_column(default=0.0)
    arm: Mapped[str] = mapped_column(default="random", server_default="random")  # how it came to its place
    state: Mapped[str] = mapped_column(default="open")
    __table_args__ = (
        UniqueConstraint("campaign_id", "content_hash"),
        one_of("kind", "normal", "gold", "attention", "qualification"),
        one_of("state", "open", "done", "withdrawn"),
        one_of("arm", "random", "selected"),
        CheckConstraint("kind = 'normal' OR expected IS NOT NULL", name="expected"),
        Index(None, "campaign_id", "kind", "state"),
    )


class ItemResponse(Base):
    """A response of an item; `name` is the id it had where it was imported from."""

    __tablename__ = "item_response"
    item_id: Mapped[str] = reference("item", key=True)
    response_id: Mapped[str] = reference("response", key=True)
    position: Mapped[int]
    name: Mapped[str | None]
    created_at: Mapped[Millis] = mapped_column(default=now_ms)


class Slot(Record):
    """The right of one annotator to judge one item. An item with overlap n has n of them from the start."""

    __tablename__ = "slot"
    item_id: Mapped[str] = reference("item")
    campaign_id: Mapped[str] = reference("campaign")
    number: Mapped[int]
    queue: Mapped[Millis]
    state: Mapped[str] = mapped_column(default="open")
    annotator_id: Mapped[str | None] = reference("user", optional=True)
    expires_at: Mapped[Millis | None]
    __table_args__ = (
        UniqueConstraint("item_id", "number"),
        UniqueConstraint("item_id", "annotator_id"),
        one_of("state", "open", "leased", "done"),
        CheckConstraint("(annotator_id IS NULL) = (state = 'open')", name="annotator"),
        CheckConstraint("(expires_at IS NOT NULL) = (state = 'leased')", name="expires_at"),
        Index(None, "campaign_id", "state", "queue"),
    )


class Assignment(Record):
    """What one annotator was shown of one item: the order, the guideline, since when."""

    __tablename__ = "assignment"
    item_id: Mapped[str] = reference("item")
    annotator_id: Mapped[str] = reference("user")
    display_order: Mapped[list[Any]]
    guideline_id: Mapped[str] = reference("guideline")
    issued_at: Mapped[Millis]
    reissued: Mapped[int] = mapped_column(default=0)
    __table_args__ = (UniqueConstraint("item_id", "annotator_id"),)


class Draft(Base):
    """What is typed and not submitted. `version` grows by one with every save."""

    __tablename__ = "draft"
    assignment_id: Mapped[str] = reference("assignment", key=True)
    payload: Mapped[dict[str, Any]]
    version: Mapped[int]
    updated_at: Mapped[Millis]
    created_at: Mapped[Millis] = mapped_column(default=now_ms)
