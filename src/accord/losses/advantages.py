"""From scores of responses to advantages of tokens. Everything here is a constant of the policy gradient: no graph.

The order of a PPO iteration: sample, score, `normalise_score`, KL per token, `token_rewards`, `gae`, then `whiten` over
the whole rollout (the returns stay those of the advantages before whitening), then the epochs.

Dimensions: N sequences (B prompts, K responses each), T tokens, time last. Positions outside the mask give 0 and do not
exist: a hole neither discounts nor interrupts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from accord.losses._tensors import aligned, raised, require_between, require_shape, selected

__all__ = [
    "Gae",
    "advantage",
    "gae",
    "group_relative",
    "last_index",
    "leave_one_out",
    "normalise_score",
    "returns",
    "token_rewards",
    "update_moments",
    "whiten",
]


@torch.no_grad()
def normalise_score(score_N: Tensor, *, mean: float = 0.0, std: float = 1.0, clip: float | None = None) -> Tensor:
    """Scores of a reward model, shifted and scaled, then clipped.

        clamp((score - mean) / max(std, 1e-8), -clip, clip)

    Args:
        score_N: (N,) reward units.
        mean: reward units, stored with the reward model or running.
        std: reward units, likewise.
        clip: standard deviations; None does not clip.

    Returns: (N,) standard deviations. A score at the mean gives 0.
    """
    normal_N = (raised(score_N) - mean) / max(std, 1e-8)
    return normal_N if clip is None else normal_N.clamp(-clip, clip)


@torch.no_grad()
def update_moments(count: int, mean: float, m2: float, score_N: Tensor) -> tuple[int, float, float]:
    """Running mean and variance, merged with a batch without cancellation (Chan et al. 1979), in float64.

        delta = batch mean - mean,   mean' = mean + delta * n / count',   m2' = m2 + batch m2 + delta^2 count n / count'

    Args:
        count: scores seen so far.
        mean: their mean.
        m2: their sum of squared deviations; the standard deviation is sqrt(m2 / count).
        score_N: (N,) new scores; reading them waits for the device.

    Returns: count, mean and m2 with the batch. An empty batch changes nothing.
    """
    score_N = score_N.detach().cpu().double()
    added = score_N.numel()
    if added == 0:
        return count, mean, m2
    batch_mean = score_N.mean().item()
    batch_m2 = (score_N - batch_mean).square().sum().item()
    total, delta = count + added, batch_mean - mean
    return total, mean + delta * added / total, m2 + batch_m2 + delta * delta * count * added / total


def last_index(mask_NT: Tensor) -> Tensor:
    """Index of the last token of each response: the largest t with mask True.

    Not the number of tokens less one: rows may have holes and padding on the left.

    Args:
        mask_NT: (N, T) bool.

    Returns: (N,) int64, -1 for an empty row.
    """
    position_T = torch.arange(mask_NT.shape[-1], device=mask_NT.device)
    return torch.where(mask_NT, position_T, -1).amax(-1)


@torch.no_grad()
def token_rewards(
    score_N: Tensor,
    kl_NT: Tensor,
    mask_NT: Tensor,
    *,
    kl_coefficient: float = 0.02,
    finished_N: Tensor | None = None,
    missing_eos_penalty: float = 0.0,
) -> Tensor:
    """Rewards of tokens in RLHF (Ziegler et al. 2019, arXiv:1909.08593): a KL penalty everywhere, the score at the end.

        reward_nt = -kl_coefficient * kl_nt + [t = last_n] * (score_n - [not finished_n] * missing_eos_penalty)

    Args:
        score_N: (N,) reward units.
        kl_NT: (N, T) nats, usually `accord.losses.kl.k1(rollout logprob, reference logprob)`.
        mask_NT: (N, T) bool, response tokens.
        kl_coefficient: reward units per nat.
        finished_N: (N,) bool, False where a response was cut off by length. None: all finished.
        missing_eos_penalty: reward units taken from the score of an unfinished response.

    Returns: (N, T) reward units, 0 outside the mask. Equal models: only the score, on the last token (`last_index`).

    Raises:
        ValueError: shapes differ.
    """
    score_N = raised(score_N)
    if finished_N is not None:
        require_shape(finished_N, score_N)
        score_N = torch.where(finished_N, score_N, score_N - missing_eos_penalty)
    penalty_NT = kl_coefficient * selected(kl_NT, mask_NT).to(score_N.dtype)
    position_T = torch.arange(mask_NT.shape[-1], device=mask_NT.device)
    return torch.where(position_T == last_index(mask_NT)[:, None], score_N[:, None], 0) - penalty_NT


@torch.no_grad()
def returns(reward_NT: Tensor, mask_NT: Tensor, *, gamma: float = 1.0) -> Tensor:
    """Discounted sum of the rewards from each token on.

        G_t = sum over t' >= t of gamma^{t' - t} reward_t'

    Args:
        reward_NT: (N, T) reward units; may be nan outside the mask.
        mask_NT: (N, T) bool.
        gamma: discount, 0 to 1.

    Returns: (N, T) reward units. gamma 1 is the sum to the end, gamma 0 the reward itself.

    Raises:
        ValueError: shapes differ, or gamma outside [0, 1].
    """
    return gae(reward_NT, torch.zeros_like(reward_NT), mask_NT, gamma=gamma, lam=1.0).return_NT


@torch.no_grad()
def advantage(return_NT: Tensor, value_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """Return less value: how much better it went than expected.

        A_t = G_t - V_t

    Args:
        return_NT: (N, T) reward units; may be nan outside the mask.
        value_NT: (N, T) reward units, V(prompt, tokens before t); likewise.
        mask_NT: (N, T) bool.

    Returns: (N, T) reward units. A perfect critic gives 0.

    Raises:
        ValueError: shapes differ.
    """
    return_NT, value_NT = aligned(selected(return_NT, mask_NT), selected(value_NT, mask_NT))
    return return_NT - value_NT


class Gae(NamedTuple):
    """Advantages and the returns a critic is fitted to.

    Reward 1 on the last of three tokens, no values, gamma 1, lam .95: both are .9025, .95, 1.

    Attributes:
        advantage_NT: (N, T) reward units, 0 outside the mask, not whitened.
        return_NT: (N, T) reward units, advantage plus value, 0 outside the mask.
    """

    advantage_NT: Tensor
    return_NT: Tensor


@torch.no_grad()
def gae(reward_NT: Tensor, value_NT: Tensor, mask_NT: Tensor, *, gamma: float = 1.0, lam: float = 0.95) -> Gae:
    """Generalised advantage estimation, Schulman et al. 2015 (arXiv:1506.02438) eqs. 11 and 16.

        A_t = sum_l (gamma lam)^l delta_{t+l},   delta_t = reward_t + gamma V_next - V_t,   return_t = A_t + V_t

    V behind the last token is 0, of responses cut off by length too: their score is final.

    Args:
        reward_NT: (N, T) reward units; may be nan outside the mask.
        value_NT: (N, T) reward units, V(prompt, tokens before t); likewise.
        mask_NT: (N, T) bool.
        gamma: discount, 0 to 1.
        lam: 0 to 1, from the one-step error (0) to return less value (1).

    Returns: a `Gae`.

    Raises:
        ValueError: shapes differ, or gamma or lam outside [0, 1].
    """
    require_between(0, 1, gamma=gamma, lam=lam)
    reward_NT, value_NT = aligned(selected(reward_NT, mask_NT), selected(value_NT, mask_NT))
    advantage_NT = torch.zeros_like(reward_NT)
    ahead_N = next_value_N = reward_NT.new_zeros(reward_NT.shape[:-1])
    for t in reversed(range(reward_NT.shape[-1])):
        mask_N = mask_NT[..., t]
        delta_N = reward_NT[..., t] + gamma * next_value_N - value_NT[..., t]
        ahead_N = torch.where(mask_N, delta_N + gamma * lam * ahead_N, ahead_N)
        next_value_N = torch.where(mask_N, value_NT[..., t], next_value_N)
        advantage_NT[..., t] = torch.where(mask_N, ahead_N, 0)
    return Gae(advantage_NT, advantage_NT + value_NT)


@torch.no_grad()
def whiten(value_NT: Tensor, mask_NT: Tensor, *, shift_mean: bool = True, eps: float = 1e-8) -> Tensor:
    """Values at mean 0 and variance 1 over the masked-in entries, with the population variance.

        (x - mean) / sqrt(var + eps)        (shift_mean=False: the mean is added back)

    Args:
        value_NT: any shape; may be nan outside the mask.
        mask_NT: same shape, bool; statistics are those of this call, so pass the whole rollout.
        shift_mean: False for rewards, whose mean should stay.
        eps: added to the variance, in the unit of the values squared.

    Returns: same shape, 0 outside the mask. Constant input gives 0 (its mean, with shift_mean=False).

    Raises:
        ValueError: shapes differ.
    """
    value_NT = selected(value_NT, mask_NT)
    count = mask_NT.sum().clamp(min=1).to(value_NT.dtype)
    mean = value_NT.sum() / count
    centred_NT = (value_NT - mean).masked_fill(~mask_NT, 0)
    # Once more: the rounding error of the mean, the same in every entry, would be blown up where all values are equal.
    centred_NT = (centred_NT - centred_NT.sum() / count).masked_fill(~mask_NT, 0)
    white_NT = _over(centred_NT, (centred_NT.square().sum() / count + eps).sqrt())
    return white_NT if shift_mean else (white_NT + mean).masked_fill(~mask_NT, 0)


@torch.no_grad()
def leave_one_out(reward_BK: Tensor) -> Tensor:
    """Reward of each response less the mean of its siblings, RLOO's baseline (Kool et al. 2019).

        A_k = r_k - mean of r_j over j != k = K / (K - 1) * (r_k - mean r)

    Args:
        reward_BK: (B, K) reward units, K responses to one prompt.

    Returns: (B, K) reward units. Equal rewards give 0.

    Raises:
        ValueError: K < 2.
    """
    count = reward_BK.shape[-1]
    return group_relative(reward_BK, scale=False) * (count / (count - 1))


@torch.no_grad()
def group_relative(reward_BK: Tensor, *, scale: bool = True, eps: float = 1e-4) -> Tensor:
    """Reward of each response against its group, GRPO (arXiv:2402.03300); unscaled, Dr. GRPO (arXiv:2503.20783).

        A_k = (r_k - mean) / (std + eps),   std with K - 1        (scale=False: r_k - mean)

    Args:
        reward_BK: (B, K) reward units, K responses to one prompt.
        scale: divide by the standard deviation.
        eps: reward units; large enough that rounding noise in equal rewards is not blown up.

    Returns: (B, K), no unit (unscaled: reward units). Equal rewards give 0.

    Raises:
        ValueError: K < 2.
    """
    count = reward_BK.shape[-1]
    if count < 2:
        raise ValueError(f"a group has {count} response; a baseline from its siblings needs at least 2 per prompt")
    reward_BK = raised(reward_BK)
    centred_BK = reward_BK - reward_BK.mean(-1, keepdim=True)
    # Once more: the rounding error of the mean is as large as eps allows for when rewards are equal.
    centred_BK = centred_BK - centred_BK.mean(-1, keepdim=True)
    if not scale:
        return centred_BK
    return _over(centred_BK, (centred_BK.square().sum(-1, keepdim=True) / (count - 1)).sqrt() + eps)


def _over(value: Tensor, divisor: Tensor) -> Tensor:
    """`value / divisor`, 0 where the divisor is 0: all values were equal and eps is 0."""
    return torch.where(divisor > 0, value / divisor, 0)
