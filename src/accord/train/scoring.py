"""One number per response over many trees, without gradients: packs of a token budget, results in the given order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from accord.losses.likelihood import segment_sum
from accord.models.score import response_scores, rewards
from accord.trees import PromptTree, TreeBatch, budget_packs, pack

__all__ = ["all_rewards", "all_sequence_logprobs", "firsts", "rows_of", "sequence_logprob"]

Advance = Callable[[int], None]


def sequence_logprob(model: Any, batch: TreeBatch) -> Tensor:
    """(N,) log pi(y | x) of the responses of a pack, nats, summed over their tokens."""
    scores = response_scores(model, batch)
    return segment_sum(scores.logprob_T, scores.response_T, batch.count)


def all_sequence_logprobs(
    model: Any, trees: Sequence[PromptTree], precision: Any, micro_tokens: int, advance: Advance = lambda done: None
) -> Tensor:
    """(N,) log pi(y | x), nats, of all responses of all trees, in order; `advance` hears how many trees are done."""
    return _over_packs(model, trees, precision, micro_tokens, sequence_logprob, advance)


def all_rewards(model: Any, trees: Sequence[PromptTree], precision: Any, micro_tokens: int) -> Tensor:
    """(N,) rewards of all responses of all trees, in order."""
    return _over_packs(model, trees, precision, micro_tokens, rewards, lambda done: None)


def firsts(trees: Sequence[PromptTree]) -> tuple[int, ...]:
    """Index of each tree's first response among all responses."""
    starts, total = [], 0
    for tree in trees:
        starts.append(total)
        total += len(tree.branches)
    return tuple(starts)


def rows_of(group: Sequence[int], trees: Sequence[PromptTree], first_B: Sequence[int]) -> list[int]:
    """Responses of some trees, in the order a pack of these trees has them."""
    return [first_B[b] + k for b in group for k in range(len(trees[b].branches))]


@torch.no_grad()
def _over_packs(
    model: Any,
    trees: Sequence[PromptTree],
    precision: Any,
    micro_tokens: int,
    read: Callable[[Any, TreeBatch], Tensor],
    advance: Advance,
) -> Tensor:
    model.eval()
    first_B = firsts(trees)
    value_N = torch.zeros(sum(len(tree.branches) for tree in trees))
    done = 0
    for group in budget_packs([tree.length for tree in trees], micro_tokens):
        batch = pack([trees[b] for b in group]).to(next(model.parameters()).device)
        with precision.forward():
            value_N[rows_of(group, trees, first_B)] = read(model, batch).float().cpu()
        done += len(group)
        advance(done)
    return value_N
