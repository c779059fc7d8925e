"""Conversations as their authors see them, and how an attempt is rated: by its author, then by others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from accord.feedback.store import payloads
from accord.feedback.store.asked import check_asked
from accord.feedback.store.queries.common import MissingError, is_newest, keep_words, must_have, write_event
from accord.feedback.store.queries.conversations import add_turn, finish_conversation, rate_by_others
from accord.feedback.store.settings import CampaignSettings
from accord.feedback.store.tables import Body, Campaign, Conversation, Event, Item, Judgment, LanguageModel, Turn

__all__ = [
    "Line",
    "edit_turn",
    "finish_talk",
    "lines_of",
    "my_conversation",
    "my_conversations",
    "noted",
    "rate_turn",
    "spoken",
    "successes",
    "thumbed",
]

LONGEST_EDIT = 20_000  # characters


@dataclass(frozen=True, kw_only=True)
class Line:
    """A turn with its words.

    Attributes:
        turn_id: of the turn.
        role: who speaks.
        text: the words.
        chosen: False of a candidate that was not picked, and of an edit.
        sampling: what is known of how it came about; "edits" names the turn whose words an edit replaces.
        original: what the model had said where `text` is a person's edit of it; None: nobody edited it.
        thumb: 1 up, -1 down, 0 neither.
    """

    turn_id: str
    role: str
    text: str
    chosen: bool
    sampling: Mapping[str, Any]
    original: str | None = None
    thumb: int = 0


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


def spoken(lines: Sequence[Line]) -> list[Line]:
    """The conversation as it goes on: the chosen turns, each in the words of its last edit."""
    edits = {str(line.sampling["edits"]): line.text for line in lines if "edits" in line.sampling}
    return [
        replace(line, text=edits[line.turn_id], original=line.text) if line.turn_id in edits else line
        for line in lines
        if line.chosen
    ]


def noted(lines: Sequence[Line]) -> dict[str, list[dict[str, Any]]]:
    """What people said of the replies of a conversation, by the number of the message, from 0.

    `thumbs`; `edits`, with what the model had said; `cut`, where a reply was stopped or ran out of room; `picks`
    between candidates, with all of them.
    """
    found: dict[str, list[dict[str, Any]]] = {"thumbs": [], "edits": [], "cut": [], "picks": []}
    for number, line in enumerate(spoken(lines)):
        if line.thumb:
            found["thumbs"].append({"message": number, "thumb": "up" if line.thumb > 0 else "down"})
        if line.original is not None:
            found["edits"].append({"message": number, "original": line.original})
        if line.sampling.get("finish") in ("length", "stopped"):
            found["cut"].append({"message": number, "by": line.sampling["finish"]})
        found["picks"].extend({"message": number, **pick} for pick in _picks(lines, line))
    return {name: rows for name, rows in found.items() if rows}


def _picks(lines: Sequence[Line], chosen: Line) -> list[dict[str, Any]]:
    """The rounds of candidates that ended in a chosen reply: two replies beside each other, one verdict."""
    place = [line.turn_id for line in lines].index(chosen.turn_id)
    asked = max((at for at in range(place) if lines[at].role == "user"), default=-1)
    shown = [line for line in lines[asked + 1 : place + 1] if line.sampling.get("verdict", "only one") != "only one"]
    return [
        {
            "verdict": first.sampling["verdict"],
            "responses": [
                {"text": one.text, "model": one.sampling["model"]}
                for one in sorted((first, second), key=lambda one: int(one.sampling["side"]))
            ],
        }
        for first, second in zip(shown[::2], shown[1::2], strict=False)
        if chosen.role == "assistant"
    ]


def thumbed(session: Session, lines: Sequence[Line]) -> list[Line]:
    """The same lines with their thumbs."""
    query = select(Event).where(Event.kind == "thumb", Event.subject.in_([line.turn_id for line in lines]))
    rows = session.scalars(query.order_by(Event.created_at, Event.id))
    last = {event.subject: int(event.detail["thumb"]) for event in rows}
    return [replace(line, thumb=last.get(line.turn_id, 0)) for line in lines]


def _my_reply(session: Session, conversation_id: str, user_id: str, turn_id: str) -> Turn:
    """A chosen reply of a model in an open conversation of one's own.

    Raises:
        MissingError: no such turn, or someone else's.
        ValueError: the conversation is over.
    """
    conversation = my_conversation(session, conversation_id=conversation_id, user_id=user_id)
    turn = session.get(Turn, turn_id)
    if turn is None or turn.conversation_id != conversation_id or turn.role != "assistant" or not turn.chosen:
        raise MissingError(f"there is no reply {turn_id!r} in this conversation")
    if conversation.state != "open":
        raise ValueError(f"the conversation is {conversation.state}; nothing was changed")
    return turn


def rate_turn(session: Session, *, conversation_id: str, user_id: str, turn_id: str, thumb: int) -> None:
    """Put a thumb up (1) or down (-1) on a reply, or take it away (0); the last one counts, all are kept."""
    if thumb not in (1, 0, -1):
        raise ValueError(f"found the thumb {thumb}; expected 1, 0 or -1")
    turn = _my_reply(session, conversation_id, user_id, turn_id)
    write_event(session, "thumb", turn.id, actor_id=user_id, thumb=thumb)
    session.flush()


def edit_turn(session: Session, *, conversation_id: str, user_id: str, turn_id: str, text: str) -> None:
    """Say what a reply should have been: a turn beside it, and the conversation goes on from these words."""
    turn = _my_reply(session, conversation_id, user_id, turn_id)
    text = text.replace("\r\n", "\n").strip()
    if not 0 < len(text) <= LONGEST_EDIT:
        raise ValueError(f"the edit has {len(text)} characters; expected 1 to {LONGEST_EDIT}")
    said = spoken([line for line in lines_of(session, conversation_id) if line.turn_id == turn.id or not line.chosen])
    if said[0].text == text:
        return
    add_turn(
        session,
        conversation_id=conversation_id,
        user_id=user_id,
        role="assistant",
        text=text,
        parent_id=turn.parent_id,
        chosen=False,
        sampling={"edits": turn.id},
    )


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
    check_asked(parsed, CampaignSettings.model_validate(campaign.settings), conversation_id)
    rating = parsed.rating if isinstance(parsed, payloads.Chat) else None
    finish_conversation(session, conversation_id=conversation_id, user_id=user_id, rating=rating)
    if campaign.task_type == "chat":
        return None
    item_id = rate_by_others(session, conversation_id=conversation_id)
    kept, words = payloads.split(parsed)
    body_id = None if words is None else keep_words(session, words, author_id=user_id)
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
            body_id=body_id,
        )
    )
    session.flush()
    return item_id


def successes(session: Session, *, campaign_id: str) -> list[tuple[str, str, bool, int, list[str]]]:
    """(conversation, model, said by its author, success 0..4, areas of harm) of each rating of an attempt."""
    query = (
        select(Judgment, Conversation, LanguageModel.name)
        .join(Item, Item.id == Judgment.item_id)
        .join(Conversation, Conversation.id == Item.source_ref)
        .join(LanguageModel, LanguageModel.id == Conversation.model_id)
        .where(is_newest(), Item.campaign_id == campaign_id, Conversation.kind == "redteam")
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
