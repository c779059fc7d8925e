"""Notes from an admin to one annotator: the words are a body that can be forgotten, the events tell who and when."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from accord.feedback.store.queries.common import MissingError, keep_words, must_be, must_have, role_of, write_event
from accord.feedback.store.tables import Body, Campaign, Event

__all__ = ["LONGEST", "Note", "dismiss_note", "notes_for", "send_note"]

LONGEST = 2000  # characters


@dataclass(frozen=True, kw_only=True)
class Note:
    """A note that its reader has not dismissed yet."""

    note_id: str
    sender: str | None
    campaign: str
    text: str
    sent_at: int


def send_note(session: Session, *, campaign_id: str, annotator_id: str, actor_id: str, text: str) -> None:
    """Leave a note for an annotator, which stands on their first page until they dismiss it; once, if sent twice.

    Raises:
        MissingError: the reader is no member of the campaign's project.
        ValueError: no admin, or the note is empty or too long.
    """
    campaign = must_have(session, Campaign, campaign_id)
    must_be(session, actor_id, campaign.project_id, "admin")
    if role_of(session, annotator_id, campaign.project_id, lock=True) is None:  # a second click waits for the first
        raise MissingError("there is no such member of this project")
    text = text.replace("\r\n", "\n").strip()
    if not 0 < len(text) <= LONGEST:
        raise ValueError(f"the note has {len(text)} characters; expected 1 to {LONGEST}")
    if any((one.text, one.sender) == (text, actor_id) for one in notes_for(session, user_id=annotator_id)):
        return  # a second click
    body_id = keep_words(session, text, author_id=actor_id)
    write_event(session, "note", annotator_id, actor_id=actor_id, campaign=campaign_id, body=body_id)
    session.flush()


def notes_for(session: Session, *, user_id: str) -> list[Note]:
    """Notes to a person that they have not dismissed, oldest first; those whose words are forgotten are gone."""
    read = set(session.scalars(select(Event.subject).where(Event.kind == "note read", Event.actor_id == user_id)))
    query = select(Event).where(Event.kind == "note", Event.subject == user_id).order_by(Event.created_at, Event.id)
    found = []
    for event in session.scalars(query):
        body, campaign = session.get(Body, event.detail["body"]), session.get(Campaign, event.detail["campaign"])
        if event.id not in read and body is not None and body.text is not None:
            name = "" if campaign is None else campaign.name
            found.append(
                Note(note_id=event.id, sender=event.actor_id, campaign=name, text=body.text, sent_at=event.created_at)
            )
    return found


def dismiss_note(session: Session, *, note_id: str, user_id: str) -> None:
    """Note that a person has read a note of theirs; a second click changes nothing.

    Raises:
        MissingError: no such note, or someone else's.
    """
    event = session.get(Event, note_id)
    if event is None or event.kind != "note" or event.subject != user_id:
        raise MissingError("there is no such note for you")
    if note_id in {one.note_id for one in notes_for(session, user_id=user_id)}:
        write_event(session, "note read", note_id, actor_id=user_id)
        session.flush()
