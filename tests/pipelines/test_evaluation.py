"""Rows that survive a kill, results as records, and when an evaluation says that it could not measure."""

import json
import math

import pytest

from accord.evaluate.result import Result
from accord.pipelines.evaluation import (
    EvalConfig,
    Items,
    Outcome,
    key_of,
    mean_amount,
    measured,
    model_facts,
    perform,
    write,
)
from accord.train.progress import Quiet


class Killed(BaseException):
    """Stands for a process that ends here."""


def doubled(log, fails_at=None):
    def work(chosen):
        for at in chosen:
            log.append(at)
            if at == fails_at:
                raise Killed
        return [{"value": 2 * at} for at in chosen]

    return work


def test_a_killed_evaluation_measures_only_what_is_missing_and_ends_in_the_same_file(tmp_path):
    keys = [key_of("model", at) for at in range(10)]
    whole = Items(tmp_path / "whole.jsonl")
    measured(whole, keys, doubled([]), Quiet(), "t", batch=2)
    whole.settle(keys)

    cut, log = Items(tmp_path / "cut.jsonl"), []
    with pytest.raises(Killed):
        measured(cut, keys, doubled(log, fails_at=7), Quiet(), "t", batch=2)
    with (tmp_path / "cut.jsonl").open("ab") as file:
        file.write(b'{"key": "abc", "val')  # what a kill leaves of a line
    again, second = Items(tmp_path / "cut.jsonl"), []
    rows = measured(again, keys, doubled(second), Quiet(), "t", batch=2)
    again.settle(keys)
    assert second == [6, 7, 8, 9]  # 0 to 5 were on disk, 6 was measured and lost with its batch
    assert [row["value"] for row in rows] == [2 * at for at in range(10)]
    assert (tmp_path / "cut.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_equal_items_are_measured_once_and_errors_again(tmp_path):
    items, log = Items(tmp_path / "rows.jsonl"), []
    keys = [key_of(1), key_of(2), key_of(1)]
    rows = measured(items, keys, lambda chosen: [log.append(at) or {"error": "away"} for at in chosen], Quiet(), "t")
    assert log == [0, 1]
    assert rows[0] == rows[2]
    items.settle(keys)
    assert Items(tmp_path / "rows.jsonl").known == {}  # both failed: the next command tries them again


def test_every_result_can_be_understood_alone(tmp_path):
    outcome = Outcome(
        models=[model_facts("policy", "runs/dpo", "f" * 64)], data=[{"path": "d", "rows": 1, "hash": "h"}]
    )
    outcome.add("win rate", "share", Result(value=math.nan, n=0, n_unscored=3, ci=(0.1, math.inf), seed=7), of="dpo")
    content = json.loads(write(tmp_path, "winrate", EvalConfig(seed=7), outcome).read_text(encoding="utf8"))
    (row,) = content["results"]
    assert (row["name"], row["of"], row["unit"], row["value"], row["n"], row["n_unscored"]) == (
        "win rate", "dpo", "share", None, 0, 3,
    )  # fmt: skip
    assert row["ci"] == [0.1, None]
    assert row["models"][0] == {"role": "policy", "id": "runs/dpo", "revision": "f" * 12, "hash": "f" * 64}
    assert {"command", "data", "time", "versions", "seed", "level", "version"} <= row.keys()
    assert "accord-align" in row["versions"]


@pytest.mark.parametrize(("lost", "code"), [(5, 0), (6, 3)])
def test_more_than_half_unscored_is_exit_code_3(lost, code):
    outcome = Outcome()
    outcome.add("accuracy", "share", Result(value=0.0, n=5, n_unscored=lost))
    assert outcome.exit_code == code


def test_an_unscored_share_above_five_percent_is_the_first_sentence(tmp_path):
    outcome = Outcome(notes=["another"])
    outcome.add("accuracy", "share", Result(value=0.5, n=90, n_unscored=10))
    write(tmp_path, "reward", EvalConfig(), outcome)
    assert outcome.notes[0].startswith("10% of all observations could not be scored")


def test_a_baseline_that_needs_no_scorer_does_not_hide_that_the_headline_was_lost(tmp_path):
    outcome = Outcome()
    outcome.add("accuracy", "share", Result(value=0.5, n=15, n_unscored=33))
    outcome.add("the longer wins", "share", Result(value=0.5, n=48))
    assert outcome.exit_code == 3
    write(tmp_path, "reward", EvalConfig(), outcome)
    assert outcome.notes[0].startswith('69% of the observations behind "accuracy" could not be scored')


def test_the_reasons_of_unscored_rows_are_told(tmp_path):
    def job(config, items, display):
        rows = measured(
            items, ["a", "b", "c"], lambda at: [{"error": "too long"}, {"score": 1}, {"error": "away"}], Quiet(), "rows"
        )
        outcome = Outcome()
        outcome.add("accuracy", "share", Result(value=1.0, n=1, n_unscored=sum("error" in row for row in rows)))
        return outcome

    outcome = perform("reward", EvalConfig(), tmp_path, job, Quiet())
    assert "too long (1 rows); away (1 rows)" in outcome.notes[1]


def test_a_reward_that_is_the_same_everywhere_has_an_interval_without_width():
    assert mean_amount([0.0] * 8, None, EvalConfig()).ci == (0, 0)
    assert mean_amount([0.0, 1.0] * 8, None, EvalConfig()).ci != (0.5, 0.5)


def test_two_processes_cannot_write_into_one_folder(tmp_path):
    def inside(config, items, display):
        with pytest.raises(ValueError, match="in use by another process"):
            perform("inner", config, tmp_path, lambda *_: Outcome(), Quiet())
        return Outcome()

    perform("outer", EvalConfig(), tmp_path, inside, Quiet())
    assert (tmp_path / "eval/outer.json").exists()
    assert not (tmp_path / "eval/inner.json").exists()
