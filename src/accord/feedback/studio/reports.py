"""Reports of campaigns, computed once per state of the evidence: a page that is looked at often costs nothing."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from accord.feedback.analysis.material import Material, gather
from accord.feedback.analysis.report import CampaignReport, analyse
from accord.feedback.store import Store
from accord.feedback.store.tables import Consent, Event, Exclusion, Item, Judgment, Review

__all__ = ["Reports", "as_csv"]

# What changes texts, settings or the order of items. A report holds words: those that were erased must not stay in it.
_CHANGES = ("forgotten", "retention", "campaign", "prioritised", "rewards", "item withdrawn", "item restored")
KEPT = 16  # campaigns whose report is kept


@dataclass
class Reports:
    """A cache by campaign and by all that a report rests on."""

    _kept: dict[str, tuple[tuple[object, ...], Material, CampaignReport]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, store: Store, campaign_id: str) -> tuple[Material, CampaignReport]:
        """The material and the report of a campaign as it is now; two who ask at once wait for one computation."""
        with self._lock:
            state = store.read(_state, campaign_id)
            known = self._kept.get(campaign_id)
            if known is None or known[0] != state:
                material = store.read(gather, campaign_id=campaign_id)
                known = state, material, analyse(material)
                self._kept.pop(campaign_id, None)
                self._kept[campaign_id] = known
                while len(self._kept) > KEPT:
                    del self._kept[next(iter(self._kept))]
            return known[1], known[2]


def _state(session: Session, campaign_id: str) -> tuple[object, ...]:
    judgments = select(func.count(), func.max(Judgment.id)).join(Item, Item.id == Judgment.item_id)
    exclusions = select(func.count(), func.count(Exclusion.reversed_at))
    reviews = select(func.count()).select_from(Review)
    ever = select(Consent.user_id).where(Consent.action == "withdrawn")  # what they say next can change it all again
    consents = select(func.count()).select_from(Consent).where(Consent.user_id.in_(ever))
    changes = select(func.count()).select_from(Event).where(Event.kind.in_(_CHANGES))
    return (
        *session.execute(judgments.where(Item.campaign_id == campaign_id)).one(),
        *session.execute(exclusions).one(),
        session.scalar(reviews),
        session.scalar(consents),
        session.scalar(changes),
    )


def as_csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table as CSV. A cell that a spreadsheet would run as a formula gets an apostrophe in front."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerows([[_safe(cell) for cell in row] for row in (header, *rows)])
    return out.getvalue()


def _safe(cell: object) -> str:
    text = "" if cell is None else str(cell)
    if not text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text
