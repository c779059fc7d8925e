"""A reward model from comparisons and rankings (Bradley-Terry; InstructGPT's K-wise loss, one forward per prompt).

    loss of a prompt = mean over its pairs of -p log sigma(r_better - r_worse - m) - (1 - p) log sigma(-(...))

p is the probability that the preferred one is better (1 unless the data says otherwise), m a margin (0 likewise). The
other losses, `train/reward_objective.py`, learn from ties, or from rankings as a whole. The reward is read at the last
token of the response. One epoch: reward models overfit in the second (Ouyang et al. 2022).

    accord train reward --model runs/sft --data comparisons.jsonl --out runs/reward
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from accord.data.batches import Preference, preferences
from accord.losses.reward import calibration
from accord.models.in_place import backward
from accord.models.load import new_reward_model, resolve
from accord.models.score import rewards, score_head, trunk
from accord.text import Template
from accord.train import inputs, loop
from accord.train.configs import RewardConfig
from accord.train.export import save_reward_model
from accord.train.pairs import Pairs, PairTotals
from accord.train.progress import Bar, Display
from accord.train.reward_objective import Objective, check_items, check_targets
from accord.train.run import Run
from accord.train.scoring import all_rewards
from accord.trees import TreeBatch, budget_packs, pack

__all__ = ["run"]

HEAD_RATE = 10.0  # learning rate of the fresh head over that of the pretrained trunk
TIE_RATE = 100.0  # and of a tie parameter: one number that has to move by about 1, at a rate meant for matrices
SCALE_PROMPTS = 128  # evenly from the training data: behind the mean and deviation stored with the model


def run(config: RewardConfig, display: Display | None = None) -> Path:
    """Train, or continue, or find finished; returns the run folder."""
    display = display or Bar()
    with loop.showing(display), Run("reward", config, notify=display.note) as run:
        if run.finished:
            display.note(f"{run.folder} is finished")
            return run.folder
        source = resolve(config.model)
        records = inputs.read_files(config, run, data="preference", eval_data="preference")
        model, tokenizer = new_reward_model(config.model, seed=config.seed)
        template = Template(tokenizer)
        # No opinion yet, so the first loss is log 2: a random head's opinions take a tenth of a small run to unlearn.
        nn.init.zeros_(next(score_head(model).parameters()))
        model, precision = loop.set_up(model, config, run, display, keep=["score"])
        limit = inputs.length_limit(model, config, display)
        items, rows, held_out = items_of(records, config, template, limit, run, display)
        if config.epochs > 1:
            display.note(
                f"{config.epochs} epochs: reward models mostly overfit after one; watch eval/accuracy_tie_half"
            )
        run.begin(model=source.name, model_fingerprint=source.fingerprint)

        plan = loop.plan(len(items), config)
        objective = Objective(config).to(precision.device)
        modules = [trunk(model), score_head(model), objective]
        optimiser = loop.make_optimiser(modules, config, [1.0, HEAD_RATE, TIE_RATE])
        parts = {"model": model, "objective": objective, "optimiser": optimiser}
        start = loop.resume(run, **parts)
        display.begin("reward model", len(plan), start)
        for step in loop.steps_of(start, len(plan), config, run, precision, display):
            began = time.perf_counter()
            loop.seed_step(config.seed, step)
            chosen = [items[i] for i in plan[step]]
            with precision.forward():
                loss, totals = accumulate(model.train(), objective, chosen, config.micro_tokens)
            rate = loop.learning_rate(step, len(plan), config)
            where = loop.place(run, step, [rows[i] for i in plan[step]])
            norm = loop.optimise(optimiser, rate, config.max_grad_norm, loss, where)
            if step == 0 and totals.decided:
                loop.check_moved(norm, config)
            figures = {
                "loss": loss,
                "grad_norm": norm,
                "learning_rate": rate,
                "epoch": loop.epoch(plan, step, len(items)),
                "tokens_per_second": sum(item.tree.length for item in chosen) / (time.perf_counter() - began),
                **totals.means(),
            }
            if objective.learns_ties:
                figures["ties__parameter"] = objective.tie_value
            if held_out and loop.due(step, config.eval_every, len(plan)):
                figures |= evaluate(model, objective, held_out, config.micro_tokens, precision)
            display.update(step + 1, run.log(step + 1, **figures))
            if loop.due(step, config.save_every, len(plan)):
                run.save(step + 1, loop.states(**parts))
        scale = items[:: -(-len(items) // SCALE_PROMPTS)]
        score_N = all_rewards(model, [item.tree for item in scale], precision, config.micro_tokens).double()
        mean, std = float(score_N.mean()), float(score_N.std(correction=0))
        facts = objective.facts()
        return run.finish(lambda folder: save_reward_model(model, template, folder, mean=mean, std=std, facts=facts))


def items_of(
    records: Mapping[str, list[Any]], config: RewardConfig, template: Template, limit: int, run: Run, display: Display
) -> tuple[list[Preference], list[int], list[Preference]]:
    """Trees with ranks to train on, their row numbers, and those held out; what the loss cannot use is refused."""
    items, fitted = preferences(records["data"], template, limit)
    inputs.note_fit(fitted, config, run, display)
    rows = fitted.kept_rows
    if config.bootstrap:
        drawn = bootstrap(len(items), config.seed)
        items, rows = [items[i] for i in drawn], [rows[i] for i in drawn]
        run.manifest["bootstrap"] = {"drawn": len(drawn), "distinct": len(set(drawn))}
        display.note(f"bootstrap: {len(set(drawn))} different rows in {len(drawn)} draws")
    check_items(items, config)
    held_out: list[Preference] = []
    if config.eval_data:
        held_out, held_fitted = preferences(records["eval_data"], template, limit)
        inputs.note_fit(held_fitted, config, run, display, "eval_data")
        check_targets(held_out, config)
    return items, rows, held_out


def bootstrap(count: int, seed: int) -> list[int]:
    """Indices of as many rows, drawn with replacement: about 63% of them, some several times, others for each seed."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + 500_009) % 2**63)  # not that of an epoch's order
    return torch.randint(count, (count,), generator=generator).tolist()


def accumulate(
    model: nn.Module, objective: Objective, items: Sequence[Preference], micro_tokens: int
) -> tuple[float, PairTotals]:
    """Gradient of one optimiser step over its prompts; returns the loss in nats per prompt and figures per pair."""
    device = loop.device_of(model)
    totals, parts = PairTotals(), list[Tensor]()
    for group in budget_packs([item.tree.length for item in items], micro_tokens):
        chosen = [items[i] for i in group]
        batch = pack([item.tree for item in chosen]).to(device)
        loss = loss_of(model, objective, batch, chosen, totals)[0] / len(items)
        backward(loss)
        parts.append(loss.detach())
    return loop.total(parts), totals


def loss_of(
    model: nn.Module, objective: Objective, batch: TreeBatch, items: Sequence[Preference], totals: PairTotals
) -> tuple[Tensor, Tensor, Pairs]:
    """The objective summed over a pack's prompts, (N,) rewards, and the pairs that were compared."""
    reward_N = rewards(model, batch)
    result = objective(reward_N, batch, items)
    totals.add(result.pairs, reward_N, batch.length_N)
    if objective.tie_name:
        totals.add_figure("ties__share", (result.pairs.outcome_P == 0).float())
    if objective.coefficient:
        totals.add_figure("loss__centering", result.centering_B)
    return result.loss, reward_N, result.pairs


@torch.no_grad()
@record_function("accord.evaluation")
def evaluate(
    model: nn.Module, objective: Objective, items: Sequence[Preference], micro_tokens: int, precision: loop.Precision
) -> dict[str, float]:
    """Loss, accuracy (and that of "longer wins"), margin and calibration on held-out prompts."""
    model.eval()
    totals, total = PairTotals(), 0.0
    decided: list[Tensor] = []
    with precision.forward():
        for group in budget_packs([item.tree.length for item in items], micro_tokens):
            chosen = [items[i] for i in group]
            batch = pack([item.tree for item in chosen]).to(loop.device_of(model))
            loss, reward_N, pairs = loss_of(model, objective, batch, chosen, totals)
            total += loss.item()
            score_3P = torch.stack([reward_N[pairs.better_P], reward_N[pairs.worse_P], pairs.probability_P])
            decided.append(score_3P[:, pairs.decided_P])
    kept = ("accuracy_tie_half", "accuracy_strict", "longer_wins_accuracy", "margin", "ties__gap")
    figures = {f"eval__{name}": value for name, value in totals.means().items() if name in kept}
    return {"eval__loss": total / len(items), **figures, **calibrated(torch.cat(decided, -1))}


def calibrated(score_3P: Tensor) -> dict[str, float]:
    """Calibration over decided pairs, from rows of better, worse and probability; nothing where no pair is decided."""
    better_P, worse_P, probability_P = score_3P.double()
    if not better_P.numel():
        return {}
    found = calibration(better_P, worse_P, probability_B=probability_P)
    return {f"eval__{name}": float(getattr(found, name)) for name in ("ece", "brier", "nll")}
