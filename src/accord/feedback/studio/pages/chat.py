"""Talking to a model, to rate it or to break it: consent, then turns; with two models, candidates side by side."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session
from starlette.responses import StreamingResponse

from accord.feedback.store import MissingError, add_model, add_turn, consent_in_force, has_confirmed, start_conversation
from accord.feedback.store.asked import HARM_AREAS
from accord.feedback.store.personal_data import numbered, scrub, without
from accord.feedback.store.queries.candidates import (
    held_candidates,
    hold_candidates,
    keep_reply,
    pick_candidate,
    turned_down,
)
from accord.feedback.store.queries.common import must_have
from accord.feedback.store.queries.overview import work_in
from accord.feedback.store.queries.talks import (
    Line,
    edit_turn,
    finish_talk,
    lines_of,
    my_conversation,
    my_conversations,
    rate_turn,
    spoken,
    thumbed,
)
from accord.feedback.store.tables import Campaign, Conversation, Project
from accord.feedback.studio.access import may_annotate
from accord.feedback.studio.context import Form, Me, Studio, StudioOf
from accord.feedback.studio.forms import payload_of
from accord.feedback.studio.pages.task import filled
from accord.feedback.studio.talking import both_stream, candidates, written, written_side_by_side
from accord.feedback.studio.view import page, redirect
from accord.feedback.studio.writing import Writing
from accord.records import Message

__all__ = ["begin_talk", "router", "watch"]

router = APIRouter()

LONGEST = 8000  # characters of a person's turn
TALKS_REMEMBERED = 1000


def _campaign(session: Session, user_id: str, campaign_id: str) -> Campaign:
    campaign = may_annotate(session, user_id, campaign_id)
    if campaign.task_type not in ("chat", "redteam"):
        raise MissingError("there is nothing to talk to in this campaign")
    return campaign


@router.get("/c/{campaign_id}/chat")
def show_talks(request: Request, studio: StudioOf, me: Me, campaign_id: str) -> Response:
    """My conversations, the form of a new one, and attempts of others to rate."""
    campaign = studio.store.read(_campaign, me.user_id, campaign_id)
    if studio.store.read(consent_in_force, me.user_id, campaign.project_id) is None:
        return redirect(f"/c/{campaign_id}/consent")
    if not studio.store.read(has_confirmed, me.user_id, campaign.guideline_id):
        return redirect(f"/c/{campaign_id}/guidelines")
    return page(
        request,
        "talks.html",
        campaign=campaign,
        project=studio.store.read(must_have, Project, campaign.project_id),
        talks=studio.store.read(my_conversations, campaign_id=campaign_id, user_id=me.user_id),
        work=studio.store.read(work_in, campaign, user_id=me.user_id, now=studio.clock()),
        can_talk=bool(studio.models) and campaign.state in ("open", "pilot"),
    )


@router.post("/c/{campaign_id}/chat")
def begin(studio: StudioOf, me: Me, campaign_id: str, form: Form) -> Response:
    """Start a conversation; an attempt to break a model says what it is after."""
    started = begin_talk(studio, me.user_id, campaign_id, str(form.get("area", "")), str(form.get("goal", "")))
    return redirect(f"/talk/{started}")


def begin_talk(studio: Studio, user_id: str, campaign_id: str, area: str, goal: str) -> str:
    """Start a conversation of a person; return its id.

    Raises:
        ValueError: the campaign takes none now, or an attempt names no area or goal.
    """
    campaign = studio.store.read(_campaign, user_id, campaign_id)
    if campaign.state not in ("open", "pilot") or not studio.models:
        raise ValueError("this campaign takes no new conversations now; ask its admin")
    goal = goal.strip()[:2000]
    if campaign.task_type == "redteam" and (area not in HARM_AREAS or not goal):
        raise ValueError("an attempt has to name its area and its goal; choose and write them")
    (goal,), _ = scrub([goal])
    words = f"{area}: {goal}" if campaign.task_type == "redteam" else None
    return studio.store.run(_begin, campaign_id, user_id, list(studio.models)[:2], words)


def _begin(session: Session, campaign_id: str, user_id: str, names: Sequence[str], goal: str | None) -> str:
    name, _, revision = " | ".join(names).partition("@") if len(names) == 1 else (" | ".join(names), "", "")
    model = add_model(session, name=name, revision=revision)
    started = start_conversation(session, campaign_id=campaign_id, user_id=user_id, model_id=model.id, goal=goal)
    return started.id


def _mine(session: Session, user_id: str, conversation_id: str) -> tuple[Conversation, Campaign, list[Line]]:
    conversation = my_conversation(session, conversation_id=conversation_id, user_id=user_id)
    return conversation, _campaign(session, user_id, conversation.campaign_id), lines_of(session, conversation_id)


@router.get("/talk/{conversation_id}")
def show_talk(request: Request, studio: StudioOf, me: Me, conversation_id: str) -> Response:
    """The conversation. Whoever has to agree to a text first is shown that."""
    conversation, campaign, _ = studio.store.read(_mine, me.user_id, conversation_id)
    agreed = studio.store.read(consent_in_force, me.user_id, campaign.project_id)
    if conversation.state == "open" and agreed is None:
        return redirect(f"/c/{campaign.id}/consent")
    return _talk_page(request, studio, me, conversation_id)


def _talk_page(
    request: Request,
    studio: Studio,
    me: Me,
    conversation_id: str,
    *,
    error: str | None = None,
    fields: dict[str, str] | None = None,
) -> Response:
    conversation, campaign, lines = studio.store.read(_mine, me.user_id, conversation_id)
    chosen = spoken(studio.store.read(thumbed, lines))
    return page(
        request,
        "talk.html",
        status=400 if error else 200,
        campaign=campaign,
        project=studio.store.read(must_have, Project, campaign.project_id),
        conversation=conversation,
        lines=chosen,
        waiting=bool(chosen) and chosen[-1].role == "user",
        found=studio.store.read(held_candidates, parent_id=chosen[-1].turn_id) if chosen else [],
        error=error,
        fields=fields or {},
        two=len(studio.models) > 1,
        streams=len(studio.models) == 1 or both_stream(studio.models),
    )


@router.post("/talk/{conversation_id}/say")
def say(request: Request, studio: StudioOf, me: Me, conversation_id: str, form: Form) -> Response:
    """Keep what the person says, at once; then ask for the reply."""
    campaign = hear(studio, me.user_id, conversation_id, str(form.get("text", "")))
    return _reply(request, studio, me, conversation_id, campaign)


def hear(studio: Studio, user_id: str, conversation_id: str, text: str) -> Campaign:
    """Keep what a person says, unless the last thing they said still waits for its reply.

    Raises:
        ValueError: it is too long, or the conversation is over.
    """
    conversation, campaign, lines = studio.store.read(_mine, user_id, conversation_id)
    text = text.replace("\r\n", "\n").strip()
    chosen = [line for line in lines if line.chosen]
    if text and not (chosen and chosen[-1].role == "user"):
        if len(text) > LONGEST:
            raise ValueError(f"the message has {len(text)} characters; expected at most {LONGEST}; shorten it")
        parent = chosen[-1].turn_id if chosen else None
        kept = _screened(studio, conversation_id, lines, text)  # before anything is written
        studio.store.run(
            add_turn, conversation_id=conversation.id, user_id=user_id, role="user", text=kept, parent_id=parent
        )
    return campaign


def _screened(studio: Studio, conversation_id: str, lines: Sequence[Line], text: str) -> str:
    """A text with what looks personal replaced, the same by the same throughout a conversation."""
    numbers = numbered([line.text for line in lines], studio.placeholders.pop(conversation_id, {}))
    (kept,), _ = scrub([text], numbers=numbers)
    studio.placeholders[conversation_id] = numbers
    while len(studio.placeholders) > TALKS_REMEMBERED:
        studio.placeholders.pop(next(iter(studio.placeholders)), None)
    return kept


@router.post("/talk/{conversation_id}/stream")
def say_and_watch(studio: StudioOf, me: Me, conversation_id: str, form: Form) -> Response:
    """Keep what the person says, and send the reply, or both candidates in step, while it is written."""
    return watch(studio, me.user_id, conversation_id, str(form.get("text", "")))


def watch(studio: Studio, user_id: str, conversation_id: str, text: str) -> Response:
    """The reply to what a person says, or both candidates, as events."""
    campaign = hear(studio, user_id, conversation_id, text)
    two = len(studio.models) > 1
    if not studio.models or (two and not both_stream(studio.models)):
        raise ValueError("these models cannot be watched while they write; send the form of the page instead")
    secret, write = campaign.secret, _write_two if two else _write_one

    def work(writing: Writing) -> None:
        write(studio, user_id, conversation_id, secret, writing)

    writing = studio.writings.begin(user_id, conversation_id, work, two=two)
    return StreamingResponse(writing.events(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


def _write_one(studio: Studio, user_id: str, conversation_id: str, _: str, writing: Writing) -> None:
    name, model = next(iter(studio.models.items()))
    chosen = _waiting(studio, user_id, conversation_id)
    if not chosen:
        return
    found = written(model, name, _messages(chosen), writing, max_new_tokens=studio.config.max_new_tokens)
    if found is not None:
        whose = {"conversation_id": conversation_id, "user_id": user_id, "parent_id": chosen[-1].turn_id}
        studio.store.run(keep_reply, **whose, found=found)


def _write_two(studio: Studio, user_id: str, conversation_id: str, secret: str, writing: Writing) -> None:
    chosen = _waiting(studio, user_id, conversation_id)
    if not chosen or studio.store.read(held_candidates, parent_id=chosen[-1].turn_id):
        return
    whose = {"conversation_id": conversation_id, "parent_id": chosen[-1].turn_id}
    found = written_side_by_side(
        studio.models,
        _messages(chosen),
        writing,
        secret=secret,
        conversation_id=conversation_id,
        max_new_tokens=studio.config.max_new_tokens,
        draws=studio.store.read(turned_down, **whose),
    )
    studio.store.run(hold_candidates, **whose, user_id=user_id, found=found)


@router.post("/talk/{conversation_id}/stop")
def stop(studio: StudioOf, me: Me, conversation_id: str, form: Form) -> Response:
    """End the reply that is being written; what is there so far is kept, and marked."""
    studio.store.read(my_conversation, conversation_id=conversation_id, user_id=me.user_id)
    studio.writings.stop(me.user_id, conversation_id)
    return redirect(f"/talk/{conversation_id}")


@router.post("/talk/{conversation_id}/thumb")
def rate_reply(studio: StudioOf, me: Me, conversation_id: str, form: Form) -> Response:
    """A thumb up or down on a reply, or none."""
    studio.store.read(my_conversation, conversation_id=conversation_id, user_id=me.user_id)
    thumbs = {"up": 1, "down": -1, "none": 0}
    thumb, turn_id = thumbs.get(str(form.get("thumb", ""))), str(form.get("turn", ""))
    if thumb is None:
        raise ValueError("found no thumb; expected up, down or none")
    studio.store.run(rate_turn, conversation_id=conversation_id, user_id=me.user_id, turn_id=turn_id, thumb=thumb)
    return redirect(f"/talk/{conversation_id}")


@router.post("/talk/{conversation_id}/edit")
def edit_reply(studio: StudioOf, me: Me, conversation_id: str, form: Form) -> Response:
    """What a reply should have been; the model's own words stay beside it."""
    _, _, lines = studio.store.read(_mine, me.user_id, conversation_id)
    text = _screened(studio, conversation_id, lines, str(form.get("text", "")))
    turn_id = str(form.get("turn", ""))
    studio.store.run(edit_turn, conversation_id=conversation_id, user_id=me.user_id, turn_id=turn_id, text=text)
    return redirect(f"/talk/{conversation_id}")


def _waiting(studio: Studio, user_id: str, conversation_id: str) -> list[Line]:
    """The conversation where a person has spoken last; else nothing."""
    _, _, lines = studio.store.read(_mine, user_id, conversation_id)
    chosen = spoken(lines)
    return chosen if chosen and chosen[-1].role == "user" else []


def _messages(lines: Sequence[Line]) -> list[Message]:
    return [Message.model_validate({"role": line.role, "content": line.text}) for line in lines]


def _reply(request: Request, studio: Studio, me: Me, conversation_id: str, campaign: Campaign) -> Response:
    """Ask for the reply, or for two candidates, and show the page with it."""
    chosen = _waiting(studio, me.user_id, conversation_id)
    parent = chosen[-1].turn_id if chosen else ""
    if not chosen or studio.store.read(held_candidates, parent_id=parent):
        return redirect(f"/talk/{conversation_id}")
    whose = {"conversation_id": conversation_id, "parent_id": parent}
    try:
        found = candidates(
            studio.models,
            _messages(chosen),
            secret=campaign.secret,
            conversation_id=conversation_id,
            max_new_tokens=studio.config.max_new_tokens,
            draws=studio.store.read(turned_down, **whose),
        )
    except ValueError as error:
        return _talk_page(request, studio, me, conversation_id, error=str(error))
    if len(found) > 1:
        studio.store.run(hold_candidates, **whose, user_id=me.user_id, found=found)
    elif found:
        studio.store.run(keep_reply, **whose, user_id=me.user_id, found=found[0])
    return redirect(f"/talk/{conversation_id}")


@router.post("/talk/{conversation_id}/pick")
def pick(request: Request, studio: StudioOf, me: Me, conversation_id: str, form: Form) -> Response:
    """Go on from the reply that was picked; of a tie from the first, of two failed ones with another try."""
    verdict = str(form.get("verdict", ""))
    studio.store.run(pick_candidate, conversation_id=conversation_id, user_id=me.user_id, verdict=verdict)
    if verdict == "failed" and not both_stream(studio.models):
        _, campaign, _ = studio.store.read(_mine, me.user_id, conversation_id)
        return _reply(request, studio, me, conversation_id, campaign)
    return redirect(f"/talk/{conversation_id}", **({"again": "1"} if verdict == "failed" else {}))


@router.post("/talk/{conversation_id}/finish")
def finish(request: Request, studio: StudioOf, me: Me, conversation_id: str, form: Form) -> Response:
    """End it with a rating, or with how far the attempt got."""
    _, campaign, _ = studio.store.read(_mine, me.user_id, conversation_id)
    fields = filled(form)
    try:
        payload = without(payload_of(campaign.task_type, fields, [], conversation_id))
        studio.store.run(
            finish_talk, conversation_id=conversation_id, user_id=me.user_id, payload=payload, now=studio.clock()
        )
    except MissingError:
        raise
    except ValueError as error:
        return _talk_page(request, studio, me, conversation_id, error=str(error), fields=fields)
    return redirect(f"/c/{campaign.id}/chat", done="finished")
