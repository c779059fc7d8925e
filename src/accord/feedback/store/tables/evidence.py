"""Evidence: judgments, reviews, tests passed, exclusions. Nothing here is edited; exclusions are reversed in place."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from accord.feedback.store.tables.base import Millis, Record, one_of, reference

__all__ = ["Exclusion", "Judge", "Judgment", "Qualification", "Review", "Reward"]

_SOURCE = (
    "(source = 'human' AND annotator_id IS NOT NULL AND consent_id IS NOT NULL AND judge_id IS NULL)"
    " OR (source <> 'human' AND judge_id IS NOT NULL AND annotator_id IS NULL)"
)


class Judge(Record):
    """A model (or a rule) with the prompt and settings it judges by; equal content is one judge."""

    __tablename__ = "judge"
    model_id: Mapped[str] = reference("model")
    prompt_hash: Mapped[str]
    prompt: Mapped[str]
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    content_hash: Mapped[str] = mapped_column(unique=True)


class Judgment(Record):
    """What one annotator said of one item. The latest revision counts, all are kept."""

    __tablename__ = "judgment"
    item_id: Mapped[str] = reference("item")
    annotator_id: Mapped[str | None] = reference("user", optional=True)
    judge_id: Mapped[str | None] = reference("judge", optional=True)
    assignment_id: Mapped[str | None] = reference("assignment", optional=True)
    source: Mapped[str]
    revision: Mapped[int]
    payload: Mapped[dict[str, Any]]
    display_order: Mapped[list[Any]]
    guideline_id: Mapped[str | None] = reference("guideline", optional=True)
    consent_id: Mapped[str | None] = reference("consent", optional=True)
    started_at: Mapped[Millis]
    submitted_at: Mapped[Millis]
    active_ms: Mapped[Millis | None]
    touched: Mapped[bool]
    counted: Mapped[bool]
    client_key: Mapped[str] = mapped_column(unique=True)
    body_id: Mapped[str | None] = reference("body", optional=True)
    session_id: Mapped[str | None] = mapped_column(String(36))  # a login or token; those are deleted, so no reference
    __table_args__ = (
        UniqueConstraint("item_id", "annotator_id", "revision"),
        UniqueConstraint("item_id", "judge_id", "revision"),
        Index(None, "annotator_id"),
        one_of("source", "human", "ai", "rule"),
        CheckConstraint(_SOURCE, name="who"),
        CheckConstraint("revision >= 1", name="revision"),
    )


class Reward(Record):
    """What a reward model says of a response; a model has one reward for it, the last one."""

    __tablename__ = "reward"
    response_id: Mapped[str] = reference("response")
    model_id: Mapped[str] = reference("model")
    value: Mapped[float]
    __table_args__ = (UniqueConstraint("response_id", "model_id"),)


class Review(Record):
    """A reviewer's decision on a judgment or an item; the words are a body, so that they can be forgotten."""

    __tablename__ = "review"
    judgment_id: Mapped[str | None] = reference("judgment", optional=True)
    item_id: Mapped[str | None] = reference("item", optional=True)
    reviewer_id: Mapped[str] = reference("user")
    decision: Mapped[str]
    payload: Mapped[dict[str, Any] | None]
    body_id: Mapped[str] = reference("body")
    __table_args__ = (
        one_of("decision", "accept", "reject", "adjudicate"),
        CheckConstraint("(judgment_id IS NULL) <> (item_id IS NULL)", name="subject"),
    )


class Qualification(Record):
    """One attempt at a campaign's qualification items."""

    __tablename__ = "qualification"
    campaign_id: Mapped[str] = reference("campaign")
    annotator_id: Mapped[str] = reference("user")
    attempt: Mapped[int]
    score: Mapped[float]
    passed: Mapped[bool]
    detail: Mapped[dict[str, Any]]
    __table_args__ = (UniqueConstraint("campaign_id", "annotator_id", "attempt"),)


class Exclusion(Record):
    """Whose judgments, of which time, are left out, and the evidence a person decided on. Reversible."""

    __tablename__ = "exclusion"
    annotator_id: Mapped[str] = reference("user")
    campaign_id: Mapped[str | None] = reference("campaign", optional=True)
    since: Mapped[Millis | None]
    until: Mapped[Millis | None]
    reason: Mapped[str]
    evidence: Mapped[dict[str, Any]]
    decided_by: Mapped[str] = reference("user")
    reversed_at: Mapped[Millis | None]
    reversed_by: Mapped[str | None] = reference("user", optional=True)
    reversal_reason: Mapped[str | None]
    __table_args__ = (Index(None, "annotator_id"),)
