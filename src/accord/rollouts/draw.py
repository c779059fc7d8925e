"""Drawing one token per row: the sampling distribution, and its inverse from one uniform number a token.

R rows, V vocabulary, C blocks of the vocabulary. One uniform number per (seed, prompt, sample, step) decides a token,
so a response does not depend on the rows beside it, and drawing costs one pass over the vocabulary
(`torch.multinomial` draws an exponential for each entry: a quarter of a decoding step of a small model).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.profiler import record_function

from accord.models import kernels
from accord.rollouts import Sampling

__all__ = ["Draw", "draw", "inverse_cdf", "row_uniforms", "sent"]

BLOCK = 256
# Logits worked on at once: larger temporaries are fetched from the system anew each time, which takes longer than
# the arithmetic (at 32 rows of 262,144 entries five times as long).
ENTRIES = 2**20
# On a GPU one kernel for all rows is best, as far as its temporaries, up to 40 bytes an entry, find room.
ENTRIES_GPU = 2**24


class Draw(NamedTuple):
    """One token per row and what it cost, in nats (see `Rollout`)."""

    token_R: Tensor
    logprob_R: Tensor
    sampling_logprob_R: Tensor

    def rows(self) -> list[tuple[int, float, float]]:
        """The same as numbers, row by row; from a GPU in one transfer.

        Raises: ValueError: logits were not finite.
        """
        if self.token_R.device.type == "cpu":
            columns = [tensor.tolist() for tensor in self]
        else:  # float64 holds token numbers exactly
            columns = torch.stack([tensor.double() for tensor in self]).tolist()
            columns[0] = list(map(int, columns[0]))
        _require_finite(not any(map(math.isnan, columns[1])))
        return list(zip(*columns, strict=True))


def sent(values: Sequence[Any], device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of these numbers on a device, which is not waited for."""
    if device.type != "cuda":
        return torch.tensor(values, dtype=dtype, device=device)
    return torch.tensor(values, dtype=dtype, pin_memory=True).to(device, non_blocking=True)


def row_uniforms(seed: int, prompt: int, sample: int, count: int) -> list[float]:
    """Return `count` numbers in [0, 1) that depend on nothing but the arguments; a longer list starts the same."""
    stream = np.random.Philox(np.random.SeedSequence([seed, prompt, sample]))
    return np.random.Generator(stream).random(count).tolist()


@record_function("accord.head")
def draw(
    logit_RV: Tensor,
    uniform_R: Tensor,
    sampling: Sampling,
    forbidden_R: Sequence[Sequence[int]] = (),
    present_R: Sequence[Sequence[int]] = (),
) -> Draw:
    """Draw one token per row.

    Args:
        logit_RV: the model's logits, any floating dtype; computed with in float32 at least.
        uniform_R: float64 in [0, 1), one per row; not read when greedy.
        sampling: temperature, top_p, top_k and presence_penalty are read.
        forbidden_R: vocabulary ids of each row that get probability 0; none: no row has any.
        present_R: vocabulary ids of each row that the penalty falls on; read where there is one.
    """
    rows = max(1, (ENTRIES if logit_RV.device.type == "cpu" else ENTRIES_GPU) // logit_RV.shape[-1])
    penalised = present_R if sampling.presence_penalty else [()] * len(logit_RV)
    forbidden = forbidden_R or [()] * len(logit_RV)
    if _uncut(logit_RV.shape[-1], sampling) and not any(forbidden) and not any(penalised):
        found = kernels.draw(logit_RV, uniform_R, sampling.temperature)
        if found is not None:
            _require_finite(int(found[0].min()) >= 0)
            return Draw(*found)
    starts = range(0, len(logit_RV), rows)
    parts = zip(torch.split(logit_RV, rows), torch.split(uniform_R, rows), starts, strict=True)
    draws = [
        _draw_part(logit_PV, uniform_P, sampling, forbidden[start : start + rows], penalised[start : start + rows])
        for logit_PV, uniform_P, start in parts
    ]
    return Draw(*map(torch.cat, zip(*draws, strict=True)))


def _uncut(vocabulary: int, sampling: Sampling) -> bool:
    """Whether every token may be drawn, in proportion to its probability at the temperature."""
    return sampling.temperature > 0 and not 0 < sampling.top_k < vocabulary and sampling.top_p == 1


def _draw_part(
    logit_RV: Tensor,
    uniform_R: Tensor,
    sampling: Sampling,
    forbidden_R: Sequence[Sequence[int]],
    present_R: Sequence[Sequence[int]],
) -> Draw:
    # Subtracting the largest first keeps a tiny temperature from overflowing: it then approaches greedy.
    wide = torch.promote_types(logit_RV.dtype, torch.float32)
    logit_RV = logit_RV.to(wide, copy=True).sub_(logit_RV.amax(-1, keepdim=True).to(wide))
    weight_RV = logit_RV.exp()
    blocks_RCN, cumulated_RC = _cumulated(weight_RV)
    total_R = cumulated_RC[:, -1]
    if logit_RV.device.type == "cpu":  # a GPU would be waited for: `Draw.rows` looks
        _require_finite(bool(total_R.isfinite().all()))
    allowed_RV = _penalised(logit_RV, present_R, sampling.presence_penalty) if any(present_R) else logit_RV
    if any(forbidden_R):
        allowed_RV = _without(allowed_RV, forbidden_R)
    if sampling.temperature == 0:
        token_R = allowed_RV.argmax(-1)
        sampling_logprob_R = torch.zeros_like(total_R)
    else:
        if allowed_RV is not logit_RV or sampling.temperature != 1 or sampling.top_k > 0 or sampling.top_p < 1:
            weight_RV = _cut_weights(allowed_RV, sampling)
            blocks_RCN, cumulated_RC = _cumulated(weight_RV)
        token_R = _at(blocks_RCN, cumulated_RC, uniform_R).clamp_(max=logit_RV.shape[-1] - 1)  # see `_stretch`
        drawn_R = weight_RV.gather(-1, token_R[:, None])[:, 0]
        sampling_logprob_R = (drawn_R / cumulated_RC[:, -1]).log()
    logprob_R = logit_RV.gather(-1, token_R[:, None])[:, 0] - total_R.log()
    return Draw(token_R, logprob_R, sampling_logprob_R)


def _require_finite(finite: bool) -> None:
    if not finite:
        raise ValueError("sampling: the model's logits are not finite; its weights have diverged or are damaged")


def _penalised(logit_RV: Tensor, present_R: Sequence[Sequence[int]], penalty: float) -> Tensor:
    """Logits with the penalty taken off those of tokens that are there already, however often."""
    lower_RV = logit_RV.clone()
    lower_RV[_places(present_R, logit_RV.device)] -= penalty
    return lower_RV


def _without(logit_RV: Tensor, forbidden_R: Sequence[Sequence[int]]) -> Tensor:
    """Logits with those of forbidden tokens at minus infinity."""
    lower_RV = logit_RV.clone()
    lower_RV[_places(forbidden_R, logit_RV.device)] = -torch.inf
    return lower_RV


def _places(ids_R: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column of each id, once however often it is there."""
    places = [(r, i) for r, ids in enumerate(ids_R) for i in set(ids)]
    row_N, id_N = sent(places, device).unbind(-1)
    return row_N, id_N


def _cut_weights(logit_RV: Tensor, sampling: Sampling) -> Tensor:
    """Return the sampling distribution, unnormalised; tokens that are cut off have 0."""
    scaled_RV = (logit_RV - logit_RV.amax(-1, keepdim=True)) / sampling.temperature
    if 0 < sampling.top_k < logit_RV.shape[-1]:
        least_R1 = scaled_RV.topk(sampling.top_k).values[:, -1:]
        scaled_RV = scaled_RV.masked_fill(scaled_RV < least_R1, -torch.inf)
    weight_RV = scaled_RV.exp()
    if sampling.top_p < 1:
        weight_RV = weight_RV.masked_fill(weight_RV < _nucleus_edge(weight_RV, sampling.top_p), 0.0)
    return weight_RV


def _nucleus_edge(weight_RV: Tensor, top_p: float) -> Tensor:
    """Return, as a column, the smallest weight that belongs to the nucleus of each row."""
    edge = _edge_of_few if weight_RV.device.type == "cpu" else _edge_of_all
    return edge(weight_RV, top_p)


def _edge_of_all(weight_RV: Tensor, top_p: float) -> Tensor:
    """By sorting whole rows: on a GPU that costs less than waiting for it once a row."""
    total_R1 = weight_RV.sum(-1, keepdim=True, dtype=torch.float64)
    largest_first_RV = weight_RV.sort(-1, descending=True).values
    before_RV = largest_first_RV.double().cumsum(-1) - largest_first_RV
    count_R1 = (before_RV < top_p * total_R1).sum(-1, keepdim=True)
    return largest_first_RV.gather(-1, (count_R1 - 1).clamp_(min=0))  # none of logits that are not finite


def _edge_of_few(weight_RV: Tensor, top_p: float) -> Tensor:
    """By sorting what can lie inside, row by row.

    Weights under (1 - p) / V of the total hold less than 1 - p together, so all of them lie outside. Sorting the few
    others, row by row, takes a tenth of the time of sorting all.
    """
    total_R = weight_RV.sum(-1, dtype=torch.float64)
    edges = []
    for weight_V, total in zip(weight_RV, total_R, strict=True):
        largest_first = weight_V[weight_V >= (1 - top_p) / len(weight_V) * total].sort(descending=True).values
        # A token belongs if the tokens before it do not reach p yet; the first always does.
        before = largest_first.double().cumsum(0) - largest_first
        edges.append(largest_first[(before < top_p * total).sum() - 1])
    return torch.stack(edges)[:, None]


def inverse_cdf(weight_RV: Tensor, uniform_R: Tensor) -> Tensor:
    """Return the index whose stretch of the cumulated weights holds the uniform number; never one of weight 0.

    Example: weights [1, 0, 3] and 0.2 give 0; 0.25 and 0.9 give 2.

    Args:
        weight_RV: weights >= 0, each row with a positive sum; they need not be normalised.
        uniform_R: float64 in [0, 1).
    """
    return _at(*_cumulated(weight_RV), uniform_R)


def _cumulated(weight_RV: Tensor) -> tuple[Tensor, Tensor]:
    """(R, C, 256) weights in blocks, and (R, C) sums of the blocks up to each, in float64; the last one is the total.

    One float32 sum over a vocabulary of 260,000 loses the tail, and a float64 sum over all of it takes several times as
    long as this.
    """
    padding = -weight_RV.shape[-1] % BLOCK
    padded = torch.nn.functional.pad(weight_RV, (0, padding)) if padding else weight_RV
    blocks_RCN = padded.view(len(weight_RV), -1, BLOCK)
    return blocks_RCN, blocks_RCN.sum(-1).double().cumsum(-1)


def _at(blocks_RCN: Tensor, cumulated_RC: Tensor, uniform_R: Tensor) -> Tensor:
    """First the block, then the token within it."""
    target_R = uniform_R * cumulated_RC[:, -1]
    block_R = _stretch(cumulated_RC, target_R)
    row_R = torch.arange(len(block_R), device=block_R.device)
    below_R = torch.where(block_R > 0, cumulated_RC[row_R, block_R - 1], 0.0)
    within_R = _stretch(blocks_RCN[row_R, block_R].double().cumsum(-1), target_R - below_R)
    return block_R * BLOCK + within_R


def _stretch(cumulated_RN: Tensor, target_R: Tensor) -> Tensor:
    """Return the first index cumulated beyond the target, and at most the last index that added anything.

    Numbers that are not finite have no place; a GPU, which nobody asked yet, gets one that is there.
    """
    beyond_R1 = torch.searchsorted(cumulated_RN, target_R[:, None], right=True)
    last_R1 = torch.searchsorted(cumulated_RN, cumulated_RN[:, -1:].contiguous())
    return torch.minimum(beyond_R1, last_R1)[:, 0].clamp_(max=cumulated_RN.shape[-1] - 1)
