"""Campaigns and their items, and the queue they are served in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from accord.feedback.store.grading import check_expected
from accord.feedback.store.ids import content_hash, new_id, now_ms
from accord.feedback.store.order import ON_DEMAND, is_random, places, queue_number
from accord.feedback.store.queries.common import must_have, write_event
from accord.feedback.store.settings import CampaignSettings
from accord.feedback.store.tables import Campaign, Guideline, Item, ItemResponse, Judgment, Prompt, Response, Slot

__all__ = [
    "NewItem",
    "add_campaign",
    "add_items",
    "change_campaign",
    "change_surroundings",
    "check_item",
    "prioritise",
    "requeue",
    "reserve_slots",
    "restore_item",
    "withdraw_item",
]


@dataclass(frozen=True, kw_only=True)
class NewItem:
    """An item to be added. Example: `NewItem(prompt_id="p", response_ids=("a", "b"))`.

    Attributes:
        prompt_id: the prompt.
        response_ids: its responses to judge; none for a demonstration.
        names: what the responses were called where they come from; exports call them so again.
        kind: normal, gold, attention or qualification.
        expected: the known answer of the other kinds, a payload by response id.
        explanation: what an annotator is told of it afterwards.
        source_ref: what the item was called where it comes from.
        priority: high ones are served first.
    """

    prompt_id: str
    response_ids: tuple[str, ...] = ()
    names: tuple[str, ...] | None = None
    kind: str = "normal"
    expected: Mapping[str, Any] | None = None
    explanation: str | None = None
    source_ref: str | None = None
    priority: float = 0.0

    def content(self) -> str:
        """Hash that tells two items of a campaign apart."""
        return content_hash([self.prompt_id, sorted(self.response_ids), self.kind])


def add_campaign(
    session: Session,
    *,
    project_id: str,
    name: str,
    task_type: str,
    guideline_id: str,
    overlap: int,
    settings: CampaignSettings | None = None,
    lease_minutes: int = 30,
) -> Campaign:
    """Add a campaign in state draft.

    Raises:
        ValueError: the guideline belongs to another project.
    """
    if must_have(session, Guideline, guideline_id).project_id != project_id:
        raise ValueError("the guideline belongs to another project; expected one of this project; add it there")
    campaign = Campaign(
        project_id=project_id,
        name=name,
        task_type=task_type,
        guideline_id=guideline_id,
        overlap=overlap,
        settings=(settings or CampaignSettings()).model_dump(),
        lease_minutes=lease_minutes,
    )
    session.add(campaign)
    session.flush()
    return campaign


def change_campaign(
    session: Session,
    *,
    campaign_id: str,
    actor_id: str | None,
    state: str | None = None,
    overlap: int | None = None,
    guideline_id: str | None = None,
    settings: CampaignSettings | None = None,
) -> Campaign:
    """Change a campaign. Once it has a judgment: its state, its guideline, and its overlap upwards only; logged.

    Raises:
        ValueError: the change would make the judgments there are mean something else.
    """
    campaign = must_have(session, Campaign, campaign_id, lock=True)
    judged = session.scalar(
        select(Judgment.id).join(Item, Item.id == Judgment.item_id).where(Item.campaign_id == campaign_id).limit(1)
    )
    if judged is not None and settings is not None:
        raise ValueError("the campaign has judgments, so its settings are frozen; make a new campaign")
    if overlap is not None and overlap < campaign.overlap:
        raise ValueError(f"found overlap {overlap} under {campaign.overlap}; it can only grow; make a new campaign")
    if overlap is not None and overlap > campaign.overlap:
        _raise_overlap(session, campaign, overlap)
    if guideline_id is not None:
        if must_have(session, Guideline, guideline_id).project_id != campaign.project_id:
            raise ValueError("the guideline belongs to another project; expected one of this project")
        campaign.guideline_id = guideline_id
    campaign.state = state or campaign.state
    campaign.settings = settings.model_dump() if settings is not None else campaign.settings
    write_event(
        session, "campaign", campaign_id, actor_id=actor_id, state=state, overlap=overlap, guideline=guideline_id
    )
    session.flush()
    return campaign


def change_surroundings(
    session: Session,
    *,
    campaign_id: str,
    actor_id: str | None,
    hourly_rate: float | None = None,
    examples: Sequence[str] | None = None,
) -> None:
    """Change the price of an hour, or the examples of a campaign (None: they stay), judgments or not; logged.

    Neither says what a judgment means, so they are not frozen with the rest of the settings.
    """
    campaign = must_have(session, Campaign, campaign_id, lock=True)
    given = {"hourly_rate": hourly_rate, "examples": None if examples is None else list(examples)}
    changed = {name: value for name, value in given.items() if value not in (None, campaign.settings.get(name))}
    if changed:
        campaign.settings = CampaignSettings.model_validate({**campaign.settings, **changed}).model_dump(mode="json")
        told = {name: len(value) if isinstance(value, list) else value for name, value in changed.items()}
        write_event(session, "campaign", campaign_id, actor_id=actor_id, **told)
        session.flush()


def _raise_overlap(session: Session, campaign: Campaign, overlap: int) -> None:
    items = session.scalars(
        select(Item.id).where(Item.campaign_id == campaign.id, Item.kind == "normal", Item.state != "withdrawn")
    )
    for item in items.all():
        reserve_slots(session, item, overlap - campaign.overlap)
    campaign.overlap = overlap
    requeue(session, campaign.id)


def reserve_slots(session: Session, item_id: str, count: int) -> None:
    """Ask `count` more annotators for an item; it is open again."""
    item = must_have(session, Item, item_id, lock=True)
    last = session.scalar(select(func.max(Slot.number)).where(Slot.item_id == item_id))
    first = 0 if last is None else last + 1
    queue = session.scalar(select(func.min(Slot.queue)).where(Slot.item_id == item_id, Slot.queue != ON_DEMAND)) or 0
    session.add_all(
        Slot(item_id=item_id, campaign_id=item.campaign_id, number=number, queue=queue + number - first)
        for number in range(first, first + count)
    )
    if item.state == "done" and count:
        item.state = "open"
    session.flush()


def add_items(session: Session, *, campaign_id: str, items: Sequence[NewItem]) -> list[str]:
    """Add items and their slots; one that is there already is not added again. Return the ids, in order.

    Raises:
        ValueError: a response belongs to another prompt, or an expected answer is missing or says nothing.
    """
    campaign = must_have(session, Campaign, campaign_id)
    known = dict(session.execute(select(Item.content_hash, Item.id).where(Item.campaign_id == campaign_id)).all())
    ids = []
    for new in items:
        content = new.content()
        if content not in known:
            check_item(session, campaign, new)
            known[content] = _insert_item(session, campaign, new, content)
        ids.append(known[content])
    session.flush()
    requeue(session, campaign_id)
    return ids


def check_item(session: Session, campaign: Campaign, new: NewItem) -> None:
    """Raise ValueError unless an item fits its campaign."""
    if must_have(session, Prompt, new.prompt_id).project_id != campaign.project_id:
        raise ValueError(f"prompt {new.prompt_id} belongs to another project; expected one of the campaign's project")
    for response in new.response_ids:
        if must_have(session, Response, response).prompt_id != new.prompt_id:
            raise ValueError(f"response {response} answers another prompt; expected responses to {new.prompt_id}")
    wanted = 2 if campaign.task_type in ("pairwise", "winrate") else None
    if wanted is not None and len(new.response_ids) != wanted:
        raise ValueError(f"found {len(new.response_ids)} responses; a {campaign.task_type} task takes {wanted}")
    if new.kind != "normal":
        if new.expected is None:
            raise ValueError(f"a {new.kind} item has to have `expected`, its known answer; add it")
        check_expected(campaign.task_type, new.expected, list(new.response_ids))


def _insert_item(session: Session, campaign: Campaign, new: NewItem, content: str) -> str:
    item = Item(
        id=new_id(),
        campaign_id=campaign.id,
        prompt_id=new.prompt_id,
        content_hash=content,
        source_ref=new.source_ref,
        kind=new.kind,
        expected=None if new.expected is None else dict(new.expected),
        explanation=new.explanation,
        priority=new.priority,
    )
    session.add(item)
    session.flush()
    names = new.names or (None,) * len(new.response_ids)
    session.add_all(
        ItemResponse(item_id=item.id, response_id=response, position=position, name=name)
        for position, (response, name) in enumerate(zip(new.response_ids, names, strict=True))
    )
    if new.kind == "normal":  # the others are open to all: a slot is made for whoever gets them
        session.add_all(
            Slot(item_id=item.id, campaign_id=campaign.id, number=number, queue=number)
            for number in range(campaign.overlap)
        )
    return item.id


def requeue(session: Session, campaign_id: str) -> None:
    """Put the slots of the normal items in the order of `places`."""
    campaign = must_have(session, Campaign, campaign_id)
    rows = session.execute(
        select(Item.id, Item.priority, Item.arm).where(Item.campaign_id == campaign_id, Item.kind == "normal")
    ).all()
    random = frozenset(row.id for row in rows if row.arm == "random")
    place = places({row.id: row.priority for row in rows}, campaign.queue_seed, random)
    slots = session.execute(
        select(Slot.id, Slot.item_id, Slot.number, Slot.queue).where(
            Slot.campaign_id == campaign_id, Slot.queue != ON_DEMAND
        )
    ).all()
    moved = [
        {"id": slot.id, "queue": queue_number(place[slot.item_id], slot.number)}
        for slot in slots
        if slot.item_id in place and slot.queue != queue_number(place[slot.item_id], slot.number)
    ]
    if moved:
        session.execute(update(Slot), sorted(moved, key=lambda slot: str(slot["id"])))


def prioritise(
    session: Session,
    *,
    campaign_id: str,
    scores: Mapping[str, float],
    actor_id: str | None,
    random_share: float = 0.2,
) -> None:
    """Serve items with high scores first (see `selection`), but for a fixed share that stays random, and is marked.

    Items without a score get none of the attention: they keep priority 0. The share is drawn by a hash of the item,
    so a second call with other scores leaves the same items random; quality is measured on those.

    Raises:
        ValueError: a score belongs to no normal item of the campaign.
    """
    campaign = must_have(session, Campaign, campaign_id, lock=True)
    items = session.scalars(select(Item).where(Item.campaign_id == campaign_id, Item.kind == "normal")).all()
    unknown = scores.keys() - {item.id for item in items}
    if unknown:
        raise ValueError(f"{sorted(unknown)[0]!r} is no normal item of the campaign; expected ids of its items")
    for item in items:
        item.priority = float(scores.get(item.id, 0.0))
        item.arm = "random" if is_random(campaign.queue_seed, item.id, random_share) else "selected"
    write_event(session, "prioritised", campaign_id, actor_id=actor_id, items=len(scores), random_share=random_share)
    session.flush()
    requeue(session, campaign_id)


def restore_item(session: Session, *, item_id: str, actor_id: str | None) -> None:
    """Put a withdrawn item back: held for review, and found to be in order.

    Raises:
        ValueError: it is not withdrawn, or a text of it was erased.
    """
    item = must_have(session, Item, item_id, lock=True)
    erased = select(Response.id).join(ItemResponse, ItemResponse.response_id == Response.id)
    gone = session.scalar(erased.where(ItemResponse.item_id == item_id, Response.text.is_(None)).limit(1))
    if item.state != "withdrawn" or gone is not None or not must_have(session, Prompt, item.prompt_id).messages:
        raise ValueError(f"item {item_id} is {item.state}, or a text of it is erased; expected a withdrawn, whole item")
    left = session.scalar(select(Slot.id).where(Slot.item_id == item_id, Slot.state != "done", Slot.queue != ON_DEMAND))
    item.state = "done" if item.kind == "normal" and left is None else "open"
    write_event(session, "item restored", item_id, actor_id=actor_id)
    session.flush()


def withdraw_item(session: Session, *, item_id: str, actor_id: str | None, reason: str) -> None:
    """Take an item from the queue at once, whoever holds it; what was said of it stays."""
    item = must_have(session, Item, item_id, lock=True)
    item.state = "withdrawn"
    held = update(Slot).where(Slot.item_id == item_id, Slot.state == "leased")
    session.execute(held.values(state="open", annotator_id=None, expires_at=None))
    write_event(session, "item withdrawn", item_id, actor_id=actor_id, reason=reason, at=now_ms())
    session.flush()
