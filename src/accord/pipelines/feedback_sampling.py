"""Prompts and models -> response sets in a campaign, batch by batch; what is stored is not asked for again."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from accord.feedback.store import Gathered, Store, import_records
from accord.feedback.store.tables import Item
from accord.pipelines.feedback_data import target_campaign
from accord.pipelines.feedback_settings import FeedbackSample
from accord.protocols import Generate, Reply, Sampling
from accord.records import Conversation, Response, to_row

__all__ = ["SampleOutcome", "sample_into"]

WANTED = {"pairwise": 2, "winrate": 2, "labels": 1}


@dataclass(frozen=True, kw_only=True)
class SampleOutcome:
    """What became of the prompts: prompts = there + items + the failed ones.

    Attributes:
        campaign_id: where responses went.
        campaign: PROJECT/NAME.
        prompts: distinct ones.
        there: that had responses of these models and settings already.
        items: new ones.
        failed: prompts without an item, by reason; the same command tries them again.
        cut: responses that were cut off by length.
    """

    campaign_id: str
    campaign: str
    prompts: int
    there: int
    items: int
    failed: dict[str, int]
    cut: int


def sample_into(
    store: Store,
    config: FeedbackSample,
    prompts: Sequence[Conversation],
    models: Sequence[Generate],
    stored: Callable[[int, int], object] = lambda done, total: None,
) -> SampleOutcome:
    """Sample `config.count` responses of each model to each prompt and make items of them.

    Args:
        store: where to.
        config: campaign, number of responses, sampling.
        prompts: equal ones are one.
        models: who responds; their names stand in the store, and nowhere an annotator looks.
        stored: called with the prompts that are done, and all of them.

    Raises:
        ValueError: the task takes another number of responses.
    """
    campaign_id, name = store.run(target_campaign, config)
    task = store.read(_facts, campaign_id)
    wanted = len(models) * config.count
    if (task in WANTED and wanted != WANTED[task]) or (task == "rank" and wanted < 2):
        raise ValueError(
            f"{len(models)} models with {config.count} responses each are {wanted} responses; a {task} task takes "
            f"{WANTED.get(task, '2 or more')}; change --models or --count"
        )
    by_key = {_key(prompt, config, models): prompt for prompt in prompts}
    there = store.read(_known, campaign_id) & by_key.keys()
    todo = [(key, prompt) for key, prompt in by_key.items() if key not in there]
    failed: Counter[str] = Counter()
    items = cut = 0
    stored(len(there), len(by_key))
    for start in range(0, len(todo), config.batch):
        batch = todo[start : start + config.batch]
        replies = _replies([prompt for _, prompt in batch], config, models)
        rows = []
        for (key, prompt), found in zip(batch, replies, strict=True):
            reason = _failure(found, wanted)
            failed.update([reason] if reason else [])
            if reason is None:
                cut += sum(reply.finish == "length" for _, reply in found)
                rows.append(_gathered(key, prompt, found, config))
        report = import_records(store, rows, campaign_id=campaign_id, source="sampled", screen=config.screen)
        failed["personal data"] += report.dropped
        items += len(set(report.items))
        stored(len(there) + start + len(batch), len(by_key))
    return SampleOutcome(
        campaign_id=campaign_id,
        campaign=name,
        prompts=len(by_key),
        there=len(there),
        items=items,
        failed={reason: count for reason, count in failed.items() if count},
        cut=cut,
    )


def _facts(session: Session, campaign_id: str) -> str:
    from accord.feedback.store.queries.common import must_have
    from accord.feedback.store.tables import Campaign

    return must_have(session, Campaign, campaign_id).task_type


def _known(session: Session, campaign_id: str) -> frozenset[str]:
    return frozenset(
        name for name in session.scalars(select(Item.source_ref).where(Item.campaign_id == campaign_id)) if name
    )


def _sampling(config: FeedbackSample) -> Sampling:
    return Sampling(
        temperature=config.temperature, top_p=config.top_p, max_new_tokens=config.max_new_tokens, seed=config.seed
    )


def _key(prompt: Conversation, config: FeedbackSample, models: Sequence[Generate]) -> str:
    """Name of the item: what was asked of whom, and how."""
    asked = [[to_row(turn) for turn in prompt], [model.name for model in models], config.count, vars(_sampling(config))]
    return "sampled-" + hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:24]


_Replies = list[tuple[str, Reply]]


def _replies(prompts: Sequence[Conversation], config: FeedbackSample, models: Sequence[Generate]) -> list[_Replies]:
    """By prompt: (name of the model, reply), model after model."""
    found: list[_Replies] = [[] for _ in prompts]
    for model in models:
        for place, replies in enumerate(model(prompts, config.count, _sampling(config))):
            found[place] += [(model.name, reply) for reply in replies]
    return found


def _failure(replies: _Replies, wanted: int) -> str | None:
    error = next((reply.error or "no reply" for _, reply in replies if reply.finish == "error"), None)
    if error is not None:
        return error
    if any(not reply.text.strip() for _, reply in replies):
        return "an empty response"
    distinct = len({(name, reply.text) for name, reply in replies})
    return None if distinct == wanted else "two responses of one model are the same text"


def _gathered(key: str, prompt: Conversation, replies: _Replies, config: FeedbackSample) -> Gathered:
    sampling = {name: value for name, value in vars(_sampling(config)).items() if value != ()}
    return Gathered(
        name=key,
        prompt=prompt,
        responses=tuple(
            Response(id=str(number), text=reply.text, model=name, sampling=sampling | {"finish": reply.finish})
            for number, (name, reply) in enumerate(replies, 1)
        ),
    )
