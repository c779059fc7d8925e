"""What a person's program may do beside tasks: agree to a project's text, and talk to its model."""

from __future__ import annotations

from fastapi import APIRouter, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from accord.feedback.store import give_consent
from accord.feedback.store.queries.candidates import pick_candidate
from accord.feedback.store.tables import ConsentText
from accord.feedback.studio.access import may_see_project
from accord.feedback.studio.api.annotating import PROBLEMS
from accord.feedback.studio.api.callers import Annotator
from accord.feedback.studio.api.shapes import ConsentIn, ConsentTextOut, ConversationIn, Id, Made, PickIn, TurnIn
from accord.feedback.studio.context import StudioOf
from accord.feedback.studio.pages.chat import begin_talk, watch

__all__ = ["router"]

router = APIRouter(tags=["talk"], responses=PROBLEMS)  # type: ignore[arg-type]

EVENTS = {
    200: {
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
        "description": "events: `add` what is new, or `text` all of it; of two candidates `add` is a list; at last "
        "`done`, with an error or null",
    }
}


@router.get("/projects/{project_id}/consent")
def read_consent(studio: StudioOf, who: Annotator, project_id: Id) -> ConsentTextOut:
    """The text a member of a project is asked to agree to."""
    studio.store.read(may_see_project, who.user_id, project_id)
    text = studio.store.read(_newest, project_id)
    return ConsentTextOut(id=text.id, version=text.version, markdown=text.markdown)


def _newest(session: Session, project_id: str) -> ConsentText:
    query = select(ConsentText).where(ConsentText.project_id == project_id, ConsentText.version > 0)
    text = session.scalar(query.order_by(ConsentText.version.desc()).limit(1))
    if text is None:
        raise ValueError("the project has no text to agree to; ask its admin")
    return text


@router.post("/consents", status_code=201)
def new_consent(studio: StudioOf, who: Annotator, given: ConsentIn) -> Made:
    """Agree to the newest text, named by its id: nobody agrees to what they have not been shown."""
    studio.store.read(may_see_project, who.user_id, given.project)
    return Made(id=studio.store.run(_agree, who.user_id, given, studio.clock()))


def _agree(session: Session, user_id: str, given: ConsentIn, now: int) -> str:
    text = _newest(session, given.project)
    if text.id != given.text:
        raise ValueError(f"found the text {given.text}; expected the newest one, {text.id}; read it first")
    return give_consent(
        session, user_id=user_id, project_id=given.project, now=now, uses=tuple(sorted(set(given.uses)))
    ).id


@router.post("/conversations", status_code=201)
def new_conversation(studio: StudioOf, who: Annotator, given: ConversationIn) -> Made:
    """Begin to talk in a campaign of chats or attempts."""
    return Made(id=begin_talk(studio, who.user_id, given.campaign, given.area, given.goal))


@router.post("/conversations/{conversation_id}/turns", response_class=Response, responses=EVENTS)  # type: ignore[arg-type]
def new_turn(studio: StudioOf, who: Annotator, conversation_id: Id, given: TurnIn) -> Response:
    """Say something, and read the reply while it is written; or two candidates, which wait to be picked from."""
    return watch(studio, who.user_id, conversation_id, given.text)


@router.post("/conversations/{conversation_id}/picks", status_code=201)
def new_pick(studio: StudioOf, who: Annotator, conversation_id: Id, given: PickIn) -> Made:
    """Go on from one of two candidates, or from A where both are as good; where both failed, send a turn without text.

    Where nothing waits to be picked, nothing changes.
    """
    studio.store.run(pick_candidate, conversation_id=conversation_id, user_id=who.user_id, verdict=given.verdict)
    return Made(id=conversation_id)
