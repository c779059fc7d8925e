"""A hundred annotators at once, and a server that is killed: nothing is served too often, lost or counted twice."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager

import httpx
import pytest
from sqlalchemy import select

from accord.feedback.store import now_ms, start_session, verdicts
from accord.feedback.store.tables import Draft, Item, Judgment, Slot
from feedback.studio.simulated import Log, work
from feedback.studio.visitors import Place


@contextmanager
def served(address: str, port: int):
    """The real command in a process of its own."""
    command = "import sys; from accord.cli.app import main; sys.exit(main(sys.argv[1:]))"
    options = ["--database", address, "--port", str(port), "--requests-per-minute", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-c", command, "feedback", "studio", *options],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        for line in process.stdout:
            if line.startswith("Accord studio on"):
                break
        yield process
    finally:
        process.kill()
        process.wait(timeout=10)
        process.stdout.close()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def settled(place):
    """(counted judgments per item, judgments per item and person, states of the slots)."""

    def read(session):
        normal = select(Judgment).join(Item, Item.id == Judgment.item_id).where(Judgment.source == "human")
        rows = list(session.scalars(normal))
        counted = Counter(row.item_id for row in rows if row.counted)
        each = Counter((row.item_id, row.annotator_id) for row in rows)
        return counted, each, Counter(session.scalars(select(Slot.state)))

    return place.store.read(read)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_hundred_annotators_at_once(store, store_address, capsys):
    items, people, pause = 100, 100, 20.0  # seconds between two clicks, at most; half of it in the mean
    place = Place(store)
    place.now = now_ms()
    place.open(items=items, people=people, overlap=3)
    sessions = [store.run(start_session, user_id=user, now=now_ms()) for user in place.world.people]
    port, log = free_port(), Log()

    async def all_at_once():
        base = f"http://127.0.0.1:{port}"
        jobs = (work(base, place.world.campaign, one, log, seed, pause, 3 * items) for seed, one in enumerate(sessions))
        await asyncio.gather(*jobs)

    began = time.monotonic()
    with served(store_address, port):
        asyncio.run(all_at_once())
    counted, each, states = settled(place)
    requests = sum(map(len, log.seconds.values()))
    rate = requests / (time.monotonic() - began)
    with capsys.disabled():
        sys.stdout.write(f"\n{requests} requests, {rate:.0f}/s, p95 {1000 * log.p95():.0f} ms\n")
    assert log.trouble == []
    assert set(counted.values()) == {3}
    assert len(counted) == items
    assert set(each.values()) == {1}
    assert states == {"done": 3 * items}
    assert log.p95() < float(os.environ.get("ACCORD_P95_SECONDS", "2"))


def test_a_server_that_is_killed_keeps_drafts_leases_and_sessions(store, store_address):
    place = Place(store)
    place.now = now_ms()
    place.open(items=3, people=1)
    token, csrf = store.run(start_session, user_id=place.world.people[0], now=now_ms())
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    with served(store_address, port) as process, httpx.Client(base_url=base, cookies={"session": token}) as client:
        page = client.get(f"/c/{place.world.campaign}/task").text
        mine = re.search(r'data-assignment="([^"]+)"', page)[1]
        responses = re.findall(r'data-response="([^"]+)"', page)
        ranking = {f"rank.{one}": str(rank) for rank, one in enumerate(responses, 1)}
        sent = {"csrf": csrf, "revision": "1", **ranking}
        kept = client.post(f"/t/{mine}/draft", data={**sent, "version": "0"}, headers={"Origin": base})
        assert kept.json() == {"version": 1}
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
    assert store.read(lambda s: s.scalar(select(Draft))).payload["fields"] == ranking
    with served(store_address, port), httpx.Client(base_url=base, cookies={"session": token}) as client:
        again = client.get(f"/c/{place.world.campaign}/task").text
        assert re.search(r'data-assignment="([^"]+)"', again)[1] == mine
        assert re.findall(r'data-response="([^"]+)"', again) == responses
        assert again.count('value="1" checked') == 1
        for _ in range(2):
            answer = client.post(f"/t/{mine}/submit", data=sent, headers={"Origin": base})
            assert answer.status_code == 303
    (verdict,) = store.read(verdicts, campaign_id=place.world.campaign)
    assert verdict.ranks == {one: int(rank) for one, rank in ((n[5:], r) for n, r in ranking.items())}
