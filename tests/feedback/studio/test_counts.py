"""What is done of a campaign is counted in the background: a page costs the same however large the campaign is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import event

from accord.feedback.store.queries import overview
from accord.feedback.studio.counts import FORGET_SECONDS, FRESH_SECONDS, Counts
from feedback.worlds import make_world


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def world(store):
    return make_world(store, items=2, people=2)


def test_a_count_is_kept_for_a_while_and_then_taken_again(world, store):
    clock = Clock()
    counts = Counts(clock)
    assert store.read(counts.of, world.campaign) == (6, 0)
    world.submit(world.next())
    clock.now = FRESH_SECONDS - 1
    assert store.read(counts.of, world.campaign) == (6, 0)
    clock.now = FRESH_SECONDS
    assert store.read(counts.of, world.campaign) == (6, 1)


def test_in_the_background_it_is_renewed_before_that_as_long_as_somebody_asks(world, store):
    clock = Clock()
    counts = Counts(clock)
    store.read(counts.of, world.campaign)
    world.submit(world.next())
    clock.now = 10.0
    counts.renew(store)
    assert store.read(counts.of, world.campaign) == (6, 1)
    statements = []
    event.listen(store.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    clock.now += FORGET_SECONDS
    counts.renew(store)  # nobody has asked for five minutes
    assert statements == []


def test_many_at_once_never_see_a_number_that_was_not_true(world, store):
    """Ten pages and a background that counts, while two people fill all slots they can."""
    counts = Counts()
    seen = []

    def look(_):
        seen.append(store.read(counts.of, world.campaign))
        counts.renew(store)

    with ThreadPoolExecutor(10) as pool:
        looks = [pool.submit(look, number) for number in range(40)]
        for who in (0, 1):
            for _ in range(2):
                world.submit(world.next(who), who)
        for one in looks:
            one.result()
    counts.renew(store)
    assert store.read(counts.of, world.campaign) == (6, 4)
    assert {slots for slots, _ in seen} == {6}
    assert {filled for _, filled in seen} <= set(range(5))


def test_an_older_count_does_not_replace_a_newer_one(world, store, monkeypatch):
    """Two count at once: the one that began first ends last."""
    clock = Clock()
    counts = Counts(clock)
    taken = overview.progress

    def slow(session, campaign_id):
        clock.now += 1
        if clock.now == 1:
            found = taken(session, campaign_id)
            world.submit(world.next())
            store.read(counts._count, campaign_id)  # the other one, from beginning to end
            return found
        return taken(session, campaign_id)

    monkeypatch.setattr("accord.feedback.studio.counts.progress", slow)
    assert store.read(counts._count, world.campaign) == (6, 0)
    assert store.read(counts.of, world.campaign) == (6, 1)


def statements_of(place, size: int) -> int:
    """Statements of a task page that is loaded a second time, in a campaign of so many items."""
    for number in range(len(place.world.items), size):
        place.world.add_item(f"question {number}")
    ada, statements = place.person(), []
    ada.get(place.task_page)
    listening = place.store.engine, "before_cursor_execute", lambda *given: statements.append(given[2])
    event.listen(*listening)
    assert ada.get(place.task_page).status_code == 200
    event.remove(*listening)
    assert not [one for one in statements if "count(" in one and "slot" in one]
    return len(statements)


def test_a_task_page_counts_no_slots(place):
    place.open(items=1, people=1)
    assert statements_of(place, 1) == statements_of(place, 8)
