"""Losses on comparisons without a reward model: DPO and its relatives.

Dimensions: B pairs (or, for KTO, responses). Log-probabilities are sums over the response tokens, in nats; lengths in
tokens, the end token counted, int64 or float, 0 counting as 1 in a division. beta is 1/nat per sequence.
    gap = (chosen_logprob - chosen_ref_logprob) - (rejected_logprob - rejected_ref_logprob)
Any loss of `accord.losses.reward` may be put on `implicit_reward`: Rao-Kupper there is DPO with ties.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from accord.losses import reward
from accord.losses._tensors import (
    aligned,
    as_scalar,
    per_token,
    require_positive,
    require_shape,
    require_word,
)

__all__ = [
    "Metrics",
    "dpo",
    "dpo_length",
    "hinge",
    "implicit_reward",
    "ipo",
    "kto",
    "kto_reference_point",
    "metrics",
    "orpo",
    "robust_dpo",
    "simpo",
    "slic",
]


def implicit_reward(logprob_B: Tensor, ref_logprob_B: Tensor, *, beta: float = 0.1) -> Tensor:
    """The reward a policy is optimal for, up to a constant of the prompt, DPO (arXiv:2305.18290) eq. 5.

        reward = beta * (logprob - ref_logprob)

    Args:
        logprob_B: any shape, nats, sum over the response, keeps its graph.
        ref_logprob_B: same shape, nats, under the reference.
        beta: pull towards the reference, 1/nat.

    Returns: same shape, no unit. Equal models give 0.

    Raises:
        ValueError: shapes differ.
    """
    logprob_B, ref_logprob_B = aligned(logprob_B, ref_logprob_B)
    return beta * (logprob_B - ref_logprob_B)


class Metrics(NamedTuple):
    """What to log about pairs under a policy, without gradient. Equal models: rewards 0, accuracy 1/2.

    Attributes:
        chosen_reward_B: (B,) implicit reward of the chosen response.
        rejected_reward_B: (B,) implicit reward of the rejected response.
        margin_B: (B,) their difference.
        accuracy_B: (B,) 1 if the chosen reward is higher, 1/2 on a tie, else 0.
    """

    chosen_reward_B: Tensor
    rejected_reward_B: Tensor
    margin_B: Tensor
    accuracy_B: Tensor


def metrics(
    chosen_logprob_B: Tensor,
    rejected_logprob_B: Tensor,
    chosen_ref_logprob_B: Tensor,
    rejected_ref_logprob_B: Tensor,
    *,
    beta: float = 0.1,
) -> Metrics:
    """Implicit rewards, their margin and accuracy.

    Args:
        chosen_logprob_B: (B,) nats under the policy.
        rejected_logprob_B: (B,) nats under the policy.
        chosen_ref_logprob_B: (B,) nats under the reference.
        rejected_ref_logprob_B: (B,) nats under the reference.
        beta: pull towards the reference, 1/nat.

    Returns: `Metrics`, without gradient.

    Raises:
        ValueError: shapes differ.
    """
    chosen_B = implicit_reward(chosen_logprob_B, chosen_ref_logprob_B, beta=beta).detach()
    rejected_B = implicit_reward(rejected_logprob_B, rejected_ref_logprob_B, beta=beta).detach()
    chosen_B, rejected_B = aligned(chosen_B, rejected_B)
    return Metrics(chosen_B, rejected_B, chosen_B - rejected_B, reward.accuracy(chosen_B, rejected_B))


def dpo(
    chosen_logprob_B: Tensor,
    rejected_logprob_B: Tensor,
    chosen_ref_logprob_B: Tensor,
    rejected_ref_logprob_B: Tensor,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    probability_B: Tensor | None = None,
) -> Tensor:
    """Direct preference optimisation, Rafailov et al. 2023 (arXiv:2305.18290) eq. 7; with smoothing, Mitchell's cDPO.

        loss = -t log sigma(z) - (1 - t) log sigma(-z),   z = beta * gap
        t = (1 - e) p + e (1 - p),   e = label_smoothing

    Args:
        chosen_logprob_B: (B,) nats, sum over the response, carries the gradient.
        rejected_logprob_B: (B,) nats, carries the gradient.
        chosen_ref_logprob_B: (B,) nats under the reference.
        rejected_ref_logprob_B: (B,) nats under the reference.
        beta: pull towards the reference, 1/nat.
        label_smoothing: 0 to 1/2, probability that a label is flipped.
        probability_B: (B,) p = P(chosen is better). None is 1.

    Returns: (B,) nats. Equal models give log 2, with gradients -beta/2 (chosen) and +beta/2 (rejected).

    Raises:
        ValueError: shapes differ, or label_smoothing outside [0, 1/2].
    """
    return reward.bradley_terry(
        implicit_reward(chosen_logprob_B, chosen_ref_logprob_B, beta=beta),
        implicit_reward(rejected_logprob_B, rejected_ref_logprob_B, beta=beta),
        probability_B=probability_B,
        label_smoothing=label_smoothing,
    )


def robust_dpo(
    chosen_logprob_B: Tensor,
    rejected_logprob_B: Tensor,
    chosen_ref_logprob_B: Tensor,
    rejected_ref_logprob_B: Tensor,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.1,
) -> Tensor:
    """DPO that is unbiased when labels are flipped at a known rate, Chowdhury et al. 2024 (arXiv:2403.00409).

        loss = [(1 - e) (-log sigma(z)) - e (-log sigma(-z))] / (1 - 2e),   z = beta * gap,   e = label_smoothing

    Args:
        chosen_logprob_B: (B,) nats, sum over the response, carries the gradient.
        rejected_logprob_B: (B,) nats, carries the gradient.
        chosen_ref_logprob_B: (B,) nats under the reference.
        rejected_ref_logprob_B: (B,) nats under the reference.
        beta: pull towards the reference, 1/nat.
        label_smoothing: the rate of flips, from 0 to below 1/2.

    Returns: (B,) nats, may be negative and is unbounded below. Equal models give log 2.

    Raises:
        ValueError: shapes differ, or label_smoothing outside [0, 1/2).
    """
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing is {label_smoothing}; a rate of flips is at least 0 and below 1/2")
    logit_B = beta * _gap(chosen_logprob_B, rejected_logprob_B, chosen_ref_logprob_B, rejected_ref_logprob_B)
    kept_B, flipped_B = -F.logsigmoid(logit_B), -F.logsigmoid(-logit_B)
    return ((1 - label_smoothing) * kept_B - label_smoothing * flipped_B) / (1 - 2 * label_smoothing)


def ipo(
    chosen_logprob_B: Tensor,
    rejected_logprob_B: Tensor,
    chosen_ref_logprob_B: Tensor,
    rejected_ref_logprob_B: Tensor,
    *,
    beta: float = 0.1,
    chosen_length_B: Tensor | None = None,
    rejected_length_B: Tensor | None = None,
) -> Tensor:
    """Identity preference optimisation, Azar et al. 2023 (arXiv:2310.12036) eq. 17; beta is the paper's tau.

        loss = (gap - 1 / (2 beta))^2

    Without lengths the gap is that of sums, the published equation. With both, each log-ratio is divided by its
    length, as TRL does; the target is then nats per token, so beta must be larger.

    Args:
        chosen_logprob_B: (B,) nats, sum over the response, carries the gradient.
        rejected_logprob_B: (B,) nats, carries the gradient.
        chosen_ref_logprob_B: (B,) nats under the reference.
        rejected_ref_logprob_B: (B,) nats under the reference.
        beta: > 0, 1/nat; the target gap is 1 / (2 beta).
        chosen_length_B: (B,) tokens, or None.
        rejected_length_B: (B,) tokens, or None.

    Returns: (B,) nats squared. Equal models give 25 at beta 0.1.

    Raises:
        ValueError: shapes differ, beta <= 0, or one length without the other.
    """
    require_positive(beta=beta)
    chosen_B = implicit_reward(chosen_logprob_B, chosen_ref_logprob_B, beta=1.0)
    rejected_B = implicit_reward(rejected_logprob_B, rejected_ref_logprob_B, beta=1.0)
    if (chosen_length_B is None) != (rejected_length_B is None):
        raise ValueError("one of chosen_length_B and rejected_length_B is missing; pass both, or none for sums")
    if chosen_length_B is not None and rejected_length_B is not None:
        chosen_B, rejected_B = per_token(chosen_B, chosen_length_B), per_token(rejected_B, rejected_length_B)
    chosen_B, rejected_B = aligned(chosen_B, rejected_B)
    return (chosen_B - rejected_B - 1 / (2 * beta)).square()


def hinge(
    chosen_logprob_B: Tensor,
    rejected_logprob_B: Tensor,
    chosen_ref_logprob_B: Tensor,
    rejected_ref_logprob_B: Tensor,
    *,
    beta: float = 0.1,
) -> Tensor:
    """Hinge on the DPO margin, the normalised SLiC of Liu et al. 2023 (RSO, arXiv:2309.06657).

        loss = max(0, 1 - beta * gap)

    Args:
        chosen_logprob_B: (B,) nats, sum over the response, carries the gradient.
        rejected_logprob_B: (B,) nats, carries the gradient.
        chosen_ref_logprob_B: (B,) nats under the reference.
        rejected_ref_logprob_B: (B,) nats under the reference.
        beta: pull towards the reference, 1/nat.

    Returns: (B,). Equal models give 1; gradient 0 at the kink and beyond.

    Raises:
        ValueError: shapes differ.
    """
    gap_B = _gap(chosen_logprob_B, rejected_logprob_B, chosen_ref_logprob_B, rejected_ref_logprob_B)
    return F.relu(1 - beta * gap_B)


def slic(
    chosen_logprob_B: Tensor,
    rejected_logprob_B: Tensor,
    target_logprob_B: Tensor | None = None,
    *,
    delta: float = 1.0,
    regularisation: float = 1.0,
) -> Tensor:
    """SLiC-HF, Zhao et al. 2023 (arXiv:2305.10425): a margin between sums and a pull to a target, without reference.

        loss = max(0, delta - chosen_logprob + rejected_logprob) - regularisation * target_logprob

    Args:
        chosen_logprob_B: (B,) nats, sum over the response, carries the gradient.
        rejected_logprob_B: (B,) nats, carries the gradient.
        target_logprob_B: (B,) nats of a supervised target, carries the gradient. None leaves the second term out.
        delta: margin, nats.
        regularisation: weight of the target.

    Returns: (B,) nats. Equal log-probabilities give delta (and the second term); gradient 0 at the kink.

    Raises:
        ValueError: shapes differ.
    """
    chosen_logprob_B, rejected_logprob_B = aligned(chosen_logprob_B, rejected_logprob_B)
    loss_B = F.relu(delta - chosen_logprob_B + rejected_logprob_B)
    if target_logprob_B is None:
        return loss_B
    loss_B, target_logprob_B = aligned(loss_B, target_logprob_B)
    return loss_B - regularisation * target_logprob_B


def dpo_length(
    chosen_logprob_B: Tensor,
    rejected_logprob_B: Tensor,
    chosen_ref_logprob_B: Tensor,
    rejected_ref_logprob_B: Tensor,
    chosen_length_B: Tensor,
    rejected_length_B: Tensor,
    *,
    beta: float = 0.1,
    alpha: float = 0.01,
    form: Literal["derived", "printed"] = "derived",
) -> Tensor:
    """Length-regularised DPO, Park et al. 2024 (R-DPO, arXiv:2403.19159) eq. 9.

        derived: loss = -log sigma(beta * gap + alpha * (chosen_length - rejected_length))
        printed: loss = -log sigma(beta * gap - alpha * (chosen_length - rejected_length))

    The derived form follows from an optimum penalised by alpha per token; where annotators do not care, the longer
    response loses probability. The printed form, found on slides, has the sign that rewards length.

    Args:
        chosen_logprob_B: (B,) nats, sum over the response, carries the gradient.
        rejected_logprob_B: (B,) nats, carries the gradient.
        chosen_ref_logprob_B: (B,) nats under the reference.
        rejected_ref_logprob_B: (B,) nats under the reference.
        chosen_length_B: (B,) tokens.
        rejected_length_B: (B,) tokens.
        beta: pull towards the reference, 1/nat.
        alpha: margin per token; below 0 asks for longer answers.
        form: "derived", or "printed" for comparison.

    Returns: (B,) nats. Equal lengths, or alpha 0, is DPO.

    Raises:
        ValueError: shapes differ, or an unknown form.
    """
    require_word(("derived", "printed"), form=form)
    gap_B = _gap(chosen_logprob_B, rejected_logprob_B, chosen_ref_logprob_B, rejected_ref_logprob_B)
    gap_B, chosen_length_B, rejected_length_B = aligned(gap_B, chosen_length_B, rejected_length_B)
    bonus_B = alpha * (chosen_length_B - rejected_length_B)
    return -F.logsigmoid(beta * gap_B + (bonus_B if form == "derived" else -bonus_B))


def simpo(
    chosen_logprob_B: Tensor,
    rejected_logprob_B: Tensor,
    chosen_length_B: Tensor,
    rejected_length_B: Tensor,
    *,
    beta: float = 2.0,
    gamma: float = 1.0,
) -> Tensor:
    """SimPO, Meng et al. 2024 (arXiv:2405.14734) eq. 6: mean log-probabilities, a margin, no reference.

        loss = -log sigma(beta * (chosen_logprob / chosen_length - rejected_logprob / rejected_length) - gamma)

    Args:
        chosen_logprob_B: (B,) nats, sum over the response, carries the gradient.
        rejected_logprob_B: (B,) nats, carries the gradient.
        chosen_length_B: (B,) tokens.
        rejected_length_B: (B,) tokens.
        beta: token per nat.
        gamma: margin, absolute (the authors' configurations give gamma / beta).

    Returns: (B,) nats. Equal means give -log sigma(-gamma), 1.313 by default.

    Raises:
        ValueError: shapes differ.
    """
    chosen_mean_B, rejected_mean_B = aligned(
        per_token(chosen_logprob_B, chosen_length_B), per_token(rejected_logprob_B, rejected_length_B)
    )
    return -F.logsigmoid(beta * (chosen_mean_B - rejected_mean_B) - gamma)


def orpo(
    chosen_logprob_B: Tensor,
    rejected_logprob_B: Tensor,
    chosen_length_B: Tensor,
    rejected_length_B: Tensor,
    *,
    coefficient: float = 0.1,
) -> Tensor:
    """ORPO, Hong et al. 2024 (arXiv:2403.07691) eqs. 4-7: likelihood of the chosen response and an odds ratio.

        loss = -m_w + coefficient * (-log sigma(log_odds_w - log_odds_l))
        m = logprob / length,   log_odds = m - log(1 - e^m)

    Args:
        chosen_logprob_B: (B,) nats, sum over the response, carries the gradient.
        rejected_logprob_B: (B,) nats, carries the gradient.
        chosen_length_B: (B,) tokens.
        rejected_length_B: (B,) tokens.
        coefficient: the paper's lambda.

    Returns: (B,) nats. Equal means m give -m + coefficient * log 2. Inside the odds m is held at or below -1e-7.

    Raises:
        ValueError: shapes differ.
    """
    chosen_mean_B, rejected_mean_B = aligned(
        per_token(chosen_logprob_B, chosen_length_B), per_token(rejected_logprob_B, rejected_length_B)
    )
    return -chosen_mean_B - coefficient * F.logsigmoid(_log_odds(chosen_mean_B) - _log_odds(rejected_mean_B))


def kto_reference_point(mismatched_logprob_B: Tensor, mismatched_ref_logprob_B: Tensor) -> Tensor:
    """Reference point of KTO: an estimate of KL(policy || reference) from responses to other prompts.

        z0 = max(0, mean(mismatched_logprob - mismatched_ref_logprob))

    Args:
        mismatched_logprob_B: (B,) nats of another prompt's response given this prompt, the whole step's batch.
        mismatched_ref_logprob_B: (B,) nats under the reference.

    Returns: scalar, nats, without gradient. An empty batch gives 0.

    Raises:
        ValueError: shapes differ.
    """
    ratio_B = implicit_reward(mismatched_logprob_B.detach(), mismatched_ref_logprob_B.detach(), beta=1.0)
    return (ratio_B.sum() / max(ratio_B.numel(), 1)).clamp(min=0)


def kto(
    logprob_B: Tensor,
    ref_logprob_B: Tensor,
    desirable_B: Tensor,
    reference_point: float | Tensor,
    *,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """KTO, Ethayarajh et al. 2024 (arXiv:2402.01306) eq. 8: single responses, each wanted or not.

        desirable:   loss = desirable_weight * (1 - sigma(beta * (r - z0)))
        undesirable: loss = undesirable_weight * (1 - sigma(beta * (z0 - r))),   r = logprob - ref_logprob

    Args:
        logprob_B: (B,) nats, sum over the response, carries the gradient.
        ref_logprob_B: (B,) nats under the reference.
        desirable_B: (B,) bool.
        reference_point: z0, nats, from `kto_reference_point` over the whole step; constant.
        beta: pull towards the reference, 1/nat.
        desirable_weight: weight of desirable responses.
        undesirable_weight: weight of undesirable responses.

    Returns: (B,), from 0 to the weight. At r = z0 it is half the weight.

    Raises:
        ValueError: shapes differ.
    """
    ratio_B = implicit_reward(logprob_B, ref_logprob_B, beta=1.0)
    require_shape(desirable_B, ratio_B)
    logit_B = beta * (ratio_B - as_scalar(reference_point, ratio_B).detach())
    return torch.where(
        desirable_B, desirable_weight * torch.sigmoid(-logit_B), undesirable_weight * torch.sigmoid(logit_B)
    )


def _gap(chosen_B: Tensor, rejected_B: Tensor, chosen_ref_B: Tensor, rejected_ref_B: Tensor) -> Tensor:
    """Log-ratio of the chosen response less that of the rejected one, nats."""
    chosen_B, rejected_B, chosen_ref_B, rejected_ref_B = aligned(chosen_B, rejected_B, chosen_ref_B, rejected_ref_B)
    return (chosen_B - chosen_ref_B) - (rejected_B - rejected_ref_B)


def _log_odds(mean_B: Tensor) -> Tensor:
    """log(p / (1 - p)) of p = exp(mean), finite also at p = 1."""
    mean_B = mean_B.clamp(max=-1e-7)
    return mean_B - torch.log(-torch.expm1(mean_B))
