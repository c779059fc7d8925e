"""Replies while they are written: a thread samples, pages watch, and what is there when it is stopped is kept.

One reply at a time for each person: asking is cheap and answering is not.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator

from accord.feedback.studio.lockstep import Lockstep

__all__ = ["Writing", "Writings"]

LOOK_SECONDS = 0.1  # a page hears of new words ten times a second at most
ALIVE_SECONDS = 15  # a proxy would take a silent connection for a dead one

log = logging.getLogger("accord.studio")


class Writing:
    """What is being written: whether it is `done`, and the `error` that ended it. `stopped`: nobody wants more.

    Of one model the reply is its `text` so far; of two it is what `both` shows of them.
    """

    def __init__(self, conversation_id: str, *, two: bool = False) -> None:
        self.conversation_id = conversation_id
        self.text, self.done = "", False
        self.both = Lockstep(now=time.monotonic()) if two else None
        self.error: str | None = None
        self._stop = threading.Event()
        self._stopped_at = math.inf
        self._watching = 0

    @property
    def stopped(self) -> bool:
        """Whether it was asked to end, or whoever watched has left."""
        return self._stop.is_set()

    def stop(self) -> None:
        """End it; what is there so far is the reply."""
        self._stopped_at = min(self._stopped_at, time.monotonic())
        self._stop.set()

    def wait_until(self, at: float) -> None:
        """Wait for a time, or until it is stopped."""
        while not self.stopped and time.monotonic() < at:
            self._stop.wait(at - time.monotonic())

    def shown(self) -> int:
        """Steps of two replies that are shown. What came after it was stopped never is: it would tell who is fast."""
        assert self.both is not None
        return self.both.shown(now=min(time.monotonic(), self._stopped_at))

    async def events(self) -> AsyncIterator[str]:
        """Server-sent events: `{"text": ...}` all of it, `{"add": ...}` what is new; at last `done`, and any error.

        Of two replies `add` is a list: the next step of each.
        """
        self._watching += 1
        news, spoken = self._news_of_two() if self.both else self._news(), time.monotonic()
        try:
            while True:
                done = self.done
                for event in next(news):
                    yield event
                    spoken = time.monotonic()
                if done:
                    yield "event: done\n" + _event({"error": self.error})
                    return
                if time.monotonic() - spoken > ALIVE_SECONDS:
                    yield ": still writing\n\n"
                    spoken = time.monotonic()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            self._watching -= 1
            if not self._watching:
                self.stop()

    def _news(self) -> Iterator[list[str]]:
        """The events since the last look."""
        shown = ""
        while True:
            text = self.text
            new = {"add": text[len(shown) :]} if text.startswith(shown) else {"text": text}
            yield [_event(new)] if text != shown else []
            shown = text

    def _news_of_two(self) -> Iterator[list[str]]:
        """Likewise; what they are does not depend on when one looks."""
        assert self.both is not None
        seen = 0
        while True:
            steps = self.shown()
            yield [_event({"add": self.both.part(number)}) for number in range(seen + 1, steps + 1)]
            seen = steps


def _event(data: object) -> str:
    return f"data: {json.dumps(data)}\n\n"


class Writings:
    """What is being written, by person."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._current: dict[str, tuple[Writing, threading.Thread]] = {}

    def begin(
        self, user_id: str, conversation_id: str, work: Callable[[Writing], None], *, two: bool = False
    ) -> Writing:
        """Start to write in a thread of its own; a reply of this conversation that is on its way is watched instead.

        Args:
            user_id: whose conversation it is.
            conversation_id: of the conversation.
            work: writes into what it is given, keeps the reply, and raises ValueError with words for the person.
            two: two replies come, side by side.

        Raises:
            ValueError: a reply of another conversation is on its way.
        """
        with self._lock:
            current = self._current.get(user_id)
            if current is not None and current[0].conversation_id == conversation_id:
                return current[0]
            if current is not None:
                raise ValueError("the model is still writing in another conversation of yours; stop it there or wait")
            writing = Writing(conversation_id, two=two)
            thread = threading.Thread(target=self._write, args=(user_id, writing, work), daemon=True)
            self._current[user_id] = writing, thread
        thread.start()
        return writing

    def _write(self, user_id: str, writing: Writing, work: Callable[[Writing], None]) -> None:
        try:
            work(writing)
        except ValueError as error:
            writing.error = str(error)
        except Exception as error:
            log.exception("a reply failed: %s", type(error).__name__)
            writing.error = "This is a fault of the studio and is in its log. What you wrote is kept; try again."
        finally:
            with self._lock:
                del self._current[user_id]
            writing.done = True

    def stop(self, user_id: str, conversation_id: str) -> None:
        """End what is being written in a conversation, if anything is."""
        with self._lock:
            current = self._current.get(user_id)
        if current is not None and current[0].conversation_id == conversation_id:
            current[0].stop()

    def close(self) -> None:
        """End everything, and wait a moment until it is kept."""
        with self._lock:
            current = list(self._current.values())
        for writing, _ in current:
            writing.stop()
        for _, thread in current:
            thread.join(timeout=2)
