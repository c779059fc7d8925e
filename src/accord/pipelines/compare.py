"""Two models' replies to the same prompts, side by side: the last stage of a recipe.

    replies.jsonl     per prompt: what each of the two said, and the rewards of both
    compare.json      win rate by each held-out reward with its interval, mean rewards, refusals, over-refusal, length

A win rate of 1/2 is no difference. The rewards should be models that neither was trained on: a reward that was
optimised says nothing of what was gained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accord.evaluate.winrate import outcomes, win_rate
from accord.feedback.ai.refusals import refusal_share
from accord.feedback.ai.worth import result_row
from accord.pipelines.asking import Work
from accord.pipelines.feedback_configs import CompareConfig
from accord.pipelines.language_models import is_server, open_language_model
from accord.pipelines.shown_results import compare_rows, compare_sentences, write_shown
from accord.pipelines.text_rewards import text_rewards
from accord.protocols import LanguageModel, Sampling
from accord.records import Conversation
from accord.train import inputs, loop
from accord.train.progress import Bar, Display
from accord.train.run import Run, write_text
from accord.train.sample import rows_of_file

__all__ = ["run"]

SAID, RESULT = "replies.jsonl", "compare.json"
BATCH = 16


def run(config: CompareConfig, display: Display | None = None) -> Path:
    """Let both answer, or continue, or find finished; returns the run folder."""
    display = display or Bar()
    with loop.showing(display), Run("compare", config, notify=display.note) as run:
        if run.finished:
            display.note(f"{run.folder} is finished")
            return run.folder
        asked: list[tuple[Conversation, str]] = [
            (prompt, "prompts") for prompt in inputs.read_data(config.data, "prompts", config, run)
        ]
        if config.harmless:
            harmless = inputs.read_data(config.harmless, "prompts", config, run, "harmless")
            asked += [(prompt, "harmless") for prompt in harmless]
        models = {"model": _open(config.model, config), "baseline": _open(config.baseline, config)}
        run.begin(model=models["model"].name, baseline=models["baseline"].name)
        sampling = Sampling(temperature=config.temperature, max_new_tokens=config.max_new_tokens, seed=config.seed)

        def reply(batch: Sequence[tuple[Conversation, str]]) -> list[dict[str, Any]]:
            prompts = [prompt for prompt, _ in batch]
            said = {name: [only.text for (only,) in model(prompts, 1, sampling)] for name, model in models.items()}
            return [
                {"prompt": [m.model_dump() for m in prompt], "set": kind, **{name: said[name][at] for name in said}}
                for at, (prompt, kind) in enumerate(batch)
            ]

        Work(run, display, BATCH).through("reply", asked, SAID, reply, _note)
        write_results(config, run, models, [prompt for prompt, _ in asked], display)
        return run.finish()


def _note(done: int) -> tuple[Mapping[str, float], Mapping[str, Any]]:
    return {}, {}


def _open(spec: str, config: CompareConfig) -> LanguageModel:
    if is_server(spec):
        return open_language_model(spec)
    return open_language_model(
        spec, precision=config.precision, micro_tokens=config.micro_tokens, max_length=config.max_length
    )


def write_results(
    config: CompareConfig,
    run: Run,
    models: Mapping[str, LanguageModel],
    prompts: Sequence[Conversation],
    display: Display,
) -> None:
    """The comparison, from what is on disk."""
    rows = rows_of_file(run.folder / SAID)
    result: dict[str, Any] = {"model": models["model"].name, "baseline": models["baseline"].name, "rewards": {}}
    asked = [at for at, row in enumerate(rows) if row["set"] == "prompts"]
    for name in config.reward:
        texts = [row[side] for side in models for row in rows]
        scores = text_rewards(name, [*prompts] * len(models), texts, config, config.baseline)
        picked = {side: [scores[nth * len(rows) + at] for at in asked] for nth, side in enumerate(models)}
        outcome_N = outcomes(picked["model"], picked["baseline"])
        same = [rows[at]["model"] == rows[at]["baseline"] for at in asked]
        result["rewards"][name] = {
            "win_rate": result_row(win_rate([0.5 if tie else o for o, tie in zip(outcome_N, same, strict=True)])),
            **{side: sum(picked[side]) / len(asked) for side in models},
        }
    for side in models:
        by_set = {kind: [row[side] for row in rows if row["set"] == kind] for kind in ("prompts", "harmless")}
        result[f"{side}_figures"] = {
            "refusals": refusal_share(by_set["prompts"]),
            **({"over_refusals": refusal_share(by_set["harmless"])} if by_set["harmless"] else {}),
            "words": sum(len(text.split()) for text in by_set["prompts"]) / max(1, len(by_set["prompts"])),
        }
    result |= {"same_reply": sum(row["model"] == row["baseline"] for row in rows), "replies": len(rows)}
    result["seed"] = config.seed
    write_text(run.folder / RESULT, json.dumps(result, indent=2, ensure_ascii=False))
    about = {"models": [one.name for one in models.values()], "seed": config.seed}
    write_shown(run.folder, "comparison", compare_rows(result), compare_sentences(result), about)
    samples = [
        {"step": step, "prompt": row["prompt"][-1]["content"], "response": row[side]}
        for step, side in enumerate(("baseline", "model"))
        for row in rows[:12]
    ]
    write_text(run.folder / "samples.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in samples))
    display.note(f"{result['same_reply']} of {len(rows)} replies are the same")
