"""A selection of the map as items of a campaign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy.orm import Session

from accord.feedback.explore.exploration import Point
from accord.feedback.store import Gathered, ImportReport, Store, import_records
from accord.feedback.store.queries.common import must_have
from accord.feedback.store.tables import Campaign
from accord.records import Response

__all__ = ["TASKS", "fill_campaign"]

TASKS = ("demonstrate", "labels", "attributes")
"""Kinds of task that need no more responses than a log has. Others take those of `accord feedback sample`."""


def fill_campaign(
    store: Store, points: Sequence[Point], names: Mapping[int, str], *, campaign_id: str, source: str = "explorer"
) -> ImportReport:
    """Make items of conversations: what came before the last response, and that response where the task has one.

    Args:
        store: where to.
        points: the selection, see `choose`; personal data was replaced when it was explored.
        names: of the clusters, which become groups of prompts.
        campaign_id: of a campaign of one of `TASKS`.
        source: where the prompts come from.

    Raises:
        ValueError: the task needs other responses, or no conversation has one.
    """
    task = store.read(_task, campaign_id)
    if task not in TASKS:
        raise ValueError(
            f"a {task} task compares responses, and a log has one; expected {', '.join(TASKS)}; export the selection "
            "and fill the campaign with `accord feedback sample`"
        )
    rows = [_gathered(point, names) for point in points]
    rows = rows if task == "demonstrate" else [row for row in rows if row.responses]
    if not rows:
        raise ValueError(f"none of the {len(points)} conversations has a response to judge; choose demonstrate")
    return import_records(store, rows, campaign_id=campaign_id, source=source, screen="off")


def _task(session: Session, campaign_id: str) -> str:
    return must_have(session, Campaign, campaign_id).task_type


def _gathered(point: Point, names: Mapping[int, str]) -> Gathered:
    log = point.log
    last = max((place for place, turn in enumerate(log.messages) if turn.role == "assistant"), default=0)
    said = (Response(id="logged", text=log.messages[last].content, model=log.model),) if last else ()
    return Gathered(
        name=log.id,
        prompt=log.messages[:last] if last else log.messages,
        responses=said,
        group=names.get(point.cluster, str(point.cluster)),
        language=log.language,
    )
