"""Drafts, submissions and skips: what an annotator sends. Nothing that was typed is lost, nothing counts twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session, aliased

from accord.feedback.store import payloads
from accord.feedback.store.asked import check_asked
from accord.feedback.store.grading import is_right
from accord.feedback.store.order import ON_DEMAND
from accord.feedback.store.queries.campaigns import withdraw_item
from accord.feedback.store.queries.common import keep_words, must_have, role_of, write_event
from accord.feedback.store.queries.content import texts_of
from accord.feedback.store.queries.leases import renew, task_of
from accord.feedback.store.queries.projects import consent_in_force
from accord.feedback.store.queries.quality import pause_if_failing, settle_qualification
from accord.feedback.store.settings import CampaignSettings
from accord.feedback.store.tables import (
    Assignment,
    Campaign,
    Consent,
    Draft,
    Item,
    Judgment,
    Qualification,
    Slot,
)

__all__ = ["DraftConflictError", "Receipt", "Submission", "save_draft", "submit"]


class DraftConflictError(ValueError):
    """The draft was saved elsewhere meanwhile (a second tab): `payload` and `version` are what is kept there."""

    def __init__(self, payload: dict[str, Any], version: int) -> None:
        self.payload, self.version = payload, version
        super().__init__(f"the draft was changed elsewhere, to version {version}; choose one of the two")


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What comes in.

    Attributes:
        assignment_id: of the task.
        annotator_id: who is logged in; a task of anyone else is not found.
        revision: of the task; with the assignment it makes the key under which a second click is recognised.
        payload: as in `payloads`, by response id.
        active_ms: time spent, by the browser's own clock; None: not known.
        pasted: characters of the text that came in pieces of more than 200 at once.
        session_id: the login or token it came from; None: not known.
        touched: something was chosen. What was only shown is no answer, so a verdict without it is refused.
    """

    assignment_id: str
    annotator_id: str
    revision: int
    payload: Mapping[str, Any]
    active_ms: int | None = None
    touched: bool = True
    pasted: int = 0
    session_id: str | None = None

    @property
    def client_key(self) -> str:
        """The same for every resend of one page."""
        return f"{self.assignment_id}:{self.revision}"


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What became of a submission: `counted` is false for a skip, and for a late one whose place was taken.

    `screened`: it ended an attempt at the qualification.
    """

    judgment_id: str
    counted: bool
    repeated: bool = False
    explanation: str | None = None
    screened: bool = False


def save_draft(
    session: Session, *, assignment_id: str, annotator_id: str, payload: dict[str, Any], version: int, now: int
) -> int:
    """Save what is typed, and renew the lease; return the new version.

    Raises:
        DraftConflictError: `version` is not the one that is kept (0: none is).
    """
    assignment, _, campaign = task_of(session, assignment_id, annotator_id)
    if version == 0 and session.get(Draft, assignment_id) is None:
        session.add(Draft(assignment_id=assignment_id, payload=payload, version=1, updated_at=now))
        session.flush()
    else:
        mine = update(Draft).where(Draft.assignment_id == assignment_id, Draft.version == version)
        saved = mine.values(payload=payload, version=version + 1, updated_at=now).returning(Draft.version)
        if session.scalar(saved.execution_options(synchronize_session=False)) is None:
            kept = must_have_draft(session, assignment_id)
            raise DraftConflictError(kept.payload, kept.version)
    renew(session, item_id=assignment.item_id, annotator_id=annotator_id, until=now + campaign.lease_minutes * 60_000)
    return version + 1


def must_have_draft(session: Session, assignment_id: str) -> Draft:
    """Return the draft as it is kept; an empty one of version 0 if it was submitted meanwhile."""
    kept = session.get(Draft, assignment_id, populate_existing=True)
    return kept or Draft(assignment_id=assignment_id, payload={}, version=0, updated_at=0)


def submit(session: Session, submission: Submission, *, now: int) -> Receipt:
    """Take a verdict or a skip: one transaction, and the same answer however often it comes.

    Raises:
        MissingError: the task is not this annotator's.
        ValueError: the payload is wrong, nothing was touched, consent is missing, or the time to revise is over.
    """
    assignment, _, campaign = task_of(session, submission.assignment_id, submission.annotator_id)
    # One transaction of an annotator at a time, then one of an item: in this order everywhere, so nobody deadlocks.
    role_of(session, submission.annotator_id, campaign.project_id, lock=True)
    item = must_have(session, Item, assignment.item_id, lock=True)
    earlier = _answers(session, assignment)
    known = next((one for one in earlier if one.client_key == submission.client_key), None)
    if known is not None:
        return Receipt(judgment_id=known.id, counted=known.counted, repeated=True)
    settings = CampaignSettings.model_validate(campaign.settings)
    payload = payloads.parse(campaign.task_type, submission.payload, texts_of(session, item.id))
    check_asked(payload, settings, item.source_ref)
    skips = isinstance(payload, payloads.Skip)
    if not (submission.touched or skips):
        raise ValueError(
            "nothing was chosen; expected a verdict, as an order that was only shown is none; choose first"
        )
    consent = consent_in_force(session, submission.annotator_id, campaign.project_id)
    if consent is None:
        raise ValueError("consent to the newest text is missing; give it first; the draft is kept")
    held = _close_slot(session, item.id, submission.annotator_id, skips)
    before = _check_revision(earlier, campaign, submission, held=held, skips=skips, now=now)
    if before is not None and item.kind == "qualification" and not _is_attempt(session, campaign, submission):
        raise ValueError("an answer of a test stands; as long as an attempt is left, the test is asked again")
    if skips:
        counted = False
    elif before is not None and not held:
        counted = before.counted
    else:
        counted = held or _take_open_slot(session, item, submission.annotator_id)
    judgment = _insert(session, assignment, submission, payload, consent, counted, now)
    if submission.pasted:
        write_event(session, "pasted", judgment.id, actor_id=None, characters=submission.pasted)
    _finish_item(session, item.id)
    screened = _look_closer(session, campaign, item, judgment)
    if isinstance(payload, payloads.Skip) and payload.skip == "personal data":
        withdraw_item(session, item_id=item.id, actor_id=submission.annotator_id, reason="personal data")
    teaches = item.kind == "gold" and settings.teach
    return Receipt(
        judgment_id=judgment.id,
        counted=counted,
        explanation=item.explanation if teaches else None,
        screened=screened,
    )


def _answers(session: Session, assignment: Assignment) -> list[Judgment]:
    """What came of an assignment so far, oldest first. Item and annotator are indexed; an assignment is the two."""
    query = select(Judgment).where(
        Judgment.item_id == assignment.item_id,
        Judgment.annotator_id == assignment.annotator_id,
        Judgment.assignment_id == assignment.id,
    )
    return list(session.scalars(query.order_by(Judgment.revision)))


def _is_attempt(session: Session, campaign: Campaign, submission: Submission) -> bool:
    """Whether an answer to a test is one of the attempt that is under way: the n-th answer of the n-th attempt."""
    query = select(Qualification.passed).where(Qualification.campaign_id == campaign.id)
    passed = session.scalars(query.where(Qualification.annotator_id == submission.annotator_id)).all()
    left = CampaignSettings.model_validate(campaign.settings).attempts - len(passed)
    return left > 0 and not any(passed) and submission.revision == len(passed) + 1


def _check_revision(
    earlier: Sequence[Judgment], campaign: Campaign, submission: Submission, *, held: bool, skips: bool, now: int
) -> Judgment | None:
    """The judgment that is revised, or None; raises unless this revision follows the last one and is in time."""
    last = earlier[-1] if earlier else None
    expected = 1 if last is None else last.revision + 1
    if submission.revision != expected:
        raise ValueError(f"found revision {submission.revision}; expected {expected}; load the task again")
    if last is None or held:
        return last
    if skips:
        raise ValueError("a judgment cannot be revised to a skip; expected a verdict; the first one stands")
    first = min(one.submitted_at for one in earlier)
    hours = CampaignSettings.model_validate(campaign.settings).revise_hours
    if now - first > hours * 3_600_000:
        raise ValueError(f"the judgment is older than {hours} h, and can no longer be revised; tell a reviewer")
    return last


def _close_slot(session: Session, item_id: str, annotator_id: str, skips: bool) -> bool:
    """End my lease: done, or free again for someone else if I skip. False: I hold none."""
    held = update(Slot).where(Slot.item_id == item_id, Slot.annotator_id == annotator_id, Slot.state == "leased")
    ended = (
        held.values(state="open", annotator_id=None, expires_at=None)
        if skips
        else held.values(state="done", expires_at=None)
    )
    closed = session.scalar(ended.returning(Slot.id).execution_options(synchronize_session=False))
    return closed is not None


def _take_open_slot(session: Session, item: Item, annotator_id: str) -> bool:
    """A late one: take a slot of the item that is still free; False: all are taken, and the judgment is surplus."""
    free, other = aliased(Slot), aliased(Slot)
    mine = select(other.id).where(other.item_id == item.id, other.annotator_id == annotator_id)
    query = (
        select(free.id)
        .where(free.item_id == item.id, free.state == "open", ~mine.exists())
        .order_by(free.number)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    query = query.where(free.queue != ON_DEMAND) if item.kind == "normal" else query
    taken = session.scalar(
        update(Slot)
        .where(Slot.state == "open", Slot.id == query.scalar_subquery())
        .values(state="done", annotator_id=annotator_id, expires_at=None)
        .returning(Slot.id)
        .execution_options(synchronize_session=False)
    )
    return taken is not None


def _insert(
    session: Session,
    assignment: Assignment,
    submission: Submission,
    payload: payloads.Payload,
    consent: Consent,
    counted: bool,
    now: int,
) -> Judgment:
    kept, words = payloads.split(payload)
    body_id = None if words is None else keep_words(session, words, author_id=submission.annotator_id)
    judgment = Judgment(
        item_id=assignment.item_id,
        annotator_id=submission.annotator_id,
        assignment_id=assignment.id,
        source="human",
        revision=submission.revision,
        payload=kept,
        display_order=assignment.display_order,
        guideline_id=assignment.guideline_id,
        consent_id=consent.id,
        started_at=assignment.issued_at,
        submitted_at=now,
        active_ms=submission.active_ms,
        touched=submission.touched,
        counted=counted,
        client_key=submission.client_key,
        body_id=body_id,
        session_id=submission.session_id,
    )
    session.add(judgment)
    session.flush()
    session.execute(delete(Draft).where(Draft.assignment_id == assignment.id))
    return judgment


def _finish_item(session: Session, item_id: str) -> None:
    """An item is done when all slots of the queue are; the caller holds the item's lock, so none is overlooked."""
    left = select(Slot.id).where(Slot.item_id == item_id, Slot.state != "done", Slot.queue != ON_DEMAND)
    done = update(Item).where(Item.id == item_id, Item.kind == "normal", Item.state == "open", ~left.exists())
    session.execute(done.values(state="done").execution_options(synchronize_session=False))


def _look_closer(session: Session, campaign: Campaign, item: Item, judgment: Judgment) -> bool:
    """What a known answer sets off: the result of a qualification, a pause after failed attention checks.

    Returns: whether an attempt at the qualification has ended with it.
    """
    assert judgment.annotator_id is not None
    if item.kind == "qualification":
        return settle_qualification(session, campaign, judgment.annotator_id) is not None
    if item.kind == "attention":
        pause_if_failing(session, campaign, judgment.annotator_id)
    if item.kind == "gold":
        right = is_right(campaign.task_type, item.expected or {}, judgment.payload, list(judgment.display_order))
        write_event(session, "gold", judgment.id, actor_id=None, right=right)
    return False
