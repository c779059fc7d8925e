"""Many annotators at once, each with a connection of their own, who take tasks until there are none.

They think between two clicks, as people do; how long is the caller's. What the client itself costs is kept apart: its
lag (how late its own timers fire) and its processor time are no part of the server's figures.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from dataclasses import dataclass, field

import httpx


@dataclass
class Log:
    """Seconds of every request, by what it was; answers that were no page."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    trouble: list[str] = field(default_factory=list)
    submitted: set[str] = field(default_factory=set)
    lag: list[float] = field(default_factory=list)  # seconds by which timers of the client were late

    def every(self) -> list[float]:
        return [one for times in self.seconds.values() for one in times]

    async def watch_the_client(self) -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.1)
            self.lag.append(time.perf_counter() - began - 0.1)


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


async def work(
    base: str, campaign: str, session: tuple[str, str], log: Log, seed: int, pause: float, wanted: int
) -> None:
    """Look, save a draft, submit, sometimes twice; sometimes skip; until all together have submitted `wanted` tasks."""
    random_ = random.Random(seed)
    token, csrf = session
    again = max(pause / 2, 0.05)
    async with httpx.AsyncClient(base_url=base, cookies={"session": token}, timeout=60) as client:

        async def ask(what: str, method: str, path: str, data: dict[str, str] | None = None) -> httpx.Response:
            began = time.perf_counter()
            answer = await client.request(method, path, data=data, headers={"Origin": base})
            log.seconds.setdefault(what, []).append(time.perf_counter() - began)
            if answer.status_code >= 400:
                log.trouble.append(f"{what}: {answer.status_code}")
            return answer

        await asyncio.sleep(pause * random_.random())  # nobody begins in the same instant as all others
        while True:
            page = await ask("task", "GET", f"/c/{campaign}/task")
            found = re.search(r'data-assignment="([^"]+)"', page.text)
            if found is None and len(log.submitted) >= wanted:
                return
            if found is None:  # all are taken, and one of those who took them may still skip
                await asyncio.sleep(again)
                continue
            mine = found[1]
            responses = re.findall(r'data-response="([^"]+)"', page.text)
            ranking = {f"rank.{one}": str(random_.randint(1, len(responses))) for one in responses}
            await asyncio.sleep(pause * random_.random())
            sent = {"csrf": csrf, "revision": "1", **ranking}
            await ask("draft", "POST", f"/t/{mine}/draft", {**sent, "version": "0"})
            await asyncio.sleep(pause * random_.random())
            if random_.random() < 0.05:
                await ask("skip", "POST", f"/t/{mine}/skip", {"csrf": csrf, "revision": "1", "skip": "language"})
                continue
            for _ in range(2 if random_.random() < 0.2 else 1):
                await ask("submit", "POST", f"/t/{mine}/submit", sent)
            log.submitted.add(mine)
