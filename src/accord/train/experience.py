"""One rollout of reinforcement learning: responses, what was said of them, and the advantages that follow.

Rectangular (N, T) tables hold what packs computed, N responses in the order of prompts, T tokens padded on the right.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from accord.losses import advantages, kl
from accord.models.score import response_scores, values
from accord.records import Conversation
from accord.rollouts import Rollout, Sampler, Sampling
from accord.text import Template
from accord.train.configs import PpoConfig
from accord.train.loop import Precision, device_of
from accord.train.rewards import Responses, Reward
from accord.train.scoring import firsts, rows_of
from accord.trees import Branch, PromptTree, budget_packs, pack

__all__ = ["Actor", "Experience", "collect", "from_packs", "to_pack"]

WORST_GAP = 0.5  # nats per token; bf16 rounding gives about 0.02, another model or temperature far more


@dataclass(frozen=True, kw_only=True)
class Actor:
    """The models of an actor-critic run.

    Attributes:
        policy: what is trained.
        reference: a frozen copy, or None where switching the policy's adapters off gives the reference.
        value_head: on the policy's trunk, or None with a separate critic.
        critic: a value model of its own, or None.
    """

    policy: Any
    reference: Any
    value_head: nn.Module | None
    critic: Any

    def reference_logprob(self, batch: Any, temperature: float) -> Tensor:
        """(T,) nats of the pack's tokens under the reference."""
        if self.reference is not None:
            return response_scores(self.reference, batch, temperature=temperature).logprob_T
        with self.policy.disable_adapter():
            return response_scores(self.policy, batch, temperature=temperature).logprob_T


@dataclass(frozen=True, kw_only=True)
class Experience:
    """A scored rollout.

    Attributes:
        responses: prompts, trees, texts.
        first_B: index of each tree's first response in the tables below.
        mask_NT: bool, True on sampled tokens.
        logprob_NT: nats under the policy that sampled, at the sampling temperature, in the trainer's own arithmetic.
        reference_NT: nats under the reference.
        value_NT: V(s_t), reward units.
        score_N: as the reward gave it.
        advantage_NT: whitened over the rollout.
        return_NT: what the value function is fitted to.
        figures: metrics of the rollout.
    """

    responses: Responses
    first_B: tuple[int, ...]
    mask_NT: Tensor
    logprob_NT: Tensor
    reference_NT: Tensor
    value_NT: Tensor
    score_N: Tensor
    advantage_NT: Tensor
    return_NT: Tensor
    figures: dict[str, float]


def collect(  # noqa: PLR0913 - one rollout needs every part of the run
    prompts: Sequence[Conversation],
    ids: Sequence[tuple[int, ...]],
    actor: Actor,
    reward: Reward,
    sampler: Sampler,
    template: Template,
    config: PpoConfig,
    precision: Precision,
    *,
    seed: int,
    coefficient: float,
) -> Experience:
    """Sample K responses a prompt, score them, and estimate advantages.

    The order is InstructGPT's: score, normalise, KL per token into the reward, GAE, whiten over the whole rollout.
    """
    clock = [time.perf_counter()]
    sampling = Sampling(
        samples=config.samples, max_new_tokens=config.max_new_tokens, temperature=config.temperature, seed=seed
    )
    rollouts_BK = sampler.sample(ids, sampling)
    clock.append(time.perf_counter())
    responses = as_responses(prompts, ids, rollouts_BK, template)
    rows = [rollout for rollouts in rollouts_BK for rollout in rollouts]
    mask_NT = _mask(rows)
    score_N = reward(responses)
    logprob_NT, reference_NT, value_NT = _score(responses.trees, actor, mask_NT, config, precision)
    gap = _check_gap(rows, logprob_NT, mask_NT)

    finished_N = torch.tensor([rollout.finish == "stop" for rollout in rows])
    normal_N = advantages.normalise_score(score_N, mean=reward.mean, std=reward.std, clip=config.score_clip)
    kl_NT = kl.k1(logprob_NT, reference_NT)
    reward_NT = advantages.token_rewards(
        normal_N,
        kl_NT,
        mask_NT,
        kl_coefficient=coefficient,
        finished_N=finished_N,
        missing_eos_penalty=config.missing_eos_penalty,
    )
    raw = advantages.gae(reward_NT, value_NT, mask_NT, gamma=config.gamma, lam=config.lam)
    clock.append(time.perf_counter())
    length_N = mask_NT.sum(-1)
    figures = {
        "reward__mean": float(score_N.mean()),
        "reward__std": float(score_N.std(correction=0)),
        "reward__normalised": float(normal_N.mean()),
        "kl__reference": float(kl.sequence(logprob_NT, reference_NT, mask_NT).mean()),
        "kl__coefficient": coefficient,
        "length__mean": float(length_N.float().mean()),
        "length__cut": 1.0 - float(finished_N.float().mean()),
        "advantage__mean": float(raw.advantage_NT[mask_NT].mean()),
        "value__explained": _explained(raw.return_NT[mask_NT], value_NT[mask_NT]),
        "sampler__gap": gap,
        "seconds__sample": clock[1] - clock[0],
        "seconds__score": clock[2] - clock[1],
        **getattr(reward, "figures", {}),  # of its sources, where it has several
    }
    return Experience(
        responses=responses,
        first_B=firsts(responses.trees),
        mask_NT=mask_NT,
        logprob_NT=logprob_NT,
        reference_NT=reference_NT,
        value_NT=value_NT,
        score_N=score_N,
        advantage_NT=advantages.whiten(raw.advantage_NT, mask_NT),
        return_NT=raw.return_NT,
        figures=figures,
    )


def as_responses(
    prompts: Sequence[Conversation],
    ids: Sequence[tuple[int, ...]],
    rollouts_BK: Sequence[Sequence[Rollout]],
    template: Template,
) -> Responses:
    """Trees of the sampled tokens, and their texts."""
    return Responses(
        prompts=prompts,
        trees=[
            PromptTree(tuple(prompt), tuple(Branch.response(rollout.tokens) for rollout in rollouts))
            for prompt, rollouts in zip(ids, rollouts_BK, strict=True)
        ],
        texts_BK=[[template.decode(rollout.tokens) for rollout in rollouts] for rollouts in rollouts_BK],
        finished_BK=[[rollout.finish == "stop" for rollout in rollouts] for rollouts in rollouts_BK],
    )


def to_pack(table_NT: Tensor, mask_NT: Tensor, rows: Sequence[int]) -> Tensor:
    """(tokens,) the entries of some responses in the order a pack of them has."""
    return table_NT[rows][mask_NT[rows]]


def from_packs(parts: Sequence[tuple[list[int], Tensor]], mask_NT: Tensor) -> Tensor:
    """(N, T) float32 from (rows, (tokens,)) parts; 0 outside the mask."""
    table_NT = torch.zeros(mask_NT.shape)
    for rows, value_T in parts:
        part = torch.zeros(len(rows), mask_NT.shape[1])
        part[mask_NT[rows]] = value_T.detach().float().cpu()
        table_NT[rows] = part
    return table_NT


@torch.no_grad()
def _score(
    trees: Sequence[PromptTree], actor: Actor, mask_NT: Tensor, config: PpoConfig, precision: Precision
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities under policy and reference, and values, for every sampled token."""
    first_B = firsts(trees)
    parts: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
    actor.policy.eval()
    for group in budget_packs([tree.length for tree in trees], config.micro_tokens):
        batch = pack([trees[b] for b in group]).to(device_of(actor.policy))
        rows = rows_of(group, trees, first_B)
        with precision.forward():
            scores = response_scores(actor.policy, batch, temperature=config.temperature, value_head=actor.value_head)
            value_T = values(actor.critic.eval(), batch) if actor.critic is not None else scores.value_T
            reference_T = actor.reference_logprob(batch, config.temperature)
        for part, value in zip(parts, (scores.logprob_T, reference_T, value_T), strict=True):
            part.append((rows, value))
    logprob_NT, reference_NT, value_NT = (from_packs(part, mask_NT) for part in parts)
    return logprob_NT, reference_NT, value_NT


def _mask(rows: Sequence[Rollout]) -> Tensor:
    length_N = torch.tensor([len(rollout.tokens) for rollout in rows])
    return torch.arange(int(length_N.max())) < length_N.unsqueeze(-1)


def _explained(return_T: Tensor, value_T: Tensor) -> float:
    spread = float(return_T.var(correction=0))
    return 1.0 - float((return_T - value_T).var(correction=0)) / spread if spread > 0 else 0.0


def _check_gap(rows: Sequence[Rollout], logprob_NT: Tensor, mask_NT: Tensor) -> float:
    """Mean size of the difference between what sampler and trainer say of a token.

    Raises: ValueError: they are not the same policy.
    """
    sampled = torch.tensor([value for rollout in rows for value in rollout.sampling_logprob])
    gap = float((sampled - logprob_NT[mask_NT]).abs().mean())
    if not gap <= WORST_GAP:
        raise ValueError(
            f"sampler and trainer disagree by {gap:.3f} nats per token (at most {WORST_GAP}); they do not hold "
            "the same weights or temperature, so the ratios of policy optimisation would be wrong"
        )
    return gap
