"""What reward models say of responses: numbers, kept as they came, and read as an order of an item's responses.

A reward is no judgment: it is of a response, not of an item, and stands beside what people say of any item that has the
response, whichever of the two was there first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from accord.feedback.store.queries.common import must_have, write_event
from accord.feedback.store.queries.content import add_model
from accord.feedback.store.queries.verdicts import Verdict
from accord.feedback.store.tables import Campaign, Item, ItemResponse, LanguageModel, Reward

__all__ = ["keep_rewards", "rewarded"]


def keep_rewards(session: Session, *, campaign_id: str, model: str, rewards: Mapping[str, Mapping[str, float]]) -> int:
    """Keep the rewards of a model, in place of those it gave to the same responses before; return how many. Logged.

    Args:
        session: of the transaction.
        campaign_id: of the items.
        model: NAME or NAME@REVISION.
        rewards: item -> response -> reward, by id.

    Raises:
        ValueError: an item is none of the campaign, or a response none of the item.
    """
    must_have(session, Campaign, campaign_id)
    name, _, revision = model.partition("@")
    judge = add_model(session, name=name, revision=revision, kind="reward")
    known: dict[str, set[str]] = defaultdict(set)
    for item, response in session.execute(_links(campaign_id)):
        known[item].add(response)
    for item, given in rewards.items():
        unknown = [one for one in given if one not in known[item]]
        if item not in known or unknown:
            what = f"response {unknown[0]!r} of item {item!r}" if unknown else f"item {item!r}"
            raise ValueError(f"there is no {what} in the campaign; expected ids of its items and their responses")
    values = {response: value for given in rewards.values() for response, value in given.items()}
    for response in values:
        session.execute(delete(Reward).where(Reward.response_id == response, Reward.model_id == judge.id))
    session.add_all(Reward(response_id=one, model_id=judge.id, value=float(value)) for one, value in values.items())
    write_event(session, "rewards", campaign_id, actor_id=None, model=judge.id, responses=len(values))
    session.flush()
    return len(values)


def _links(campaign_id: str) -> Select[str, str]:
    query = select(ItemResponse.item_id, ItemResponse.response_id).join(Item, Item.id == ItemResponse.item_id)
    return query.where(Item.campaign_id == campaign_id).order_by(ItemResponse.item_id, ItemResponse.position)


def rewarded(session: Session, *, campaign_id: str) -> list[Verdict]:
    """How each model orders the responses of the normal items of which it has rewarded all; equal rewards tie."""
    responses: dict[str, list[str]] = defaultdict(list)
    for item, response in session.execute(_links(campaign_id).where(Item.kind == "normal")):
        responses[item].append(response)
    arms = dict(session.execute(select(Item.id, Item.arm).where(Item.campaign_id == campaign_id)).all())
    given: dict[str, dict[str, tuple[float, int]]] = defaultdict(dict)
    here = select(ItemResponse.response_id).join(Item, Item.id == ItemResponse.item_id)
    query = select(Reward).where(Reward.response_id.in_(here.where(Item.campaign_id == campaign_id)))
    for row in session.scalars(query):
        given[row.model_id][row.response_id] = row.value, row.created_at
    models = session.scalars(select(LanguageModel).where(LanguageModel.id.in_(list(given))))
    return [
        _verdict(model, item, arms[item], ids, given[model.id])
        for model in sorted(models, key=lambda one: (one.name, one.revision))
        for item, ids in responses.items()
        if len(ids) > 1 and all(one in given[model.id] for one in ids)
    ]


def _verdict(
    model: LanguageModel, item: str, arm: str, ids: Sequence[str], given: Mapping[str, tuple[float, int]]
) -> Verdict:
    better = {one: sum(given[other][0] > given[one][0] for other in ids) for one in ids}
    ranks = {one: better[one] + 1 for one in ids}
    at = max(given[one][1] for one in ids)
    return Verdict(
        judgment_id=f"reward:{model.id}:{item}",
        item_id=item,
        kind="normal",
        arm=arm,
        annotator=model.id,
        source="ai",
        judge=(model.name, model.revision, "reward"),
        revision=1,
        payload={"ranks": ranks},
        words=None,
        ranks=ranks,
        display_order=tuple(ids),
        guideline=None,
        started_at=at,
        submitted_at=at,
        active_ms=None,
        counted=True,
        excluded=False,
    )
