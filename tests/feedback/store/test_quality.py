"""Screening, known answers, reviews, exclusions, guidelines and priorities, in a database."""

from __future__ import annotations

import dataclasses

import pytest
from sqlalchemy import select

from accord.feedback.store import (
    CampaignSettings,
    Task,
    add_consent_text,
    add_guideline,
    add_review,
    change_campaign,
    confirm_guideline,
    exclude,
    give_consent,
    prioritise,
    restore_item,
    resume_annotator,
    reverse_exclusion,
    set_role,
    sweep,
    verdicts,
    withdraw_item,
)
from accord.feedback.store.tables import Event, Item, Judgment, Qualification, Response, Slot
from feedback.worlds import MINUTE, make_world

RIGHT = {"one": 1, "two": 2}


def events(world, kind):
    return world.store.read(lambda session: session.scalars(select(Event).where(Event.kind == kind)).all())


def items_until_nothing(world, who=0, best="one"):
    served = []
    while isinstance(task := world.next(who), Task):
        served.append(task.item_id)
        world.submit(task, who, payload=None if best is None else rank(task, best))
    return served, task


def rank(task, best):
    return {"ranks": {shown.id: 1 if shown.text == best else 2 for shown in task.responses}}


def test_a_task_shows_no_model_no_kind_and_nobody_elses_verdict(store):
    world = make_world(store, people=2)
    world.submit(world.next(0), 0)
    task = world.next(1)
    assert {field.name for field in dataclasses.fields(task)} == {
        "assignment_id", "item_id", "task_type", "prompt", "responses", "guideline_id", "expires_at", "revision",
        "draft", "draft_version", "language",
    }  # fmt: skip
    assert {field.name for field in dataclasses.fields(task.responses[0])} == {"id", "text"}
    assert "two" not in task.responses[0].id


def test_a_qualification_is_failed_once_and_passed_then(store):
    world = make_world(store, items=1, overlap=1)
    for number in range(4):
        world.add_item(f"test {number}", kind="qualification", expected=RIGHT)
    tests = world.items[1:]
    for _ in tests:
        world.submit(world.next(), payload=rank(world.next(), "two"))
    for number in range(4):
        task = world.next()
        assert (task.item_id in tests, task.revision) == (True, 2)
        world.submit(task, payload=rank(task, "one" if number else "two"))
    results = store.read(lambda session: session.scalars(select(Qualification).order_by(Qualification.attempt)).all())
    assert [(row.attempt, row.score, row.passed) for row in results] == [(1, 0.0, False), (2, 0.75, True)]
    assert world.next().item_id == world.items[0]


def test_two_failed_attempts_are_the_end(store):
    world = make_world(store, items=1)
    world.add_item("test", kind="qualification", expected=RIGHT)
    assert items_until_nothing(world, best="two") == ([world.items[1]] * 2, "qualification failed")


def test_free_text_waits_for_a_reviewer(store):
    world = make_world(store, items=0, task_type="demonstrate")
    world.add_item("write", kind="qualification", responses=(), expected={})
    world.add_item("work", responses=())
    reviewer = world.add_person("reviewer")
    store.run(set_role, user_id=reviewer, project_id=world.project, role="reviewer", actor_id=None)
    receipt = world.submit(world.next(), payload={"text": "A fine answer."})
    assert world.next() == "waiting for a grade"
    with pytest.raises(ValueError, match="reviewer or admin"):
        store.run(
            add_review, reviewer_id=world.people[0], judgment_id=receipt.judgment_id, decision="accept", reason="x"
        )
    store.run(add_review, reviewer_id=reviewer, judgment_id=receipt.judgment_id, decision="accept", reason="good")
    assert world.next().item_id == world.items[1]


def test_gold_is_open_to_all_and_explained_only_if_the_campaign_teaches(store):
    settings = CampaignSettings(gold_every=1, teach=True)
    world = make_world(store, items=1, people=4, overlap=1, settings=settings)
    gold = world.add_item("gold", kind="gold", expected=RIGHT, explanation="one is better")
    for who in range(4):
        task = world.next(who)
        assert task.item_id == gold
        receipt = world.submit(task, who, payload=rank(task, "one" if who else "two"))
        assert (receipt.counted, receipt.explanation) == (True, "one is better")
    assert [event.detail["right"] for event in events(world, "gold")] == [False, True, True, True]
    assert {world.next(who).item_id if who == 0 else world.next(who) for who in range(4)} == {
        world.items[0],
        "nothing left",
    }
    assert store.read(verdicts, campaign_id=world.campaign) == []
    assert len(store.read(verdicts, campaign_id=world.campaign, kinds=["gold"])) == 4


def test_an_expired_gold_lease_is_nobodys_normal_task(store):
    world = make_world(store, items=0, people=2, settings=CampaignSettings(gold_every=1))
    gold = world.add_item("gold", kind="gold", expected=RIGHT)
    world.next(0)
    store.run(sweep, now=world.now + 31 * MINUTE)
    assert world.next(1).item_id == gold  # the slot is used again
    assert len(store.read(lambda session: session.scalars(select(Slot)).all())) == 1


def test_two_failed_attention_checks_pause_until_a_reviewer_looks(store):
    world = make_world(store, items=1, settings=CampaignSettings(attention_every=1))
    for number in range(4):
        world.add_item(f"say two {number}", kind="attention", expected=RIGHT)
    reviewer = world.add_person("reviewer")
    store.run(set_role, user_id=reviewer, project_id=world.project, role="reviewer", actor_id=None)
    served, stop = items_until_nothing(world, best="two")
    assert (len(served), stop) == (2, "paused")
    assert events(world, "paused")[0].detail["failed"] == served
    store.run(resume_annotator, campaign_id=world.campaign, annotator_id=world.people[0], reviewer_id=reviewer)
    task = world.next()
    world.submit(task, payload=rank(task, "two"))
    assert isinstance(world.next(), Task)  # one failure since the look


def test_a_pilot_gives_everyone_the_same_items_and_then_the_campaign_goes_on(store):
    settings = CampaignSettings(pilot_items=2)
    world = make_world(store, items=4, people=4, overlap=1, settings=settings, state="pilot")
    served = [items_until_nothing(world, who) for who in range(3)]
    assert served[0][1] == "nothing left"
    assert served[0] == served[1] == served[2]
    assert len(served[0][0]) == 2
    store.run(change_campaign, campaign_id=world.campaign, actor_id=None, state="open")
    rest, _ = items_until_nothing(world, 3)
    assert sorted(rest + served[0][0]) == sorted(world.items)  # the pilot's items are done


def test_a_place_made_for_the_pilot_is_not_handed_out_afterwards(store):
    world = make_world(store, items=1, people=4, overlap=1, state="pilot")
    assert {world.next(who).item_id for who in (0, 1)} == set(world.items)  # the second one gets a place on demand
    store.run(sweep, now=world.now + 31 * MINUTE)
    store.run(change_campaign, campaign_id=world.campaign, actor_id=None, state="open")
    assert world.next(2).item_id == world.items[0]
    assert world.next(3) == "nothing left"


@pytest.mark.parametrize("item_kind", ["normal", "gold"])
def test_nobody_judges_what_they_wrote(store, item_kind):
    world = make_world(store, items=0, people=2, overlap=1, settings=CampaignSettings(gold_every=1))
    world.add_item("mine", kind=item_kind, expected=None if item_kind == "normal" else RIGHT)

    def claim_authorship(session):
        session.scalars(select(Response)).first().author_id = world.people[0]

    store.run(claim_authorship)
    assert world.next(0) == "nothing left"
    assert world.next(1).item_id == world.items[0]


def test_a_new_guideline_and_a_new_consent_text_are_asked_for(store):
    world = make_world(store)
    guideline = store.run(add_guideline, project_id=world.project, markdown="Be fairer.")
    assert (guideline.version, isinstance(world.next(), Task)) == (2, True)
    store.run(change_campaign, campaign_id=world.campaign, actor_id=None, guideline_id=guideline.id)
    assert world.next() == "guideline needed"
    store.run(confirm_guideline, user_id=world.people[0], guideline_id=guideline.id)
    receipt = world.submit(world.next())
    assert store.read(lambda session: session.get(Judgment, receipt.judgment_id)).guideline_id == guideline.id
    store.run(add_consent_text, project_id=world.project, markdown="We keep more.")
    assert world.next() == "consent needed"
    store.run(give_consent, user_id=world.people[0], project_id=world.project, now=world.now + 1)
    assert isinstance(world.next(), Task)


def test_exclusion_leaves_out_when_reading_asks_others_and_is_reversible(store):
    world = make_world(store, items=2, people=3, overlap=1)
    items_until_nothing(world, 0)
    bad, boss = world.people[0], world.people[2]
    assert world.next(1) == "nothing left"
    with pytest.raises(ValueError, match="evidence"):
        store.run(exclude, annotator_id=bad, reason="spam", evidence={}, decided_by=boss)
    row = store.run(
        exclude, annotator_id=bad, reason="spam", evidence={"gold": 0.2}, decided_by=boss, replace=True,
        campaign_id=world.campaign,
    )  # fmt: skip
    assert world.next(0) == "excluded"
    assert store.read(verdicts, campaign_id=world.campaign) == []
    marked = store.read(verdicts, campaign_id=world.campaign, include_excluded=True)
    assert [verdict.excluded for verdict in marked] == [True, True]
    assert len(items_until_nothing(world, 1)[0]) == 2  # replaced
    assert len(store.read(verdicts, campaign_id=world.campaign)) == 2
    store.run(reverse_exclusion, exclusion_id=row.id, reversed_by=boss, reason="it was the page", now=world.now)
    assert len(store.read(verdicts, campaign_id=world.campaign)) == 4
    assert [len(events(world, kind)) for kind in ("excluded", "exclusion reversed")] == [1, 1]


def test_an_exclusion_of_a_time_covers_that_time_only(store):
    world = make_world(store, items=3, people=2, overlap=1)
    times = []
    for _ in range(3):
        world.submit(world.next())
        times.append(world.now)
        world.now += MINUTE
    store.run(
        exclude, annotator_id=world.people[0], reason="asleep", evidence={"burst": 1}, decided_by=world.people[1],
        since=times[1], until=times[2],
    )  # fmt: skip
    kept = store.read(verdicts, campaign_id=world.campaign)
    assert [verdict.submitted_at for verdict in kept] == [times[0], times[2]]
    assert world.next() == "nothing left"  # not "excluded": the time is over


def test_priorities_decide_but_for_the_share_that_stays_random(store):
    world = make_world(store, items=30, overlap=1)
    scores = {item: float(number) for number, item in enumerate(world.items)}
    store.run(prioritise, campaign_id=world.campaign, scores=scores, actor_id=None, random_share=0.2)
    arms = store.read(lambda session: dict(session.execute(select(Item.id, Item.arm)).all()))
    served, _ = items_until_nothing(world)
    chosen = [item for item in served if arms[item] == "selected"]
    assert chosen == sorted(chosen, key=lambda item: -scores[item])
    assert 0 < 30 - len(chosen) < 15
    with pytest.raises(ValueError, match="no normal item"):
        store.run(prioritise, campaign_id=world.campaign, scores={"x": 1.0}, actor_id=None)


def test_a_withdrawn_item_comes_back_after_a_look(store):
    world = make_world(store, items=1)
    store.run(withdraw_item, item_id=world.items[0], actor_id=None, reason="look")
    assert world.next() == "nothing left"
    store.run(restore_item, item_id=world.items[0], actor_id=None)
    assert world.next().item_id == world.items[0]
    with pytest.raises(ValueError, match="withdrawn"):
        store.run(restore_item, item_id=world.items[0], actor_id=None)
