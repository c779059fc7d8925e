"""Drawing one token per row: the sampling distribution, and its inverse from one uniform number a token.

R rows, V vocabulary, N the largest entries of a row. One uniform number per (seed, prompt, sample, step) decides a
token, so a response does not depend on the rows beside it, and drawing costs one pass over the vocabulary
(`torch.multinomial` draws an exponential for each entry: a quarter of a decoding step of a small model).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from accord.rollouts import Sampling

__all__ = ["Draw", "draw", "inverse_cdf", "row_uniforms"]

# Tokens looked at first for top-p; a row whose first 1,024 tokens hold less than p is sorted whole.
NUCLEUS_GUESS = 1024
BLOCK = 256


class Draw(NamedTuple):
    """One token per row and what it cost, in nats (see `Rollout`)."""

    token_R: Tensor
    logprob_R: Tensor
    sampling_logprob_R: Tensor


def row_uniforms(seed: int, prompt: int, sample: int, count: int) -> list[float]:
    """Return `count` numbers in [0, 1) that depend on nothing but the arguments; a longer list starts the same."""
    stream = np.random.Philox(np.random.SeedSequence([seed, prompt, sample]))
    return np.random.Generator(stream).random(count).tolist()


def draw(logit_RV: Tensor, uniform_R: Tensor, sampling: Sampling, forbidden: Sequence[int] = ()) -> Draw:
    """Draw one token per row.

    Args:
        logit_RV: the model's logits, any floating dtype; computed with in float32 at least.
        uniform_R: float64 in [0, 1), one per row; not read when greedy.
        sampling: temperature, top_p and top_k are read.
        forbidden: vocabulary ids that get probability 0.
    """
    logit_RV = logit_RV if logit_RV.dtype == torch.float64 else logit_RV.float()
    normaliser_R = logit_RV.logsumexp(-1)
    if not normaliser_R.isfinite().all():
        raise ValueError("sampling: the model's logits are not finite; its weights have diverged or are damaged")
    allowed_RV = logit_RV
    if forbidden:
        allowed_RV = logit_RV.clone()
        allowed_RV[:, list(forbidden)] = -torch.inf
    if sampling.temperature == 0:
        token_R = allowed_RV.argmax(-1)
        sampling_logprob_R = torch.zeros_like(normaliser_R)
    else:
        token_R, sampling_logprob_R = _draw_weighted(_weights(allowed_RV, sampling), uniform_R)
    logprob_R = logit_RV.gather(-1, token_R[:, None])[:, 0] - normaliser_R
    return Draw(token_R, logprob_R, sampling_logprob_R)


def _weights(logit_RV: Tensor, sampling: Sampling) -> Tensor:
    """Return the sampling distribution, unnormalised: the largest entry of each row is 1, cut-off tokens are 0."""
    # Subtracting first keeps a tiny temperature from overflowing: it then approaches greedy.
    scaled_RV = (logit_RV - logit_RV.amax(-1, keepdim=True)) / sampling.temperature
    vocabulary = logit_RV.shape[-1]
    if 0 < sampling.top_k < vocabulary:
        least_R1 = scaled_RV.topk(sampling.top_k, sorted=True).values[:, -1:]
        scaled_RV = scaled_RV.masked_fill(scaled_RV < least_R1, -torch.inf)
    weight_RV = scaled_RV.exp()
    if sampling.top_p < 1:
        weight_RV = weight_RV.masked_fill(weight_RV < _nucleus_edge(weight_RV, sampling.top_p), 0.0)
    return weight_RV


def _nucleus_edge(weight_RV: Tensor, top_p: float, guess: int = NUCLEUS_GUESS) -> Tensor:
    """Return, as a column, the smallest weight that belongs to the nucleus of each row."""
    count = min(guess, weight_RV.shape[-1])
    top_RN = weight_RV.topk(count, sorted=True).values
    mass_RN = top_RN.double().cumsum(-1)
    wanted_R1 = top_p * weight_RV.sum(-1, keepdim=True, dtype=torch.float64)
    if count < weight_RV.shape[-1] and bool((mass_RN[:, -1:] < wanted_R1).any()):
        return _nucleus_edge(weight_RV, top_p, weight_RV.shape[-1])
    # A token belongs if the tokens before it do not reach p yet; the first always does.
    before_RN = mass_RN - top_RN
    last_R1 = (before_RN < wanted_R1).sum(-1, keepdim=True) - 1
    return top_RN.gather(-1, last_R1)


def _draw_weighted(weight_RV: Tensor, uniform_R: Tensor) -> tuple[Tensor, Tensor]:
    token_R = inverse_cdf(weight_RV, uniform_R)
    drawn_R = weight_RV.gather(-1, token_R[:, None])[:, 0].double()
    total_R = weight_RV.sum(-1, dtype=torch.float64)
    return token_R, (drawn_R / total_R).log().to(weight_RV.dtype)


def inverse_cdf(weight_RV: Tensor, uniform_R: Tensor) -> Tensor:
    """Return the index whose stretch of the cumulated weights holds the uniform number; never one of weight 0.

    Two levels, each cumulated in float64: first a block of 256 tokens, then the token. One float32 sum over a
    vocabulary of 260,000 loses the tail, and a float64 sum over all of it costs ten times as much as this.

    Example: weights [1, 0, 3] and 0.2 give 0; 0.25 and 0.9 give 2.

    Args:
        weight_RV: weights >= 0, each row with a positive sum; they need not be normalised.
        uniform_R: float64 in [0, 1).
    """
    rows, vocabulary = weight_RV.shape
    padded_RV = torch.nn.functional.pad(weight_RV, (0, -vocabulary % BLOCK))
    blocks = padded_RV.view(rows, -1, BLOCK)
    cumulated_RB = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    target_R = uniform_R * cumulated_RB[:, -1]
    block_R = _stretch(cumulated_RB, target_R)
    row_R = torch.arange(rows, device=weight_RV.device)
    below_R = torch.where(block_R > 0, cumulated_RB[row_R, block_R - 1], 0.0)
    within_R = _stretch(blocks[row_R, block_R].double().cumsum(-1), target_R - below_R)
    return block_R * BLOCK + within_R


def _stretch(cumulated_RN: Tensor, target_R: Tensor) -> Tensor:
    """Return the first index cumulated beyond the target, and at most the last index that added anything."""
    beyond_R1 = torch.searchsorted(cumulated_RN, target_R[:, None], right=True)
    last_R1 = torch.searchsorted(cumulated_RN, cumulated_RN[:, -1:].contiguous())
    return torch.minimum(beyond_R1, last_R1)[:, 0]
