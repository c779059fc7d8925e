"""What is done once a night besides erasing: evidence on annotators is collected, and dated."""

from __future__ import annotations

import logging
from collections import Counter

from sqlalchemy import select
from sqlalchemy.orm import Session

from accord.feedback.store.queries.common import write_event
from accord.feedback.store.tables import Campaign, Event
from accord.feedback.studio.context import Studio

__all__ = ["collect_evidence", "last_collected"]

NIGHT_MS = 20 * 3_600_000  # the job runs daily, by a clock that may drift

log = logging.getLogger("accord.studio")


def collect_evidence(studio: Studio) -> int:
    """Compute the report of each campaign at work, and note how much evidence there is on how many; return how many.

    Who it is on stays with the report: the log has counts only. A campaign that fails is left out and is in the log,
    and one that was looked at this night is not looked at again because a server starts anew.
    """
    done = 0
    for campaign_id in studio.store.read(_at_work, studio.clock() - NIGHT_MS):
        try:
            _, report = studio.reports.of(studio.store, campaign_id)
            kinds = Counter(sign.kind for one in report.suspects for sign in one.evidence)
            counts = {"people": len(report.suspects), "flagged": sum(one.flagged for one in report.suspects)}
            studio.store.run(_note, campaign_id, counts | {"kinds": dict(sorted(kinds.items()))})
            done += 1
        except Exception:  # one campaign must not keep the others from being looked at
            log.exception("evidence of campaign %s could not be collected", campaign_id)
    return done


def _at_work(session: Session, before: int) -> list[str]:
    """Campaigns that are not over and were not looked at since."""
    lately = select(Event.id).where(Event.kind == "evidence", Event.subject == Campaign.id, Event.created_at > before)
    at_work = select(Campaign.id).where(Campaign.state.in_(("pilot", "open", "paused")), ~lately.exists())
    return list(session.scalars(at_work.order_by(Campaign.id)))


def _note(session: Session, campaign_id: str, detail: dict[str, object]) -> None:
    write_event(session, "evidence", campaign_id, actor_id=None, **detail)


def last_collected(session: Session, campaign_id: str) -> Event | None:
    """The last time evidence of a campaign was collected by night."""
    query = select(Event).where(Event.kind == "evidence", Event.subject == campaign_id)
    return session.scalar(query.order_by(Event.created_at.desc(), Event.id.desc()).limit(1))
