"""Learning directly from preferences: DPO and its family, listwise losses, KTO.

    loss of a prompt = mean over its pairs of f(beta * (log-ratio of the better - log-ratio of the worse))
    log-ratio of y   = log pi(y | x) - log pi_ref(y | x), summed over the tokens of y

for DPO (Rafailov et al. 2023) f is -log sigma; `train/objectives.py` has the others, docs/methods.md says when to take
which. The reference is the model the run starts from; its log-probabilities are computed once and kept on disk.

    accord train dpo --model runs/sft --data comparisons.jsonl --out runs/dpo --beta 0.1
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from accord.data.batches import Preference, preferences
from accord.models.in_place import backward
from accord.models.load import load_policy, resolve
from accord.text import Template
from accord.train import inputs, loop
from accord.train.configs import DpoConfig
from accord.train.export import save_policy
from accord.train.methods import method
from accord.train.objectives import OBJECTIVES, Scored, labels_of
from accord.train.pairs import PairTotals, pairs_of, ranks_of, require_pairs
from accord.train.progress import Bar, Display
from accord.train.reference import reference_logprobs
from accord.train.run import Run
from accord.train.scoring import sequence_logprob
from accord.train.unpaired import add_labels, mismatched_trees, reference_point
from accord.trees import PromptTree, budget_packs, pack

__all__ = ["Item", "run"]

KEPT = {"accuracy_tie_half", "accuracy_strict", "longer_wins_accuracy", "margin"}
KEPT |= {"reward__desirable", "reward__undesirable"}
"""Figures of held-out data that are logged."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """A row of the data with what the reference says of it.

    Attributes:
        preference: a tree with ranks.
        reference: log-probability of each response under the reference, nats; zeros where the objective has none.
        mismatched: for KTO, the prompt with the response to another one, and its reference log-probability.
    """

    preference: Preference
    reference: tuple[float, ...]
    mismatched: tuple[PromptTree, float] | None = None

    @property
    def tree(self) -> PromptTree:
        """The prompt and its responses."""
        return self.preference.tree


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
        kind = "feedback" if OBJECTIVES[config.loss].unpaired else "preference"
        records = inputs.read_files(config, run, data=kind, eval_data=kind)
        model, tokenizer = load_policy(config.model)
        template = Template(tokenizer)
        model, precision = loop.set_up(model, config, run, display)
        limit = inputs.length_limit(model, config, display)
        rankings, fitted = preferences(records["data"], template, limit)
        inputs.note_fit(fitted, config, run, display)
        held: list[Preference] = []
        if config.eval_data:
            held, held_fitted = preferences(records["eval_data"], template, limit)
            inputs.note_fit(held_fitted, config, run, display, "eval_data")
        check_targets(rankings, held, config, display)
        run.begin(model=source.name, model_fingerprint=source.fingerprint)

        plan, rows = loop.plan(len(rankings), config), fitted.kept_rows
        ask = partial(reference_logprobs, model, source.fingerprint, run, precision, display)
        bounds = (limit, template.bos_id)
        items, held_out = (with_reference(part, config, ask, bounds, display.note) for part in (rankings, held))
        optimiser = loop.make_optimiser([model], config)
        start = loop.resume(run, model=model, optimiser=optimiser)
        unproven = start == 0
        display.begin(config.loss, len(plan), start)
        for step in loop.steps_of(start, len(plan), config, run, precision, display):
            began = time.perf_counter()
            loop.seed_step(config.seed, step)
            chosen = [items[i] for i in plan[step]]
            with precision.forward():
                loss, totals = accumulate(loop.steady(model), chosen, config)
            rate = loop.learning_rate(step, len(plan), config)
            where = loop.place(run, step, [rows[i] for i in plan[step]])
            norm = loop.optimise(optimiser, rate, config.max_grad_norm, loss, where)
            # A loss of 0 is a hinge that is satisfied or a step of ties: nothing was to be learned, nothing is proven.
            if unproven and loss and (totals.decided or OBJECTIVES[config.loss].unpaired):
                loop.check_moved(norm, config)
                unproven = False
            figures = {
                "loss": loss,
                "grad_norm": norm,
                "learning_rate": rate,
                "epoch": loop.epoch(plan, step, len(items)),
                "tokens_per_second": sum(item.tree.length for item in chosen) / (time.perf_counter() - began),
                **totals.means(),
            }
            if held_out and loop.due(step, config.eval_every, len(plan)):
                figures |= evaluate(model, held_out, config, precision)
            if watch and loop.due(step, config.eval_every, len(plan)):
                figures |= watch(model, template, precision)
            display.update(step + 1, run.log(step + 1, **figures))
            if loop.due(step, config.save_every, len(plan)):
                run.save(step + 1, loop.states(model=model, optimiser=optimiser))
            if loop.kept(step, config.keep_every, len(plan)):
                run.keep(step + 1, lambda folder: save_policy(model, template, folder, live=True))
        return run.finish(lambda folder: save_policy(model, template, folder))


def check_targets(
    rankings: Sequence[Preference], held_out: Sequence[Preference], config: DpoConfig, display: Display
) -> None:
    """Refuse data that says more than the objective reads, or nothing that it does; say how the objective is meant.

    Raises: ValueError: which rows, and which objective reads them.
    """
    objective, items = OBJECTIVES[config.loss], [*rankings, *held_out]
    if any(item.margin is not None for item in items):
        raise ValueError("the data has `margin`, which no direct preference loss reads; train a reward model on it")
    if not objective.soft and any(item.probability is not None for item in items):
        soft = " or ".join(name for name, other in OBJECTIVES.items() if other.soft)
        raise ValueError(f"the data has `probability`, which --loss {config.loss} does not read; use --loss {soft}")
    unscored = sum(item.scores is None for item in items)
    if config.temperatures and unscored:
        raise ValueError(
            f"{unscored} of {len(items)} rows have no `scores`, whose gaps --temperatures reads; add them or remove it"
        )
    if objective.unpaired:
        up, down = thumbs(rankings, config)
        display.note(f"{up} responses with thumbs up, {down} with thumbs down")
        if not up * (config.desirable_weight or 0.0) + down * (config.undesirable_weight or 0.0):
            raise ValueError(
                f"{up} responses with thumbs up of weight {config.desirable_weight:g}, {down} with thumbs down of "
                f"weight {config.undesirable_weight:g}: nothing would be learned; in rankings a response counts if it "
                "wins more pairs than it loses, or fewer"
            )
    else:
        require_pairs(rankings, failed=config.failed)
    note = method("dpo", config.loss).note
    if note:
        display.note(f"{config.loss}: {note}")


def thumbs(rankings: Sequence[Preference], config: DpoConfig) -> tuple[int, int]:
    """Responses with thumbs up, and with thumbs down."""
    up = down = 0
    for item in rankings:
        batch = pack([item.tree])
        label_N = labels_of(ranks_of(batch, [item]), batch, config.failed)
        up, down = up + int((label_N > 0).sum()), down + int((label_N < 0).sum())
    return up, down


def with_reference(
    rankings: Sequence[Preference],
    config: DpoConfig,
    ask: Callable[[Sequence[PromptTree]], Tensor],
    limits: tuple[int, int | None],
    notify: Callable[[str], None],
) -> list[Item]:
    """Attach the reference's log-probabilities, and for KTO the mismatched responses.

    Args:
        rankings: rows of the data.
        config: the job.
        ask: the reference's log-probabilities of the responses of trees.
        limits: tokens of a row at most, and the model's start token.
        notify: told what does not fit.
    """
    objective = OBJECTIVES[config.loss]
    if not objective.reference or not rankings:
        return [Item(preference=item, reference=(0.0,) * len(item.tree.branches)) for item in rankings]
    strangers = mismatched_trees(rankings, *limits) if objective.unpaired else [None] * len(rankings)
    missing = sum(tree is None for tree in strangers) if objective.unpaired else 0
    if missing:
        notify(f"{missing} of {len(rankings)} prompts are too long for a mismatched response: no part of kto's z0")
    value = iter(ask([item.tree for item in rankings] + [tree for tree in strangers if tree is not None]).tolist())
    references = [tuple(next(value) for _ in item.tree.branches) for item in rankings]
    return [
        Item(preference=item, reference=row, mismatched=None if tree is None else (tree, next(value)))
        for item, row, tree in zip(rankings, references, strangers, strict=True)
    ]


def accumulate(model: nn.Module, items: Sequence[Item], config: DpoConfig) -> tuple[float, PairTotals]:
    """Gradient of one optimiser step over its prompts; returns the loss per prompt and figures per pair."""
    totals, parts = PairTotals(), list[Tensor]()
    point = point_of(model, items, config, totals)
    for group in budget_packs([item.tree.length for item in items], config.micro_tokens):
        loss = loss_of(model, [items[i] for i in group], config, totals, point) / len(items)
        backward(loss)
        parts.append(loss.detach())
    return loop.total(parts), totals


def point_of(model: nn.Module, items: Sequence[Item], config: DpoConfig, totals: PairTotals) -> Tensor:
    """KTO's reference point of a step, a scalar in nats; 0 for every other objective."""
    if not OBJECTIVES[config.loss].unpaired:
        return torch.zeros(())
    point = reference_point(model, [item.mismatched for item in items if item.mismatched], config.micro_tokens)
    totals.add_figure("kl__reference_point", point.reshape(1))
    return point


def loss_of(model: nn.Module, items: Sequence[Item], config: DpoConfig, totals: PairTotals, point: Tensor) -> Tensor:
    """Sum over a pack's prompts of their loss."""
    objective, preferences = OBJECTIVES[config.loss], [item.preference for item in items]
    batch = pack([item.tree for item in items]).to(loop.device_of(model))
    logprob_N = sequence_logprob(model, batch)
    reference = [value for item in items for value in item.reference]
    scored = Scored(
        batch=batch,
        preferences=preferences,
        pairs=pairs_of(batch, preferences, failed=config.failed),
        logprob_N=logprob_N,
        reference_N=torch.tensor(reference).to(logprob_N.device, non_blocking=True),
        length_N=batch.length_N,
        settings=config.reads,
        failed=config.failed,
        reference_point=point,
    )
    reward_N = objective.reward(scored)
    totals.add(scored.pairs, reward_N, scored.length_N, logprob=logprob_N)
    if objective.unpaired:
        label_N = labels_of(scored.rank_BK, batch, config.failed)
        add_labels(totals, label_N, reward=reward_N, logprob=logprob_N, length=scored.length_N.float())
    return objective.loss(scored)


@torch.no_grad()
@record_function("accord.evaluation")
def evaluate(model: nn.Module, items: Sequence[Item], config: DpoConfig, precision: loop.Precision) -> dict[str, float]:
    """Loss, accuracy and margin of the implicit reward on held-out prompts."""
    model.eval()
    totals, total = PairTotals(), 0.0
    with precision.forward():
        point = point_of(model, items, config, totals)
        for group in budget_packs([item.tree.length for item in items], config.micro_tokens):
            total += loss_of(model, [items[i] for i in group], config, totals, point).item()
    return {"eval__loss": total / len(items), **{f"eval__{k}": v for k, v in totals.means().items() if k in KEPT}}
