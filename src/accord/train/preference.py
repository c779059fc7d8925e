"""Direct preference optimisation: the log-ratio of policy to reference is the reward that is fitted to the pairs.

    loss of a prompt = mean over its pairs of f(beta * (log-ratio of the better - log-ratio of the worse))
    log-ratio of y   = log pi(y | x) - log pi_ref(y | x), summed over the tokens of y

f is -log sigma (DPO, Rafailov et al. 2023), a square around 1 / (2 beta) (IPO), or a hinge. The reference is the model
the run starts from; its log-probabilities are computed once, before the first step, and kept in the run folder.

    accord train dpo --model runs/sft --data comparisons.jsonl --out runs/dpo --beta 0.1
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from accord.data.batches import Preference, preferences
from accord.losses import preference as losses
from accord.models.load import load_policy, resolve
from accord.text import Template
from accord.train import loop
from accord.train.configs import DpoConfig
from accord.train.export import save_policy
from accord.train.pairs import PairTotals, pairs_of, require_pairs
from accord.train.progress import Bar, Display
from accord.train.run import Run, write_atomically
from accord.train.scoring import all_sequence_logprobs, firsts, sequence_logprob
from accord.trees import budget_packs, pack

__all__ = ["LOSSES", "run"]

Item = tuple[Preference, tuple[float, ...]]  # a ranked tree, and the reference log-probability of each response

LOSSES: dict[str, Callable[..., Tensor]] = {"dpo": losses.dpo, "ipo": losses.ipo, "hinge": losses.hinge}
"""Objectives by the name of `--loss`; those that take soft targets say so in `SOFT`."""
SOFT = {"dpo"}


def run(config: DpoConfig, display: Display | None = None, watch: loop.Watch | None = None) -> Path:
    """Train, or continue, or find finished; returns the run folder.

    Args:
        config: the job.
        display: where to show progress.
        watch: further figures of the live model, asked for every `eval_every` steps.
    """
    display = display or Bar()
    with loop.showing(display), Run("dpo", config, notify=display.note) as run:
        if run.finished:
            display.note(f"{run.folder} is finished")
            return run.folder
        source = resolve(config.model)
        model, tokenizer = load_policy(config.model)
        template = Template(tokenizer)
        model, precision = loop.set_up(model, config, run, display)
        limit = loop.length_limit(model, config, display)
        items, fitted = preferences(loop.read_data(config.data, "preference", config, run), template, limit)
        loop.note_fit(fitted, config, run, display)
        require_pairs(items)
        held: list[Preference] = []
        if config.eval_data:
            records = loop.read_data(config.eval_data, "preference", config, run, "eval_data")
            held, held_fitted = preferences(records, template, limit)
            loop.note_fit(held_fitted, config, run, display, "eval_data")
        check_targets(items + held, config.loss)
        run.begin(model=source.name, model_fingerprint=source.fingerprint)

        plan, rows = loop.plan(len(items), config), fitted.kept_rows
        scored = with_reference(model, items + held, config, run, precision, display)
        train, held_out = scored[: len(items)], scored[len(items) :]
        optimiser = loop.make_optimiser([model], config)
        start = loop.resume(run, model=model, optimiser=optimiser)
        display.begin(config.loss, len(plan), start)
        for step in range(start, len(plan)):
            began = time.perf_counter()
            loop.seed_step(config.seed, step)
            chosen = [train[i] for i in plan[step]]
            with precision.forward():
                loss, totals = accumulate(loop.steady(model), chosen, config)
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
                "tokens_per_second": sum(item.tree.length for item, _ in chosen) / (time.perf_counter() - began),
                **totals.means(),
            }
            if held_out and loop.due(step, config.eval_every, len(plan)):
                figures |= evaluate(model, held_out, config, precision)
            if watch and loop.due(step, config.eval_every, len(plan)):
                figures |= watch(model, template, precision)
            display.update(step + 1, run.log(step + 1, **figures))
            if loop.due(step, config.save_every, len(plan)):
                run.save(step + 1, loop.states(model=model, optimiser=optimiser))
        return run.finish(lambda folder: save_policy(model, template, folder))


def check_targets(items: Sequence[Preference], loss: str) -> None:
    """Refuse data that says more than the objective reads."""
    if any(item.margin is not None for item in items):
        raise ValueError("the data has `margin`, which no direct preference loss reads; train a reward model on it")
    if loss not in SOFT and any(item.probability is not None for item in items):
        raise ValueError(f"the data has `probability`, which --loss {loss} does not read; use --loss dpo")


def with_reference(
    model: nn.Module,
    items: Sequence[Preference],
    config: DpoConfig,
    run: Run,
    precision: loop.Precision,
    display: Display,
) -> list[Item]:
    """Attach the starting model's log-probabilities, from the run folder if an earlier part of this run made them."""
    path = run.folder / "reference.pt"
    trees = [item.tree for item in items]
    # Integers hash alike in every process; another template, tokenizer or data file gives other tokens.
    key = hash(tuple((tree.prompt, tuple(branch.tokens for branch in tree.branches)) for tree in trees))
    known = torch.load(path, weights_only=True) if path.exists() else {}
    if known.get("key") != key:
        display.begin("reference log-probabilities", len(items))
        logprob_N = all_sequence_logprobs(
            model, trees, precision, config.micro_tokens, lambda done: display.update(done, {})
        )
        known = {"key": key, "logprob_N": logprob_N}
        write_atomically(path, lambda aside: torch.save(known, aside))
    logprob_N = known["logprob_N"]
    rows = (logprob_N[first : first + len(tree.branches)] for first, tree in zip(firsts(trees), trees, strict=True))
    return [(item, tuple(row.tolist())) for item, row in zip(items, rows, strict=True)]


def accumulate(model: nn.Module, items: Sequence[Item], config: DpoConfig) -> tuple[float, PairTotals]:
    """Gradient of one optimiser step over its prompts; returns the loss per prompt and figures per pair."""
    totals, total = PairTotals(), 0.0
    for group in budget_packs([item.tree.length for item, _ in items], config.micro_tokens):
        loss = loss_of(model, [items[i] for i in group], config, totals) / len(items)
        torch.autograd.backward(loss)
        total += loss.item()
    return total, totals


def loss_of(model: nn.Module, items: Sequence[Item], config: DpoConfig, totals: PairTotals) -> Tensor:
    """Sum over a pack's prompts of the mean loss of their pairs."""
    batch = pack([item.tree for item, _ in items]).to(loop.device_of(model))
    logprob_N = sequence_logprob(model, batch)
    reference_N = torch.tensor([value for _, row in items for value in row], device=logprob_N.device)
    pairs = pairs_of(batch, [item for item, _ in items])
    four = [x_N[index_P] for x_N in (logprob_N, reference_N) for index_P in (pairs.better_P, pairs.worse_P)]
    extra: dict[str, Any] = {"probability_B": pairs.probability_P} if config.loss in SOFT else {}
    loss_P = LOSSES[config.loss](*four, beta=config.beta, **extra)
    length_N = torch.bincount(batch.scored_response, minlength=batch.count)
    totals.add(pairs, losses.implicit_reward(logprob_N, reference_N, beta=config.beta), length_N, logprob=logprob_N)
    return pairs.sum_of_tree_means(loss_P)


@torch.no_grad()
def evaluate(model: nn.Module, items: Sequence[Item], config: DpoConfig, precision: loop.Precision) -> dict[str, float]:
    """Loss, accuracy and margin of the implicit reward on held-out prompts."""
    model.eval()
    totals, total = PairTotals(), 0.0
    with precision.forward():
        for group in budget_packs([item.tree.length for item, _ in items], config.micro_tokens):
            total += loss_of(model, [items[i] for i in group], config, totals).item()
    kept = ("accuracy_tie_half", "accuracy_strict", "longer_wins_accuracy", "margin")
    return {"eval__loss": total / len(items), **{f"eval__{k}": v for k, v in totals.means().items() if k in kept}}
