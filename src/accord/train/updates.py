"""Optimiser steps on a rollout, for every algorithm whose policy moves by the gradient of its loss.

    loss = average over the step of (policy loss + kl_beta * KL(policy || reference), where that stands in the loss)
           + mean over its tokens of (c1 * value loss - c2 * entropy)  +  ptx_coefficient * nll of other text

Every sum is divided by the counts of the whole optimiser step, so the split into packs changes memory alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from accord.data.batches import step_batches
from accord.losses import kl
from accord.losses import policy as losses
from accord.models.in_place import backward
from accord.models.score import ResponseScores, response_scores, values
from accord.train import loop
from accord.train.algorithms import ALGORITHMS, Coefficients, kl_in_loss, weighted_sum
from accord.train.configs import PpoConfig
from accord.train.experience import Actor, Experience, check_gap, to_pack
from accord.train.optimiser import AdamW
from accord.train.ptx import Ptx
from accord.train.run import Run
from accord.train.scoring import rows_of
from accord.trees import TreeBatch, budget_packs, pack

__all__ = ["Parts", "accumulate", "improve", "loss_of"]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the updates of a run work with.

    Attributes:
        actor: the models.
        optimiser: of what moves by plain gradients: policy and value function; with trpo the value function alone.
        config: the job.
        precision: of forward passes.
        coefficients: weights of the KL penalties now.
        ptx: other text trained beside the policy, or None.
        run: for the place of an error.
        total: optimiser steps of the whole run.
    """

    actor: Actor
    optimiser: AdamW
    config: PpoConfig
    precision: loop.Precision
    coefficients: Coefficients
    ptx: Ptx | None
    run: Run
    total: int


def improve(parts: Parts, experience: Experience, number: int, steps: range, rows_B: Sequence[int]) -> dict[str, float]:
    """The optimiser steps on a rollout.

    Args:
        parts: what they work with.
        experience: the rollout.
        number: of the rollout in the run.
        steps: numbers of its steps in the run; the last rollout may have fewer than it would take.
        rows_B: rows of the data its prompts came from.
    Returns: mean figures of the steps taken.
    """
    began = time.perf_counter()
    config, trees = parts.config, experience.responses.trees
    sums: dict[str, float] = {}
    plan = step_batches(len(trees), config.batch_size, config.ppo_epochs or 1, config.seed + number)
    done, tokens, rate, old_kl = 0, 0, 0.0, 0.0
    loop.steady(parts.actor.policy)
    for step, chosen in zip(steps, plan, strict=False):
        with parts.precision.forward():
            figures = accumulate(experience, chosen, parts.actor, config, parts.coefficients)
            old_kl = figures["kl__old"]
            if config.stop_kl is not None and losses.stop_early(old_kl, target=config.stop_kl):
                parts.optimiser.zero_grad(set_to_none=True)
                break
            if parts.ptx is not None:
                figures |= parts.ptx.accumulate(parts.actor.policy, step)
                figures["loss"] += parts.ptx.coefficient * figures["loss__ptx"]
        check_gap(figures.get("sampler__gap", 0.0))
        rate = loop.learning_rate(step, parts.total, config)
        where = loop.place(parts.run, step, [rows_B[b] for b in chosen])
        figures["grad_norm"] = loop.optimise(parts.optimiser, rate, config.max_grad_norm, figures["loss"], where)
        sums = {name: sums.get(name, 0.0) + value for name, value in figures.items()}
        tokens += sum(trees[b].length for b in chosen)
        done += 1
    means = {name: value / done for name, value in sums.items()} if done else {}
    if config.penalty_target is not None:
        means["kl__moved"] = moved(parts, experience)
    if config.penalty is not None:
        means["kl__penalty"] = parts.coefficients.penalty
    seconds = time.perf_counter() - began
    return means | {
        "kl__old": old_kl,
        "learning_rate": rate,
        "updates": float(done),
        "seconds__update": seconds,
        "tokens_per_second": tokens / seconds,
    }


def accumulate(
    experience: Experience, chosen: Sequence[int], actor: Actor, config: PpoConfig, coefficients: Coefficients
) -> dict[str, float]:
    """Gradient of one optimiser step over some prompts of a rollout; returns its figures."""
    trees = experience.responses.trees
    rows = rows_of(chosen, trees, experience.first_B)
    counts = {"tokens": int(experience.mask_NT[rows].sum()), "responses": len(rows)}
    sums: dict[str, Tensor] = {}
    for group in budget_packs([trees[b].length for b in chosen], config.micro_tokens):
        loss, parts = loss_of(experience, [chosen[i] for i in group], actor, config, coefficients, counts)
        backward(loss / counts["tokens"])
        for name, value in parts.items():
            sums[name] = sums[name] + value.detach().float() if name in sums else value.detach().float()
    return {name: float(value) / counts["tokens"] for name, value in sums.items()}


def loss_of(
    experience: Experience,
    trees_of_pack: Sequence[int],
    actor: Actor,
    config: PpoConfig,
    coefficients: Coefficients,
    counts: dict[str, int],
) -> tuple[Tensor, dict[str, Tensor]]:
    """A pack's share of the step's loss and of its parts, times the tokens of the step.

    Args:
        experience: the rollout.
        trees_of_pack: numbers of its trees.
        actor: the models.
        config: the job.
        coefficients: weights of the KL penalties now.
        counts: `tokens` and `responses` of the whole optimiser step.
    """
    algorithm = ALGORITHMS[config.algorithm]
    rows = rows_of(trees_of_pack, experience.responses.trees, experience.first_B)
    batch = pack([experience.responses.trees[b] for b in trees_of_pack]).to(loop.device_of(actor.policy))

    def packed(table_NT: Tensor | None) -> Tensor:
        assert table_NT is not None
        return to_pack(table_NT, experience.mask_NT, rows).to(batch.token_T.device, non_blocking=True)

    scores, advantage_T = _scores(batch, actor, config), packed(experience.advantage_NT)
    first = experience.logprob_NT is None  # these are the weights that sampled
    old_T = scores.logprob_T.detach() if first else packed(experience.logprob_NT)
    loss_T = algorithm.loss(scores.logprob_T, old_T, advantage_T, config, coefficients)
    policy = weighted_sum(loss_T, scores.response_T, config, **counts)
    parts = {"loss__policy": policy, "kl__old": kl.k3(old_T, scores.logprob_T).sum()}
    if first:
        parts["sampler__gap"] = (packed(experience.sampled_NT) - old_T).abs().sum()
        away = kl.k1(old_T, packed(experience.reference_NT)).sum()
        parts["kl__reference"] = away * (counts["tokens"] / counts["responses"])  # per response
    if algorithm.clips:
        parts["clip_fraction"] = _clipped(scores.logprob_T, old_T, advantage_T, config)
    estimator = kl_in_loss(config)
    if estimator is not None:
        penalty_T = scores.kl_T
        if penalty_T is None:
            penalty_T = kl.ESTIMATORS[estimator](scores.logprob_T, packed(experience.reference_NT))
        parts["loss__kl"] = weighted_sum(penalty_T, scores.response_T, config, **counts)
        policy = policy + coefficients.kl * parts["loss__kl"]
    value = entropy = policy.new_zeros(())
    if experience.value_NT is not None and experience.return_NT is not None:
        value_T = scores.value_T if actor.critic is None else values(actor.critic, batch)
        assert value_T is not None
        value = _value_loss(value_T, packed(experience.value_NT), packed(experience.return_NT), config)
        parts["loss__value"] = value
    if scores.entropy_T is not None:
        parts["entropy"] = entropy = scores.entropy_T.sum()
    c1, c2 = config.value_coefficient or 0.0, config.entropy_coefficient or 0.0
    loss = losses.ppo_total(policy, value, entropy, c1=c1, c2=c2, form="paper")
    return loss, {"loss": loss, **parts}


def _scores(batch: TreeBatch, actor: Actor, config: PpoConfig) -> ResponseScores:
    """One forward pass of the policy over a pack; the reference's before it where the exact KL is in the loss."""
    exact = kl_in_loss(config) == "exact"
    return response_scores(
        actor.policy,
        batch,
        temperature=config.temperature,
        entropy=bool(config.entropy_coefficient),
        value_head=actor.value_head,
        other=actor.reference_distribution(batch) if exact else None,
    )


def _value_loss(value_T: Tensor, old_value_T: Tensor, return_T: Tensor, config: PpoConfig) -> Tensor:
    if config.value_clip is None:
        return losses.value_loss(value_T, return_T).sum()
    return losses.clipped_value_loss(value_T, old_value_T, return_T, clip=config.value_clip).sum()


def _clipped(logprob_T: Tensor, old_T: Tensor, advantage_T: Tensor, config: PpoConfig) -> Tensor:
    """Number of tokens whose ratio is clipped."""
    mask_T = torch.ones_like(old_T, dtype=torch.bool)
    share = losses.clip_fraction(
        logprob_T, old_T, advantage_T, mask_T, clip=config.clip or 0.0, clip_high=config.clip_high
    )
    return share * mask_T.numel()


@torch.no_grad()
def moved(parts: Parts, experience: Experience) -> float:
    """KL(old || new) after the updates, nats per token, k3 over all tokens of the rollout."""
    trees, total = experience.responses.trees, 0.0
    assert experience.logprob_NT is not None
    for group in budget_packs([tree.length for tree in trees], parts.config.micro_tokens):
        batch = pack([trees[b] for b in group]).to(loop.device_of(parts.actor.policy))
        rows = rows_of(group, trees, experience.first_B)
        with parts.precision.forward():
            scores = response_scores(parts.actor.policy, batch, temperature=parts.config.temperature)
        old_T = to_pack(experience.logprob_NT, experience.mask_NT, rows).to(scores.logprob_T)
        total += float(kl.k3(old_T, scores.logprob_T).sum())
    return total / int(experience.mask_NT.sum())
