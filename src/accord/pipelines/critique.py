"""Critique and revision as a run: draft, rounds, demonstrations, report. See `accord.feedback.ai.critique`.

threads.jsonl          every draft, critique and revision, kept or not, and why
demonstrations.jsonl   Demonstrations with their provenance in `meta`: data of supervised fine-tuning
samples.jsonl          some threads to read
critique.json          per round: replies, length, repetition, refusals, rewards; what was kept out, by reason; cost

accord feedback critique --model runs/helpful --data red-team.jsonl --helpful prompts.jsonl --out runs/critique
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accord.feedback.ai import critique as critiques
from accord.feedback.ai.constitution import few_not_preachy, load_constitution
from accord.feedback.ai.critique import CritiquePlan, Thread
from accord.feedback.ai.draws import shuffled
from accord.pipelines.asking import Cost, Work, open_model, read_price, write_rows
from accord.pipelines.feedback_configs import CritiqueConfig
from accord.pipelines.shown_results import critique_rows, critique_sentences, write_shown
from accord.pipelines.text_rewards import text_rewards
from accord.protocols import LanguageModel
from accord.records import Conversation
from accord.train import inputs, loop
from accord.train.progress import Bar, Display
from accord.train.run import Run, write_text
from accord.train.sample import rows_of_file

__all__ = ["run"]

SAID, RESULT = "threads.jsonl", "critique.json"
Item = tuple[str, Conversation, Any]


def run(
    config: CritiqueConfig,
    display: Display | None = None,
    model: LanguageModel | None = None,
    critic: LanguageModel | None = None,
) -> Path:
    """Draft and revise, or continue, or find finished; returns the run folder.

    Args:
        config: the job.
        display: where to show progress.
        model: a model to use in place of the one `config.model` names.
        critic: likewise of `config.critic`.

    Raises:
        accord.protocols.Unavailable: a model's server is away; the same call continues.
    """
    display = display or Bar()
    with loop.showing(display), Run("critique", config, notify=display.note) as run:
        if run.finished:
            display.note(f"{run.folder} is finished")
            return run.folder
        plan = CritiquePlan(
            constitution=load_constitution(config.constitution),
            rounds=config.rounds,
            form=config.form,
            direct=config.direct,
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            seed=config.seed,
        )
        if warning := few_not_preachy(plan.constitution.serving("critique")):
            display.note(f"constitution {plan.constitution.name}: {warning}")
        items = read_items(config, run, display)
        model = model or open_model(config.model, config)
        critic = critic or (open_model(config.critic, config) if config.critic else model)
        run.begin(
            model=model.name,
            critic=critic.name,
            constitution={"name": plan.constitution.name, "fingerprint": plan.constitution.fingerprint},
        )
        work = Work(run, display, config.batch_size)
        cost = Cost([model, critic], read_price(config.price), work.before)

        def threads(batch: Sequence[Item]) -> list[dict[str, Any]]:
            drafted = critiques.draft(batch, model, plan)
            return [critiques.thread_row(one) for one in critiques.revise(drafted, critic, plan)]

        def note(done: int) -> tuple[Mapping[str, float], Mapping[str, Any]]:
            used = cost.figures()
            figures = {"label__money": used["money"]} if "money" in used else {}
            return figures, {key: value for key, value in used.items() if key not in ("money", "currency")}

        work.through("draft and revise", items, SAID, threads, note)
        write_results(config, run, plan, cost, (model.name, critic.name), display)
        return run.finish()


def read_items(config: CritiqueConfig, run: Run, display: Display) -> list[Item]:
    """Red-team prompts and as many helpful ones, each once, in an order drawn by hash."""
    red = _distinct(inputs.read_data(config.data, "prompts", config, run))
    helpful = _distinct(inputs.read_data(config.helpful, "prompts", config, run, "helpful")) if config.helpful else []
    chosen = shuffled(helpful, "helpful", config.seed)[: len(red)]
    display.note(f"{len(red)} different red-team prompts, {len(chosen)} of {len(helpful)} different helpful ones")
    items: list[Item] = [(f"red-team-{number}", prompt, "red-team") for number, prompt in red]
    items += [(f"helpful-{number}", prompt, "helpful") for number, prompt in chosen]
    return shuffled(items, "order", config.seed)


def _distinct(prompts: Sequence[Conversation]) -> list[tuple[int, Conversation]]:
    """Prompts with their row numbers, a repeated one once."""
    first: dict[Conversation, int] = {}
    for number, prompt in enumerate(prompts, 1):
        first.setdefault(prompt, number)
    return [(number, prompt) for prompt, number in first.items()]


def write_results(
    config: CritiqueConfig, run: Run, plan: CritiquePlan, cost: Cost, names: tuple[str, str], display: Display
) -> None:
    """Demonstrations and the report, from what is on disk."""
    threads = [critiques.from_row(row) for row in rows_of_file(run.folder / SAID)]
    sampling = {"temperature": plan.temperature, "max_new_tokens": plan.max_new_tokens}
    meta = {
        "model": names[0],
        "critic": names[1],
        "constitution": f"{plan.constitution.name} {plan.constitution.fingerprint}",
        "sampling": sampling,
        "seed": config.seed,
    }
    rows, out = critiques.demonstrations(threads, plan, config.rounds_kept, meta)
    write_rows(run.folder / "demonstrations.jsonl", rows)
    table = critiques.round_figures(threads, plan.rounds)
    for name in config.reward:
        for row, mean in zip(table, _rewards(name, threads, config), strict=True):
            row.setdefault("reward", {})[name] = mean
    result = {
        "model": names[0],
        "critic": names[1],
        "constitution": meta["constitution"],
        "rounds": table,
        "demonstrations": len(rows),
        "from_revisions": sum(row["meta"]["source"] == "red-team" for row in rows),
        "kept_out": dict(out.most_common()),
        "cost": cost.figures(),
        "seed": config.seed,
    }
    write_text(run.folder / RESULT, json.dumps(result, indent=2, ensure_ascii=False))
    write_shown(
        run.folder,
        "rounds",
        critique_rows(result),
        critique_sentences(result),
        {"models": [*names], "seed": config.seed},
    )
    _write_samples(run, threads)
    reasons = ", ".join(f"{count} {reason}" for reason, count in out.most_common()) or "none"
    display.note(f"{len(rows)} demonstrations; kept out: {reasons}")


def _write_samples(run: Run, threads: Sequence[Thread]) -> None:
    """Some threads for the report: the draft as step 0, the reply of each round as the step of its number."""
    rows = []
    for thread in [one for one in threads if one.rounds][:8]:
        reply = thread.draft
        rows.append({"step": 0, "prompt": thread.prompt[-1].content, "response": reply})
        for one in thread.rounds:
            reply = one.revision if one.dropped is None else reply
            rows.append({"step": one.number, "prompt": thread.prompt[-1].content, "response": reply})
    write_rows(run.folder / "samples.jsonl", sorted(rows, key=lambda row: row["step"]))


def _rewards(name: str, threads: Sequence[Thread], config: CritiqueConfig) -> list[float | None]:
    """Mean reward of the replies as they stand after each round, the draft first."""
    live = [one for one in threads if one.rounds]
    if not live:
        return [None] * (config.rounds + 1)
    texts = [critiques.reply_after(one, number) for number in range(config.rounds + 1) for one in live]
    scores = text_rewards(name, [one.prompt for one in live] * (config.rounds + 1), texts, config, config.model)
    by_round = [scores[start : start + len(live)] for start in range(0, len(scores), len(live))]
    return [sum(of_round) / len(live) for of_round in by_round]
