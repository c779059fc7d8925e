"""Review: judgments of an item side by side, without names; decide, send back, grade, or make a gold item of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from accord.feedback.analysis.consensus import ItemConsensus
from accord.feedback.store import MissingError, NewItem, add_items, add_review, restore_item
from accord.feedback.store.order import display_order
from accord.feedback.store.queries.administration import Answer, answers_of, ungraded
from accord.feedback.store.queries.common import must_have
from accord.feedback.store.tables import Campaign, Guideline, Item, ItemResponse, Judgment, Prompt, Review
from accord.feedback.store.tables import Response as Said
from accord.feedback.studio.access import may_administer_campaign, may_review
from accord.feedback.studio.context import Form, Me, Studio, StudioOf
from accord.feedback.studio.forms import payload_of
from accord.feedback.studio.pages.task import LABELS, filled
from accord.feedback.studio.rendering import anchors
from accord.feedback.studio.view import page, redirect
from accord.records import Message

__all__ = ["router"]

router = APIRouter(prefix="/review")

ADJUDICATED = ("rank", "pairwise", "winrate", "attributes", "labels")  # tasks whose answer a reviewer can give


@dataclass(frozen=True, kw_only=True)
class _Text:
    id: str
    text: str


@dataclass(frozen=True, kw_only=True)
class _Case:
    """An item with what was said of it. `responses` are in the reviewer's own order, as an annotator's would be."""

    item: Item
    prompt: tuple[Message, ...]
    language: str | None
    responses: tuple[_Text, ...]
    answers: list[Answer]
    decision: dict[str, Any] | None


@router.get("/{campaign_id}")
def show_queue(request: Request, studio: StudioOf, me: Me, campaign_id: str) -> Response:
    """What is most disputed first; what waits for a grade; what is held because of personal data."""
    campaign = studio.store.read(may_review, me.user_id, campaign_id)
    material, report = studio.reports.of(studio.store, campaign_id)
    rows: list[tuple[ItemConsensus, str]] = [
        (one, material.contents[one.item_id].prompt[-1].content)
        for one in sorted(report.consensus, key=lambda one: (-one.disagreement, one.item_id))
        if one.item_id in material.contents
    ]
    return page(
        request,
        "review.html",
        campaign=campaign,
        rows=rows[:100],
        decided=set(material.adjudicated),
        grading=studio.store.read(ungraded, campaign_id) if campaign.task_type == "demonstrate" else [],
        held=studio.store.read(_held, campaign_id),
    )


def _held(session: Session, campaign_id: str) -> list[tuple[Item, Prompt]]:
    query = select(Item, Prompt).join(Prompt, Prompt.id == Item.prompt_id)
    query = query.where(Item.campaign_id == campaign_id, Item.state == "withdrawn").limit(50)
    return [(item, prompt) for item, prompt in session.execute(query)]


@router.get("/{campaign_id}/{item_id}")
def show_case(request: Request, studio: StudioOf, me: Me, campaign_id: str, item_id: str) -> Response:
    """One item with all that was said of it."""
    campaign = studio.store.read(may_review, me.user_id, campaign_id)
    return _case_page(request, studio, me, campaign, item_id)


def _case_page(
    request: Request,
    studio: Studio,
    me: Me,
    campaign: Campaign,
    item_id: str,
    fields: dict[str, str] | None = None,
    error: str | None = None,
) -> Response:
    case = studio.store.read(_case, campaign, item_id, me.user_id)
    return page(
        request,
        "review_case.html",
        status=400 if error else 200,
        campaign=campaign,
        case=case,
        task=case,
        kind="pairwise" if campaign.task_type == "winrate" else campaign.task_type,
        adjudicates=campaign.task_type in ADJUDICATED,
        labels=LABELS,
        anchors=anchors(studio.store.read(must_have, Guideline, campaign.guideline_id).markdown),
        fields=fields or {},
        error=error,
    )


def _case(session: Session, campaign: Campaign, item_id: str, user_id: str) -> _Case:
    item = must_have(session, Item, item_id)
    if item.campaign_id != campaign.id:
        raise MissingError("there is no such item in this campaign")
    query = select(Said.id, Said.text).join(ItemResponse, ItemResponse.response_id == Said.id)
    texts = dict(session.execute(query.where(ItemResponse.item_id == item_id)).all())
    order = display_order(campaign.secret, item_id, user_id, sorted(texts))
    last = select(Review.payload).where(Review.item_id == item_id).order_by(Review.created_at.desc()).limit(1)
    prompt = must_have(session, Prompt, item.prompt_id)
    return _Case(
        item=item,
        prompt=tuple(Message.model_validate(one) for one in prompt.messages),
        language=prompt.language,
        responses=tuple(_Text(id=one, text=texts[one] or "") for one in order),
        answers=[_in_order(one, order) for one in answers_of(session, item_id)],
        decision=session.scalar(last),
    )


def _in_order(answer: Answer, order: list[str]) -> Answer:
    """The answer in the letters of this page, not in those its author saw."""
    return replace(answer, display_order=order)


@router.post("/{campaign_id}/{item_id}/adjudicate")
def adjudicate(request: Request, studio: StudioOf, me: Me, campaign_id: str, item_id: str, form: Form) -> Response:
    """Give the item's answer; it wins over all others in consensus, which says so."""
    campaign = studio.store.read(may_review, me.user_id, campaign_id)
    case = studio.store.read(_case, campaign, item_id, me.user_id)
    fields, reason = filled(form), str(form.get("why", "")).strip()
    try:
        if not reason:
            raise ValueError("a decision has to have a reason; write it")
        payload = payload_of(campaign.task_type, fields, [one.id for one in case.responses])
        studio.store.run(
            add_review,
            reviewer_id=me.user_id,
            decision="adjudicate",
            reason=reason,
            item_id=item_id,
            payload=payload,
        )
    except ValueError as error:
        return _case_page(request, studio, me, campaign, item_id, fields, str(error))
    return redirect(f"/review/{campaign_id}", done="reviewed")


@router.post("/{campaign_id}/judgment/{judgment_id}")
def decide(studio: StudioOf, me: Me, campaign_id: str, judgment_id: str, form: Form) -> Response:
    """Accept a judgment or reject it, with a reason; grades qualifications in words."""
    studio.store.read(may_review, me.user_id, campaign_id)
    item = studio.store.read(_item_of, judgment_id, campaign_id)
    studio.store.run(
        add_review,
        reviewer_id=me.user_id,
        decision=str(form.get("decision", "")),
        reason=str(form.get("reason", "")).strip() or "no reason given",
        judgment_id=judgment_id,
    )
    back = f"/review/{campaign_id}" if form.get("back") == "queue" else f"/review/{campaign_id}/{item}"
    return redirect(back, done="reviewed")


def _item_of(session: Session, judgment_id: str, campaign_id: str) -> str:
    item = must_have(session, Item, must_have(session, Judgment, judgment_id).item_id)
    if item.campaign_id != campaign_id:
        raise MissingError("there is no such judgment in this campaign")
    return item.id


@router.post("/{campaign_id}/{item_id}/gold")
def make_gold(studio: StudioOf, me: Me, campaign_id: str, item_id: str, form: Form) -> Response:
    """Make a gold item of a decided one: others get it mixed in, with the reviewer's answer as the known one."""
    studio.store.read(may_administer_campaign, me.user_id, campaign_id)
    studio.store.run(_make_gold, campaign_id, item_id, str(form.get("explanation", "")).strip() or None)
    return redirect(f"/review/{campaign_id}/{item_id}", done="added")


def _make_gold(session: Session, campaign_id: str, item_id: str, explanation: str | None) -> None:
    item = must_have(session, Item, item_id)
    last = select(Review.payload).where(Review.item_id == item_id, Review.decision == "adjudicate")
    payload = session.scalar(last.order_by(Review.created_at.desc()).limit(1))
    if item.campaign_id != campaign_id or payload is None:
        raise ValueError("only an item with a reviewer's decision can become a gold item; decide it first")
    query = select(ItemResponse.response_id).where(ItemResponse.item_id == item_id).order_by(ItemResponse.position)
    responses = tuple(session.scalars(query))
    known = {name: value for name, value in payload.items() if name in ("ranks", "choice", "both_failed", "responses")}
    gold = NewItem(
        prompt_id=item.prompt_id,
        response_ids=responses,
        kind="gold",
        expected=known or {name: value for name, value in payload.items() if value is not None and name != "schema"},
        explanation=explanation,
    )
    add_items(session, campaign_id=campaign_id, items=[gold])


@router.post("/{campaign_id}/{item_id}/restore")
def restore(studio: StudioOf, me: Me, campaign_id: str, item_id: str, form: Form) -> Response:
    """Put a held item back into the queue."""
    studio.store.read(may_review, me.user_id, campaign_id)
    if studio.store.read(must_have, Item, item_id).campaign_id != campaign_id:
        raise MissingError("there is no such item in this campaign")
    studio.store.run(restore_item, item_id=item_id, actor_id=me.user_id)
    return redirect(f"/review/{campaign_id}", done="saved")
