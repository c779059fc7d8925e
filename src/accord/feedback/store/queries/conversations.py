"""Conversations of people with models, to rate them or to break them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from accord.feedback.store.queries.campaigns import NewItem, add_items
from accord.feedback.store.queries.common import MissingError, keep_words, must_have
from accord.feedback.store.queries.content import add_prompt, add_response
from accord.feedback.store.queries.projects import consent_in_force
from accord.feedback.store.tables import Body, Campaign, Conversation, Turn
from accord.records import Message

__all__ = ["add_turn", "finish_conversation", "messages_of", "rate_by_others", "start_conversation"]


def start_conversation(
    session: Session, *, campaign_id: str, user_id: str, model_id: str, goal: str | None = None
) -> Conversation:
    """Start one. The kind is the campaign's: chat, or redteam with a goal.

    Raises:
        ValueError: no consent, or a campaign of another kind.
    """
    campaign = must_have(session, Campaign, campaign_id)
    if campaign.task_type not in ("chat", "redteam"):
        raise ValueError(f"found a {campaign.task_type} campaign; expected chat or redteam")
    consent = consent_in_force(session, user_id, campaign.project_id)
    if consent is None:
        raise ValueError("consent to the newest text is missing; give it before the first turn")
    started = Conversation(
        campaign_id=campaign_id,
        user_id=user_id,
        model_id=model_id,
        kind=campaign.task_type,
        goal=goal,
        consent_id=consent.id,
    )
    session.add(started)
    session.flush()
    return started


def add_turn(
    session: Session,
    *,
    conversation_id: str,
    user_id: str,
    role: str,
    text: str,
    parent_id: str | None = None,
    chosen: bool = True,
    sampling: dict[str, Any] | None = None,
    latency_ms: int | None = None,
) -> Turn:
    """Add a turn under its parent. Of two candidates both are added once one is picked, the other not `chosen`.

    Raises:
        MissingError: the conversation is someone else's.
        ValueError: it is over, the parent is no turn of it, or consent is missing.
    """
    conversation = must_have(session, Conversation, conversation_id)
    if conversation.user_id != user_id:
        raise MissingError(f"there is no conversation {conversation_id!r} of yours")
    if conversation.state != "open":
        raise ValueError(f"the conversation is {conversation.state}; expected an open one; start a new one")
    project = must_have(session, Campaign, conversation.campaign_id).project_id
    if role == "user" and consent_in_force(session, user_id, project) is None:
        raise ValueError("consent to the newest text is missing; give it first, then go on with the conversation")
    if parent_id is not None and must_have(session, Turn, parent_id).conversation_id != conversation_id:
        raise ValueError("the parent belongs to another conversation; expected a turn of this one")
    # What the model says can quote the person, so it is forgotten with them.
    body_id = keep_words(session, text, author_id=user_id)
    turn = Turn(
        conversation_id=conversation_id,
        parent_id=parent_id,
        role=role,
        body_id=body_id,
        sampling=sampling,
        chosen=chosen,
        latency_ms=latency_ms,
    )
    session.add(turn)
    session.flush()
    return turn


def messages_of(session: Session, conversation_id: str) -> tuple[Message, ...]:
    """The chosen turns from the first to the last."""
    rows = session.execute(
        select(Turn, Body.text)
        .join(Body, Body.id == Turn.body_id)
        .where(Turn.conversation_id == conversation_id, Turn.chosen)
        .order_by(Turn.created_at, Turn.id)
    )
    return tuple(Message.model_validate({"role": turn.role, "content": text or ""}) for turn, text in rows)


def finish_conversation(session: Session, *, conversation_id: str, user_id: str, rating: int | None = None) -> None:
    """End a conversation, with the person's rating 1 to 5."""
    conversation = must_have(session, Conversation, conversation_id)
    if conversation.user_id != user_id:
        raise MissingError(f"there is no conversation {conversation_id!r} of yours")
    conversation.state, conversation.rating = "finished", rating
    session.flush()


def rate_by_others(session: Session, *, conversation_id: str) -> str:
    """Make a finished conversation an item of its campaign for others to rate; its author never gets it.

    Returns: the item's id.

    Raises:
        ValueError: it is not finished, or does not end with the model.
    """
    conversation = must_have(session, Conversation, conversation_id)
    messages = messages_of(session, conversation_id)
    if conversation.state != "finished" or not messages or messages[-1].role != "assistant":
        raise ValueError("expected a finished conversation whose last turn is the model's")
    campaign = must_have(session, Campaign, conversation.campaign_id)
    prompt = add_prompt(
        session,
        project_id=campaign.project_id,
        messages=messages[:-1],
        source="conversation",
        source_ref=conversation_id,
        author_id=conversation.user_id,
    )
    response = add_response(
        session,
        prompt_id=prompt.id,
        text=messages[-1].content,
        origin="model",
        model_id=conversation.model_id,
        author_id=conversation.user_id,  # it was drawn out by them, and may quote them
    )
    item = NewItem(prompt_id=prompt.id, response_ids=(response.id,), source_ref=conversation_id)
    return add_items(session, campaign_id=campaign.id, items=[item])[0]
