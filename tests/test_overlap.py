import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.overlap import rouge_l

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
