"""Requests to a model server that survive a bad moment of it.

A request that fails for reasons that pass (no connection, a time-out, 408, 409, 425, 429, 5xx) is tried again after a
random delay: uniform between 0 and min(60, 2^k) seconds before retry k = 0, 1, ... ("full jitter", Brooker 2015: so
clients that were refused together do not come back together), or what Retry-After says. One that failed `retries` times
while others got through is given up. While nothing gets through, nobody is given up; after `patience` seconds without
one success `Unavailable` is raised, and the job pauses. A server that was never reached is waited for 30 seconds.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from accord import __version__
from accord.protocols import Unavailable

__all__ = ["Client", "NotThere", "RequestFailed"]

PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
LONGEST_WAIT = 60.0
FIRST_PATIENCE = 30.0


class RequestFailed(Exception):
    """One request has no answer: the server refuses it, or it alone keeps failing. One line, without the key."""


class NotThere(RequestFailed):
    """The server has no such address or no such model: no other request of the kind can do better."""


class Client:
    """JSON over HTTP with retries; safe to use from several threads.

    Args:
        url: base, such as "http://127.0.0.1:8000/v1".
        api_key_env: name of the environment variable that holds the key; it may be unset where no key is needed.
        timeout: seconds until a request without an answer counts as failed.
        retries: times one request is tried again while others get through.
        patience: seconds without any success until the server counts as unavailable.
        transport: how requests travel, for tests.
        sleep: waits some seconds; for tests.
        clock: seconds that only grow; for tests.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key_env: str | None = "OPENAI_API_KEY",
        timeout: float = 120.0,
        retries: int = 6,
        patience: float = 300.0,
        transport: httpx2.BaseTransport | None = None,
        sleep: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url.rstrip("/")
        self._key_name = api_key_env
        self._stopped = threading.Event()
        self._retries, self._patience, self._clock = retries, patience, clock
        self._sleep = sleep or self._stopped.wait
        key = os.environ.get(api_key_env, "") if api_key_env else ""
        headers = {"User-Agent": f"accord/{__version__}", **({"Authorization": f"Bearer {key}"} if key else {})}
        limits = httpx2.Timeout(timeout, connect=min(timeout, 10.0))
        # A proxy of the environment leads out of this machine: it cannot reach a server that runs here.
        here = httpx2.URL(self.url).host in ("localhost", "127.0.0.1", "::1")
        self._http = httpx2.Client(headers=headers, timeout=limits, transport=transport, trust_env=not here)
        weakref.finalize(self, self._http.close)
        self._successes = 0
        self._failing_since: float | None = None
        self._lock = threading.Lock()
        self._jitter = random.Random()

    def stop(self) -> None:
        """Let requests that wait for their next try fail at once: nobody wants their answers any more."""
        self._stopped.set()

    def start(self) -> None:
        """Take requests again."""
        self._stopped.clear()

    def get(self, path: str) -> Any:
        """GET, see `post`."""
        return self._send("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any], *, retries: int | None = None) -> Any:
        """POST a JSON object and return the JSON of the answer.

        Args:
            path: behind the base of the server.
            body: the object.
            retries: give the request up after so many, whatever becomes of others: for asking what a server can do.

        Raises:
            RequestFailed: the server refuses this request, or it failed too often; `NotThere`: it has no such address.
            Unavailable: nothing gets through any more.
            ValueError: the server does not know us, or wants to be paid.
        """
        return self._send("POST", path, body, retries)

    def events(self, path: str, body: Mapping[str, Any]) -> Iterator[Any]:
        """POST a JSON object and yield the JSON of each server-sent event of the answer as it comes, until "[DONE]".

        Somebody is watching, so a failure is not tried again.

        Raises:
            RequestFailed: the server refuses, or the connection fails.
        """
        try:
            with self._http.stream("POST", f"{self.url}{path}", json=body) as response:
                if response.status_code >= 400:
                    response.read()
                    raise RequestFailed(f"status {response.status_code}: {_reason(response)}")
                for line in response.iter_lines():
                    data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
                    if data == "[DONE]":
                        return
                    if data:
                        yield json.loads(data)
        except httpx2.TransportError as error:
            raise RequestFailed(f"{type(error).__name__} ({error})") from None
        except json.JSONDecodeError:
            raise RequestFailed("an event that is no JSON") from None

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None, retries: int | None = None) -> Any:
        failures, before = 0, 0
        while True:
            answer, problem, wait = self._try(method, path, body)
            if problem is None:
                with self._lock:
                    self._successes += 1
                    self._failing_since = None
                return answer
            down, successes = self._note_failure()
            before = successes if failures == 0 else before
            failures += 1
            if retries is not None and failures > retries:
                raise RequestFailed(problem)
            if failures > self._retries and (successes > before or self._refuses_this(problem)):
                raise RequestFailed(f"{problem}, after {failures} tries")
            if down > (self._patience if successes else min(self._patience, FIRST_PATIENCE)):
                raise Unavailable(
                    f"{self.url}: {problem}; nothing got through for {down:.0f} s. What is done is kept: see to the "
                    "server, then give the same command again"
                )
            self._sleep(self._delay(failures - 1) if wait is None else wait)
            if self._stopped.is_set():
                raise RequestFailed("stopped")

    def _refuses_this(self, problem: str) -> bool:
        """Whether the server is well, so that an internal error is about the request: the last of a job, say."""
        return problem == "status 500" and self._try("GET", "/models", None)[1] is None

    def _note_failure(self) -> tuple[float, int]:
        """Seconds since the first of the failures that no success has interrupted, and successes so far."""
        with self._lock:
            now = self._clock()
            if self._failing_since is None:
                self._failing_since = now
            return now - self._failing_since, self._successes

    def _delay(self, failure: int) -> float:
        return self._jitter.uniform(0, min(LONGEST_WAIT, 2.0**failure))

    def _try(self, method: str, path: str, body: Mapping[str, Any] | None) -> tuple[Any, str | None, float | None]:
        """(answer, None, None), or (None, what went wrong for the time being, seconds the server asks to wait)."""
        try:
            response = self._http.request(method, f"{self.url}{path}", json=body)
        except httpx2.TransportError as error:
            return None, f"{type(error).__name__} ({error})" if str(error) else type(error).__name__, None
        if response.status_code in PASSING:
            return None, f"status {response.status_code}", _retry_after(response.headers.get("retry-after"))
        if response.status_code in (401, 403):
            raise ValueError(f"{self.url}: status {response.status_code}, access refused; {self._key_advice()}")
        if response.status_code == 402:
            raise ValueError(f"{self.url}: status 402: {_reason(response)}; see to the account, then go on")
        if response.status_code >= 400:
            failed = NotThere if response.status_code == 404 else RequestFailed
            raise failed(f"status {response.status_code}: {_reason(response)}")
        try:
            return response.json(), None, None
        except ValueError:
            return None, "an answer that is no JSON", None

    def _key_advice(self) -> str:
        if self._key_name is None:
            return "name the environment variable that holds its key with --api-key-env"
        found = "holds a key it does not take" if os.environ.get(self._key_name) else "is not set"
        return f"the environment variable {self._key_name} {found}; set it to a valid key"


def _reason(response: httpx2.Response) -> str:
    """The server's own words, one line, cut."""
    try:
        body = response.json()
    except ValueError:
        body = response.text
    if isinstance(body, dict):
        error = body.get("error", body.get("detail", body.get("message", body)))
        body = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(body).split())[:300] or response.reason_phrase


def _retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, a number or a date; at most ten minutes."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(seconds, 0.0), 600.0)
