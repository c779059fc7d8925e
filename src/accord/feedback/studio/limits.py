"""Limits of how often: failed logins, and requests of one session. Addresses are kept as keyed hashes, in memory."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections import deque
from dataclasses import dataclass, field

__all__ = ["Limits"]

WINDOW_MS = 15 * 60_000  # failures are looked back on this long
FREE_FAILURES = 5
LONGEST_WAIT_MS = 15 * 60_000
MINUTE_MS = 60_000
DAY_MS = 24 * 3600_000


@dataclass
class _Failures:
    times: deque[int] = field(default_factory=deque)


class Limits:
    """Counts in the memory of one server process, under a key that dies with it.

    Args:
        requests_per_minute: of one session.
    """

    def __init__(self, requests_per_minute: int) -> None:
        self._per_minute = requests_per_minute
        self._key = secrets.token_bytes(32)
        self._failures: dict[str, _Failures] = {}
        self._requests: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def _name(self, kind: str, subject: str) -> str:
        return hmac.new(self._key, f"{kind}:{subject}".encode(), hashlib.sha256).hexdigest()

    def login_wait(self, account: str, address: str, now: int) -> int:
        """Milliseconds until a login may be tried: 0 for five failures in 15 minutes, then 1 s, 2 s, 4 s, ... 15 min.

        Of an account and of an address alike; the wait ends by itself, so nobody can lock an account for good.
        """
        with self._lock:
            names = self._name("account", account.casefold()), self._name("address", address)
            return max(self._wait(self._failures.get(name), now) for name in names)

    def _wait(self, failures: _Failures | None, now: int) -> int:
        if failures is None:
            return 0
        while failures.times and failures.times[0] <= now - WINDOW_MS:
            failures.times.popleft()
        over = len(failures.times) - FREE_FAILURES
        if over < 0:
            return 0
        wait: int = min(1000 * 2 ** min(over, 20), LONGEST_WAIT_MS)
        return min(wait, max(0, failures.times[-1] + wait - now))

    def login_try(self, account: str, address: str, now: int) -> int:
        """Milliseconds until a login may be tried; at 0 this one is counted as failed until `login_succeeded`.

        Checking a password takes a while: counted afterwards, a hundred guesses at once would all be free.
        """
        with self._lock:
            names = self._name("account", account.casefold()), self._name("address", address)
            wait = max(self._wait(self._failures.get(name), now) for name in names)
            if not wait:
                self._forget(now)
                for name in names:
                    self._failures.setdefault(name, _Failures()).times.append(now)
            return wait

    def login_succeeded(self, account: str, address: str) -> None:
        """Start again for the account; the address keeps its failures, so one own account does not buy more guesses."""
        with self._lock:
            self._failures.pop(self._name("account", account.casefold()), None)
            tried = self._failures.get(self._name("address", address))
            if tried is not None and tried.times:
                tried.times.pop()  # this very try

    def _forget(self, now: int) -> None:
        old = [name for name, one in self._failures.items() if not one.times or one.times[-1] <= now - DAY_MS]
        for name in old:
            del self._failures[name]

    def request_wait(self, session: str, now: int) -> int:
        """Count a request; milliseconds until it would be allowed, 0: it is (a bucket that refills evenly)."""
        with self._lock:
            left, at = self._requests.get(session, (float(self._per_minute), now))
            past = max(0, now - at)  # a clock that is turned back must not cost anything
            left = min(float(self._per_minute), left + past * self._per_minute / MINUTE_MS)
            if left < 1:
                self._requests[session] = (left, now)
                return int((1 - left) * MINUTE_MS / self._per_minute) + 1
            self._requests[session] = (left - 1, now)
            if len(self._requests) > 10_000:
                self._requests = {n: v for n, v in self._requests.items() if v[1] > now - MINUTE_MS}
            return 0
