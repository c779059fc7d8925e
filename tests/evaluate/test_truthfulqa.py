"""The multiple-choice protocol on a model whose log-probabilities are written down by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from accord.evaluate.truthfulqa import PRIMER, ask, primer_hash, question_of, results

ROW = {
    "question": "What do bees make?",
    "mc0_targets": {"Honey": 1, "Milk": 0},
    "mc1_targets": {"Honey": 1, "Milk": 0, "Silk": 0},
    "mc2_targets": {"Honey": 1, "Wax": 1, "Milk": 0, "Silk": 0},
}
NATS = {" Honey": -2.0, " Wax": -5.0, " Milk": -3.0, " Silk": -4.0}


def believes(prompts: Any, continuations: Any) -> list[list[float | None]]:
    """Answers by the table; of two letters the one that stands before honey, by two nats."""
    found: list[list[float | None]] = []
    for prompt, texts in zip(prompts, continuations, strict=True):
        if texts == [" (A)", " (B)"]:
            first = "(A) Honey" in prompt
            found.append([0.0, -2.0] if first else [-2.0, 0.0])
        else:
            found.append([NATS[text] for text in texts])
    return found


def test_by_hand() -> None:
    question = question_of(ROW)
    rows = ask(believes, [question])
    assert rows[0]["answers"] == {"Honey": -2.0, "Milk": -3.0, "Silk": -4.0, "Wax": -5.0}
    found = {name: result.value for name, result in results([question], rows).items()}
    true, false = math.exp(-2) + math.exp(-5), math.exp(-3) + math.exp(-4)
    assert found["mc1"] == 1.0
    assert found["mc2"] == pytest.approx(true / (true + false))
    assert found["mc3"] == 0.5
    assert found["mc0"] == 1.0


def test_the_order_of_options_does_not_matter() -> None:
    turned = {name: dict(reversed(value.items())) if isinstance(value, dict) else value for name, value in ROW.items()}
    ways = [results([question_of(row)], ask(believes, [question_of(row)])) for row in (ROW, turned)]
    assert {name: result.value for name, result in ways[0].items()} == {
        name: result.value for name, result in ways[1].items()
    }


def test_a_model_that_always_says_a_is_at_chance_and_flips() -> None:
    def first(prompts: Any, continuations: Any) -> list[list[float | None]]:
        return [[0.0, -9.0] if len(texts) == 2 else [0.0] * len(texts) for texts in continuations]

    question = question_of(ROW)
    found = results([question], ask(first, [question]))
    assert found["mc0"].value == 0.5
    assert found["mc0"].detail["flip_rate"] == 1.0
    assert found["mc1"].value == 0.0  # all equal: the best is not above the others


def test_one_missing_answer_costs_the_question() -> None:
    rows = ask(believes, [question_of(ROW)])
    rows[0]["answers"]["Silk"] = None
    found = results([question_of(ROW)], rows)
    assert (found["mc1"].n, found["mc1"].n_unscored) == (0, 1)
    assert (found["mc0"].n, found["mc0"].n_unscored) == (1, 0)


def test_every_question_gets_the_primer_in_front() -> None:
    seen: list[str] = []

    def watches(prompts: Any, continuations: Any) -> list[list[float | None]]:
        seen.extend(prompts)
        return believes(prompts, continuations)

    ask(watches, [question_of(ROW)])
    assert len(seen) == 3
    assert all(prompt.startswith(PRIMER + "\n\nQ: What do bees make?\n") and prompt.endswith("\nA:") for prompt in seen)
    assert primer_hash(PRIMER) != primer_hash(PRIMER + ".")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({}, "question"),
        ({**ROW, "mc1_targets": {"Honey": 1, "Wax": 1, "Milk": 0}}, "2 true answers"),
        ({**ROW, "mc2_targets": {"Honey": 1}}, "1 true and 0 false"),
        ({**ROW, "mc2_targets": {"Honey": "yes"}}, "0 .false."),
    ],
)
def test_bad_rows_say_what_was_expected(row: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        question_of(row)
