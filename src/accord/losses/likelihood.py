"""Log-likelihood of tokens: of a packed prompt tree, summed per response, as the loss of supervised fine-tuning.

Dimensions: N sequences, T tokens, V vocabulary. `_T` on an element-wise function means any shape. A mask is True on the
tokens that are trained on, the end token of an assistant turn included; it indexes the target token, so it is never
shifted against the log-probabilities.
"""

from __future__ import annotations

import torch
from torch import Tensor

from accord.losses._tensors import aligned, as_scalar, raised, require_positive, selected

__all__ = ["nll", "ptx", "segment_mean", "segment_sum", "sequence_nll", "tree_logprob"]


def tree_logprob(logits_TV: Tensor, token_T: Tensor, parent_T: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Log-probability of each token of a packed tree, predicted from its parent. This is the definition.

        logprob_t = log_softmax(logits[parent_t] / temperature)[token_t],   0 where parent_t = -1

    A plain sequence has parent t-1. In a prompt tree the first token of every branch has the last prompt token as
    parent. The memory-saving head of `accord.models` computes the same without holding (T, V).

    Args:
        logits_TV: (T, V), entry t read at token t, carries the gradient; -inf for a word that cannot be said.
        token_T: (T,) int64 vocabulary ids.
        parent_T: (T,) int64 index of the token before, -1 for a first token.
        temperature: > 0, the sampler's; ratios and KL are taken under the distribution that was sampled.

    Returns: (T,) nats. With V equal logits it is -log V.

    Raises:
        ValueError: temperature <= 0.
    """
    require_positive(temperature=temperature)
    root_T = parent_T < 0
    # A root borrows row 0 as its shape only; zeroed before the softmax, so that garbage there cannot reach a gradient.
    parent_logits_TV = raised(logits_TV)[parent_T.clamp(min=0)].masked_fill(root_T[:, None], 0)
    logprob_TV = (parent_logits_TV / temperature).log_softmax(-1)
    return logprob_TV.gather(-1, token_T[:, None]).squeeze(-1).masked_fill(root_T, 0)


def segment_sum(value_T: Tensor, segment_T: Tensor, count: int) -> Tensor:
    """Sum of packed token values per segment (response).

        sum_n = sum over t with segment_t = n of value_t

    Args:
        value_T: (T,) any unit; what belongs to no segment may be nan.
        segment_T: (T,) int64, 0 .. count-1, or -1 for a token that belongs to none.
        count: number of segments.

    Returns: (count,) in the unit of value_T. An empty segment gives 0.
    """
    kept_T = selected(value_T, segment_T >= 0)
    return kept_T.new_zeros(count).index_add(0, segment_T.clamp(min=0), kept_T)


def segment_mean(value_T: Tensor, segment_T: Tensor, count: int) -> Tensor:
    """Mean of packed token values per segment (response); arguments and shapes of `segment_sum`.

        mean_n = sum_n / number of tokens of n

    Args:
        value_T: (T,) any unit; what belongs to no segment may be nan.
        segment_T: (T,) int64, 0 .. count-1, or -1 for a token that belongs to none.
        count: number of segments.

    Returns: (count,) in the unit of value_T. An empty segment gives 0.
    """
    sum_N = segment_sum(value_T, segment_T, count)
    length_N = segment_sum(torch.ones_like(value_T, dtype=sum_N.dtype), segment_T, count)
    return sum_N / length_N.clamp(min=1)


def nll(logprob_T: Tensor, mask_T: Tensor, *, token_count: int | float | Tensor) -> Tensor:
    """Negative log-likelihood of the trained tokens, a share of the mean over the whole optimiser step.

        loss = -sum_t mask_t * logprob_t / token_count

    Because every part divides by the count of the step, the parts add up to the full-batch mean whatever the split.
    This is the mean over tokens; `sequence_nll` is the mean per example, where a token of a long answer weighs less.

    Args:
        logprob_T: any shape, nats, carries the gradient; may be nan where the mask is 0.
        mask_T: same shape, bool, or float weights >= 0.
        token_count: trained tokens (or the sum of weights) of the step: all micro-batches, all ranks.

    Returns: scalar, nats per token. Probability 1/2 on every token gives log 2; no trained token gives 0, gradient 0.

    Raises:
        ValueError: shapes differ, or token_count is a number <= 0: a step that trains nothing is an error.
    """
    if not isinstance(token_count, Tensor) and not token_count > 0:
        raise ValueError(
            f"token_count is {token_count}: this step has no token to train on; check masks, truncation and the data"
        )
    kept_T, weight_T = aligned(selected(logprob_T, mask_T != 0), mask_T)
    total = -(weight_T * kept_T).sum()
    return total / as_scalar(token_count, total)


def sequence_nll(logprob_NT: Tensor, mask_NT: Tensor, *, average: bool = True) -> Tensor:
    """Negative log-likelihood per sequence: the mean over its tokens, or their sum.

        loss_n = -1/T_n sum_t logprob_nt        (average=False: without 1/T_n)

    Args:
        logprob_NT: (N, T) nats, carries the gradient; may be nan where the mask is False.
        mask_NT: (N, T) bool.
        average: divide each row by its number of tokens.

    Returns: (N,) nats per token, or nats. An empty row gives 0.

    Raises:
        ValueError: shapes differ.
    """
    sum_N = -selected(logprob_NT, mask_NT).sum(-1)
    return sum_N / mask_NT.sum(-1).clamp(min=1).to(sum_N.dtype) if average else sum_N


def ptx(logprob_T: Tensor, mask_T: Tensor, *, token_count: int | float | Tensor, coefficient: float = 27.8) -> Tensor:
    """Pretraining term of PPO-ptx, InstructGPT (arXiv:2203.02155) eq. 2, per token and negated: added to the loss.

        loss = coefficient * nll(logprob, mask, token_count)

    Args:
        logprob_T: any shape, nats, of pretraining or demonstration text, carries the gradient.
        mask_T: same shape, bool, or float weights.
        token_count: trained tokens of that text in the whole optimiser step.
        coefficient: the paper's gamma, 27.8 beside a KL coefficient of 0.02.

    Returns: scalar. Coefficient 0 gives 0.

    Raises:
        ValueError: as `nll`.
    """
    return coefficient * nll(logprob_T, mask_T, token_count=token_count)
