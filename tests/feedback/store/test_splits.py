from __future__ import annotations

from accord.feedback.store.splits import held_out, near_duplicates

LONG = "the quick brown fox jumps over the lazy dog and then it sleeps in the warm sun for the whole long summer day"


def test_near_duplicates_stand_together_and_others_apart():
    texts = [LONG, LONG.upper() + " ", LONG + " today", LONG.replace("fox", "cat"), "hello", "Hello", "something else"]
    # One more word at the end: 18 of 19 shingles shared. A changed word in the middle takes 4 of 18: 14 / 22 = 0.64.
    assert near_duplicates(texts) == [0, 0, 0, 1, 2, 2, 3]
    assert near_duplicates([]) == []


def test_clusters_are_chains():
    words = [f"w{n}" for n in range(60)]
    texts = [
        " ".join(words[start : start + 50]) for start in (0, 4, 8)
    ]  # 42 / 50 shared next door, 38 / 54 at the ends
    assert near_duplicates(texts) == [0, 0, 0]
    assert near_duplicates([texts[0], texts[2]]) == [0, 1]


def test_a_share_is_drawn_by_hash_whatever_the_order():
    names = [f"n{n}" for n in range(50)]
    drawn = held_out("s", names, 0.2)
    assert len(drawn) == 10
    assert held_out("s", names[::-1] + names, 0.2) == drawn
    assert held_out("t", names, 0.2) != drawn
    assert held_out("s", names, 0.0) == frozenset()
