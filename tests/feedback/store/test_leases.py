"""Leases: never more than n per item, whoever is fast, late, twice or dead. Everything runs on both databases."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from accord.feedback.store import (
    CampaignSettings,
    DraftConflictError,
    MissingError,
    Store,
    Submission,
    Task,
    change_campaign,
    next_task,
    now_ms,
    save_draft,
    submit,
    sweep,
    withdraw_consent,
)
from accord.feedback.store.queries import leases
from accord.feedback.store.tables import Assignment, Draft, Item, Judgment, Slot
from feedback.worlds import MINUTE, make_world, ranks


def slots(world, item):
    query = select(Slot.state, Slot.annotator_id).where(Slot.item_id == item).order_by(Slot.number)
    return world.store.read(lambda session: session.execute(query).all())


def counted(world):
    query = select(Judgment.item_id, func.count()).where(Judgment.counted).group_by(Judgment.item_id)
    return world.store.read(lambda session: dict(session.execute(query).all()))


def test_twenty_clients_at_once_never_hold_more_than_the_overlap(store):
    world = make_world(store, items=5, people=20, overlap=3)
    with ThreadPoolExecutor(20) as pool:
        tasks = list(pool.map(world.next, range(20)))
    given = [task for task in tasks if isinstance(task, Task)]
    assert Counter(task.item_id for task in given) == dict.fromkeys(world.items, 3)  # 15 of 20 find one
    assert [task for task in tasks if not isinstance(task, Task)] == ["nothing left"] * 5
    held = [slot.annotator_id for item in world.items for slot in slots(world, item)]
    assert len(set(held)) == 15


def test_many_annotators_in_two_tabs_walk_away_come_late_and_submit_twice(store):
    """Real clocks, leases of 80 ms, a sweeper beside them; a tenth walks away, a tenth is late, a fifth sends twice."""
    world = make_world(store, items=12, people=10, overlap=3)

    def tab(number):
        dice = random.Random(number)
        person, idle = world.people[number % 10], 0
        while idle < 4:
            store.run(sweep, now=now_ms())
            task = store.run(
                next_task, campaign_id=world.campaign, annotator_id=person, now=now_ms() - 30 * MINUTE + 80
            )
            if not isinstance(task, Task):
                idle += 1
                continue
            fate = dice.random()
            if fate < 0.1:
                continue
            sent = Submission(
                assignment_id=task.assignment_id, annotator_id=person, revision=task.revision, payload=ranks(task)
            )
            if fate < 0.2:
                store.run(sweep, now=now_ms() + 1000)
            for _ in range(2 if fate > 0.8 else 1):
                store.run(submit, sent, now=now_ms())

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(tab, range(20)))
    assert counted(world) == dict.fromkeys(world.items, 3)
    twice = select(func.count()).select_from(Judgment).group_by(Judgment.item_id, Judgment.annotator_id)
    assert set(store.read(lambda session: session.scalars(twice).all())) == {1}
    states = store.read(lambda session: set(session.scalars(select(Item.state)).all()))
    assert states == {"done"}


def test_two_tabs_get_the_same_task_and_a_reload_the_same_order(store):
    world = make_world(store, items=3)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(world.next, [0, 0])
    assert (first.assignment_id, first.responses) == (second.assignment_id, second.responses)
    assert world.next().responses == first.responses
    assignment = store.read(lambda session: session.scalars(select(Assignment)).one())
    assert assignment.reissued == 2


def test_an_item_is_finished_before_the_next_is_started(store):
    world = make_world(store, items=4, people=3, overlap=3)
    assert len({world.next(who).item_id for who in range(3)}) == 1


def test_an_expired_lease_goes_to_someone_else_and_the_late_one_is_kept_as_surplus(store):
    world = make_world(store, items=1, people=2, overlap=1)
    task = world.next(0)
    assert world.next(1) == "nothing left"
    assert store.run(sweep, now=world.now + 29 * MINUTE) == 0
    world.now += 30 * MINUTE
    assert store.run(sweep, now=world.now) == 1
    other = world.next(1)
    assert other.item_id == task.item_id
    assert world.submit(other, 1).counted
    late = world.submit(task, 0)
    assert not late.counted
    assert store.read(lambda session: session.get(Judgment, late.judgment_id)).counted is False
    assert counted(world) == {task.item_id: 1}


def test_a_revision_of_a_surplus_judgment_is_surplus_too(store):
    world = make_world(store, items=1, people=2, overlap=1)
    task = world.next(0)
    store.run(sweep, now=world.now + 30 * MINUTE)
    world.submit(world.next(1), 1)
    assert not world.submit(task, 0).counted
    assert not world.submit(task, 0, revision=2).counted


def test_a_lease_swept_up_while_it_is_resumed_is_looked_for_again(store, monkeypatch):
    """Between gathering what is known and taking the slot the sweeper comes by, and someone else takes it."""
    world = make_world(store, items=1, people=2, overlap=1)
    task = world.next(1)
    known = leases.situation
    seen = iter([task.item_id, None])
    monkeypatch.setattr(leases, "situation", lambda *all: dataclasses.replace(known(*all), holds=next(seen)))
    assert world.next(0) == "nothing left"
    assert [annotator for _, annotator in slots(world, task.item_id)] == [world.people[1]]


def test_a_late_one_takes_a_place_that_is_still_free(store):
    world = make_world(store, items=1, overlap=2)
    task = world.next()
    store.run(sweep, now=world.now + 30 * MINUTE)
    assert world.submit(task).counted
    assert [state for state, _ in slots(world, task.item_id)] == ["done", "open"]


def test_a_resend_is_answered_as_before_and_a_changed_mind_is_a_new_row(store):
    world = make_world(store, items=1, overlap=1)
    task = world.next()
    first = world.submit(task, payload=ranks(task, "one"))
    again = world.submit(task, payload=ranks(task, "two"))
    assert (again.judgment_id, again.repeated) == (first.judgment_id, True)
    revised = world.submit(task, payload=ranks(task, "two"), revision=2)
    assert revised.counted
    assert revised.judgment_id != first.judgment_id
    with pytest.raises(ValueError, match="expected 3"):
        world.submit(task, revision=7)
    world.now += 25 * 60 * MINUTE
    with pytest.raises(ValueError, match="older than 24 h"):
        world.submit(task, revision=3)


def test_what_was_only_shown_is_no_answer(store):
    world = make_world(store)
    with pytest.raises(ValueError, match="nothing was chosen"):
        world.submit(world.next(), touched=False)


def test_a_skip_frees_the_place_and_is_not_asked_again(store):
    world = make_world(store, items=1, people=2, overlap=1)
    task = world.next(0)
    receipt = world.submit(task, 0, payload={"skip": "language"}, touched=False)
    assert not receipt.counted
    assert world.next(0) == "nothing left"
    assert world.next(1).item_id == task.item_id


def test_personal_data_hides_an_item_at_once(store):
    world = make_world(store, items=1, people=2)
    one, other = world.next(0), world.next(1)
    world.submit(one, 0, payload={"skip": "personal data"})
    assert world.next(1) == "nothing left"  # although it was held
    assert other.item_id == one.item_id


def test_someone_elses_task_is_not_found(store):
    world = make_world(store, people=2)
    task = world.next(0)
    with pytest.raises(MissingError, match="of yours"):
        world.submit(task, 1)


def test_without_consent_nothing_is_taken(store):
    world = make_world(store)
    task = world.next()
    store.run(withdraw_consent, user_id=world.people[0], project_id=world.project, now=world.now + 1)
    with pytest.raises(ValueError, match="consent"):
        world.submit(task)
    assert world.next() == "consent needed"


def test_drafts_have_versions_renew_the_lease_and_survive_it(store):
    world = make_world(store)
    task = world.next()

    def save(version, payload, at):
        return store.run(
            save_draft,
            assignment_id=task.assignment_id,
            annotator_id=world.people[0],
            payload=payload,
            version=version,
            now=at,
        )

    assert save(0, {"a": 1}, world.now + 20 * MINUTE) == 1
    assert store.run(sweep, now=world.now + 40 * MINUTE) == 0  # renewed
    assert save(1, {"a": 2}, world.now) == 2
    with pytest.raises(DraftConflictError) as caught:
        save(1, {"a": 3}, world.now)
    assert (caught.value.payload, caught.value.version) == ({"a": 2}, 2)
    assert store.run(sweep, now=world.now + 90 * MINUTE) == 1
    back = world.next()
    assert (back.draft, back.draft_version) == ({"a": 2}, 2)
    world.submit(back)
    assert store.read(lambda session: session.scalar(select(func.count()).select_from(Draft))) == 0


def test_a_larger_overlap_asks_more_people_and_a_smaller_one_is_refused(store):
    world = make_world(store, items=1, people=2, overlap=1)
    world.submit(world.next(0), 0)
    assert world.next(1) == "nothing left"
    store.run(change_campaign, campaign_id=world.campaign, actor_id=None, overlap=2)
    assert world.submit(world.next(1), 1).counted
    for change in ({"overlap": 1}, {"settings": CampaignSettings()}):
        with pytest.raises(ValueError, match="new campaign"):
            store.run(change_campaign, campaign_id=world.campaign, actor_id=None, **change)


KILLED = """
    import sys, time
    from accord.feedback.store import Store, next_task, save_draft, submit, Submission, now_ms
    url, campaign, me, now = sys.argv[1:]
    store, now = Store.open(url), int(now)
    task = store.run(next_task, campaign_id=campaign, annotator_id=me, now=now)
    store.run(save_draft, assignment_id=task.assignment_id, annotator_id=me, payload={"kept": 1}, version=0, now=now)
    sent = Submission(assignment_id=task.assignment_id, annotator_id=me, revision=1,
                      payload={"ranks": {shown.id: 1 for shown in task.responses}})
    def half_way(session):
        submit(session, sent, now=now)
        print("inside", flush=True)
        time.sleep(60)
    store.run(half_way)
"""


def test_a_process_killed_inside_a_transaction_leaves_lease_and_draft_and_no_judgment(store, store_address):
    world = make_world(store, items=1, overlap=1)
    script = [
        sys.executable,
        "-c",
        textwrap.dedent(KILLED),
        store_address,
        world.campaign,
        world.people[0],
        str(world.now),
    ]
    with subprocess.Popen(script, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "src"}) as process:
        assert process.stdout.readline() == b"inside\n"
        process.send_signal(signal.SIGKILL)
    again = Store.open(store_address)
    assert again.read(lambda session: session.scalars(select(Judgment)).all()) == []
    task = world.next()
    assert task.draft == {"kept": 1}
    assert world.submit(task).counted
    again.close()
