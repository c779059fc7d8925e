"""A hundred annotators at once, and a server that is killed: nothing is served too often, lost or counted twice."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from sqlalchemy import select

from accord.feedback.store import now_ms, start_session, verdicts
from accord.feedback.store.tables import Draft, Item, Judgment, Slot
from feedback.studio.simulated import Log, quantile, work
from feedback.studio.visitors import Place


@contextmanager
def served(address: str, port: int, errors: Path | None = None):
    """The real command in a process of its own; what it logs goes to `errors`."""
    command = "import sys; from accord.cli.app import main; sys.exit(main(sys.argv[1:]))"
    options = ["--database", address, "--port", str(port), "--requests-per-minute", "100000", "--log-level", "info"]
    with ExitStack() as opened:
        process = subprocess.Popen(
            [sys.executable, "-c", command, "feedback", "studio", *options],
            stdout=subprocess.PIPE,
            stderr=None if errors is None else opened.enter_context(errors.open("w")),
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


def server_ms(log: Path) -> list[float]:
    """What the server says each request took it, from the first byte of it to the last of the answer."""
    lines = [line[line.index("{") :] for line in log.read_text().splitlines() if '"ms"' in line]
    return [json.loads(line)["ms"] for line in lines]


def processor_seconds(process: psutil.Process) -> float:
    spent = process.cpu_times()
    return spent.user + spent.system


def of_others(*ours: psutil.Process) -> float:
    """Processor seconds of this machine so far that neither `ours`, nor a database, nor this test has used."""
    databases = [one for one in psutil.process_iter() if one.name() == "postgres"]
    spent = psutil.cpu_times()
    busy = sum(spent) - spent.idle - getattr(spent, "iowait", 0.0) - getattr(spent, "guest", 0.0)
    return busy - sum(map(processor_seconds, [psutil.Process(), *ours, *databases]))


def skip_if_busy(cores: float) -> None:
    """Latency beside other work is the other work's: nothing was served too often or lost is tested without it."""
    if cores > 0.25:
        pytest.skip(f"other processes have {cores:.1f} cores: what is slow here is waiting for them; run it alone")


# Between two clicks people take 0 to 10 s here, 5 in the mean: a ranking of two short texts in a quarter of a minute,
# twice as fast as a fast person. Without thinking, the figure is what the server can do, and waiting is all there is to
# latency.
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("pause", [10.0, 0.0], ids=["thinking", "no thinking"])
def test_a_hundred_annotators_at_once(store, store_address, tmp_path, capsys, pause):
    items, people = 100 if pause else 50, 100
    if pause:
        before = of_others()
        time.sleep(2)
        skip_if_busy((of_others() - before) / 2)
    place = Place(store)
    place.now = now_ms()
    place.open(items=items, people=people, overlap=3)
    sessions = [store.run(start_session, user_id=user, now=now_ms()) for user in place.world.people]
    port, log = free_port(), Log()

    async def all_at_once():
        base = f"http://127.0.0.1:{port}"
        jobs = (work(base, place.world.campaign, one, log, seed, pause, 3 * items) for seed, one in enumerate(sessions))
        watch = asyncio.create_task(log.watch_the_client())
        await asyncio.gather(*jobs)
        watch.cancel()

    with served(store_address, port, tmp_path / "log") as process:
        running = psutil.Process(process.pid)
        before, began = (processor_seconds(running), time.process_time(), of_others(running)), time.monotonic()
        asyncio.run(all_at_once())
        seconds, after = time.monotonic() - began, (processor_seconds(running), time.process_time(), of_others(running))
    spent, mine, others = (late - early for early, late in zip(before, after, strict=True))
    counted, each, states = settled(place)
    trips, server = [1000 * one for one in log.every()], server_ms(tmp_path / "log")
    requests = len(trips)
    with capsys.disabled():
        sys.stdout.write(
            f"\n{requests} requests, {requests / seconds:.0f}/s\n"
            f"round trip: p50 {quantile(trips, 0.5):.0f} ms, p95 {quantile(trips, 0.95):.0f} ms\n"
            f"server: p50 {quantile(server, 0.5):.0f} ms, p95 {quantile(server, 0.95):.0f} ms, "
            f"processor {1000 * spent / requests:.1f} ms a request\n"
            f"client: processor {1000 * mine / requests:.1f} ms a request, "
            f"lag p95 {1000 * quantile(log.lag, 0.95):.0f} ms\n"
            f"others had {others / seconds:.1f} of {psutil.cpu_count()} cores\n"
        )
    assert log.trouble == []
    assert set(counted.values()) == {3}
    assert len(counted) == items
    assert set(each.values()) == {1}
    assert states == {"done": 3 * items}
    assert len(server) >= requests
    if pause:
        skip_if_busy(others / seconds)
        assert quantile(trips, 0.95) < 300
        assert quantile(server, 0.95) < 300


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
