"""What was said: verdicts with who said them, and the texts they are about. What statistics and exports read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from sqlalchemy import select
from sqlalchemy.orm import Session

from accord.feedback.store.payloads import ranks_of
from accord.feedback.store.queries.common import must_have
from accord.feedback.store.queries.foreign import IMPORTED
from accord.feedback.store.queries.projects import LastSaid, last_said
from accord.feedback.store.tables import (
    Body,
    Campaign,
    Exclusion,
    Guideline,
    Item,
    ItemResponse,
    Judge,
    Judgment,
    LanguageModel,
    Project,
    Prompt,
    Response,
    Review,
    User,
)
from accord.records import Conversation, Message

__all__ = ["Content", "Verdict", "adjudications", "contents", "covers", "verdicts"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A judgment as statistics and exports need it.

    Attributes:
        annotator: pseudonym of a person, or id of a judge.
        source: human, ai or rule.
        judge: name, revision and prompt of a model or rule; None of a person.
        words: what was written; None: nothing, or forgotten.
        ranks: response id -> place, None failed; None: a skip, or a task without ranks.
        guideline: version that was followed; None: none was.
        arm: random or selected: how the item came to its place in the queue.
        excluded: an exclusion is in force on it.
        withdrawn: what its author has taken back with their consent: the words, or in a project that promises so the
            verdict with them.
        session: the login or token it came from, for what is too much from one; None: not known.
        trains: its author agreed that models are trained on what they write.
    """

    judgment_id: str
    item_id: str
    kind: str
    arm: str
    annotator: str
    source: str
    judge: tuple[str, str, str] | None
    revision: int
    payload: Mapping[str, Any]
    words: str | None
    ranks: Mapping[str, int | None] | None
    display_order: tuple[str, ...]
    guideline: str | None
    started_at: int
    submitted_at: int
    active_ms: int | None
    counted: bool
    excluded: bool
    withdrawn: Literal["words", "verdict"] | None = None
    trains: bool = True
    session: str | None = None


@dataclass(frozen=True, kw_only=True)
class Content:
    """The texts of an item. `responses` are in the item's own order, which nobody was shown.

    Attributes:
        name: what the item was called where it comes from, or its id.
        prompt_hash: of the messages.
        responses: response id -> text; None: forgotten.
        names: response id -> what it was called where it comes from, or its id.
        models: response id -> model and revision, None: a person or unknown.
    """

    item_id: str
    name: str
    prompt_id: str
    prompt_hash: str
    group: str | None
    prompt: Conversation
    responses: Mapping[str, str | None]
    names: Mapping[str, str]
    models: Mapping[str, str | None]


def verdicts(
    session: Session,
    *,
    campaign_id: str,
    kinds: Collection[str] = ("normal",),
    sources: Collection[str] = ("human", "ai", "rule"),
    include_excluded: bool = False,
    include_surplus: bool = False,
    include_withdrawn: bool = False,
    all_revisions: bool = False,
) -> list[Verdict]:
    """Read the judgments of a campaign, oldest first.

    Args:
        session: of the transaction.
        campaign_id: which.
        kinds: of items: normal, gold, attention, qualification.
        sources: human, ai, rule.
        include_excluded: those of excluded annotators too, marked.
        include_surplus: late ones whose place was taken, and skips, too.
        include_withdrawn: those that were taken back with consent too, marked; their words are never read.
        all_revisions: earlier revisions too; else the latest one of each annotator and item.
    """
    campaign = must_have(session, Campaign, campaign_id)
    rows = session.execute(
        select(Judgment, Item, User.pseudonym, Body.text, Guideline, Judge, LanguageModel)
        .join(Item, Item.id == Judgment.item_id)
        .outerjoin(User, User.id == Judgment.annotator_id)
        .outerjoin(Body, Body.id == Judgment.body_id)
        .outerjoin(Guideline, Guideline.id == Judgment.guideline_id)
        .outerjoin(Judge, Judge.id == Judgment.judge_id)
        .outerjoin(LanguageModel, LanguageModel.id == Judge.model_id)
        .where(Item.campaign_id == campaign_id, Item.kind.in_(kinds), Judgment.source.in_(sources))
        .order_by(Judgment.submitted_at, Judgment.id)
    )
    exclusions = session.scalars(select(Exclusion).where(Exclusion.reversed_at.is_(None))).all()
    people = last_said(session, campaign.project_id)
    takes = _taken_back(session, campaign)
    kept: dict[tuple[str, str, int], Verdict] = {}
    for judgment, item, pseudonym, words, guideline, judge, model in rows:
        said = people.get(judgment.annotator_id or "", _NOTHING)
        verdict = Verdict(
            judgment_id=judgment.id,
            item_id=item.id,
            kind=item.kind,
            arm=item.arm,
            annotator=pseudonym or str(judgment.judge_id),
            source=judgment.source,
            judge=None if judge is None or model is None else (model.name, model.revision, judge.prompt),
            revision=judgment.revision,
            payload=judgment.payload,
            words=None if said.withdrawn else words,
            ranks=ranks_of(campaign.task_type, judgment.payload, list(judgment.display_order)),
            display_order=tuple(judgment.display_order),
            guideline=None if guideline is None else _guideline_name(guideline),
            started_at=judgment.started_at,
            submitted_at=judgment.submitted_at,
            active_ms=judgment.active_ms,
            counted=judgment.counted,
            excluded=any(
                covers(exclusion, judgment.annotator_id, campaign_id, judgment.submitted_at) for exclusion in exclusions
            ),
            withdrawn=takes if said.withdrawn else None,
            trains=said.trains,
            session=judgment.session_id,
        )
        key = (item.id, verdict.annotator, judgment.revision if all_revisions else 0)
        if key not in kept or kept[key].revision < verdict.revision:
            kept[key] = verdict
    return [
        verdict
        for verdict in kept.values()
        if (include_excluded or not verdict.excluded)
        and (include_surplus or verdict.counted)
        and (include_withdrawn or verdict.withdrawn != "verdict")
    ]


_NOTHING = LastSaid(withdrawn=False, trains=True)  # of a model, or of someone who was never asked


def _taken_back(session: Session, campaign: Campaign) -> Literal["words", "verdict"]:
    """What goes with a consent that is withdrawn."""
    deletes = must_have(session, Project, campaign.project_id).on_withdrawal == "delete"
    return "verdict" if deletes else "words"


def _guideline_name(guideline: Guideline) -> str:
    """Its version here, or what it was called where it was imported from."""
    return guideline.note.removeprefix(IMPORTED) if guideline.note.startswith(IMPORTED) else str(guideline.version)


def covers(exclusion: Exclusion, annotator_id: str | None, campaign_id: str, at: int) -> bool:
    """Whether an exclusion is about what a person did at a time in a campaign."""
    return (
        exclusion.annotator_id == annotator_id
        and exclusion.campaign_id in (None, campaign_id)
        and (exclusion.since is None or exclusion.since <= at)
        and (exclusion.until is None or at < exclusion.until)
    )


def contents(session: Session, *, campaign_id: str) -> dict[str, Content]:
    """Item id -> its texts, for all items of a campaign that have any.

    An item whose prompt is forgotten has none. What was written by someone who has withdrawn their consent is not read.
    """
    campaign = must_have(session, Campaign, campaign_id)
    gone = {one for one, said in last_said(session, campaign.project_id).items() if said.withdrawn}
    texts: dict[str, list[_Text]] = {}
    rows = session.execute(
        select(ItemResponse, Response, LanguageModel)
        .join(Item, Item.id == ItemResponse.item_id)
        .join(Response, Response.id == ItemResponse.response_id)
        .outerjoin(LanguageModel, LanguageModel.id == Response.model_id)
        .where(Item.campaign_id == campaign_id)
        .order_by(ItemResponse.item_id, ItemResponse.position)
    )
    for link, response, model in rows:
        name = None if model is None else f"{model.name}@{model.revision}" if model.revision else model.name
        text = None if response.author_id in gone else response.text
        texts.setdefault(link.item_id, []).append((link, response, text, name))
    items = session.execute(
        select(Item, Prompt).join(Prompt, Prompt.id == Item.prompt_id).where(Item.campaign_id == campaign_id)
    )
    return {
        item.id: _content(item, prompt, texts.get(item.id, []))
        for item, prompt in items
        if prompt.messages and prompt.author_id not in gone
    }


_Text: TypeAlias = tuple[ItemResponse, Response, str | None, str | None]  # with its words, and its model


def _content(item: Item, prompt: Prompt, texts: Sequence[_Text]) -> Content:
    return Content(
        item_id=item.id,
        name=item.source_ref or item.id,
        prompt_id=prompt.id,
        prompt_hash=prompt.content_hash,
        group=prompt.group,
        prompt=tuple(Message.model_validate(message) for message in prompt.messages),
        responses={response.id: text for _, response, text, _ in texts},
        names={response.id: link.name or response.id for link, response, _, _ in texts},
        models={response.id: model for _, response, _, model in texts},
    )


def adjudications(session: Session, *, campaign_id: str) -> dict[str, Mapping[str, Any]]:
    """Item id -> payload of its last adjudication, which wins over every consensus."""
    query = (
        select(Review.item_id, Review.payload)
        .join(Item, Item.id == Review.item_id)
        .where(Item.campaign_id == campaign_id, Review.decision == "adjudicate")
        .order_by(Review.created_at, Review.id)
    )
    rows = session.execute(query)
    return {item: payload for item, payload in rows if item is not None and payload is not None}
