"""Losses of reward models: comparisons, ties, rankings; and what to log about them.

Dimensions: B pairs or trees, K responses of a tree, M bins. Rewards are one number per response, in reward units, which
these losses make nats: a difference of log 3 is a probability of 3/4.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from accord.losses import listwise
from accord.losses._tensors import (
    aligned,
    as_scalar,
    raised,
    require_between,
    require_positive,
    require_shape,
    require_word,
)

__all__ = [
    "Calibration",
    "accuracy",
    "bradley_terry",
    "calibration",
    "centering",
    "davidson",
    "pairwise_ranking",
    "plackett_luce",
    "rao_kupper",
]


# Equal responses tie with probability 1/2, as in "DPO with ties" (arXiv:2409.17431): theta = 3 and nu = 2.
LOG_2, LOG_3 = math.log(2), math.log(3)


def bradley_terry(
    chosen_B: Tensor,
    rejected_B: Tensor,
    *,
    probability_B: Tensor | None = None,
    margin_B: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Negative log-likelihood of comparisons, Bradley & Terry 1952.

        loss = -t log sigma(z) - (1 - t) log sigma(-z)
        z = chosen - rejected - margin,   t = (1 - e) p + e (1 - p),   e = label_smoothing

    Args:
        chosen_B: (B,) reward units, carries the gradient.
        rejected_B: (B,) reward units, carries the gradient.
        probability_B: (B,) p = P(chosen is better): a share of annotators or an AI label. None is 1.
        margin_B: (B,) reward units, how much better, Llama 2 (arXiv:2307.09288) eq. 2. None is 0.
        label_smoothing: 0 to 1/2, probability that a label is flipped (cDPO's meaning).

    Returns: (B,) nats. Equal rewards give log 2 whatever p. With a soft target the minimum is its entropy, not 0.

    Raises:
        ValueError: shapes differ, or label_smoothing outside [0, 1/2].
    """
    require_between(0, 0.5, label_smoothing=label_smoothing)
    chosen_B, rejected_B = aligned(chosen_B, rejected_B)
    logit_B = chosen_B - rejected_B
    if margin_B is not None:
        logit_B, margin_B = aligned(logit_B, margin_B)
        logit_B = logit_B - margin_B
    if probability_B is None and label_smoothing == 0:
        return -F.logsigmoid(logit_B)
    logit_B, share_B = aligned(logit_B, torch.ones_like(logit_B) if probability_B is None else probability_B)
    target_B = (1 - label_smoothing) * share_B + label_smoothing * (1 - share_B)
    return -target_B * F.logsigmoid(logit_B) - (1 - target_B) * F.logsigmoid(-logit_B)


def rao_kupper(first_B: Tensor, second_B: Tensor, outcome_B: Tensor, *, threshold: float | Tensor = LOG_3) -> Tensor:
    """Comparisons with ties, Rao & Kupper 1967: a difference below a threshold is not told apart.

        P(first) = sigma(gap - eta),  P(second) = sigma(-gap - eta),  P(tie) = (e^{2 eta} - 1) P(first) P(second)
        loss = -log P(outcome),   gap = first - second,   eta = threshold

    Args:
        first_B: (B,) reward units, carries the gradient.
        second_B: (B,) reward units, carries the gradient.
        outcome_B: (B,) int64: +1 the first is better, 0 a tie, -1 the second is better.
        threshold: eta > 0, reward units; a tensor may be learnt (keep it positive by softplus).

    Returns: (B,) nats. By default equal rewards tie with probability 1/2: log 2 for a tie, log 4 for either win.

    Raises:
        ValueError: shapes differ, or the threshold is a number <= 0, which makes ties impossible.
    """
    if not isinstance(threshold, Tensor):
        require_positive(threshold=threshold)
    first_B, second_B = aligned(first_B, second_B)
    gap_B, eta = first_B - second_B, as_scalar(threshold, first_B)
    first_wins_B, second_wins_B = F.logsigmoid(gap_B - eta), F.logsigmoid(-gap_B - eta)
    # log(e^{2 eta} - 1), without overflow for a large eta and without cancellation for a small one.
    tie_B = 2 * eta + torch.log(-torch.expm1(-2 * eta)) + first_wins_B + second_wins_B
    return -torch.where(outcome_B == 0, tie_B, torch.where(outcome_B > 0, first_wins_B, second_wins_B))


def davidson(first_B: Tensor, second_B: Tensor, outcome_B: Tensor, *, log_nu: float | Tensor = LOG_2) -> Tensor:
    """Comparisons with ties, Davidson 1970: a tie is as likely as nu times the geometric mean of both wins.

        (P(first), P(tie), P(second)) = softmax(gap / 2, log_nu, -gap / 2),   loss = -log P(outcome)

    Args:
        first_B: (B,) reward units, carries the gradient.
        second_B: (B,) reward units, carries the gradient.
        outcome_B: (B,) int64: +1 the first is better, 0 a tie, -1 the second is better.
        log_nu: log of nu; a tensor may be learnt. -inf is Bradley-Terry, where a tie costs inf.

    Returns: (B,) nats. By default equal rewards tie with probability 1/2: log 2 for a tie, log 4 for either win.

    Raises:
        ValueError: shapes differ.
    """
    first_B, second_B = aligned(first_B, second_B)
    half_B = (first_B - second_B) / 2
    logits_B3 = torch.stack([half_B, as_scalar(log_nu, half_B).expand_as(half_B), -half_B], -1)
    return -logits_B3.log_softmax(-1).gather(-1, (1 - outcome_B.long())[..., None]).squeeze(-1)


def pairwise_ranking(
    reward_BK: Tensor,
    rank_BK: Tensor,
    *,
    weight: Literal["pairs", "choose", "sum"] = "pairs",
    failed: listwise.Failed = "last",
) -> Tensor:
    """All comparisons within one ranking, InstructGPT (arXiv:2203.02155) eq. 1.

        loss = 1/W sum over (i better than j) of -log sigma(reward_i - reward_j)

    One forward pass per prompt: the pairs of one prompt are never shuffled into one data set, where they overfit.

    Args:
        reward_BK: (B, K) reward units, carries the gradient; may be nan where absent.
        rank_BK: (B, K) int64 ranks of `accord.losses.listwise`.
        weight: "pairs": W = comparisons made, so that a prompt weighs the same whether or not annotators tied;
            "choose": W = C(n, 2) for n responses present (failed ones too, unless dropped); "sum": W = 1.
        failed: "last" puts failed responses below every ranked one, "drop" leaves them out.

    Returns: (B,) nats. K = 2 is Bradley-Terry; no comparison gives 0 with gradient 0.

    Raises:
        ValueError: shapes differ, or an unknown word for `weight` or `failed`.
    """
    require_word(("pairs", "choose", "sum"), weight=weight)
    reward_BK = raised(reward_BK)
    require_shape(rank_BK, reward_BK)
    better_BKK = listwise.better_than(rank_BK, failed)
    gap_BKK = (reward_BK[:, :, None] - reward_BK[:, None, :]).masked_fill(~better_BKK, 0)
    sum_B = -F.logsigmoid(gap_BKK).masked_fill(~better_BKK, 0).sum((-1, -2))
    if weight == "sum":
        return sum_B
    if weight == "pairs":
        count_B = better_BKK.sum((-1, -2))
    else:
        present_B = (rank_BK >= (listwise.FAILED if failed == "last" else 1)).sum(-1)
        count_B = present_B * (present_B - 1) // 2
    return sum_B / count_B.clamp(min=1).to(sum_B.dtype)


def plackett_luce(reward_BK: Tensor, rank_BK: Tensor, *, failed: listwise.Failed = "last") -> Tensor:
    """Negative log-likelihood of a ranking by rewards: `accord.losses.listwise.plackett_luce`.

        loss = sum over ranked k with something worse of [logsumexp({r_k} + {r_i : i worse than k}) - r_k]

    Args:
        reward_BK: (B, K) reward units, carries the gradient; may be nan where absent.
        rank_BK: (B, K) int64 ranks of `accord.losses.listwise`.
        failed: "last" puts failed responses below every ranked one, "drop" leaves them out.

    Returns: (B,) nats. K = 2 is Bradley-Terry; three equal rewards in strict order give log 3!.

    Raises:
        ValueError: shapes differ, or an unknown word for `failed`.
    """
    return listwise.plackett_luce(reward_BK, rank_BK, failed=failed)


def centering(chosen_B: Tensor, rejected_B: Tensor, *, coefficient: float = 0.01) -> Tensor:
    """Pull of the rewards of a pair towards mean 0, Eisenstein et al. 2023 (arXiv:2312.09244). Added to a pair loss.

        loss = coefficient * (chosen + rejected)^2

    Args:
        chosen_B: (B,) reward units, carries the gradient.
        rejected_B: (B,) reward units, carries the gradient.
        coefficient: 1 / reward units squared.

    Returns: (B,). Opposite rewards give 0.

    Raises:
        ValueError: shapes differ.
    """
    chosen_B, rejected_B = aligned(chosen_B, rejected_B)
    return coefficient * (chosen_B + rejected_B).square()


def accuracy(chosen_B: Tensor, rejected_B: Tensor, *, tie: float = 0.5) -> Tensor:
    """Whether the chosen response has the higher reward: 1 if so, `tie` if equal, else 0.

    Args:
        chosen_B: (B,) reward units.
        rejected_B: (B,) reward units.
        tie: what equal rewards count; 1/2 is what a coin would earn, 0 is the strict reading.

    Returns: (B,) without gradient; its mean is the share of pairs in the right order.

    Raises:
        ValueError: shapes differ.
    """
    chosen_B, rejected_B = aligned(chosen_B.detach(), rejected_B.detach())
    return (chosen_B > rejected_B).to(chosen_B.dtype) + tie * (chosen_B == rejected_B).to(chosen_B.dtype)


class Calibration(NamedTuple):
    """How well a reward model's confidence matches its hits. Confidence 3/4 and three of four right: ece = 0.

    Attributes:
        ece: expected calibration error, 0-dim, 0 to 1/2 for hard labels.
        brier: mean squared error of P(chosen is better), 0-dim.
        nll: mean Bradley-Terry loss, 0-dim, nats.
        confidence_M: (bins,) mean confidence of each bin, 0 where empty.
        accuracy_M: (bins,) share of hits of each bin, 0 where empty.
        count_M: (bins,) int64 pairs in each bin.
    """

    ece: Tensor
    brier: Tensor
    nll: Tensor
    confidence_M: Tensor
    accuracy_M: Tensor
    count_M: Tensor


def calibration(
    chosen_B: Tensor, rejected_B: Tensor, *, probability_B: Tensor | None = None, bins: int = 10
) -> Calibration:
    """Calibration of a reward model on comparisons, in bins of its confidence.

        c = sigma(|gap|),   hit = p if gap > 0, 1 - p if gap < 0, 1/2 if 0,   gap = chosen - rejected
        ece = sum_m count_m / B |mean hit - mean c|,   brier = mean (sigma(gap) - p)^2

    "chosen" stands first by construction, so bins of P(chosen) would be all hits; confidence is that of either side.

    Args:
        chosen_B: (B,) reward units.
        rejected_B: (B,) reward units.
        probability_B: (B,) p = P(chosen is better). None is 1.
        bins: equal bins of the confidence from 1/2 to 1, at least 1.

    Returns: a `Calibration`, without gradient. Empty bins and an empty batch give 0.

    Raises:
        ValueError: shapes differ, or bins < 1.
    """
    require_positive(bins=bins)
    chosen_B, rejected_B = aligned(chosen_B.detach(), rejected_B.detach())
    share_B = torch.ones_like(chosen_B) if probability_B is None else aligned(chosen_B, probability_B.detach())[1]
    gap_B = chosen_B - rejected_B
    confidence_B = gap_B.abs().sigmoid()
    hit_B = torch.where(gap_B > 0, share_B, 1 - share_B).masked_fill(gap_B == 0, 0.5)
    bin_B = ((confidence_B - 0.5) / 0.5 * bins).floor().long().clamp(0, bins - 1)
    count_M = torch.zeros(bins, dtype=torch.int64, device=gap_B.device).index_add(0, bin_B, torch.ones_like(bin_B))
    divisor_M = count_M.clamp(min=1).to(gap_B.dtype)
    confidence_M = gap_B.new_zeros(bins).index_add(0, bin_B, confidence_B) / divisor_M
    accuracy_M = gap_B.new_zeros(bins).index_add(0, bin_B, hit_B) / divisor_M
    total = max(gap_B.numel(), 1)
    return Calibration(
        ece=(count_M * (accuracy_M - confidence_M).abs()).sum() / total,
        brier=(gap_B.sigmoid() - share_B).square().sum() / total,
        nll=bradley_terry(chosen_B, rejected_B, probability_B=share_B).sum() / total,
        confidence_M=confidence_M,
        accuracy_M=accuracy_M,
        count_M=count_M,
    )
