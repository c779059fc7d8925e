"""Two candidates for a turn: kept here from when they are written until one is picked, then both are turns.

The page shows their words and never carries more, so nothing in it has to be sealed: who said what stays here, nobody
can put words into a model's mouth, and a server that stops loses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from accord.feedback.store.queries.common import keep_words, must_have
from accord.feedback.store.queries.conversations import add_turn
from accord.feedback.store.queries.talks import Line, lines_of, my_conversation
from accord.feedback.store.tables import Body, Conversation, PendingReply

__all__ = ["Candidate", "held_candidates", "hold_candidates", "keep_reply", "pick_candidate", "turned_down"]

PICKED = {"A": 0, "B": 1, "tie": 0, "failed": None}


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What a model said, not yet a turn. `finish`: stop, length, or stopped: by who asked, or because they left."""

    model: str
    text: str
    finish: str
    seconds: float


def held_candidates(session: Session, *, parent_id: str) -> list[Candidate]:
    """The candidates that wait to be picked from as replies to a turn, in the order they are shown; or none."""
    query = select(PendingReply, Body.text).join(Body, Body.id == PendingReply.body_id)
    rows = session.execute(query.where(PendingReply.parent_id == parent_id).order_by(PendingReply.side))
    return [
        Candidate(
            model=row.sampling["model"], text=text or "", finish=row.sampling["finish"], seconds=row.latency_ms / 1000
        )
        for row, text in rows
    ]


def hold_candidates(
    session: Session, *, conversation_id: str, user_id: str, parent_id: str, found: Sequence[Candidate]
) -> None:
    """Keep two candidates for a turn, in the order they are shown, unless it has a reply, or candidates, already.

    Raises:
        MissingError: the conversation is someone else's.
        ValueError: it is over.
    """
    conversation = _open(session, conversation_id, user_id)
    if _answered(session, conversation.id, parent_id) or held_candidates(session, parent_id=parent_id):
        return
    for side, one in enumerate(found):
        # What a model says can quote the person, so it is forgotten with them.
        body_id = keep_words(session, one.text, author_id=user_id)
        session.add(
            PendingReply(
                parent_id=parent_id,
                side=side,
                body_id=body_id,
                sampling={"model": one.model, "finish": one.finish},
                latency_ms=round(1000 * one.seconds),
            )
        )
    session.flush()


def pick_candidate(session: Session, *, conversation_id: str, user_id: str, verdict: str) -> None:
    """Go on from the reply that was picked; of a tie from the first; of two failed ones from none of them.

    A second click, when nothing waits to be picked any more, changes nothing.

    Raises:
        MissingError: the conversation is someone else's.
        ValueError: it is over, or the verdict is none.
    """
    conversation = _open(session, conversation_id, user_id)
    if verdict not in PICKED:
        raise ValueError("no reply is picked; choose A, B, a tie or both failed")
    chosen = [line for line in lines_of(session, conversation.id) if line.chosen]
    parent = chosen[-1].turn_id if chosen else ""
    found = held_candidates(session, parent_id=parent)
    if not found:
        return
    _keep(session, conversation_id, user_id, parent, found, picked=PICKED[verdict], verdict=verdict)
    bodies = select(PendingReply.body_id).where(PendingReply.parent_id == parent)
    ids = list(session.scalars(bodies))
    session.execute(delete(PendingReply).where(PendingReply.parent_id == parent))
    session.execute(delete(Body).where(Body.id.in_(ids)))


def keep_reply(session: Session, *, conversation_id: str, user_id: str, parent_id: str, found: Candidate) -> None:
    """Write the reply of the one model there is as a turn, unless the turn before has a reply already."""
    _keep(session, conversation_id, user_id, parent_id, [found], picked=0, verdict="only one")


def turned_down(session: Session, *, conversation_id: str, parent_id: str) -> int:
    """How many replies to a turn nobody went on from."""
    return sum(not line.chosen for line in _after(session, conversation_id, parent_id))


def _open(session: Session, conversation_id: str, user_id: str) -> Conversation:
    my_conversation(session, conversation_id=conversation_id, user_id=user_id)
    conversation = must_have(session, Conversation, conversation_id, lock=True)  # a second tab waits for this one
    if conversation.state != "open":
        raise ValueError(f"the conversation is {conversation.state}; nothing was changed")
    return conversation


def _keep(
    session: Session,
    conversation_id: str,
    user_id: str,
    parent: str,
    found: Sequence[Candidate],
    *,
    picked: int | None,
    verdict: str,
) -> None:
    """Write candidates as turns, the picked one last and chosen, unless the turn before has a reply already."""
    _open(session, conversation_id, user_id)
    if _answered(session, conversation_id, parent):
        return
    for place, one in sorted(enumerate(found), key=lambda pair: pair[0] == picked):
        sampling: dict[str, Any] = {"model": one.model, "finish": one.finish, "side": place}
        add_turn(
            session,
            conversation_id=conversation_id,
            user_id=user_id,
            role="assistant",
            text=one.text,
            parent_id=parent,
            chosen=place == picked,
            sampling=sampling | {"verdict": verdict, "temperature": 1.0},
            latency_ms=round(1000 * one.seconds),
        )


def _answered(session: Session, conversation_id: str, parent: str) -> bool:
    return any(line.chosen and line.role == "assistant" for line in _after(session, conversation_id, parent))


def _after(session: Session, conversation_id: str, parent: str) -> list[Line]:
    lines = lines_of(session, conversation_id)
    at = next((place for place, line in enumerate(lines) if line.turn_id == parent), len(lines))
    return lines[at + 1 :]
