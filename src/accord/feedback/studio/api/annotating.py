"""What an annotator's program may do: take a task, keep a draft, submit, skip."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Header, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.orm import Session

from accord.feedback.store import CampaignSettings, MissingError, Submission, next_task, save_draft
from accord.feedback.store import submit as submit_answer
from accord.feedback.store.personal_data import without
from accord.feedback.store.tables import Draft
from accord.feedback.studio.access import may_annotate, my_assignment
from accord.feedback.studio.api.callers import Annotator
from accord.feedback.studio.api.shapes import DraftIn, DraftIO, Id, Problem, ReceiptOut, SkipIn, SubmitIn, TaskOut
from accord.feedback.studio.context import StudioOf

__all__ = ["PROBLEMS", "router"]

PROBLEMS = {
    status: {"model": Problem, "content": {"application/problem+json": {}}, "description": words}
    for status, words in (
        (400, "does not fit"),
        (401, "no valid token"),
        (403, "beyond the scopes"),
        (404, "not found, or not for you"),
        (409, "changed elsewhere"),
        (413, "too large"),
        (422, "a field is wrong"),
        (429, "too many requests"),
    )
}

KEY = r"([0-9a-f-]{1,36}):([1-9][0-9]{0,5})"
Key = Annotated[
    str | None,
    Header(
        max_length=60,
        description="ASSIGNMENT:REVISION, as the task names them. The same key again gives the first answer.",
        json_schema_extra={"pattern": f"^{KEY}$"},
    ),
]

router = APIRouter(tags=["annotate"], responses=PROBLEMS)  # type: ignore[arg-type]


@router.post("/campaigns/{campaign_id}/next")
def take(studio: StudioOf, who: Annotator, campaign_id: Id) -> TaskOut:
    """Take the next task, or the one that is held."""
    campaign = studio.store.read(may_annotate, who.user_id, campaign_id)
    settings, ranks = CampaignSettings.model_validate(campaign.settings), campaign.task_type == "rank"
    task = studio.store.run(next_task, campaign_id=campaign_id, annotator_id=who.user_id, now=studio.clock())
    if isinstance(task, str):
        return TaskOut(stop=task)
    return TaskOut(
        assignment=task.assignment_id,
        task_type=task.task_type,
        prompt=[message.model_dump() for message in task.prompt],
        responses=[{"id": shown.id, "text": shown.text} for shown in task.responses],
        revision=task.revision,
        expires_at=task.expires_at,
        attributes=ranks and settings.attributes_first,
        span_tags=list(settings.span_tags) if ranks else [],
    )


@router.get("/assignments/{assignment_id}/draft")
def read_draft(studio: StudioOf, who: Annotator, assignment_id: Id, response: Response) -> DraftIO:
    """The draft of a task; its version is the ETag."""
    found = studio.store.read(_draft, who.user_id, assignment_id)
    response.headers["ETag"] = f'"{found.version}"'
    return found


def _draft(session: Session, user_id: str, assignment_id: str) -> DraftIO:
    my_assignment(session, user_id, assignment_id)
    draft = session.get(Draft, assignment_id)
    if draft is None:
        raise MissingError("there is no draft of this task")
    return DraftIO(payload=draft.payload, version=draft.version)


@router.put("/assignments/{assignment_id}/draft")
def keep_draft(
    studio: StudioOf,
    who: Annotator,
    assignment_id: Id,
    draft: DraftIn,
    response: Response,
    if_match: Annotated[str, Header(max_length=20, description="ETag of the version that is replaced")] = '"0"',
) -> DraftIO:
    """Keep a draft, in place of the version of If-Match; 409 where there is another one by now."""
    given = if_match.strip().removeprefix("W/").strip('"')
    version = int(given) if given.isascii() and given.isdigit() and len(given) < 10 else -1
    kept = studio.store.run(
        save_draft,
        assignment_id=assignment_id,
        annotator_id=who.user_id,
        payload=draft.payload,
        version=version,
        now=studio.clock(),
    )
    response.headers["ETag"] = f'"{kept}"'
    return DraftIO(payload=draft.payload, version=kept)


@router.post("/assignments/{assignment_id}/submit")
def submit(
    studio: StudioOf, who: Annotator, assignment_id: Id, verdict: SubmitIn, idempotency_key: Key = None
) -> ReceiptOut:
    """Submit a verdict; the same key, or assignment and revision, again gives the first answer again."""
    revision = _revision(assignment_id, verdict.revision, idempotency_key)
    return _send(studio, who, assignment_id, revision, verdict)


def _revision(assignment_id: str, given: int | None, key: str | None) -> int:
    """The revision a request is about, by its key, its body, or the first one.

    Raises:
        RequestValidationError: the key is malformed, of another assignment, or says something else than the body.
    """
    if key is None:
        return 1 if given is None else given
    found = re.fullmatch(KEY, key)
    if found is None:
        wrong = f"found {key!r}; expected ASSIGNMENT:REVISION, such as {assignment_id}:1"
    elif found[1] != assignment_id:
        wrong = f"found the key of the assignment {found[1]}; expected one of {assignment_id}, to which this is sent"
    elif given not in (None, int(found[2])):
        wrong = f"found revision {found[2]} here and {given} in the body; expected the same; leave one of them out"
    else:
        return int(found[2])
    raise RequestValidationError([{"loc": ("header", "idempotency-key"), "msg": wrong, "type": "value_error"}])


def _send(studio: StudioOf, who: Annotator, assignment_id: str, revision: int, verdict: SubmitIn) -> ReceiptOut:
    sent = Submission(
        assignment_id=assignment_id,
        annotator_id=who.user_id,
        revision=revision,
        payload=without(verdict.payload),
        active_ms=verdict.active_ms,
        session_id=who.session_id,
    )
    receipt = studio.store.run(submit_answer, sent, now=studio.clock())
    return ReceiptOut(judgment=receipt.judgment_id, counted=receipt.counted, repeated=receipt.repeated)


@router.post("/assignments/{assignment_id}/skip")
def skip(
    studio: StudioOf, who: Annotator, assignment_id: Id, reason: SkipIn, idempotency_key: Key = None
) -> ReceiptOut:
    """Give a task back, with a reason; a resend gives the first answer again."""
    revision = _revision(assignment_id, reason.revision, idempotency_key)
    payload = {"skip": reason.reason, **({"text": reason.text} if reason.text else {})}
    return _send(studio, who, assignment_id, revision, SubmitIn(payload=payload))
