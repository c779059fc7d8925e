"""Rewards of models: kept as numbers, and read as how each model orders the responses of an item."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from accord.feedback.analysis.material import gather
from accord.feedback.analysis.report import analyse
from accord.feedback.store import ExportOptions, exported_rows, keep_rewards, rewarded, verdicts
from accord.feedback.store.queries.verdicts import contents
from accord.feedback.store.tables import Reward
from feedback.worlds import make_world, ranks


def keep(world, model, rewards):
    return world.store.run(keep_rewards, campaign_id=world.campaign, model=model, rewards=rewards)


def by_text(world, item, **rewards):
    """Rewards by the id of the response that has the text."""
    texts = world.store.read(contents, campaign_id=world.campaign)[item].responses
    return {response: rewards[text] for response, text in texts.items()}


def test_rewards_are_kept_as_they_are_and_a_second_file_replaces_them(store):
    world = make_world(store, items=2)
    first, second = world.items
    given = {first: by_text(world, first, one=0.25, two=-1.5), second: by_text(world, second, one=1.0, two=1.0)}
    assert keep(world, "rm@3", given) == 4
    assert keep(world, "rm@3", {first: by_text(world, first, one=0.25, two=2.75)}) == 2
    found = {one.item_id: one for one in store.read(rewarded, campaign_id=world.campaign)}
    assert {(one.source, one.judge) for one in found.values()} == {("ai", ("rm", "3", "reward"))}
    assert found[first].ranks == by_text(world, first, one=2, two=1)
    assert found[second].ranks == by_text(world, second, one=1, two=1)  # equal rewards are a tie
    values = store.read(lambda s: sorted(s.scalars(select(Reward.value))))
    assert values == [0.25, 1.0, 1.0, 2.75]
    assert store.read(verdicts, campaign_id=world.campaign) == []  # a reward is no judgment, and is exported as none


def test_a_model_orders_only_what_it_has_seen_all_of(store):
    world = make_world(store, items=0)
    item = world.add_item("q", responses=("one", "two", "three"))
    rewards = by_text(world, item, one=3.0, two=2.0, three=1.0)
    last = next(one for one, value in rewards.items() if value == 1.0)
    keep(world, "rm", {item: {one: value for one, value in rewards.items() if one != last}})
    assert store.read(rewarded, campaign_id=world.campaign) == []
    keep(world, "other", {item: rewards})
    keep(world, "rm", {item: {last: 9.0}})
    found = {one.judge[0]: one.ranks for one in store.read(rewarded, campaign_id=world.campaign)}
    assert found["other"] == by_text(world, item, one=1, two=2, three=3)
    assert found["rm"] == by_text(world, item, one=2, two=3, three=1)


@pytest.mark.parametrize(("item", "response"), [("none", "x"), (0, "x")])
def test_rewards_of_something_else_are_refused(store, item, response):
    world = make_world(store, items=1)
    with pytest.raises(ValueError, match=r"'none'|'x'"):
        keep(world, "rm", {world.items[item] if item == 0 else item: {response: 1.0}})
    assert store.read(lambda s: s.scalar(select(func.count()).select_from(Reward))) == 0


def test_the_model_that_agrees_most_is_found_for_pairs_that_were_there_before(store):
    """40 pairs judged by people, then two files of rewards: one agrees on 30 of 40, the other on 10."""
    world = make_world(store, items=40, people=1, overlap=1)
    for _ in range(40):
        world.submit(world.next(0), 0, ranks(world.next(0), "one"))
    for name, right in (("good@1", 30), ("bad@1", 10)):
        given = {
            item: by_text(world, item, one=1.0, two=0.0 if number < right else 2.0)
            for number, item in enumerate(world.items)
        }
        keep(world, name, given)
    judges = {one.judge: one for one in analyse(store.read(gather, campaign_id=world.campaign)).judges}
    assert {name: (one.n, one.agreement) for name, one in judges.items()} == {"good@1": (40, 0.75), "bad@1": (40, 0.25)}
    rows = exported_rows(store, ExportOptions(form="judgments"), campaign_id=world.campaign, actor_id=None)["train"]
    assert {row["meta"]["source"] for row in rows} == {"human"}
