import itertools
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.overlap import Novelty, rouge_l

WORDS = st.lists(st.sampled_from("abcd"), max_size=12).map(" ".join)


def longest_common(first, second):
    """The table, as every textbook has it."""
    row = [0] * (len(second) + 1)
    for token in first:
        before = row
        row = [0]
        for j, other in enumerate(second):
            row.append(before[j] + 1 if token == other else max(row[j], before[j + 1]))
    return row[-1]


@given(WORDS, WORDS)
def test_it_is_the_longest_common_subsequence(first, second):
    found, common = rouge_l(first, second), longest_common(first.split(), second.split())
    total = len(first.split()) + len(second.split())
    assert found.f1 == pytest.approx(2 * common / total if common else 0)
    assert rouge_l(second, first) == (found.recall, found.precision, found.f1)


@given(st.text(max_size=40), st.sampled_from(["ascii", "unicode"]))
def test_a_text_is_all_in_itself(text, tokens):
    assert rouge_l(text, text, tokens) in ((0, 0, 0), (1, 1, 1))


def test_scripts_without_spaces_are_read_by_character():
    assert rouge_l("\u4f60\u597d", "\u4f60", "unicode").precision == 0.5
    assert rouge_l("\u304b\u306a \ud55c\uae00", "\u306a\ud55c", "unicode").precision == 0.5
    assert rouge_l("\u4f60\u597d", "\u4f60\u597d", "ascii").f1 == 0
    assert rouge_l("snake_case", "snake case", "unicode").f1 == 1
    assert rouge_l("Gr\u00dc\u00dfE", "gr\u00fc\u00dfe", "unicode").f1 == 1
    with pytest.raises(ValueError, match="'ascii' or 'unicode'"):
        rouge_l("a", "b", "words")


def test_long_texts_are_quick():
    """A table of 25 million cells."""
    text = " ".join(str(n % 97) for n in range(5000))
    began = time.perf_counter()
    assert rouge_l(text, text + " end").recall == pytest.approx(5000 / 5001)
    assert time.perf_counter() - began < 2


def brute(pool, text):
    return sorted(((rouge_l(text, other).f1, -n) for n, other in enumerate(pool)), reverse=True)


@given(st.lists(WORDS, max_size=12), WORDS, st.sampled_from([0.0, 0.3, 0.7]), st.integers(1, 4))
def test_the_pool_finds_what_comparing_with_all_finds(texts, candidate, floor, count):
    pool = Novelty()
    for text in texts:
        pool.add(text)
    expected = [(f1, -n) for f1, n in brute(texts, candidate) if f1 > floor][:count]
    assert pool.nearest(candidate, count, floor) == expected
    assert pool.is_new(candidate) == all(f1 <= 0.7 for f1, _ in brute(texts, candidate))


def test_the_accepted_set_is_that_of_brute_force():
    generator = random.Random(0)
    candidates = [" ".join(generator.choices("abcdefgh", k=generator.randint(3, 9))) for _ in range(600)]
    pool, accepted = Novelty(), []
    for candidate in candidates:
        new = pool.is_new(candidate)
        assert new == all(rouge_l(candidate, other).f1 <= 0.7 for other in accepted)
        if new:
            pool.add(candidate)
            accepted.append(candidate)
    assert 50 < len(accepted) < 550


@pytest.mark.slow
def test_fifty_thousand_instructions_stay_quick():
    """Less than 20 ms a candidate, on words that are as unevenly common as in English."""
    generator = random.Random(0)
    words = [f"w{n}" for n in range(20_000)]
    weights = list(itertools.accumulate(1 / (n + 10) for n in range(20_000)))
    texts = [" ".join(generator.choices(words, cum_weights=weights, k=generator.randint(5, 30))) for _ in range(50_200)]
    pool = Novelty()
    for text in texts[:50_000]:
        pool.add(text)
    began = time.perf_counter()
    for text in texts[50_000:]:
        pool.is_new(text)
    assert (time.perf_counter() - began) / 200 < 0.02
