"""`accord eval preferences` and `attributes`: what people said, counted."""

import math

import pytest

from accord.data.files import DataError
from accord.pipelines.eval_attributes import ATTRIBUTES, AttributesConfig
from accord.pipelines.eval_attributes import run as attributes
from accord.pipelines.eval_preferences import PreferencesConfig
from accord.pipelines.eval_preferences import run as preferences
from accord.pipelines.settings import SettingsError
from pipelines.evaluating import close, evaluated, result, value, write_rows


def game(prompt, winner, loser, tie=False):
    meta = {"models": [winner, loser]}
    return {"prompt": prompt, "responses": [winner, loser], "ranks": [1, 1 if tie else 2], "meta": meta}


def arena(tmp_path, rows, **settings):
    config = PreferencesConfig(judgments=(write_rows(tmp_path / "games.jsonl", rows),), replicates=50, **settings)
    return evaluated("preferences", preferences, config, tmp_path / "out")


def test_three_wins_of_four_are_191_points(tmp_path):
    rows = [game(f"q{i}", *(("b", "a") if i % 4 else ("a", "b"))) for i in range(400)]
    outcome = arena(tmp_path, rows, anchor="a")
    assert value(outcome, "rating", "a") == 1000
    assert close(value(outcome, "rating", "b"), 1190.85, 0.5)
    assert close(value(outcome, "games won", "b"), 0.75)
    assert (value(outcome, "place", "a"), value(outcome, "place", "b")) == (2, 1)


def test_a_model_that_never_lost_has_no_rating(tmp_path):
    rows = [game(f"q{i}", "best", "a") for i in range(10)] + [game("x", "a", "b"), game("y", "b", "a")]
    outcome = arena(tmp_path, rows, anchor="a")
    assert math.isnan(value(outcome, "rating", "best"))
    assert result(outcome, "rating", "best").ci is None
    assert any("Too few games to rate" in note and "best" in note for note in outcome.notes)


def test_models_that_no_game_joins_to_the_anchor_are_named(tmp_path):
    pairs = [("a", "b"), ("b", "a"), ("c", "d"), ("d", "c")]
    outcome = arena(tmp_path, [game(f"q{i}", *pair) for i, pair in enumerate(pairs * 5)], anchor="a")
    assert [math.isnan(value(outcome, "rating", name)) for name in "abcd"] == [False, False, True, True]
    assert any("No chain of games joins c, d to a" in note for note in outcome.notes)


def test_a_ranking_is_a_game_per_pair_and_ties_are_half(tmp_path):
    row = {"prompt": "q", "responses": ["1", "2", "3"], "ranks": [1, 1, 2], "meta": {"models": ["a", "b", "c"]}}
    outcome = arena(tmp_path, [row])
    assert result(outcome, "rating", "a").n == 2
    assert [value(outcome, "games won", model) for model in "abc"] == [0.75, 0.75, 0]


def test_rows_without_models_are_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"no row names the models"):
        arena(tmp_path, [{"prompt": "q", "responses": ["1", "2"], "ranks": [1, 2]}])


FOUND = dict.fromkeys(name for name in ATTRIBUTES if name not in ("hallucination", "satisfies_constraint"))
FOUND = dict.fromkeys(FOUND, False)


def judgment(prompt, annotator, **by_model):
    responses = {
        f"{prompt}-{model}": {**FOUND, "quality": 4, "hallucination": "n/a", "satisfies_constraint": "n/a", **values}
        for model, values in by_model.items()
    }
    meta = {"prompt_id": prompt, "annotators": [annotator], "payload": {"schema": 1, "responses": responses}}
    meta["models"] = {f"{prompt}-{model}": model for model in by_model}
    return {"annotator": {"kind": "person", "id": annotator}, "response_set": prompt, "meta": meta}


def table(tmp_path, rows, name="judgments.jsonl", **settings):
    config = AttributesConfig(judgments=(write_rows(tmp_path / name, rows),), replicates=100, **settings)
    return evaluated("attributes", attributes, config, tmp_path / "out")


def test_table_3_by_hand(tmp_path):
    rows = [
        judgment("q1", "p1", sft={"sexual": True, "quality": 2}, ppo={"quality": 6, "hallucination": True}),
        judgment("q1", "p2", sft={"sexual": False, "quality": 4}, ppo={"quality": 4, "hallucination": False}),
        judgment("q2", "p1", sft={"quality": 3}, ppo={"quality": 2}),
    ]
    outcome = table(tmp_path, rows, baseline="sft")
    assert close(value(outcome, "overall quality", "sft"), 3)
    assert close(value(outcome, "sexual content", "sft"), (0.5 + 0) / 2)  # ratings of a prompt are averaged first
    found = result(outcome, "hallucination", "ppo")  # "n/a" leaves q2 out
    assert (found.value, found.n, found.clusters) == (0.5, 2, 1)
    assert close(value(outcome, "wins against the baseline", "ppo"), (1 + 0.5 + 0) / 3)
    assert not any(one.name == "hallucination" and one.of == "sft" for one in outcome.results)


def test_agreement_stands_beside_each_attribute(tmp_path):
    rows = [judgment(f"q{i}", who, m={"opinion": i % 2 == 0, "violent": (i + (who == "p2")) % 2 == 0})
            for i in range(10) for who in ("p1", "p2")]  # fmt: skip
    outcome = table(tmp_path, rows)
    assert value(outcome, "expresses opinion", "agreement (alpha)") == 1
    assert value(outcome, "violent content", "agreement (alpha)") < 0
    assert math.isnan(value(outcome, "sexual content", "agreement (alpha)"))  # nobody ever saw any


def test_other_judgments_are_no_attributes(tmp_path):
    row = judgment("q1", "p1", m={})
    row["meta"]["payload"] = {"schema": 1, "ranks": {"a": 1}}
    with pytest.raises(DataError, match="no row rates attributes"):
        table(tmp_path, [row])
