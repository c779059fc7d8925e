"""Every method of `accord train` on the quickstart's task, from the same model, on the same data, with one budget.

The folder of a quickstart gives the SFT model, the rankings, the prompts and the reward model. Preference methods see
half of the rankings once, policy methods roll out 64 prompts once, reward models see half of the training rankings
once. Every
policy then answers the held-out prompts, which the gold reward judges that nothing was trained on.

    python -m benchmarks.methods --quickstart runs/quickstart --out runs/methods
    python -m benchmarks.methods --quickstart runs/quickstart --out runs/methods --only dpo ipo

Finished methods are skipped and killed ones continued. `methods.json` has the figures, `methods.md` the tables.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accord.evaluate.intervals import mean_result
from accord.evaluate.result import ends_or_none
from accord.pipelines.held_out import Responder, gold_rewards
from accord.pipelines.jobs import JOBS
from accord.pipelines.quickstart import read_prompts
from accord.pipelines.quickstart_config import FULL
from accord.train.methods import method

PREFERENCE = {
    **{name: {"loss": name} for name in ("dpo", "cdpo", "robust", "ipo", "hinge", "slic", "dpo-length", "simpo")},
    **{name: {"loss": name} for name in ("orpo", "kto", "info-nce", "plackett-luce", "pro")},
    "ipo, mean": {"loss": "ipo", "reduction": "mean", "beta": 1.0},
    "dpo-length, alpha 0.1": {"loss": "dpo-length", "alpha": 0.1},
    "dpo, soft targets": {"loss": "dpo", "data": "soft"},
}
POLICY = {
    "ppo-clip": {},
    "ppo-clip, ptx": {"ptx": True, "ptx_coefficient": 0.1},
    "ppo-penalty": {"penalty": 1.0},
    "ppo-penalty, adaptive": {"penalty_target": 0.01},
    "trpo, LoRA 8": {"lora_rank": 8, "precision": "fp32", "fisher_share": 0.25, "learning_rate": 1e-4},
    "reinforce": {},
    "rloo": {},
    "grpo": {"kl_beta": 0.15},
}
REWARD = {
    "bradley-terry": {},
    "bradley-terry, choose": {"pair_weight": "choose"},
    "bradley-terry, smoothing 0.1": {"label_smoothing": 0.1},
    "bradley-terry, centering 0.01": {"centering": 0.01},
    "bradley-terry, soft targets": {"data": "soft"},
    "bradley-terry, margins": {"data": "margin"},
    "rao-kupper": {},
    "davidson": {},
    "plackett-luce": {},
}
SAMPLES = 2  # responses per held-out prompt


class Bench:
    """The folder of results and what all methods share."""

    def __init__(self, quickstart: Path, out: Path) -> None:
        self.quickstart, self.out = quickstart, out
        self.path = out / "methods.json"
        self.rows: dict[str, dict[str, Any]] = json.loads(self.path.read_text()) if self.path.exists() else {}
        out.mkdir(parents=True, exist_ok=True)
        self.common = {"micro_tokens": FULL.micro_tokens, "batch_size": FULL.batch_size, "precision": "bf16", "seed": 0}

    def keep(self, name: str, row: dict[str, Any]) -> None:
        """Write a row and the tables."""
        self.rows[name] = row
        self.path.write_text(json.dumps(self.rows, indent=2))
        (self.out / "methods.md").write_text(tables(self.rows))
        print(name, json.dumps({k: v for k, v in row.items() if k != "settings"}), flush=True)

    def train(self, job: str, name: str, settings: dict[str, Any]) -> tuple[Path, float]:
        """Train, or continue; the run folder and its seconds."""
        folder = self.out / f"{job}-{name.replace(', ', '-').replace(' ', '-')}"
        config = JOBS[job].config(**self.common | settings, out=folder)
        JOBS[job].run(config)
        return folder, float(json.loads((folder / "done.json").read_text())["seconds"])

    def held_out(self, model: str) -> dict[str, Any]:
        """Gold reward, reward-model score, KL to SFT and length of a policy's responses to held-out prompts."""
        from accord.models.load import load_policy
        from accord.models.score import prepare
        from accord.text import Template
        from accord.train.loop import Precision, device_of
        from accord.train.rewards import load_reward
        from accord.train.scoring import all_sequence_logprobs

        prompts = read_prompts("held-out", FULL)
        responder = Responder(prompts=prompts, samples=SAMPLES, max_new_tokens=FULL.max_new_tokens, seed=2)
        logprobs, responses = {}, None
        for name in (model, str(self.quickstart / "sft")):
            policy, tokenizer = load_policy(name)
            template, precision = Template(tokenizer), Precision("bf16", device_of(policy))
            prepare(policy)
            precision.freeze(policy)
            responses = responses or responder(policy, template, precision)
            logprobs[name] = all_sequence_logprobs(policy, responses.trees, precision, FULL.micro_tokens)
        reward = load_reward(str(self.quickstart / "reward"), template, "bf16", FULL.micro_tokens)
        texts = [text for texts in responses.texts_BK for text in texts]
        return self.figures(texts, reward(responses).tolist()) | {
            "kl": float((logprobs[model] - logprobs[str(self.quickstart / "sft")]).mean()),
            "length": sum(len(b.tokens) for tree in responses.trees for b in tree.branches) / len(texts),
        }

    @staticmethod
    def figures(texts: list[str], scores: list[float]) -> dict[str, Any]:
        """Gold reward with its 95% interval, clustered by prompt, and the reward model's mean score."""
        each = len(texts) // FULL.held_out_prompts
        gold = mean_result(gold_rewards(texts), [n // each for n in range(len(texts))])
        return {
            "gold": gold.value,
            "gold_ci": ends_or_none(gold),
            "reward_model": sum(scores) / len(scores),
            "n": gold.n,
        }


def soft_rows(path: Path, what: str) -> list[dict[str, Any]]:
    """Comparisons of a rankings file: P(better) or the margin from the gold rewards' gap."""
    rows = []
    for line in path.read_text(encoding="utf8").splitlines():
        row = json.loads(line)
        gold = gold_rewards(row["responses"])
        for i, first in enumerate(row["responses"]):
            for j, second in enumerate(row["responses"]):
                if row["ranks"][i] < row["ranks"][j]:
                    gap = gold[i] - gold[j]
                    extra = {"probability": 1 / (1 + math.exp(-4 * gap))} if what == "soft" else {"margin": gap}
                    rows.append({"prompt": row["prompt"], "chosen": first, "rejected": second, **extra})
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write JSONL once."""
    if not path.exists():
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
    return path


def preference(bench: Bench, name: str) -> None:
    """One direct or listwise method."""
    settings = dict(PREFERENCE[name])
    lines = (bench.quickstart / "data/rankings.jsonl").read_text(encoding="utf8").splitlines()[::2]
    rankings, data = (
        write_rows(bench.out / "rankings.jsonl", [json.loads(line) for line in lines]),
        settings.pop("data", None),
    )
    # Every third pair: about as many steps as the others take, each on twice as many prompts
    path = write_rows(bench.out / f"{data}.jsonl", soft_rows(rankings, data)[::3]) if data else rankings
    settings |= {"model": str(bench.quickstart / "sft"), "data": [path], "learning_rate": FULL.dpo_rate}
    folder, seconds = bench.train("dpo", name, settings)
    bench.keep(name, {"table": "preference", "seconds": seconds, **bench.held_out(str(folder))})


def policy(bench: Bench, name: str) -> None:
    """One policy method."""
    settings = {"learning_rate": FULL.ppo_rate, "kl_beta": FULL.ppo_kl} | POLICY[name]
    if settings.pop("ptx", False):
        settings |= {"ptx_data": [bench.quickstart / "data/demonstrations.jsonl"], "ptx_batch_size": 4}
    algorithm = name.split(",")[0]
    lines = (bench.quickstart / "data/prompts.jsonl").read_text(encoding="utf8").splitlines()[::4]
    path = write_rows(bench.out / "prompts.jsonl", [json.loads(line) for line in lines])
    if "minibatches" in method("ppo", algorithm).reads:
        settings |= {"minibatches": FULL.ppo_minibatches, "ppo_epochs": 1}
        settings["batch_size"] = FULL.ppo_prompts // FULL.ppo_minibatches
    else:
        settings["batch_size"] = FULL.ppo_prompts
    settings |= {
        "model": str(bench.quickstart / "sft"), "reward": str(bench.quickstart / "reward"), "data": [path],
        "algorithm": algorithm, "samples": FULL.samples, "max_new_tokens": FULL.max_new_tokens, "save_every": 8,
    }  # fmt: skip
    folder, seconds = bench.train("ppo", name, settings)
    bench.keep(name, {"table": "policy", "seconds": seconds, **bench.held_out(str(folder))})


def reward(bench: Bench, name: str) -> None:
    """One reward model: accuracy on held-out rankings."""
    settings = {"loss": name.split(",")[0]} | REWARD[name]
    lines = (bench.quickstart / "data/rankings.train.jsonl").read_text(encoding="utf8").splitlines()[::2]
    rankings, data = (
        write_rows(bench.out / "reward.jsonl", [json.loads(line) for line in lines]),
        settings.pop("data", None),
    )
    path = write_rows(bench.out / f"reward-{data}.jsonl", soft_rows(rankings, data)[::3]) if data else rankings
    settings |= {"model": str(bench.quickstart / "sft"), "data": [path], "learning_rate": FULL.reward_rate}
    settings |= {"eval_data": [bench.quickstart / "data/rankings.held-out.jsonl"], "eval_every": 10_000}
    folder, seconds = bench.train("reward", name, settings)
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    kept = {
        key: last.get(f"eval/{key}") for key in ("accuracy_tie_half", "longer_wins_accuracy", "margin", "ece", "nll")
    }
    bench.keep(f"reward: {name}", {"table": "reward", "seconds": seconds, **kept})


def baselines(bench: Bench, name: str) -> None:
    """The SFT model itself, and the best of n of its responses by the reward model."""
    from accord.losses.kl import best_of_n
    from accord.models.load import load_policy
    from accord.text import Template
    from accord.train.loop import Precision, device_of
    from accord.train.rewards import load_reward

    began = time.monotonic()
    if name == "sft":
        row = bench.held_out(str(bench.quickstart / "sft"))
        bench.keep(name, {"table": "preference", "seconds": 0.0, **row})
        return
    n = int(name.removeprefix("best of "))
    model, tokenizer = load_policy(str(bench.quickstart / "sft"))
    template, precision = Template(tokenizer), Precision("bf16", device_of(model))
    prompts = read_prompts("held-out", FULL)
    responses = Responder(prompts=prompts, samples=n, max_new_tokens=FULL.max_new_tokens, seed=2)(
        model, template, precision
    )
    scores = load_reward(str(bench.quickstart / "reward"), template, "bf16", FULL.micro_tokens)(responses)
    best = scores.view(len(prompts), n).argmax(-1).tolist()
    texts = [responses.texts_BK[b][k] for b, k in enumerate(best)]
    row = bench.figures(texts, scores.view(len(prompts), n).amax(-1).tolist())
    row |= {
        "kl": best_of_n(n),
        "length": sum(len(responses.trees[b].branches[k].tokens) for b, k in enumerate(best)) / 72,
    }
    bench.keep(name, {"table": "policy", "seconds": time.monotonic() - began, **row})


def rejection(bench: Bench, name: str) -> None:
    """Fine-tuning on the best of 8 responses by the reward model, as recipes/rejection.yaml does."""
    prompts = bench.quickstart / "data/prompts.jsonl"
    sampled = JOBS["sample"].config(
        model=str(bench.quickstart / "sft"), data=[prompts], out=bench.out / "sample", seed=0, samples=8,
        reward=str(bench.quickstart / "reward"), max_new_tokens=FULL.max_new_tokens, precision="bf16",
        micro_tokens=FULL.micro_tokens,
    )  # fmt: skip
    began = time.monotonic()
    JOBS["sample"].run(sampled)
    sampling = time.monotonic() - began
    settings = {"model": str(bench.quickstart / "sft"), "data": [bench.out / "sample/best.jsonl"]}
    folder, seconds = bench.train("sft", name, settings | {"learning_rate": FULL.dpo_rate})
    bench.keep(name, {"table": "policy", "seconds": seconds + sampling, **bench.held_out(str(folder))})


GROUPS: dict[str, tuple[Callable[[Bench, str], None], list[str]]] = {
    "baselines": (baselines, ["sft", "best of 4", "best of 16"]),
    "preference": (preference, list(PREFERENCE)),
    "reward": (reward, list(REWARD)),
    "policy": (policy, list(POLICY)),
    "rejection": (rejection, ["rejection sampling, best of 8"]),
}


def tables(rows: dict[str, dict[str, Any]]) -> str:
    """The figures as Markdown."""
    lines = []
    for table in ("preference", "policy"):
        lines += [
            "",
            "| method | gold reward [95%] | reward model | KL to SFT | tokens | seconds |",
            "|---|---|---|---|---|---|",
        ]
        for name, row in rows.items():
            if row["table"] == table:
                low, high = row["gold_ci"]
                cells = [f"{row['gold']:.2f} [{low:.2f}, {high:.2f}]", f"{row['reward_model']:.2f}", f"{row['kl']:.1f}"]
                cells += [f"{row['length']:.1f}", f"{row['seconds']:.0f}"]
                lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "| reward model | accuracy | longer wins | margin | calibration error | nll | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        if row["table"] == "reward":
            figures = [row[key] for key in ("accuracy_tie_half", "longer_wins_accuracy", "margin", "ece", "nll")]
            cells = " | ".join("-" if value is None else f"{value:.3f}" for value in figures)
            lines.append(f"| {name.removeprefix('reward: ')} | {cells} | {row['seconds']:.0f} |")
    return "\n".join(lines).strip() + "\n"


def main() -> None:
    """Run what is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quickstart", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--only", nargs="+", metavar="METHOD", help="methods, or groups: " + ", ".join(GROUPS))
    arguments = parser.parse_args()
    bench = Bench(arguments.quickstart, arguments.out)
    for group, (run, names) in GROUPS.items():
        for name in names:
            key = f"reward: {name}" if group == "reward" else name
            if key not in bench.rows and (not arguments.only or {name, group} & set(arguments.only)):
                run(bench, name)


if __name__ == "__main__":
    main()
