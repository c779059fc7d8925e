"""The quickstart's last stages: what base, SFT, PPO and DPO say to held-out prompts, measured the same way."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from accord.evaluate.intervals import mean_result
from accord.evaluate.result import ends_or_none, finite_or_none
from accord.evaluate.winrate import outcomes, win_rate
from accord.pipelines.held_out import Responder, gold_rewards
from accord.pipelines.quickstart_config import QuickstartConfig, Recipe
from accord.records import Conversation
from accord.train.progress import Display

__all__ = ["POLICIES", "evaluate", "summarise"]

POLICIES = ("base", "sft", "ppo", "dpo")


def evaluate(config: QuickstartConfig, recipe: Recipe, prompts: Sequence[Conversation], display: Display) -> None:
    """Write evaluation.jsonl, a line per held-out response, and frontier.json, a point per checkpoint."""
    from accord.models.load import load_policy
    from accord.models.score import prepare
    from accord.text import Template
    from accord.train.loop import Precision, device_of
    from accord.train.rewards import load_reward
    from accord.train.run import write_text
    from accord.train.scoring import all_sequence_logprobs

    responder = Responder(
        prompts=prompts,
        samples=recipe.held_out_samples,
        max_new_tokens=recipe.max_new_tokens,
        seed=config.seed + 2,
    )
    arithmetic = json.loads((config.out / "manifest.json").read_text(encoding="utf8"))["precision"]
    each = len(prompts) * recipe.held_out_samples
    passes = 4 * len(POLICIES) + 2  # all are drawn once and read by three models, two policies' by themselves too
    display.begin("evaluation", each * passes)
    responses, own, done = {}, {}, 0
    columns: dict[str, dict[str, list[float]]] = {judge: {} for judge in ("base", "sft")}
    for stage in POLICIES:
        model, tokenizer = load_policy(_model_of(config, stage))
        template, precision = Template(tokenizer), Precision(arithmetic, device_of(model))
        prepare(model)
        precision.freeze(model)
        responses[stage] = responder(model, template, precision, _advance(display, done))
        done += each
        if stage in ("ppo", "dpo"):
            own[stage] = all_sequence_logprobs(model, responses[stage].trees, precision, recipe.micro_tokens).tolist()
            done += each
            display.update(done, {})
    for judge in columns:
        model, tokenizer = load_policy(_model_of(config, judge))
        prepare(model)
        precision.freeze(model)
        for stage in POLICIES:
            found_N = all_sequence_logprobs(model, responses[stage].trees, precision, recipe.micro_tokens)
            columns[judge][stage] = found_N.tolist()
            done += each
            display.update(done, {})
    own |= {judge: columns[judge][judge] for judge in ("base", "sft")}
    reward = load_reward(str(config.out / "reward"), template, precision.name, recipe.micro_tokens)
    lines = []
    for stage in POLICIES:
        texts = [text for texts in responses[stage].texts_BK for text in texts]
        rows = zip(
            texts,
            gold_rewards(texts),
            reward(responses[stage]).tolist(),
            own[stage],
            columns["sft"][stage],
            columns["base"][stage],
            [len(branch.tokens) for tree in responses[stage].trees for branch in tree.branches],
            strict=True,
        )
        for n, (text, gold, score, logprob, sft_logprob, base_logprob, length) in enumerate(rows):
            prompt = n // recipe.held_out_samples
            row = {"stage": stage, "prompt_id": prompt, "prompt": prompts[prompt][-1].content, "response": text}
            row |= {"gold_reward": gold, "reward_model_score": score, "kl": logprob - sft_logprob, "length": length}
            lines.append(row | {"base_nll": -base_logprob / length})
        done += each
        display.update(done, {})
    write_text(config.out / "evaluation.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lines))


def summarise(config: QuickstartConfig, seconds: dict[str, float], peak_memory_gb: float) -> dict[str, Any]:
    """The content of summary.json, from evaluation.jsonl; writes frontier.json beside it."""
    from accord.train.run import write_text

    rows = [json.loads(line) for line in (config.out / "evaluation.jsonl").read_text(encoding="utf8").splitlines()]
    base_gold = [row["gold_reward"] for row in rows if row["stage"] == "base"]
    stages = {
        stage: _stage([row for row in rows if row["stage"] == stage], base_gold, config.seed) for stage in POLICIES
    }
    points = [_point(stage, None, stages[stage]) for stage in POLICIES]
    for stage in ("ppo", "dpo"):
        for line in (config.out / stage / "metrics.jsonl").read_text(encoding="utf8").splitlines():
            row = json.loads(line)
            if "eval/gold_reward" in row:
                points.append(
                    {
                        "run": stage,
                        "step": row["step"],
                        "kl": row["eval/kl/reference"],
                        "gold_reward": row["eval/gold_reward"],
                        "reward_model_score": row["eval/reward/mean"],
                    }
                )
    write_text(config.out / "frontier.json", json.dumps(points, indent=2))
    return {
        "stages": stages,
        "reward_model": _reward_model(config.out / "reward", config.out / "data/rankings.held-out.jsonl"),
        "seconds": seconds,
        "peak_memory_gb": peak_memory_gb,
        "model": config.model,
        "seed": config.seed,
    }


def _advance(display: Display, before: int) -> Callable[[int, int], None]:
    return lambda now, total: display.update(before + now, {})


def _model_of(config: QuickstartConfig, stage: str) -> str:
    return config.model if stage == "base" else str(config.out / stage)


def _stage(rows: list[dict[str, Any]], base_gold: list[float], seed: int) -> dict[str, Any]:
    prompts = [row["prompt_id"] for row in rows]
    own_gold = [row["gold_reward"] for row in rows]
    gold = mean_result(own_gold, prompts, seed=seed)
    wins = win_rate(outcomes(own_gold, base_gold), prompts, seed=seed)
    tokens = sum(row["length"] for row in rows)
    return {
        "gold_reward": finite_or_none(gold.value),
        "gold_reward_ci": ends_or_none(gold),
        "reward_model_score": sum(row["reward_model_score"] for row in rows) / len(rows),
        "kl": sum(row["kl"] for row in rows) / len(rows),
        "win_rate_vs_base": finite_or_none(wins.value),
        "win_rate_vs_base_ci": ends_or_none(wins),
        "mean_length": tokens / len(rows),
        # exp of the mean over tokens, so that a long response weighs as much as its tokens
        "base_perplexity": math.exp(sum(row["base_nll"] * row["length"] for row in rows) / tokens),
        "n": gold.n,
    }


def _point(stage: str, step: int | None, figures: dict[str, Any]) -> dict[str, Any]:
    kept = ("kl", "gold_reward", "gold_reward_ci", "reward_model_score")
    return {"run": stage, "step": step, **{name: figures[name] for name in kept}}


def _reward_model(run: Path, held_out: Path) -> dict[str, Any]:
    last = json.loads((run / "metrics.jsonl").read_text(encoding="utf8").splitlines()[-1])
    ranks = [json.loads(line)["ranks"] for line in held_out.read_text(encoding="utf8").splitlines()]
    pairs = sum(a != b for row in ranks for i, a in enumerate(row) for b in row[i + 1 :])
    return {
        "accuracy": last["eval/accuracy_tie_half"],
        "longer_wins_accuracy": last["eval/longer_wins_accuracy"],
        "n": pairs,
    }
