"""Leases: who works on what until when. An item with overlap n has n slots, and one UPDATE of one row decides.

The statements are those of docs/feedback.md; `FOR UPDATE SKIP LOCKED` is PostgreSQL's, SQLite has one writer at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, and_, exists, func, select, update
from sqlalchemy.orm import Session, aliased

from accord.feedback.store.order import ON_DEMAND, display_order
from accord.feedback.store.queries.common import MissingError, must_have, role_of
from accord.feedback.store.queries.content import texts_of
from accord.feedback.store.queries.situations import situation, wrote
from accord.feedback.store.settings import CampaignSettings
from accord.feedback.store.steps import Mix, Stop, next_step
from accord.feedback.store.tables import (
    Assignment,
    Campaign,
    Draft,
    Item,
    Judgment,
    Prompt,
    Slot,
)
from accord.records import Conversation, Message

ROUNDS = 5  # who finds the lease gone that was to be resumed looks again

__all__ = ["Shown", "Task", "next_task", "renew", "sweep", "task_again", "task_of"]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A response as an annotator sees it: no model, no length, no one else's verdict."""

    id: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """What one annotator is asked now. Nothing in it tells a gold item from another.

    Attributes:
        assignment_id: names the task in drafts and in the submission.
        task_type: of the campaign.
        prompt: the messages.
        responses: in this annotator's order.
        guideline_id: version to follow.
        expires_at: end of the lease, UTC milliseconds.
        revision: number the submission has to carry.
        draft: what was saved of it, and `draft_version`; None and 0 if nothing was.
        language: of the prompt, where that is known.
    """

    assignment_id: str
    item_id: str
    task_type: str
    prompt: Conversation
    responses: tuple[Shown, ...]
    guideline_id: str
    expires_at: int
    revision: int
    draft: dict[str, Any] | None
    draft_version: int
    language: str | None = None


def sweep(session: Session, *, now: int, campaign_id: str | None = None) -> int:
    """Free the slots whose lease has run out; return how many. Run it every 10 s, in its own transaction."""
    held = aliased(Slot)
    late = select(held.id).where(held.state == "leased", held.expires_at <= now).order_by(held.id)
    if campaign_id is not None:
        late = late.where(held.campaign_id == campaign_id)
    freed = session.execute(
        update(Slot)
        .where(Slot.state == "leased", Slot.id.in_(late.with_for_update(skip_locked=True)))
        .values(state="open", annotator_id=None, expires_at=None)
        .returning(Slot.id)
        .execution_options(synchronize_session=False)
    )
    return len(freed.all())


def next_task(session: Session, *, campaign_id: str, annotator_id: str, now: int) -> Task | Stop:
    """Give an annotator a task: the one they hold, or one that `steps.next_step` and the queue decide on.

    Returns: the task, or why there is none.
    """
    campaign = must_have(session, Campaign, campaign_id)
    role_of(session, annotator_id, campaign.project_id, lock=True)  # a second tab waits for this one
    until = now + campaign.lease_minutes * 60_000
    for _ in range(ROUNDS):
        seen = situation(session, campaign, annotator_id, now)
        step = next_step(seen, mix_of(campaign))
        if step.stop is not None:
            return step.stop
        if step.item is None:
            claimed = _claim(session, campaign_id, annotator_id, until)
            return "nothing left" if claimed is None else _issue(session, campaign, claimed, annotator_id, now, until)
        if _hold(session, step.item, annotator_id, until, resumes=step.item == seen.holds):
            return _issue(session, campaign, step.item, annotator_id, now, until)
    return "nothing left"


def mix_of(campaign: Campaign) -> Mix:
    """How known answers are mixed into a campaign."""
    settings = CampaignSettings.model_validate(campaign.settings)
    return Mix(
        secret=campaign.secret,
        gold_every=settings.gold_every,
        attention_every=settings.attention_every,
        attempts=settings.attempts,
    )


def _claim(session: Session, campaign_id: str, annotator_id: str, until: int) -> str | None:
    """Take the first free slot of a normal item this annotator has not had, judged or written; None: there is none."""
    free, other = aliased(Slot), aliased(Slot)
    mine = and_(other.item_id == free.item_id, other.annotator_id == annotator_id)
    judged = and_(Judgment.item_id == free.item_id, Judgment.annotator_id == annotator_id)
    query = (
        select(free.id)
        .join(Item, Item.id == free.item_id)
        .where(free.campaign_id == campaign_id, free.state == "open", free.queue != ON_DEMAND)
        .where(Item.state == "open", Item.kind == "normal")
        .where(~exists(other.id).where(mine), ~exists(Judgment.id).where(judged), ~wrote(annotator_id))
        .order_by(free.queue)
        .limit(1)
        .with_for_update(skip_locked=True, of=free)
    )
    return _take(session, query, annotator_id, until)


def _take(session: Session, one_slot: Select[str], annotator_id: str, until: int) -> str | None:
    """Lease the slot a query names, if it is still open; return its item."""
    return session.scalar(
        update(Slot)
        .where(Slot.state == "open", Slot.id == one_slot.scalar_subquery())
        .values(state="leased", annotator_id=annotator_id, expires_at=until)
        .returning(Slot.item_id)
        .execution_options(synchronize_session=False)
    )


def _hold(session: Session, item_id: str, annotator_id: str, until: int, *, resumes: bool) -> bool:
    """Lease an item that everybody gets, or go on with a lease: my slot, a free one, or one more.

    False: the lease that was to be resumed has been swept up meanwhile. Only a qualification is asked a second time.
    """
    item = must_have(session, Item, item_id, lock=True)
    mine = Slot.item_id == item_id, Slot.annotator_id == annotator_id
    state = session.scalar(select(Slot.state).where(*mine))
    if state == "leased" or (state == "done" and item.kind == "qualification"):
        renewed = update(Slot).where(*mine).values(state="leased", expires_at=until)
        session.execute(renewed.execution_options(synchronize_session=False))
        return True
    if resumes:
        return False
    free = aliased(Slot)
    query = select(free.id).where(free.item_id == item_id, free.state == "open").order_by(free.number).limit(1)
    if _take(session, query.with_for_update(skip_locked=True), annotator_id, until) is None:
        last = session.scalar(select(func.max(Slot.number)).where(Slot.item_id == item_id))
        session.add(
            Slot(
                item_id=item_id,
                campaign_id=item.campaign_id,
                number=0 if last is None else last + 1,
                queue=ON_DEMAND,
                state="leased",
                annotator_id=annotator_id,
                expires_at=until,
            )
        )
        session.flush()
    return True


def _issue(session: Session, campaign: Campaign, item_id: str, annotator_id: str, now: int, until: int) -> Task:
    """Note what is shown to whom, and since when; the order of a task that was shown before stays."""
    texts = texts_of(session, item_id)
    given = session.scalar(
        select(Assignment).where(Assignment.item_id == item_id, Assignment.annotator_id == annotator_id)
    )
    if given is None:
        given = Assignment(
            item_id=item_id,
            annotator_id=annotator_id,
            display_order=display_order(campaign.secret, item_id, annotator_id, sorted(texts)),
            guideline_id=campaign.guideline_id,
            issued_at=now,
        )
        session.add(given)
        session.flush()
        return _shown(session, campaign, given, texts, until, fresh=True)
    given.reissued += 1
    given.guideline_id = campaign.guideline_id
    session.flush()
    return _shown(session, campaign, given, texts, until)


def task_again(session: Session, *, assignment_id: str, annotator_id: str) -> Task:
    """A task this annotator was given before, as it was shown, without a lease: to look at it or to revise.

    Raises:
        MissingError: no such task, or someone else's.
    """
    given, _, campaign = task_of(session, assignment_id, annotator_id)
    texts = texts_of(session, given.item_id)
    expires = select(Slot.expires_at).where(Slot.item_id == given.item_id, Slot.annotator_id == annotator_id)
    return _shown(session, campaign, given, texts, session.scalar(expires) or 0)


def task_of(session: Session, assignment_id: str, annotator_id: str) -> tuple[Assignment, Item, Campaign]:
    """A task of this annotator, with its item and campaign.

    Raises:
        MissingError: no such task, or someone else's.
    """
    query = (
        select(Assignment, Item, Campaign)
        .join(Item, Item.id == Assignment.item_id)
        .join(Campaign, Campaign.id == Item.campaign_id)
        .where(Assignment.id == assignment_id, Assignment.annotator_id == annotator_id)
    )
    for assignment, item, campaign in session.execute(query):
        return assignment, item, campaign
    raise MissingError(f"there is no task {assignment_id!r} of yours; ask for the next one")


def _shown(
    session: Session,
    campaign: Campaign,
    given: Assignment,
    texts: dict[str, str | None],
    until: int,
    *,
    fresh: bool = False,
) -> Task:
    """What the annotator sees; a `fresh` task has neither a draft nor an answer to look for."""
    prompt = (
        select(Prompt.messages, Prompt.language).join(Item, Item.prompt_id == Prompt.id).where(Item.id == given.item_id)
    )
    draft = None if fresh else session.get(Draft, given.id)
    answers = select(func.max(Judgment.revision))
    # By item and annotator, which are indexed; an assignment is the two.
    answers = answers.where(Judgment.item_id == given.item_id, Judgment.annotator_id == given.annotator_id)
    messages, language = session.execute(prompt).one_or_none() or ((), None)
    revision = None if fresh else session.scalar(answers.where(Judgment.assignment_id == given.id))
    return Task(
        assignment_id=given.id,
        item_id=given.item_id,
        task_type=campaign.task_type,
        prompt=tuple(Message.model_validate(one) for one in messages or ()),
        responses=tuple(Shown(id=response, text=texts[response] or "") for response in given.display_order),
        guideline_id=given.guideline_id,
        expires_at=until,
        revision=(revision or 0) + 1,
        draft=None if draft is None else draft.payload,
        draft_version=0 if draft is None else draft.version,
        language=language,
    )


def renew(session: Session, *, item_id: str, annotator_id: str, until: int) -> bool:
    """Extend a lease; False: it had run out and the slot was freed, which loses nothing that was typed."""
    held = update(Slot).where(Slot.item_id == item_id, Slot.annotator_id == annotator_id, Slot.state == "leased")
    extended = held.values(expires_at=until).returning(Slot.id).execution_options(synchronize_session=False)
    return session.scalar(extended) is not None
