"""Forgetting people and keeping nothing longer than promised: words are erased, verdicts stay unless promised."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, and_, delete, select, text, update
from sqlalchemy.orm import Session

from accord.feedback.store.ids import blind_id
from accord.feedback.store.queries.common import must_have, write_event
from accord.feedback.store.tables import (
    ApiToken,
    Assignment,
    Body,
    Campaign,
    Conversation,
    Draft,
    Event,
    Invite,
    Item,
    ItemResponse,
    Judgment,
    LoginSession,
    Membership,
    PendingReply,
    Project,
    Prompt,
    Response,
    Review,
    Slot,
    Turn,
    User,
)

__all__ = ["Forgotten", "enforce_retention", "forget"]

DAY_MS = 86_400_000
FORGOTTEN = "forgotten-"  # begins the hash of a text that was erased


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """What was erased, in numbers, and the exports made before: those are out of the store's reach.

    Attributes:
        bodies: texts of theirs.
        contents: prompts and responses they wrote; the items made of them are withdrawn.
        judgments: deleted, in projects that promise so.
        exports: ids of the events of earlier exports of campaigns they worked in.
    """

    bodies: int
    contents: int
    judgments: int
    exports: tuple[str, ...]


def forget(session: Session, *, user_id: str, now: int) -> Forgotten:
    """Erase a person: handle, address, logins, drafts and every word they wrote; the pseudonym is renewed.

    In projects with `on_withdrawal: delete` their judgments go too: an offline command, since it lifts the triggers
    of append-only tables inside its transaction. What was done is an event with counts.
    """
    user = must_have(session, User, user_id)
    campaigns = _campaigns_of(session, user_id)
    user.handle, user.email, user.password_hash = f"forgotten-{blind_id()}", None, None
    user.pseudonym, user.disabled_at, user.is_admin = blind_id(), now, False
    bodies = _erase_bodies(session, select(Body.id).where(Body.author_id == user_id))
    notes = session.scalars(select(Event).where(Event.kind == "note", Event.subject == user_id)).all()
    bodies += _erase_bodies(session, select(Body.id).where(Body.id.in_([one.detail["body"] for one in notes])))
    contents = _erase_contents(session, Prompt.author_id == user_id, Response.author_id == user_id)
    session.execute(update(Conversation).where(Conversation.user_id == user_id).values(goal=None, state="withdrawn"))
    session.execute(delete(LoginSession).where(LoginSession.user_id == user_id))
    session.execute(delete(ApiToken).where(ApiToken.user_id == user_id))
    session.execute(delete(Membership).where(Membership.user_id == user_id))
    session.execute(delete(Draft).where(Draft.assignment_id.in_(_assignments(user_id))))
    theirs = select(Turn.id).join(Conversation, Conversation.id == Turn.conversation_id)
    theirs = theirs.where(Conversation.user_id == user_id)
    session.execute(delete(PendingReply).where(PendingReply.parent_id.in_(theirs)))
    held = update(Slot).where(Slot.annotator_id == user_id, Slot.state == "leased")
    session.execute(held.values(state="open", annotator_id=None, expires_at=None))
    judgments = _delete_judgments(session, user_id)
    exports = tuple(
        session.scalars(select(Event.id).where(Event.kind == "export", Event.subject.in_(campaigns)).order_by(Event.id))
    )
    write_event(session, "forgotten", user_id, actor_id=None, bodies=bodies, contents=contents, judgments=judgments)
    session.flush()
    return Forgotten(bodies=bodies, contents=contents, judgments=judgments, exports=exports)


def _assignments(user_id: str) -> Select[str]:
    return select(Assignment.id).where(Assignment.annotator_id == user_id)


def _campaigns_of(session: Session, user_id: str) -> list[str]:
    query = select(Item.campaign_id).join(Judgment, Judgment.item_id == Item.id)
    return list(session.scalars(query.where(Judgment.annotator_id == user_id).distinct()))


def _erase_bodies(session: Session, query: Select[str]) -> int:
    erased = update(Body).where(Body.id.in_(query), Body.text.is_not(None)).values(text=None).returning(Body.id)
    return len(session.execute(erased.execution_options(synchronize_session=False)).all())


def _erase_contents(session: Session, prompts_: ColumnElement[bool], responses_: ColumnElement[bool]) -> int:
    """Empty prompts and responses, give them hashes no text has, and withdraw what is made of them."""
    prompts = session.scalars(select(Prompt).where(prompts_)).all()
    responses = session.scalars(select(Response).where(responses_)).all()
    for prompt in prompts:
        prompt.messages, prompt.content_hash = [], f"{FORGOTTEN}{prompt.id}"
    for response in responses:
        response.text, response.content_hash = None, f"{FORGOTTEN}{response.id}"
    session.flush()
    made = select(ItemResponse.item_id).where(ItemResponse.response_id.in_([response.id for response in responses]))
    items = update(Item).where(Item.prompt_id.in_([prompt.id for prompt in prompts]) | Item.id.in_(made))
    session.execute(items.values(state="withdrawn").execution_options(synchronize_session=False))
    return len(prompts) + len(responses)


def _delete_judgments(session: Session, user_id: str) -> int:
    promised = (
        select(Judgment.id)
        .join(Item, Item.id == Judgment.item_id)
        .join(Campaign, Campaign.id == Item.campaign_id)
        .join(Project, Project.id == Campaign.project_id)
        .where(Judgment.annotator_id == user_id, Project.on_withdrawal == "delete")
    )
    ids = list(session.scalars(promised))
    if ids:
        with _lifted(session, "review", "judgment"):
            session.execute(delete(Review).where(Review.judgment_id.in_(ids)))
            session.execute(delete(Judgment).where(Judgment.id.in_(ids)))
    return len(ids)


@contextmanager
def _lifted(session: Session, *tables: str) -> Iterator[None]:
    """Lift the triggers of append-only tables; they are back before the transaction ends, whatever happens in it."""
    if session.get_bind().dialect.name == "postgresql":
        for table in tables:
            session.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
        yield
        for table in tables:
            session.execute(text(f"ALTER TABLE {table} ENABLE TRIGGER USER"))
        return
    triggers = session.execute(
        text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name IN (:first, :second)"),
        {"first": tables[0], "second": tables[-1]},
    ).all()
    for name, _ in triggers:
        session.execute(text(f"DROP TRIGGER {name}"))
    yield
    for _, sql in triggers:
        session.connection().exec_driver_sql(sql)


def enforce_retention(session: Session, *, now: int) -> int:
    """Erase the texts that are older than their project's `retention_days`, and logins that have ended; nightly.

    That is every word people wrote: with judgments, in conversations and what is made of them for others to rate, in
    reviews, notes and drafts.

    Returns: number of texts erased.
    """
    total = 0
    for project in session.scalars(select(Project).where(Project.retention_days.is_not(None))).all():
        total += _erase_older(session, project.id, now - (project.retention_days or 0) * DAY_MS)
    session.execute(delete(LoginSession).where(LoginSession.expires_at < now))
    session.execute(delete(Invite).where(Invite.expires_at < now, Invite.used_by.is_(None)))
    if total:
        write_event(session, "retention", "store", actor_id=None, texts=total)
    session.flush()
    return total


def _erase_older(session: Session, project_id: str, before: int) -> int:
    """Erase what people wrote in a project before a time; return how many texts that were."""
    campaigns = select(Campaign.id).where(Campaign.project_id == project_id)
    total = sum(_erase_bodies(session, query.where(Body.created_at < before)) for query in _bodies_of(project_id))
    given = select(Assignment.id).join(Item, Item.id == Assignment.item_id).where(Item.campaign_id.in_(campaigns))
    drafts = delete(Draft).where(Draft.assignment_id.in_(given), Draft.updated_at < before)
    total += len(session.execute(drafts.returning(Draft.assignment_id)).all())
    goals = update(Conversation).where(Conversation.campaign_id.in_(campaigns), Conversation.created_at < before)
    goals = goals.where(Conversation.goal.is_not(None)).values(goal=None).returning(Conversation.id)
    total += len(session.execute(goals).all())
    prompts = select(Prompt.id).where(Prompt.project_id == project_id)
    return total + _erase_contents(
        session,
        and_(
            Prompt.project_id == project_id,
            Prompt.author_id.is_not(None),
            Prompt.created_at < before,
            Prompt.content_hash.not_like(f"{FORGOTTEN}%"),
        ),
        and_(
            Response.prompt_id.in_(prompts),
            Response.author_id.is_not(None),
            Response.created_at < before,
            Response.text.is_not(None),
        ),
    )


def _bodies_of(project_id: str) -> tuple[Select[str], ...]:
    """Queries for the bodies of a project: of its judgments, turns, reviews and notes."""
    campaigns = select(Campaign.id).where(Campaign.project_id == project_id)
    items = select(Item.id).where(Item.campaign_id.in_(campaigns))
    judgments = select(Judgment.id).where(Judgment.item_id.in_(items))
    conversations = select(Conversation.id).where(Conversation.campaign_id.in_(campaigns))
    notes = select(Event.detail["body"].as_string()).where(Event.kind == "note")
    return (
        select(Body.id).where(Body.id.in_(notes.where(Event.detail["campaign"].as_string().in_(campaigns)))),
        select(Body.id).where(Body.id.in_(select(Judgment.body_id).where(Judgment.item_id.in_(items)))),
        select(Body.id).where(Body.id.in_(select(Turn.body_id).where(Turn.conversation_id.in_(conversations)))),
        select(Body.id).where(
            Body.id.in_(
                select(PendingReply.body_id)
                .join(Turn, Turn.id == PendingReply.parent_id)
                .where(Turn.conversation_id.in_(conversations))
            )
        ),
        select(Body.id).where(
            Body.id.in_(select(Review.body_id).where(Review.item_id.in_(items) | Review.judgment_id.in_(judgments)))
        ),
    )
