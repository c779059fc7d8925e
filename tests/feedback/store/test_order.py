"""Orders by keyed hash: fair, stable, and items in the queue as their priority says."""

from __future__ import annotations

import hashlib
import hmac
import uuid
from collections import Counter

import pytest
from sqlalchemy import select

from accord.feedback.store import forget
from accord.feedback.store.ids import new_id
from accord.feedback.store.order import ON_DEMAND, display_order, is_random, places, queue_number
from accord.feedback.store.tables import Response, User
from feedback.worlds import make_world


def test_the_order_is_by_hmac_of_item_annotator_and_response():
    def key(response):
        return hmac.new(b"secret", f"iu{response}".encode(), hashlib.sha256).hexdigest()

    assert display_order("secret", "i", "u", ["a", "b", "c"]) == sorted("abc", key=key)
    assert display_order("secret", "i", "u", ["c", "b", "a"]) == sorted("abc", key=key)


def test_every_response_is_first_equally_often_and_every_order_occurs():
    orders = [tuple(display_order("s", f"i{n % 100}", f"u{n // 100}", "abc")) for n in range(6000)]
    firsts = Counter(order[0] for order in orders)
    assert all(1880 < firsts[one] < 2120 for one in "abc")  # 2000 each, deviation 37
    assert all(880 < count < 1120 for count in Counter(orders).values())
    assert len(set(orders)) == 6
    assert orders != [tuple(display_order("t", f"i{n % 100}", f"u{n // 100}", "abc")) for n in range(6000)]


def test_high_priority_comes_first_and_equal_ones_in_the_seed_s_order():
    place = places({"a": 0.0, "b": 2.0, "c": 1.0, "d": 1.0}, "seed")
    assert place["b"] == 0
    assert {place["c"], place["d"]} == {1, 2}
    assert place["a"] == 3
    many = {f"i{n}": 0.0 for n in range(50)}
    assert places(many, "seed") != places(many, "other")
    assert sorted(places(many, "seed").values()) == list(range(50))


def test_random_items_are_spread_evenly_whatever_their_priority():
    priority = {f"i{n}": float(n) for n in range(100)}
    random = frozenset(f"i{n}" for n in range(0, 100, 5))  # a fifth of them
    order = sorted(priority, key=places(priority, "s", random).__getitem__)
    assert [sum(item in random for item in order[:n]) for n in (5, 10, 50, 100)] == [1, 2, 10, 20]
    chosen = [item for item in order if item not in random]
    assert chosen == sorted(chosen, key=lambda item: -priority[item])
    drawn = [item for item in order if item in random]
    assert drawn not in (sorted(drawn, key=priority.get), sorted(drawn, key=priority.get, reverse=True))


def test_a_share_is_random_and_stays_so():
    random = {f"i{n}" for n in range(4000) if is_random("s", f"i{n}", 0.2)}
    assert 720 < len(random) < 880
    assert random < {f"i{n}" for n in range(4000) if is_random("s", f"i{n}", 0.5)}


def test_slots_of_an_item_stand_before_those_of_the_next():
    assert queue_number(0, 63) < queue_number(1, 0) < queue_number(1, 70) < queue_number(2, 0)
    assert queue_number(0, 0) > ON_DEMAND


def test_ids_sort_by_age_and_say_they_are_uuid7():
    ids = [new_id() for _ in range(2000)]
    assert ids == sorted(set(ids))
    assert {(one[14], one[19] in "89ab") for one in ids} == {("7", True)}


@pytest.mark.parametrize("count", [1, 7])
def test_all_random_is_a_permutation(count):
    priority = {f"i{n}": 0.0 for n in range(count)}
    assert sorted(places(priority, "s", frozenset(priority)).values()) == list(range(count))


def test_the_ids_of_responses_do_not_tell_which_came_first(store):
    world = make_world(store, items=30)  # of each item "one" was added before "two"
    texts = {one.id: one.text for one in store.read(lambda s: s.scalars(select(Response)).all())}
    pairs = [
        sorted(s.id for s in task.responses) for task in (world.next(world.add_person(f"p{n}")) for n in range(30))
    ]
    assert {texts[first] for first, _ in pairs} == {"one", "two"}


def test_pseudonyms_do_not_tell_when_their_accounts_were_made(store):
    world = make_world(store, items=0, people=12)
    users = store.read(lambda s: [s.get(User, one) for one in world.people])
    pseudonyms = [user.pseudonym for user in users]
    assert {uuid.UUID(one).version for one in pseudonyms} == {4}
    assert pseudonyms != sorted(pseudonyms)
    store.run(forget, user_id=users[0].id, now=world.now)
    renewed = store.read(lambda s: s.get(User, users[0].id)).pseudonym
    assert renewed != pseudonyms[0]
    assert uuid.UUID(renewed).version == 4
