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
from torch.profiler import record_function

from accord.losses import advantages, kl
from accord.models.head import Distribution, head_of, token_logprob
from accord.models.score import response_scores, response_states, values
from accord.records import Conversation
from accord.rollouts import Rollout, Sampler, Sampling
from accord.text import Template
from accord.train.algorithms import ALGORITHMS, kl_in_reward, scores_with_its_step
from accord.train.configs import PpoConfig
from accord.train.loop import Precision, device_of
from accord.train.rewards import Responses, Reward
from accord.train.scoring import firsts, rows_of
from accord.trees import Branch, PromptTree, budget_packs, pack

__all__ = ["Actor", "Experience", "check_gap", "collect", "from_packs", "to_pack"]

WORST_GAP = 0.5  # nats per token; bf16 rounding gives about 0.02, another model or temperature far more


@dataclass(frozen=True, kw_only=True)
class Actor:
    """The models of a run. With neither value head nor critic there is no value function.

    Attributes:
        policy: what is trained.
        reference: a frozen copy, or None where switching the policy's adapters off gives the reference.
        value_head: on the policy's trunk, or None.
        critic: a value model of its own, or None.
    """

    policy: Any
    reference: Any
    value_head: nn.Module | None
    critic: Any

    @property
    def value_function(self) -> nn.Module | None:
        """What of it is trained to predict returns."""
        return self.value_head if self.critic is None else self.critic

    @torch.no_grad()
    def reference_distribution(self, batch: Any) -> Distribution:
        """The reference's distributions of the pack's response tokens."""
        if self.reference is not None:
            return Distribution(response_states(self.reference, batch), head_of(self.reference))
        with self.policy.disable_adapter():
            return Distribution(response_states(self.policy, batch), head_of(self.policy))


@dataclass(frozen=True, kw_only=True)
class Experience:
    """A scored rollout.

    Attributes:
        responses: prompts, trees, texts.
        first_B: index of each tree's first response in the tables below.
        mask_NT: bool, True on sampled tokens.
        sampled_NT: nats under the policy that sampled, as the sampler says.
        logprob_NT: the same in the trainer's own arithmetic, or None if the pass of the one step is to give them.
        reference_NT: nats under the reference.
        value_NT: V(s_t), reward units, or None without a value function.
        score_N: as the reward gave it.
        advantage_NT: whitened over the rollout if asked for.
        return_NT: what the value function is fitted to, or None without one.
        figures: metrics of the rollout.
    """

    responses: Responses
    first_B: tuple[int, ...]
    mask_NT: Tensor
    sampled_NT: Tensor
    logprob_NT: Tensor | None
    reference_NT: Tensor
    value_NT: Tensor | None
    score_N: Tensor
    advantage_NT: Tensor
    return_NT: Tensor | None
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
    step_follows: bool = True,
) -> Experience:
    """Sample K responses a prompt, score them, and estimate advantages.

    The order is InstructGPT's: score, normalise, KL per token into the reward, advantages, whiten over the rollout.

    Args:
        prompts: as conversations, for the reward.
        ids: as tokens, for the sampler.
        actor: the models.
        reward: judges the responses.
        sampler: draws them from the policy.
        template: of the policy.
        config: the job.
        precision: of forward passes.
        seed: of the samples.
        coefficient: weight of the KL penalty, reward units per nat.
        step_follows: whether the policy makes a step on it; else it is scored here in any case.
    """
    start = time.perf_counter()
    sampling = Sampling(
        samples=config.samples, max_new_tokens=config.max_new_tokens, temperature=config.temperature, seed=seed
    )
    with record_function("accord.sampling"):
        rollouts_BK = sampler.sample(ids, sampling)
    sampled = time.perf_counter()
    responses = as_responses(prompts, ids, rollouts_BK, template)
    drawn = _Drawn.of([rollout for rollouts in rollouts_BK for rollout in rollouts])
    later = step_follows and scores_with_its_step(config)
    with record_function("accord.scoring"):
        score_N = reward(responses)
        said = _score(responses.trees, actor, drawn.mask_NT, config, precision, later)

    normal_N = advantages.normalise_score(score_N, mean=reward.mean, std=reward.std, clip=config.score_clip)
    reward_NT = _token_rewards(normal_N, said, drawn, config, coefficient)
    raw_NT = ALGORITHMS[config.algorithm].advantages(reward_NT, said.value_NT, drawn.mask_NT, config)
    return_NT = None if said.value_NT is None else raw_NT + said.value_NT
    figures = {
        "reward__normalised": float(normal_N.mean()),
        "kl__coefficient": coefficient,
        "advantage__mean": float(raw_NT[drawn.mask_NT].mean()),
        "seconds__sample": sampled - start,
        "seconds__score": time.perf_counter() - sampled,
        **_of_responses(score_N, drawn.mask_NT.sum(-1), drawn.finished_N),
        **getattr(reward, "figures", {}),  # of its sources, where it has several
        **_of_models(said, drawn, return_NT),
    }
    return Experience(
        responses=responses,
        first_B=firsts(responses.trees),
        mask_NT=drawn.mask_NT,
        sampled_NT=drawn.logprob_NT,
        logprob_NT=said.policy_NT,
        reference_NT=said.reference_NT,
        value_NT=said.value_NT,
        score_N=score_N,
        advantage_NT=advantages.whiten(raw_NT, drawn.mask_NT) if config.whiten_advantages else raw_NT,
        return_NT=return_NT,
        figures=figures,
    )


@dataclass(frozen=True)
class _Drawn:
    """What the sampler says of its responses: which entries are tokens, their log-probability, who ended by itself."""

    mask_NT: Tensor
    logprob_NT: Tensor
    finished_N: Tensor

    @classmethod
    def of(cls, rows: Sequence[Rollout]) -> _Drawn:
        length_N = torch.tensor([len(rollout.tokens) for rollout in rows])
        mask_NT = torch.arange(int(length_N.max())) < length_N.unsqueeze(-1)
        logprob_NT = torch.zeros(mask_NT.shape)
        logprob_NT[mask_NT] = torch.tensor([value for rollout in rows for value in rollout.sampling_logprob])
        return cls(mask_NT, logprob_NT, torch.tensor([rollout.finish == "stop" for rollout in rows]))


@dataclass(frozen=True)
class _Said:
    """What the models say of the tokens: log-probabilities, values, and exact KL to the reference; None: not asked."""

    policy_NT: Tensor | None
    reference_NT: Tensor
    value_NT: Tensor | None
    kl_NT: Tensor | None


def _token_rewards(normal_N: Tensor, said: _Said, drawn: _Drawn, config: PpoConfig, coefficient: float) -> Tensor:
    """(N, T): the score at the last token, less the KL of each if it stands in the reward."""
    estimator = kl_in_reward(config)
    if said.kl_NT is not None:
        kl_NT = said.kl_NT
    elif estimator and said.policy_NT is not None:
        kl_NT = kl.ESTIMATORS[estimator](said.policy_NT, said.reference_NT)
    else:  # it does not stand in the reward, or weighs nothing
        kl_NT = torch.zeros_like(said.reference_NT)
    return advantages.token_rewards(
        normal_N,
        kl_NT,
        drawn.mask_NT,
        kl_coefficient=coefficient if estimator else 0.0,
        finished_N=drawn.finished_N,
        missing_eos_penalty=config.missing_eos_penalty,
    )


def _of_responses(score_N: Tensor, length_N: Tensor, finished_N: Tensor) -> dict[str, float]:
    """Figures of the responses as they were drawn and judged."""
    return {
        "reward__mean": float(score_N.mean()),
        "reward__std": float(score_N.std(correction=0)),
        "length__mean": float(length_N.float().mean()),
        "length__cut": 1.0 - float(finished_N.float().mean()),
    }


def _of_models(said: _Said, drawn: _Drawn, return_NT: Tensor | None) -> dict[str, float]:
    """Figures of what the models say: distance to the reference and to the sampler, fit of the value function."""
    figures = {}
    if said.policy_NT is not None:
        figures["kl__reference"] = float(kl.sequence(said.policy_NT, said.reference_NT, drawn.mask_NT).mean())
        gap = float((drawn.logprob_NT - said.policy_NT)[drawn.mask_NT].abs().mean())
        figures["sampler__gap"] = check_gap(gap)
    if said.value_NT is not None and return_NT is not None:
        figures["value__explained"] = _explained(return_NT[drawn.mask_NT], said.value_NT[drawn.mask_NT])
    return figures


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
    trees: Sequence[PromptTree], actor: Actor, mask_NT: Tensor, config: PpoConfig, precision: Precision, later: bool
) -> _Said:
    """Passes of the models over all sampled tokens; `later`: the policy is left out."""
    first_B = firsts(trees)
    parts: dict[str, list[tuple[list[int], Tensor]]] = {"policy": [], "reference": [], "value": [], "kl": []}
    actor.policy.eval()
    exact = kl_in_reward(config) == "exact"
    with precision.forward():
        for group in budget_packs([tree.length for tree in trees], config.micro_tokens):
            batch = pack([trees[b] for b in group]).to(device_of(actor.policy))
            rows = rows_of(group, trees, first_B)
            other = actor.reference_distribution(batch)
            token_T = batch.token_T[batch.scored_index]
            reference_T, _ = token_logprob(other.state_TD, other.head, token_T, temperature=config.temperature)
            parts["reference"].append((rows, reference_T))
            if not later:
                scores = response_scores(
                    actor.policy,
                    batch,
                    temperature=config.temperature,
                    value_head=actor.value_head,
                    other=other if exact else None,
                )
                parts["policy"].append((rows, scores.logprob_T))
                if scores.value_T is not None:
                    parts["value"].append((rows, scores.value_T))
                if scores.kl_T is not None:
                    parts["kl"].append((rows, scores.kl_T))
            if actor.critic is not None:
                parts["value"].append((rows, values(actor.critic.eval(), batch)))
    table = {name: from_packs(part, mask_NT) if part else None for name, part in parts.items()}
    assert table["reference"] is not None
    return _Said(table["policy"], table["reference"], table["value"], table["kl"])


def _explained(return_T: Tensor, value_T: Tensor) -> float:
    spread = float(return_T.var(correction=0))
    return 1.0 - float((return_T - value_T).var(correction=0)) / spread if spread > 0 else 0.0


def check_gap(gap: float) -> float:
    """Mean size of the difference between what sampler and trainer say of a token, nats, as it was given.

    Raises: ValueError: they are not the same policy.
    """
    if not gap <= WORST_GAP:
        raise ValueError(
            f"sampler and trainer disagree by {gap:.3f} nats per token (at most {WORST_GAP}); they do not hold "
            "the same weights or temperature, so the ratios of policy optimisation would be wrong"
        )
    return gap
