"""Kullback-Leibler divergence: estimates from sampled tokens, and exact over the vocabulary. All in nats.

The estimators (Schulman 2020, "Approximating KL divergence") estimate KL(p || q) from tokens sampled from p, the first
argument. Both arguments keep their graph; callers detach. With p the policy and q the reference:

- in the reward, k1 is right: its score-function gradient is that of the KL of the sequence. k2 and k3 are biased.
- in the loss, k1 does nothing (the expectation of its gradient is 0), k2 and `exact` give each token's own term, k3
  the gradient of the other direction, KL(q || p).

Dimensions: N sequences, T tokens (`_T`: any shape), V vocabulary.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from accord.losses._tensors import LOG_RATIO_CAP, aligned, require_word, selected

__all__ = ["best_of_n", "exact", "k1", "k2", "k3", "sequence"]


def k1(logprob_T: Tensor, other_logprob_T: Tensor) -> Tensor:
    """Log-ratio of sampled tokens, an unbiased and signed estimate of KL(p || q).

        k1_t = d_t = logprob_t - other_logprob_t

    Args:
        logprob_T: any shape, nats, under p, which the tokens were sampled from.
        other_logprob_T: same shape, nats, under q.

    Returns: same shape, nats. Equal models give 0.

    Raises:
        ValueError: shapes differ.
    """
    logprob_T, other_logprob_T = aligned(logprob_T, other_logprob_T)
    return logprob_T - other_logprob_T


def k2(logprob_T: Tensor, other_logprob_T: Tensor) -> Tensor:
    """Half the squared log-ratio: an estimate of KL(p || q) that is >= 0 and biased, little when p is close to q.

        k2_t = d_t^2 / 2,   d = logprob - other_logprob

    Args:
        logprob_T: any shape, nats, under p, which the tokens were sampled from.
        other_logprob_T: same shape, nats, under q.

    Returns: same shape, nats. Equal models give 0 with gradient 0.

    Raises:
        ValueError: shapes differ.
    """
    return k1(logprob_T, other_logprob_T).square() / 2


def k3(logprob_T: Tensor, other_logprob_T: Tensor) -> Tensor:
    """Unbiased estimate of KL(p || q) that is never negative.

        k3_t = exp(-d_t) - 1 + d_t,   d = max(logprob - other_logprob, -20)

    The floor holds in the whole formula: a cap on the exponent alone would leave a gradient of the wrong sign.

    Args:
        logprob_T: any shape, nats, under p, which the tokens were sampled from.
        other_logprob_T: same shape, nats, under q.

    Returns: same shape, nats, at most e^20 - 21. Equal models give 0 with gradient 0.

    Raises:
        ValueError: shapes differ.
    """
    ratio_T = k1(logprob_T, other_logprob_T)
    ratio_T = ratio_T.masked_fill(ratio_T <= -LOG_RATIO_CAP, -LOG_RATIO_CAP)
    return torch.expm1(-ratio_T) + ratio_T


def exact(logits_TV: Tensor, other_logits_TV: Tensor) -> Tensor:
    """KL(p || q) of two distributions over the whole vocabulary.

        kl_t = sum_v p_tv (log p_tv - log q_tv),   p = softmax(logits), q = softmax(other_logits)

    Args:
        logits_TV: (..., V) of p; -inf for a word p cannot say, which counts 0 with gradient 0.
        other_logits_TV: same shape, of q; q = 0 where p > 0 makes the divergence infinite.

    Returns: (...,) nats. Equal distributions give 0.

    Raises:
        ValueError: shapes differ.
    """
    logits_TV, other_logits_TV = aligned(logits_TV, other_logits_TV)
    logprob_TV = logits_TV.log_softmax(-1)
    probability_TV = logprob_TV.exp()
    ratio_TV = logprob_TV - other_logits_TV.log_softmax(-1)
    return (probability_TV * ratio_TV.masked_fill(probability_TV == 0, 0)).sum(-1)


def sequence(
    logprob_NT: Tensor,
    other_logprob_NT: Tensor,
    mask_NT: Tensor,
    *,
    estimator: Literal["k1", "k2", "k3"] = "k1",
) -> Tensor:
    """Estimate of KL(p || q) of whole responses, the one a reward-KL frontier shows: the sum over tokens.

        kl_n = sum over t with mask_nt of estimator(logprob_nt, other_logprob_nt)

    Args:
        logprob_NT: (N, T) nats, under p, which the tokens were sampled from; may be nan where the mask is False.
        other_logprob_NT: (N, T) nats, under q; likewise.
        mask_NT: (N, T) bool, response tokens.
        estimator: which of `k1`, `k2`, `k3` to sum.

    Returns: (N,) nats per response, never per token; k1 may be negative. An empty row gives 0.

    Raises:
        ValueError: shapes differ, or the estimator is unknown.
    """
    require_word(ESTIMATORS, estimator=estimator)
    return ESTIMATORS[estimator](selected(logprob_NT, mask_NT), selected(other_logprob_NT, mask_NT)).sum(-1)


def best_of_n(n: int) -> float:
    """Upper bound on KL(best of n samples || base), Stiennon et al. 2020 (arXiv:2009.01325).

        kl <= log n - (n - 1) / n

    Args:
        n: samples the best is chosen from, at least 1.

    Returns: nats per response. n = 1 gives 0, n = 16 gives 1.835.

    Raises:
        ValueError: n < 1.
    """
    if n < 1:
        raise ValueError(f"n is {n}; the best is chosen from at least 1 sample")
    return math.log(n) - (n - 1) / n


ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3}
