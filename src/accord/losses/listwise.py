"""Objectives over the ranking of K responses: Plackett-Luce, its first term, its form on DPO's rewards, and PRO.

Ranks are int64: >= 1 is a place, 1 best, equal numbers tie and gaps in the numbering mean nothing; FAILED = 0 is a
response judged a failure; ABSENT = -1 is no response (ragged K), whose score may be nan. i is better than j if i is
ranked, and j is ranked with a larger number or failed while `failed="last"`. Ties compare with nothing, failed
responses not with each other. `failed="drop"` leaves failed responses out. A tree without a comparison gives 0 with
gradient 0.

Dimensions: B trees, K responses of a tree, P pairs.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from accord.losses._tensors import aligned, raised, require_positive, require_shape, require_word

__all__ = ["ABSENT", "FAILED", "info_nce", "plackett_luce", "plackett_luce_dpo", "pro", "ranking_pairs"]

FAILED, ABSENT = 0, -1

Failed: TypeAlias = Literal["last", "drop"]


def better_than(rank_BK: Tensor, failed: Failed) -> Tensor:
    """(B, K, K) bool: True at [b, i, j] where response i of tree b is better than response j."""
    require_word(("last", "drop"), failed=failed)
    rank_BK1, rank_B1K = rank_BK[:, :, None], rank_BK[:, None, :]
    worse_BKK = rank_B1K > rank_BK1
    if failed == "last":
        worse_BKK = worse_BKK | (rank_B1K == FAILED)
    return (rank_BK1 >= 1) & worse_BKK


def ranking_pairs(rank_BK: Tensor, *, failed: Failed = "last") -> Tensor:
    """The comparisons a ranking holds.

    Args:
        rank_BK: (B, K) int64 ranks.
        failed: "last" puts failed responses below every ranked one, "drop" leaves them out.

    Returns: (P, 3) int64 rows (tree, better, worse) in lexicographic order; (0, 3) if there is nothing to compare.
        Ranks [1, 2, 2, FAILED] hold five. P depends on the contents, so this one waits for the device.

    Raises:
        ValueError: an unknown word for `failed`.
    """
    return better_than(rank_BK, failed).nonzero()


def info_nce(score_BK: Tensor, rank_BK: Tensor, *, temperature: float = 1.0, failed: Failed = "last") -> Tensor:
    """The best response against all that are worse: the first term of `plackett_luce`.

        loss = logsumexp({s_1} + {s_i : i worse}) - s_1,   s = score / temperature

    Args:
        score_BK: (B, K), reward units, or nats for implicit rewards; carries the gradient.
        rank_BK: (B, K) int64 ranks.
        temperature: > 0, in the unit of the scores.
        failed: "last" puts failed responses below every ranked one, "drop" leaves them out.

    Returns: (B,) nats. Four equal scores give log 4; several tied best count as their mean.

    Raises:
        ValueError: shapes differ, temperature <= 0, or an unknown word for `failed`.
    """
    require_positive(temperature=temperature)
    better_BKK = better_than(rank_BK, failed)
    best_BK = (rank_BK >= 1) & ~better_BKK.any(-2)
    term_BK = _first_of(_gap(raised(score_BK) / temperature, rank_BK), better_BKK)
    return term_BK.masked_fill(~best_BK, 0).sum(-1) / best_BK.sum(-1).clamp(min=1).to(term_BK.dtype)


def plackett_luce(score_BK: Tensor, rank_BK: Tensor, *, failed: Failed = "last") -> Tensor:
    """Negative log-likelihood of a ranking (Luce 1959, Plackett 1975): the best drawn first, then the next of the rest.

        loss = sum over ranked k with something worse of [logsumexp({s_k} + {s_i : i worse than k}) - s_k]

    All n-1 terms of an order of n, summed. Tied peers leave each other's denominator, so nothing pushes equals apart.

    Args:
        score_BK: (B, K), reward units, or nats for implicit rewards; carries the gradient.
        rank_BK: (B, K) int64 ranks.
        failed: "last" puts failed responses below every ranked one, "drop" leaves them out.

    Returns: (B,) nats. Three equal scores in strict order give log 3!; K = 2 is Bradley-Terry.

    Raises:
        ValueError: shapes differ, or an unknown word for `failed`.
    """
    return _first_of(_gap(raised(score_BK), rank_BK), better_than(rank_BK, failed)).sum(-1)


def plackett_luce_dpo(
    logprob_BK: Tensor, ref_logprob_BK: Tensor, rank_BK: Tensor, *, beta: float = 0.1, failed: Failed = "last"
) -> Tensor:
    """DPO on rankings, Rafailov et al. 2023 (arXiv:2305.18290) appendix A.3.

        loss = plackett_luce(beta * (logprob - ref_logprob))

    Args:
        logprob_BK: (B, K) nats, sum over the tokens of each response, carries the gradient.
        ref_logprob_BK: (B, K) nats under the reference.
        rank_BK: (B, K) int64 ranks.
        beta: pull towards the reference, 1/nat.
        failed: "last" puts failed responses below every ranked one, "drop" leaves them out.

    Returns: (B,) nats. K = 2 is DPO; equal models give log K! for a strict order.

    Raises:
        ValueError: shapes differ, or an unknown word for `failed`.
    """
    logprob_BK, ref_logprob_BK = aligned(logprob_BK, ref_logprob_BK)
    return plackett_luce(beta * (logprob_BK - ref_logprob_BK), rank_BK, failed=failed)


def pro(
    score_BK: Tensor,
    rank_BK: Tensor,
    *,
    reward_BK: Tensor | None = None,
    sft_nll_B: Tensor | None = None,
    sft_weight: float = 0.05,
    failed: Failed = "last",
) -> Tensor:
    """Preference ranking optimisation, Song et al. 2023 (arXiv:2306.17492): Plackett-Luce on mean log-probabilities.

        loss = sum_k [logsumexp({g_k s_k} + {g_ki s_i : i worse than k}) - g_k s_k] + sft_weight * sft_nll
        g_ki = max(reward_k - reward_i, 0),   g_k = max_i g_ki;   without rewards every g is 1

    The official code sums bare exponentials of summed log-probabilities and weighs the SFT term 0.05 (K-1)^2.

    Args:
        score_BK: (B, K) nats per token: the mean log-probability of each response, no reference; carries the gradient.
        rank_BK: (B, K) int64 ranks.
        reward_BK: (B, K) reward units, the inverse temperatures of the paper; constants.
        sft_nll_B: (B,) negative log-likelihood of the best response, carries a gradient.
        sft_weight: weight of that term.
        failed: "last" puts failed responses below every ranked one, "drop" leaves them out.

    Returns: (B,). A reward that contradicts the ranks counts as gap 0; a tree without a comparison keeps its SFT term.

    Raises:
        ValueError: shapes differ, or an unknown word for `failed`.
    """
    score_BK, better_BKK = raised(score_BK), better_than(rank_BK, failed)
    gap_BKK = _gap(score_BK, rank_BK)
    if reward_BK is not None:
        constant_BK = aligned(score_BK, reward_BK.detach())[1]
        sharpness_BKK = (-_gap(constant_BK, rank_BK)).masked_fill(~better_BKK, 0).clamp(min=0)
        own_BK1 = sharpness_BKK.amax(-1, keepdim=True)
        gap_BKK = sharpness_BKK * score_BK[:, None, :] - own_BK1 * score_BK[:, :, None]
    loss_B = _first_of(gap_BKK, better_BKK).sum(-1)
    if sft_nll_B is None:
        return loss_B
    loss_B, sft_nll_B = aligned(loss_B, sft_nll_B)
    return loss_B + sft_weight * sft_nll_B


def _gap(score_BK: Tensor, rank_BK: Tensor) -> Tensor:
    """(B, K, K): score of i less the score of k at [b, k, i]."""
    require_shape(rank_BK, score_BK)
    return score_BK[:, None, :] - score_BK[:, :, None]


def _first_of(gap_BKK: Tensor, better_BKK: Tensor) -> Tensor:
    """(B, K): -log P(k comes first among itself and all that are worse), 0 where nothing is worse.

    Written on differences to k's own score, which stands on the diagonal as 0: an absent score never takes part, and a
    row without competitors is logsumexp({0}) = 0 with gradient 0.
    """
    own_KK = torch.eye(gap_BKK.shape[-1], dtype=torch.bool, device=gap_BKK.device)
    return gap_BKK.masked_fill(~better_BKK, -torch.inf).masked_fill(own_KK, 0).logsumexp(-1)
