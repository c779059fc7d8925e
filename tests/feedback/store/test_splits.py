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
    names = [f"n{n}" for n in range(2000)]
    drawn = held_out("s", names, 0.2)
    assert len(drawn) == 411  # 400 +- 18
    assert held_out("s", names[::-1] + names, 0.2) == drawn
    assert held_out("t", names, 0.2) != drawn
    assert held_out("s", names, 0.0) == frozenset()


def test_whoever_comes_later_moves_nobody_to_the_other_side():
    names = [f"n{n}" for n in range(400)]
    for share in (0.1, 0.25, 0.5):
        for many in range(20, 400, 19):
            assert held_out("s", names[:many], share) == held_out("s", names, share) & set(names[:many])


def test_of_a_few_one_is_held_out_and_one_is_not():
    for seed in map(str, range(40)):
        for many in (2, 3, 5):
            names = [f"n{n}" for n in range(many)]
            assert 0 < len(held_out(seed, names, 0.4)) < many
        assert held_out(seed, ["n0"], 0.4) == frozenset()
