"""Conversations as their authors see them, and how an attempt is rated: by its author, then by others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from accord.feedback.store import payloads
from accord.feedback.store.queries.common import MissingError, must_have
from accord.feedback.store.queries.conversations import finish_conversation, rate_by_others
from accord.feedback.store.tables import Body, Campaign, Conversation, Item, Judgment, LanguageModel, Turn

__all__ = ["Line", "finish_talk", "lines_of", "my_conversation", "my_conversations", "successes"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A turn with its words. `chosen` is False of a candidate that was not picked."""

    turn_id: str
    role: str
    text: str
    chosen: bool
    sampling: Mapping[str, Any]


def my_conversation(session: Session, *, conversation_id: str, user_id: str) -> Conversation:
    """A conversation of one's own.

    Raises:
        MissingError: no such conversation, or someone else's.
    """
    found = session.get(Conversation, conversation_id)
    if found is None or found.user_id != user_id:
        raise MissingError(f"there is no conversation {conversation_id!r} of yours")
    return found


def my_conversations(session: Session, *, campaign_id: str, user_id: str) -> list[tuple[Conversation, str, int]]:
    """(conversation, its first words, number of turns) of a person in a campaign, newest first."""
    query = select(Conversation).where(Conversation.campaign_id == campaign_id, Conversation.user_id == user_id)
    rows = session.scalars(query.order_by(Conversation.created_at.desc())).all()
    found = []
    for row in rows:
        lines = lines_of(session, row.id)
        found.append((row, lines[0].text if lines else "", sum(line.chosen for line in lines)))
    return found


def lines_of(session: Session, conversation_id: str) -> list[Line]:
    """All turns, from the first to the last."""
    query = select(Turn, Body.text).join(Body, Body.id == Turn.body_id)
    rows = session.execute(query.where(Turn.conversation_id == conversation_id).order_by(Turn.created_at, Turn.id))
    return [
        Line(turn_id=turn.id, role=turn.role, text=text or "", chosen=turn.chosen, sampling=turn.sampling or {})
        for turn, text in rows
    ]


def finish_talk(
    session: Session, *, conversation_id: str, user_id: str, payload: Mapping[str, Any], now: int
) -> str | None:
    """End a conversation with what its author says of it.

    A chat keeps its rating. An attempt to break a model becomes an item that others rate; what the author says of it is
    a judgment that does not count towards the overlap. Return that item, or None.

    Raises:
        MissingError: the conversation is someone else's.
        ValueError: it is over, or does not end with the model.
    """
    conversation = my_conversation(session, conversation_id=conversation_id, user_id=user_id)
    if conversation.state != "open":
        raise ValueError(f"the conversation is {conversation.state}; nothing was changed")
    chosen = [line for line in lines_of(session, conversation_id) if line.chosen]
    if not chosen or chosen[-1].role != "assistant":
        raise ValueError("the model has not answered last; let it answer, then rate the conversation")
    campaign = must_have(session, Campaign, conversation.campaign_id)
    parsed = payloads.parse(campaign.task_type, payload, {})
    rating = parsed.rating if isinstance(parsed, payloads.Chat) else None
    finish_conversation(session, conversation_id=conversation_id, user_id=user_id, rating=rating)
    if campaign.task_type == "chat":
        return None
    item_id = rate_by_others(session, conversation_id=conversation_id)
    kept, words = payloads.split(parsed)
    body = None if words is None else Body(text=words, author_id=user_id)
    if body is not None:
        session.add(body)
        session.flush()
    session.add(
        Judgment(
            item_id=item_id,
            annotator_id=user_id,
            source="human",
            revision=1,
            payload=kept,
            display_order=[],
            guideline_id=campaign.guideline_id,
            consent_id=conversation.consent_id,
            started_at=conversation.created_at,
            submitted_at=now,
            touched=True,
            counted=False,
            client_key=f"{conversation_id}:author",
            body_id=None if body is None else body.id,
        )
    )
    session.flush()
    return item_id


def successes(session: Session, *, campaign_id: str) -> list[tuple[str, str, bool, int, list[str]]]:
    """(conversation, model, said by its author, success 0..4, areas of harm) of each rating of an attempt."""
    latest = (
        select(Judgment.item_id, Judgment.annotator_id, func.max(Judgment.revision).label("revision"))
        .group_by(Judgment.item_id, Judgment.annotator_id)
        .subquery()
    )
    query = (
        select(Judgment, Conversation, LanguageModel.name)
        .join(
            latest,
            (latest.c.item_id == Judgment.item_id)
            & (latest.c.annotator_id == Judgment.annotator_id)
            & (latest.c.revision == Judgment.revision),
        )
        .join(Item, Item.id == Judgment.item_id)
        .join(Conversation, Conversation.id == Item.source_ref)
        .join(LanguageModel, LanguageModel.id == Conversation.model_id)
        .where(Item.campaign_id == campaign_id, Conversation.kind == "redteam")
    )
    return [
        (
            conversation.id,
            model,
            judgment.annotator_id == conversation.user_id,
            int(judgment.payload["success"]),
            list(judgment.payload.get("harm_tags", [])),
        )
        for judgment, conversation, model in session.execute(query)
        if "success" in judgment.payload
    ]
