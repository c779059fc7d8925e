"""The reward-model job: every loss learns, ties end near each other, and what a run leaves is what was asked for."""

import json
import random

import pytest
import torch
from torch.testing import assert_close

from accord.train import reward
from accord.train.configs import RewardConfig
from accord.train.progress import Quiet
from train.data import WORDS, comparisons, metrics, rankings, write

FAST = {"precision": "fp32", "learning_rate": 3e-3, "max_length": 128, "micro_tokens": 512, "batch_size": 8}
LOSSES = ["bradley-terry", "rao-kupper", "davidson", "plackett-luce"]


def ordered(path, count, seed):
    """More "a"s before fewer, whatever stands around them; two responses with as many tie."""
    draw, rows = random.Random(seed), []
    for _ in range(count):
        counts = [2, 1, 1, 0]
        texts = ["".join(draw.sample("a" * n + "z" * (3 - n), 3)) + draw.choice("xy") for n in counts]
        order = draw.sample(range(4), 4)
        rows.append(
            {
                "prompt": draw.choice(WORDS),
                "responses": [texts[k] for k in order],
                "ranks": [{2: 1, 1: 2, 0: 3}[counts[k]] for k in order],
            }
        )
    rows = [row for row in rows if len(set(row["responses"])) == 4]
    return write(path, rows)


def start(tiny_folder, tmp_path, out="rm", **settings):
    given = {"data": [tmp_path / "data.jsonl"], "model": str(tiny_folder), "out": tmp_path / out, **FAST, **settings}
    return reward.run(RewardConfig(**given), Quiet())


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_learns_an_order_it_is_then_asked_on_other_rows(loss, tiny_folder, tmp_path):
    ordered(tmp_path / "data.jsonl", 64, 0)
    held_out = ordered(tmp_path / "held.jsonl", 24, 1)
    folder = start(tiny_folder, tmp_path, loss=loss, eval_data=[held_out], epochs=6, eval_every=10_000)
    first, last = metrics(folder)[0], metrics(folder)[-1]
    assert last["eval/accuracy_strict"] > 0.95
    assert last["eval/loss"] < 0.6 * first["loss"]
    assert 0 <= last["eval/ece"] < 0.5
    assert last["eval/brier"] < 0.1  # 1/4 without an opinion
    assert last["eval/nll"] < 0.35  # log 2 = 0.69 without one
    assert json.loads((folder / "model" / "accord_reward.json").read_text())["loss"] == loss
    if loss in ("rao-kupper", "davidson"):
        assert first["ties/share"] == pytest.approx(1 / 6)
        assert last["eval/ties/gap"] < 0.3 * last["eval/margin"]  # ties are nearer to each other than ranked ones
        assert "ties/parameter" not in last
    else:
        assert "ties/share" not in last


@pytest.mark.parametrize(
    ("loss", "name", "equal"), [("rao-kupper", "threshold", 1.0986), ("davidson", "log_nu", 0.693)]
)
def test_learned_ties_are_trained_logged_and_kept_with_the_model(loss, name, equal, tiny_folder, tmp_path):
    ordered(tmp_path / "data.jsonl", 48, 0)
    folder = start(tiny_folder, tmp_path, loss=loss, learn_ties=True, epochs=2, learning_rate=1e-3)
    values = [row["ties/parameter"] for row in metrics(folder)]
    assert abs(values[0] - equal) > 0.01  # one step away from where equal scores tie half the time
    assert len(set(values)) == len(values)
    facts = json.loads((folder / "model" / "accord_reward.json").read_text())
    assert facts[name] == pytest.approx(values[-1])


def test_a_learned_tie_parameter_goes_on_where_it_was(tiny_folder, tmp_path, monkeypatch):
    """Stopped behind a checkpoint, the second part logs what an undisturbed run logs."""
    ordered(tmp_path / "data.jsonl", 32, 0)
    settings = {"loss": "davidson", "learn_ties": True, "epochs": 2, "save_every": 3}
    whole = metrics(start(tiny_folder, tmp_path, "whole", **settings))
    log, calls = reward.Run.log, []

    def stop(self, step, **figures):
        calls.append(step)
        if step == 5:
            raise KeyboardInterrupt
        return log(self, step, **figures)

    monkeypatch.setattr(reward.Run, "log", stop)
    with pytest.raises(KeyboardInterrupt):
        start(tiny_folder, tmp_path, "cut", **settings)
    monkeypatch.undo()
    cut = metrics(start(tiny_folder, tmp_path, "cut", **settings))
    assert [row["ties/parameter"] for row in cut] == [row["ties/parameter"] for row in whole]
    assert [row["loss"] for row in cut] == [row["loss"] for row in whole]


def test_centering_holds_scores_around_zero(tiny_folder, tmp_path):
    rankings(tmp_path / "data.jsonl")
    means = {}
    for weight in (0.0, 1.0):
        folder = start(tiny_folder, tmp_path, f"rm{weight}", centering=weight, epochs=6)
        rows = metrics(folder)
        means[weight] = abs(rows[-1]["reward/chosen"] + rows[-1]["reward/rejected"])
        assert ("loss/centering" in rows[-1]) is (weight > 0)
    assert means[1.0] < 0.2 * means[0.0]


def test_bootstrap_draws_rows_by_seed(tiny_folder, tmp_path):
    comparisons(tmp_path / "data.jsonl", 32)
    drawn = [reward.bootstrap(32, seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(len(rows) == 32 and set(rows) <= set(range(32)) for rows in drawn)
    assert 15 < len(set(reward.bootstrap(32, 5))) < 27  # 1 - 1/e of 32 is 20
    folder = start(tiny_folder, tmp_path, bootstrap=True, max_steps=1)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["bootstrap"] == {"drawn": 32, "distinct": len(set(drawn[0]))}
    plain = start(tiny_folder, tmp_path, "plain", max_steps=1)
    assert metrics(plain)[0]["grad_norm"] != metrics(folder)[0]["grad_norm"]


def test_dropped_failures_move_nothing(tiny_folder, tmp_path):
    """The failed responses of one file are other texts than those of the other: dropped, both train the same."""
    for name, failed in (("one", "q"), ("two", "w")):
        rows = [{"prompt": WORDS[i % 8], "responses": ["a", "z", failed], "ranks": [1, 2, None]} for i in range(16)]
        write(tmp_path / f"{name}.jsonl", rows)
    losses = [
        [
            row["loss"]
            for row in metrics(
                start(tiny_folder, tmp_path, f"{name}-{how}", data=[tmp_path / f"{name}.jsonl"], failed=how)
            )
        ]
        for how in ("drop", "last")
        for name in ("one", "two")
    ]
    assert_close(losses[0], losses[1])
    assert losses[2][-1] != pytest.approx(losses[3][-1], abs=1e-4)


def test_more_epochs_are_noted(tiny_folder, tmp_path):
    class Notes(Quiet):
        def __init__(self):
            self.said = []

        def note(self, text):
            self.said.append(text)

    comparisons(tmp_path / "data.jsonl", 8)
    said = []
    for epochs in (1, 2):
        notes = Notes()
        given = {"data": [tmp_path / "data.jsonl"], "model": str(tiny_folder), "out": tmp_path / str(epochs), **FAST}
        reward.run(RewardConfig(**given, epochs=epochs), notes)
        said.append(" ".join(notes.said))
    assert RewardConfig(model="m", data=["d"], out="o").epochs == 1
    assert "mostly overfit after one" not in said[0]
    assert "2 epochs: reward models mostly overfit after one; watch eval/accuracy" in said[1]


def test_calibration_by_hand():
    """Better, worse, p: right by 1, wrong by 1, undecided left out before; all of one bin of confidence 0.731."""
    score_3P = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    figures = reward.calibrated(score_3P)
    assert figures["eval__ece"] == pytest.approx(0.7311 - 0.5, abs=1e-4)
    assert figures["eval__brier"] == pytest.approx((0.2689**2 + 0.7311**2) / 2, abs=1e-4)
    assert figures["eval__nll"] == pytest.approx((0.3133 + 1.3133) / 2, abs=1e-4)
    assert reward.calibrated(torch.zeros(3, 0)) == {}


def test_calibration_is_of_decided_pairs_alone(tiny_folder, tmp_path):
    """Held-out ties and votes at 1/2 leave nothing to be sure of."""
    ordered(tmp_path / "data.jsonl", 16, 0)
    ties = [{"prompt": "ab", "responses": ["a", "z"], "ranks": [1, 1]}]
    votes = [{"prompt": "ab", "chosen": "a", "rejected": "z", "probability": 0.5}]
    for loss, rows in (("davidson", ties), ("bradley-terry", votes)):
        held_out = write(tmp_path / f"{loss}.jsonl", rows)
        folder = start(tiny_folder, tmp_path, loss, loss=loss, eval_data=[held_out], max_steps=1)
        assert "eval/loss" in metrics(folder)[-1]
        assert "eval/ece" not in metrics(folder)[-1]


@pytest.mark.parametrize("loss", LOSSES)
def test_every_setting_of_a_loss_is_read(loss, tiny_folder, tmp_path):
    ordered(tmp_path / "data.jsonl", 16, 0)
    seen = set()

    class Spy(RewardConfig):
        def __getattribute__(self, name):
            if name in RewardConfig.model_fields:
                seen.add(name)
            return super().__getattribute__(name)

    given = {"data": [tmp_path / "data.jsonl"], "eval_data": [tmp_path / "data.jsonl"], "model": str(tiny_folder)}
    config = Spy(**given, out=tmp_path / "rm", loss=loss, max_steps=2, **FAST)
    seen.clear()
    reward.run(config, Quiet())
    methods = RewardConfig.methods()
    others = {name for method in methods.values() for name in method.reads} - methods[loss].reads.keys()
    assert RewardConfig.model_fields.keys() - seen - others == set()


def test_data_with_margins_is_refused_in_words(tiny_folder, tmp_path):
    rows = [{"prompt": "q", "chosen": "a", "rejected": "z", "margin": 1.0}]
    write(tmp_path / "data.jsonl", rows)
    with pytest.raises(ValueError, match="the data has `margin`, which --loss plackett-luce does not read"):
        start(tiny_folder, tmp_path, loss="plackett-luce")
    rankings(tmp_path / "good.jsonl")
    with pytest.raises(ValueError, match="the data has `margin`, which --loss davidson does not read"):
        start(
            tiny_folder, tmp_path, loss="davidson", data=[tmp_path / "good.jsonl"], eval_data=[tmp_path / "data.jsonl"]
        )
