"""A reward model from comparisons and rankings (Bradley-Terry; InstructGPT's K-wise loss, one forward per prompt).

    loss of a prompt = mean over its pairs of -p log sigma(r_better - r_worse - m) - (1 - p) log sigma(-(...))

p is the probability that the preferred one is better (1 unless the data says otherwise), m a margin (0 likewise). The
reward is read at the last token of the response. One epoch: reward models overfit in the second (Ouyang et al. 2022).

    accord train reward --model runs/sft --data comparisons.jsonl --out runs/reward
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from accord.data.batches import Preference, preferences
from accord.losses.reward import bradley_terry
from accord.models.load import new_reward_model, resolve
from accord.models.score import rewards, score_head, trunk
from accord.text import Template
from accord.train import loop
from accord.train.configs import RewardConfig
from accord.train.export import save_reward_model
from accord.train.pairs import PairTotals, pairs_of, require_pairs
from accord.train.progress import Bar, Display
from accord.train.run import Run
from accord.train.scoring import all_rewards
from accord.trees import TreeBatch, budget_packs, pack

__all__ = ["run"]

HEAD_RATE = 10.0  # learning rate of the fresh head over that of the pretrained trunk


def run(config: RewardConfig, display: Display | None = None) -> Path:
    """Train, or continue, or find finished; returns the run folder."""
    display = display or Bar()
    with loop.showing(display), Run("reward", config, notify=display.note) as run:
        if run.finished:
            display.note(f"{run.folder} is finished")
            return run.folder
        source = resolve(config.model)
        model, tokenizer = new_reward_model(config.model, seed=config.seed)
        template = Template(tokenizer)
        # No opinion yet, so the first loss is log 2: a random head's opinions take a tenth of a small run to unlearn.
        nn.init.zeros_(next(score_head(model).parameters()))
        model, precision = loop.set_up(model, config, run, display, keep=["score"])
        limit = loop.length_limit(model, config, display)
        items, fitted = preferences(loop.read_data(config.data, "preference", config, run), template, limit)
        loop.note_fit(fitted, config, run, display)
        require_pairs(items)
        held_out: list[Preference] = []
        if config.eval_data:
            records = loop.read_data(config.eval_data, "preference", config, run, "eval_data")
            held_out, held_fitted = preferences(records, template, limit)
            loop.note_fit(held_fitted, config, run, display, "eval_data")
        if config.epochs > 1:
            display.note(f"{config.epochs} epochs: reward models mostly overfit after one; watch eval/accuracy")
        run.begin(model=source.name, model_fingerprint=source.fingerprint)

        plan, rows = loop.plan(len(items), config), fitted.kept_rows
        optimiser = loop.make_optimiser([trunk(model), score_head(model)], config, [1.0, HEAD_RATE])
        start = loop.resume(run, model=model, optimiser=optimiser)
        display.begin("reward model", len(plan), start)
        for step in range(start, len(plan)):
            began = time.perf_counter()
            loop.seed_step(config.seed, step)
            chosen = [items[i] for i in plan[step]]
            with precision.forward():
                loss, totals = accumulate(model.train(), chosen, config.micro_tokens)
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
            if held_out and loop.due(step, config.eval_every, len(plan)):
                figures |= evaluate(model, held_out, config.micro_tokens, precision)
            display.update(step + 1, run.log(step + 1, **figures))
            if loop.due(step, config.save_every, len(plan)):
                run.save(step + 1, loop.states(model=model, optimiser=optimiser))
        score_N = all_rewards(model, [item.tree for item in items], precision, config.micro_tokens).double()
        mean, std = float(score_N.mean()), float(score_N.std(correction=0))
        return run.finish(lambda folder: save_reward_model(model, template, folder, mean=mean, std=std))


def accumulate(model: nn.Module, items: Sequence[Preference], micro_tokens: int) -> tuple[float, PairTotals]:
    """Gradient of one optimiser step over its prompts; returns the loss in nats per prompt and figures per pair."""
    device = loop.device_of(model)
    totals, total = PairTotals(), 0.0
    for group in budget_packs([item.tree.length for item in items], micro_tokens):
        chosen = [items[i] for i in group]
        batch = pack([item.tree for item in chosen]).to(device)
        loss, _ = loss_of(model, batch, chosen, totals)
        loss = loss / len(items)
        torch.autograd.backward(loss)
        total += loss.item()
    return total, totals


def loss_of(
    model: nn.Module, batch: TreeBatch, items: Sequence[Preference], totals: PairTotals
) -> tuple[Tensor, Tensor]:
    """Sum over a pack's prompts of the mean loss of their pairs, and (N,) rewards."""
    reward_N = rewards(model, batch)
    pairs = pairs_of(batch, items)
    loss_P = bradley_terry(
        reward_N[pairs.better_P],
        reward_N[pairs.worse_P],
        probability_B=pairs.probability_P,
        margin_B=pairs.margin_P,
    )
    totals.add(pairs, reward_N, torch.bincount(batch.scored_response, minlength=batch.count))
    return pairs.sum_of_tree_means(loss_P), reward_N


@torch.no_grad()
def evaluate(
    model: nn.Module, items: Sequence[Preference], micro_tokens: int, precision: loop.Precision
) -> dict[str, float]:
    """Loss, accuracy (and that of "longer wins") and margin on held-out prompts."""
    model.eval()
    totals, total = PairTotals(), 0.0
    with precision.forward():
        for group in budget_packs([item.tree.length for item in items], micro_tokens):
            chosen = [items[i] for i in group]
            loss, _ = loss_of(model, pack([item.tree for item in chosen]).to(loop.device_of(model)), chosen, totals)
            total += loss.item()
    kept = ("accuracy_tie_half", "accuracy_strict", "longer_wins_accuracy", "margin")
    return {"eval__loss": total / len(items), **{f"eval__{k}": v for k, v in totals.means().items() if k in kept}}
