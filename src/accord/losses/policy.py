"""Policy-gradient losses, the value loss and how to average them; controllers of a KL coefficient; TRPO's step.

Losses are negated objectives, one value per token. `aggregate` averages. Log-probabilities in nats under the
distribution that was sampled (its temperature included). Old and reference log-probabilities, advantages, returns,
baselines, old values and rewards are constants: no gradient reaches them even where the caller forgot to detach.
These functions take no mask: clean what lies under False (`torch.where`) before, or pass packed tokens.

Dimensions: B prompts, K responses each, N sequences, T tokens (`_T`: any shape), V vocabulary, D all parameters.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from accord.losses import advantages, kl
from accord.losses._tensors import (
    LOG_RATIO_CAP,
    aligned,
    as_scalar,
    raised,
    require_positive,
    require_word,
    selected,
)
from accord.losses._trust_region import LineSearch, conjugate_gradient, fisher_vector_product, line_search, trpo_step

__all__ = [
    "LOG_RATIO_CAP",
    "LineSearch",
    "adapt_kl_doubling",
    "adapt_kl_proportional",
    "aggregate",
    "clip_fraction",
    "clipped_value_loss",
    "conjugate_gradient",
    "entropy",
    "fisher_vector_product",
    "grpo",
    "importance_ratio",
    "line_search",
    "ppo_clip",
    "ppo_penalty",
    "ppo_total",
    "reinforce",
    "rloo",
    "stop_early",
    "surrogate",
    "trpo_step",
    "value_loss",
]


def importance_ratio(logprob_T: Tensor, old_logprob_T: Tensor) -> Tensor:
    """Probability of each token under the policy over that under the policy that sampled it.

        rho_t = exp(min(logprob_t - old_logprob_t, 20))

    Args:
        logprob_T: any shape, nats, carries the gradient.
        old_logprob_T: same shape, nats, as recorded by the sampler; constant.

    Returns: same shape, no unit. Equal models give 1; from a log-ratio of 20 on it is e^20 with gradient 0.

    Raises:
        ValueError: shapes differ.
    """
    logprob_T, old_logprob_T = aligned(logprob_T, old_logprob_T.detach())
    log_ratio_T = logprob_T - old_logprob_T
    return log_ratio_T.masked_fill(log_ratio_T >= LOG_RATIO_CAP, LOG_RATIO_CAP).exp()


def reinforce(logprob_T: Tensor, return_T: Tensor, *, baseline_T: Tensor | None = None) -> Tensor:
    """The policy gradient of Williams 1992, negated.

        loss_t = -(return_t - baseline_t) * logprob_t

    Args:
        logprob_T: any shape, nats, per token, or per response with summed log-probabilities; carries the gradient.
        return_T: same shape, reward units; constant.
        baseline_T: same shape, reward units; constant. None is 0.

    Returns: same shape. A return equal to its baseline gives 0 with gradient 0.

    Raises:
        ValueError: shapes differ.
    """
    logprob_T, return_T = aligned(logprob_T, return_T.detach())
    if baseline_T is not None:
        return_T = return_T - aligned(return_T, baseline_T.detach())[1]
    return -return_T * logprob_T


def surrogate(logprob_T: Tensor, old_logprob_T: Tensor, advantage_T: Tensor) -> Tensor:
    """Importance-weighted advantage, TRPO (arXiv:1502.05477) eq. 14, negated.

        loss_t = -rho_t * A_t,   rho = importance_ratio

    Args:
        logprob_T: any shape, nats, carries the gradient.
        old_logprob_T: same shape, nats, as recorded by the sampler; constant.
        advantage_T: same shape, reward units, or none if whitened; constant.

    Returns: same shape. Equal models give -A with gradient -A, the policy gradient.

    Raises:
        ValueError: shapes differ.
    """
    ratio_T = importance_ratio(logprob_T, old_logprob_T)
    return -ratio_T * aligned(ratio_T, advantage_T.detach())[1]


def ppo_clip(
    logprob_T: Tensor,
    old_logprob_T: Tensor,
    advantage_T: Tensor,
    *,
    clip: float = 0.2,
    clip_high: float | None = None,
    dual_clip: float | None = None,
) -> Tensor:
    """Clipped surrogate of Schulman et al. 2017 (arXiv:1707.06347) eq. 7, negated so that less is better.

        loss_t = -min(rho_t A_t, clamp(rho_t, 1 - clip, 1 + clip_high) A_t),   rho = importance_ratio
        dual_clip c, where A_t < 0:   loss_t = -max(min(...), c A_t)

    A token at a log-ratio of 20 with A < 0 costs e^20 |A| and moves nothing: it is broken (wrong temperature, wrong
    tokens), not informative.

    Args:
        logprob_T: any shape, nats, carries the gradient.
        old_logprob_T: same shape, nats, as recorded by the sampler at its own temperature; constant.
        advantage_T: same shape, reward units, or none if whitened; constant.
        clip: > 0, no unit, 0.2 in the paper.
        clip_high: > 0, the upper side where it differs (0.28 in DAPO, arXiv:2503.14476). None is `clip`.
        dual_clip: > 1, a bound on the loss of bad tokens (Ye et al. 2019, arXiv:1912.09729, use 3). None is none.

    Returns: same shape, not averaged. Equal models give -A with gradient -A.

    Raises:
        ValueError: shapes differ, clip or clip_high <= 0, or dual_clip <= 1.
    """
    if dual_clip is not None and not dual_clip > 1:
        raise ValueError(f"dual_clip is {dual_clip}; pass a number above 1 (3 is usual), or None to leave it off")
    free_T, clipped_T, advantage_T = _clip_terms(logprob_T, old_logprob_T, advantage_T, clip, clip_high)
    objective_T = torch.minimum(free_T, clipped_T)
    if dual_clip is not None:
        bounded_T = torch.maximum(objective_T, dual_clip * advantage_T)
        objective_T = torch.where(advantage_T < 0, bounded_T, objective_T)
    return -objective_T


@torch.no_grad()
def clip_fraction(
    logprob_T: Tensor,
    old_logprob_T: Tensor,
    advantage_T: Tensor,
    mask_T: Tensor,
    *,
    clip: float = 0.2,
    clip_high: float | None = None,
) -> Tensor:
    """Share of tokens whose gradient `ppo_clip` cuts off: the clipped term is strictly the smaller one.

    Args:
        logprob_T: any shape, nats.
        old_logprob_T: same shape, nats.
        advantage_T: same shape, reward units, or none if whitened.
        mask_T: same shape, bool.
        clip: > 0, no unit.
        clip_high: > 0, the upper side where it differs. None is `clip`.

    Returns: scalar, 0 to 1, without gradient. An empty mask gives 0.

    Raises:
        ValueError: shapes differ, or clip or clip_high <= 0.
    """
    free_T, clipped_T, _ = _clip_terms(logprob_T, old_logprob_T, advantage_T, clip, clip_high)
    cut_T = selected((clipped_T < free_T).to(free_T.dtype), mask_T)
    return cut_T.sum() / mask_T.sum().clamp(min=1).to(cut_T.dtype)


def ppo_penalty(
    logprob_T: Tensor, old_logprob_T: Tensor, advantage_T: Tensor, kl_T: Tensor, *, coefficient: float
) -> Tensor:
    """Surrogate with a KL penalty instead of a clip, PPO (arXiv:1707.06347) eq. 8, negated.

        loss_t = -(rho_t A_t - coefficient * kl_t)

    Args:
        logprob_T: any shape, nats, carries the gradient.
        old_logprob_T: same shape, nats, as recorded by the sampler; constant.
        advantage_T: same shape, reward units, or none if whitened; constant.
        kl_T: same shape, nats, KL(old || policy) with its graph: `kl.exact(old_logits, logits)` or
            `kl.k3(old_logprob, logprob)`.
        coefficient: in the unit of the advantage per nat; fixed, or moved by `adapt_kl_doubling`.

    Returns: same shape. Equal models give -A.

    Raises:
        ValueError: shapes differ.
    """
    loss_T, kl_T = aligned(surrogate(logprob_T, old_logprob_T, advantage_T), kl_T)
    return loss_T + coefficient * kl_T


def value_loss(value_T: Tensor, return_T: Tensor) -> Tensor:
    """Half the squared error of the value function, so that its gradient is the error.

        loss_t = (V_t - G_t)^2 / 2

    Args:
        value_T: any shape, reward units, carries the gradient.
        return_T: same shape, reward units; constant.

    Returns: same shape, reward units squared. A perfect value gives 0.

    Raises:
        ValueError: shapes differ.
    """
    value_T, return_T = aligned(value_T, return_T.detach())
    return (value_T - return_T).square() / 2


def clipped_value_loss(value_T: Tensor, old_value_T: Tensor, return_T: Tensor, *, clip: float = 0.2) -> Tensor:
    """Value loss that stops where the value has moved too far from the rollout's, as in OpenAI's PPO2.

        loss_t = max((V_t - G_t)^2, (V_old_t + clamp(V_t - V_old_t, -clip, clip) - G_t)^2) / 2

    Args:
        value_T: any shape, reward units, carries the gradient.
        old_value_T: same shape, reward units, of the rollout; constant.
        return_T: same shape, reward units; constant.
        clip: > 0, reward units.

    Returns: same shape, reward units squared. Within the clip it is `value_loss`.

    Raises:
        ValueError: shapes differ, or clip <= 0.
    """
    require_positive(clip=clip)
    value_T, old_value_T = aligned(value_T, old_value_T.detach())
    near_T = old_value_T + (value_T - old_value_T).clamp(-clip, clip)
    return torch.maximum(value_loss(value_T, return_T), value_loss(near_T, return_T))


def entropy(logits_TV: Tensor) -> Tensor:
    """Entropy of the next token over the whole vocabulary.

        H_t = -sum_v p_tv log p_tv,   p = softmax(logits)

    Args:
        logits_TV: (..., V), carries the gradient; -inf counts 0 and gets gradient 0.

    Returns: (...,) nats, never negative. V equal logits give log V.
    """
    logprob_TV = raised(logits_TV).log_softmax(-1)
    return -(logprob_TV.exp() * logprob_TV.masked_fill(torch.isneginf(logprob_TV), 0)).sum(-1)


def ppo_total(
    policy_loss: Tensor,
    value_loss: Tensor,
    entropy: Tensor,
    *,
    c1: float = 1.0,
    c2: float = 0.0,
    form: Literal["seed", "paper"] = "seed",
) -> Tensor:
    """Policy loss, value loss and entropy bonus in one scalar, PPO (arXiv:1707.06347) eq. 9, negated.

        seed:  loss = value_loss + c1 * policy_loss - c2 * entropy
        paper: loss = policy_loss + c1 * value_loss - c2 * entropy

    Args:
        policy_loss: scalar, minimised, carries the gradient.
        value_loss: scalar, minimised, carries the gradient.
        entropy: scalar, nats, maximised, carries the gradient.
        c1: weight of the policy loss ("seed") or of the value loss ("paper").
        c2: weight of the entropy.
        form: which of the two to weigh with c1; at c1 = 1 they agree.

    Returns: scalar.

    Raises:
        ValueError: shapes differ, or an unknown form.
    """
    require_word(("seed", "paper"), form=form)
    policy_loss, value_loss, entropy = aligned(policy_loss, value_loss, entropy)
    first, second = (value_loss, policy_loss) if form == "seed" else (policy_loss, value_loss)
    return first + c1 * second - c2 * entropy


def aggregate(
    loss_NT: Tensor,
    mask_NT: Tensor,
    *,
    mode: Literal["token", "sequence", "constant"] = "token",
    token_count: int | float | Tensor | None = None,
    sequence_count: int | float | Tensor | None = None,
    max_length: int | None = None,
) -> Tensor:
    """Token losses as one number to differentiate.

        token:    sum(mask * loss) / token_count                       every token weighs the same (DAPO)
        sequence: sum_n(mean of row n) / sequence_count                every response weighs the same (GRPO)
        constant: sum(mask * loss) / (sequence_count * max_length)     Dr. GRPO (arXiv:2503.20783)

    Args:
        loss_NT: (N, T) ("token": any shape), carries the gradient; may be nan outside the mask.
        mask_NT: same shape, bool.
        mode: how to average.
        token_count: trained tokens of the whole optimiser step; None: of this call.
        sequence_count: sequences of the whole step with a trained token; None: of this call.
        max_length: tokens, the longest response there could be; "constant" needs it.

    Returns: scalar. An empty mask gives 0.

    Raises:
        ValueError: shapes differ, an unknown mode, or "constant" without max_length.
    """
    require_word(("token", "sequence", "constant"), mode=mode)
    kept_NT = selected(loss_NT, mask_NT)
    if mode == "token":
        return kept_NT.sum() / _count(mask_NT.sum() if token_count is None else token_count, kept_NT)
    length_N = mask_NT.sum(-1)
    sequences = _count((length_N > 0).sum() if sequence_count is None else sequence_count, kept_NT)
    if mode == "sequence":
        return (kept_NT.sum(-1) / length_N.clamp(min=1).to(kept_NT.dtype)).sum() / sequences
    if max_length is None or max_length <= 0:
        raise ValueError(f"mode 'constant' divides by max_length, which is {max_length}; pass the longest response")
    return kept_NT.sum() / (sequences * max_length)


def adapt_kl_proportional(
    coefficient: float, kl: float, *, target: float, gain: float = 0.1, clip: float = 0.2
) -> float:
    """Next KL coefficient of the reward penalty, Ziegler et al. 2019 (arXiv:1909.08593) sec. 2.2.

        coefficient * (1 + gain * clamp((kl - target) / target, -clip, clip))

    Args:
        coefficient: the present one, reward units per nat.
        kl: nats per response, KL(policy || reference), mean of the rollout.
        target: > 0, nats per response; 6 is usual.
        gain: the paper's K_beta.
        clip: bound on the relative error.

    Returns: reward units per nat. On target it does not move; far above, by 2 per cent.

    Raises:
        ValueError: target <= 0.
    """
    require_positive(target=target)
    return coefficient * (1 + gain * min(max((kl - target) / target, -clip), clip))


def adapt_kl_doubling(coefficient: float, kl: float, *, target: float) -> float:
    """Next coefficient of `ppo_penalty`, the rule of PPO (arXiv:1707.06347) sec. 4.

        half of it if kl < target / 1.5, twice if kl > 1.5 * target, else unchanged

    Args:
        coefficient: the present one.
        kl: nats per token, KL(old || policy) after the iteration.
        target: > 0, nats per token.

    Returns: the next coefficient.

    Raises:
        ValueError: target <= 0.
    """
    require_positive(target=target)
    if kl < target / 1.5:
        return coefficient / 2
    return coefficient * 2 if kl > 1.5 * target else coefficient


def stop_early(kl: float, *, target: float, factor: float = 1.5) -> bool:
    """Whether to leave the epochs of this rollout: the policy has moved too far from the one that sampled it.

        kl > factor * target

    Args:
        kl: nats per token, mean of `kl.k3(old_logprob, logprob)` on a minibatch before its optimiser step.
        target: > 0, nats per token.
        factor: how far above the target is too far.

    Returns: True to skip that step and the remaining epochs.

    Raises:
        ValueError: target <= 0.
    """
    require_positive(target=target)
    return kl > factor * target


def rloo(logprob_BK: Tensor, reward_BK: Tensor) -> Tensor:
    """REINFORCE with the siblings as baseline, Ahmadian et al. 2024 (arXiv:2402.14740). One step per rollout.

        loss_k = -A_k * logprob_k,   A = advantages.leave_one_out(reward)

    Args:
        logprob_BK: (B, K) nats, sum over each response, carries the gradient.
        reward_BK: (B, K) reward units; constant.

    Returns: (B, K). Equal rewards give 0 with gradient 0.

    Raises:
        ValueError: shapes differ, or K < 2.
    """
    return reinforce(logprob_BK, advantages.leave_one_out(aligned(logprob_BK, reward_BK.detach())[1]))


def grpo(
    logprob_T: Tensor,
    old_logprob_T: Tensor,
    ref_logprob_T: Tensor,
    advantage_T: Tensor,
    *,
    clip: float = 0.2,
    clip_high: float | None = None,
    kl_coefficient: float = 0.04,
    kl_estimator: Literal["k2", "k3"] = "k3",
) -> Tensor:
    """Group-relative policy optimisation, Shao et al. 2024 (arXiv:2402.03300) eq. 3, negated.

        loss_t = ppo_clip(A)_t + kl_coefficient * k3(logprob_t, ref_logprob_t)

    The paper averages by `aggregate(..., mode="sequence")`.

    Args:
        logprob_T: any shape, nats, carries the gradient.
        old_logprob_T: same shape, nats, as recorded by the sampler; constant.
        ref_logprob_T: same shape, nats, under the reference; constant.
        advantage_T: same shape, `advantages.group_relative` of the response on each of its tokens; constant.
        clip: > 0, no unit.
        clip_high: > 0, the upper side where it differs. None is `clip`.
        kl_coefficient: in the unit of the advantage per nat.
        kl_estimator: "k3" as published, or "k2", the gradient of KL(policy || reference).

    Returns: same shape. Three equal models give -A.

    Raises:
        ValueError: shapes differ, clip <= 0, or an estimator other than these ("k1" has no useful gradient in a loss).
    """
    require_word(("k2", "k3"), kl_estimator=kl_estimator)
    loss_T = ppo_clip(logprob_T, old_logprob_T, advantage_T, clip=clip, clip_high=clip_high)
    return loss_T + kl_coefficient * kl.ESTIMATORS[kl_estimator](logprob_T, ref_logprob_T.detach())


def _clip_terms(
    logprob_T: Tensor, old_logprob_T: Tensor, advantage_T: Tensor, clip: float, clip_high: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The terms rho A and clamp(rho) A, and A without gradient, in one dtype."""
    high = clip if clip_high is None else clip_high
    require_positive(clip=clip, clip_high=high)
    ratio_T = importance_ratio(logprob_T, old_logprob_T)
    ratio_T, advantage_T = aligned(ratio_T, advantage_T.detach())
    return ratio_T * advantage_T, ratio_T.clamp(1 - clip, 1 + high) * advantage_T, advantage_T


def _count(number: int | float | Tensor, like: Tensor) -> Tensor:
    """A number of tokens or sequences to divide by; 0 becomes 1, because its sum is 0 too."""
    count = as_scalar(number, like)
    return torch.where(count > 0, count, 1)
