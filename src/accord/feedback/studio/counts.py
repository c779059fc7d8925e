"""How far campaigns are, counted in the background: a task page costs the same in a campaign of any size.

A count reads every slot of a campaign. It is taken from the database each time, never added up, so whatever happens at
once it is right for the moment it was taken; pages show it up to `FRESH_SECONDS` later. What people did themselves, and
the pages of admins, are counted on the spot.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from sqlalchemy.orm import Session

from accord.feedback.store import Store
from accord.feedback.store.queries.overview import progress

__all__ = ["FRESH_SECONDS", "Counts"]

FRESH_SECONDS = 30.0  # `renew` is called every 10 s; where nobody calls it a page counts for itself after this long
FORGET_SECONDS = 300.0  # a campaign nobody has asked for is not counted in the background


class Counts:
    """Campaign -> slots of its normal items, and how many are filled."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._kept: dict[str, tuple[float, tuple[int, int]]] = {}  # when it was counted, and the count
        self._asked: dict[str, float] = {}

    def of(self, session: Session, campaign_id: str) -> tuple[int, int]:
        """(slots, filled) of a campaign, at most `FRESH_SECONDS` old."""
        now = self._clock()
        with self._lock:
            self._asked[campaign_id] = now
            kept = self._kept.get(campaign_id)
        if kept is not None and now - kept[0] < FRESH_SECONDS:
            return kept[1]
        return self._count(session, campaign_id)

    def renew(self, store: Store) -> None:
        """Count the campaigns that pages have asked for lately again."""
        now = self._clock()
        with self._lock:
            asked = [one for one, at in self._asked.items() if now - at < FORGET_SECONDS]
            self._asked = {one: self._asked[one] for one in asked}
            self._kept = {one: kept for one, kept in self._kept.items() if one in self._asked}
        for campaign_id in asked:
            store.read(self._count, campaign_id)

    def _count(self, session: Session, campaign_id: str) -> tuple[int, int]:
        began = self._clock()
        found = progress(session, campaign_id)
        with self._lock:
            if campaign_id not in self._kept or self._kept[campaign_id][0] <= began:
                self._kept[campaign_id] = began, found
        return found
