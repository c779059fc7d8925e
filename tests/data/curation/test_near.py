import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accord.data.curation.near import NearDuplicates, jaccard, shingles


def text(numbers):
    return " ".join(f"w{number}" for number in numbers)


def test_shingles_and_jaccard_by_hand():
    one, other = shingles(text(range(9))), shingles(text(range(1, 10)))  # 5 runs each, 4 in common
    assert (one.size, other.size) == (5, 5)
    assert jaccard(one, other) == pytest.approx(4 / 6)
    assert shingles("two words").size == 1
    assert jaccard(shingles("Two, words!"), shingles("two words")) == 1


def groups_of(texts, threshold=0.8):
    alike = NearDuplicates(threshold)
    for one in texts:
        alike.add(one)
    groups = alike.groups()
    return [groups.first(number) for number in range(len(texts))]


def test_near_texts_are_found_and_others_are_not():
    base = list(range(200))
    changed = [*base[:100], 999, *base[101:]]  # 5 of 196 runs differ: J = 191 / 201
    far = [*base[:100], *range(300, 400)]
    assert groups_of([text(base), text(far), text(changed), text(base[::-1])]) == [0, 1, 0, 3]


def test_candidates_below_the_threshold_stay_apart():
    for number in range(10):
        base = list(range(1000 * number, 1000 * number + 100))
        far = [*base[:80], *range(50_000 + 20 * number, 50_020 + 20 * number)]  # J = 76 / 116: mostly a candidate
        assert jaccard(shingles(text(base)), shingles(text(far))) == pytest.approx(76 / 116)
        assert groups_of([text(base), text(far)]) == [0, 1]
        assert groups_of([text(base), text(far)], threshold=0.6) == [0, 0]


def test_groups_join_through_others():
    chain = [text(range(start, start + 100)) for start in (0, 8, 16)]  # neighbours 0.85, ends 0.71
    assert jaccard(shingles(chain[0]), shingles(chain[2])) < 0.8
    assert groups_of(chain) == [0, 0, 0]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_it_finds_what_comparing_all_pairs_finds(seed):
    generator = np.random.default_rng(seed)
    texts = []
    for _ in range(6):
        base = generator.integers(0, 10_000, 60)
        texts.append(text(base))
        for changes in (1, 2, 6):
            other = base.copy()
            other[generator.choice(60, changes, replace=False)] = generator.integers(20_000, 30_000, changes)
            texts.append(text(other))
    found = groups_of(texts)
    for one in range(len(texts)):
        for other in range(one):
            alike = jaccard(shingles(texts[one]), shingles(texts[other]))
            if alike >= 0.8:
                assert found[one] == found[other]
            elif one // 4 != other // 4:
                assert found[one] != found[other]
