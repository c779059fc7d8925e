"""Probabilities of labels from first tokens and from votes, by hand."""

from math import exp, log

import pytest

from accord.labels import FLOOR, bare, from_top, from_votes, label_of, said_label, spellings, total

AB = ("(A)", "(B)")


def test_spellings_of_a_label_are_summed():
    top = {"A": log(0.3), " A": log(0.2), "(A": log(0.1), "B": log(0.25), "The": log(0.15)}
    a, b = from_top(AB, [("A", top)])
    assert exp(a) == pytest.approx(0.6)
    assert exp(b) == pytest.approx(0.25)


def test_a_bracket_before_the_label_is_stepped_over():
    tokens = [("(", {"(": log(0.9), "I": log(0.1)}), ("B", {"A": log(0.2), "B": log(0.8)})]
    a, b = from_top(AB, tokens)
    assert exp(b) / (exp(a) + exp(b)) == pytest.approx(0.8)


def test_a_reply_about_something_else_is_unscored_although_a_label_comes_later():
    tokens = [("I", {"I": log(0.9)}), (" A", {" A": log(0.9)})]
    assert from_top(AB, tokens) == [None, None]


def test_an_unseen_label_has_the_floor():
    assert from_top(AB, [("A", {"A": 0.0})]) == [0.0, FLOOR]


def test_one_and_ten_cannot_be_told_apart_by_a_digit():
    assert from_top(("1", "2", "10"), [("1", {"1": log(0.6), "2": log(0.3)})]) is None
    whole = from_top(("1", "2", "10"), [("10", {"10": log(0.6), "1": log(0.3)})])
    assert exp(whole[2]) == pytest.approx(0.6)


def test_votes_are_shares_of_all_answers():
    a, b = from_votes(AB, ["(A)", "A", "(B) of course", "no idea", "**A**"])
    assert exp(a) == pytest.approx(3 / 5)
    assert exp(b) == pytest.approx(1 / 5)
    assert from_votes(AB, ["no idea", ""]) == [None, None]


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("(B)", 1),
        (" b", None),
        ("The answer is (A).", 0),
        ("(A) or (B)", None),
        ("Reply A is better", 0),
        ("A reply like (B) is better", 1),
        ("About (A", 0),
        ("", None),
    ],
)
def test_labels_read_from_answers(answer, label):
    assert said_label(AB, answer) == label


def test_a_label_is_summed_over_the_bracket_said_and_the_letter_alone():
    """0.3 say A at once; 0.6 say a bracket, and four of five A behind it."""
    tokens = [("(", {"(": log(0.6), "A": log(0.3)}), ("A", {"A": log(0.8), "B": log(0.2)})]
    a, b = from_top(AB, tokens)
    assert exp(a) == pytest.approx(0.3 + 0.6 * 0.8)
    assert exp(b) == pytest.approx(0.6 * 0.2)


def test_a_space_that_a_server_writes_as_its_vocabulary_has_it_is_no_part_of_a_label():
    a, b = from_top(AB, [("\u0120A", {"\u0120A": log(0.5), "\u2581B": log(0.25)})])
    assert (exp(a), exp(b)) == (pytest.approx(0.5), pytest.approx(0.25))


def test_spellings_are_a_label_in_brackets_or_closed():
    found = spellings(" (A)")
    assert {"(A", " (A", "A)", " A.", "A\n"} <= set(found)
    assert not {"A", " A"} & set(found)  # "A good reply" begins with the article
    assert {label_of(text) for text in found} - {"A,"} == {"A"}
    assert found == spellings("A")
    assert bare(" (A)") == ("A", " A")


def test_a_spelling_that_continues_another_is_counted_once():
    a, b = total([{("(", "A"): log(0.2), ("(", "A", ")"): log(0.1), ("A",): log(0.3)}, {("B",): log(0.25)}])
    assert exp(a) == pytest.approx(0.2 + 0.3)
    assert exp(b) == pytest.approx(0.25)


def test_ten_is_not_counted_as_one():
    one, ten = total([{("1",): log(0.6)}, {("1", "0"): log(0.2)}])
    assert exp(one) == pytest.approx(0.4)
    assert exp(ten) == pytest.approx(0.2)
    hundred = total([{("1",): log(0.6)}, {("1", "0"): log(0.2)}, {("1", "0", "0"): log(0.05)}])
    assert [exp(value) for value in hundred] == pytest.approx([0.4, 0.15, 0.05])
