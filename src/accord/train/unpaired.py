"""What KTO needs beside the responses of a step: the same prompts with responses to other prompts.

    z0 = max(0, mean over the step of log pi(y' | x) - log pi_ref(y' | x)),  y' a response to another prompt

It stands for KL(policy || reference), from which a response has to differ to count as learned (Ethayarajh et al. 2024,
section 4.1). Which y' goes with which x is fixed by the data: that of the next row with another prompt. So the
reference's half of it is computed once, with the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from accord.data.batches import Preference, fit
from accord.losses.preference import kto_reference_point
from accord.train.loop import device_of
from accord.train.pairs import PairTotals
from accord.train.scoring import sequence_logprob
from accord.trees import PromptTree, budget_packs, pack

__all__ = ["add_labels", "mismatched_trees", "reference_point"]


def mismatched_trees(items: Sequence[Preference], max_length: int, bos_id: int | None) -> list[PromptTree | None]:
    """Each prompt with the first response of the next row that has another prompt; None where that is too long.

    Raises: ValueError: all rows have the same prompt.
    """
    count = len(items)
    other = list(range(count))  # a row itself: none found yet
    for i in range(2 * count - 2, -1, -1):  # twice round, so that the last rows find the first ones
        here, after = i % count, (i + 1) % count
        other[here] = after if items[here].tree.prompt != items[after].tree.prompt else other[after]
    if all(items[i].tree.prompt == items[j].tree.prompt for i, j in enumerate(other)):
        raise ValueError(
            f"all {count} rows of the training or of the held-out data have the same prompt; kto measures drift on a "
            "prompt with the response to another one, so --data and --eval-data need two prompts each"
        )
    return [
        fit(PromptTree(item.tree.prompt, items[other[i]].tree.branches[:1]), max_length, bos_id)
        for i, item in enumerate(items)
    ]


@torch.no_grad()
def reference_point(model: Any, mismatched: Sequence[tuple[PromptTree, float]], micro_tokens: int) -> Tensor:
    """Scalar z0 of a step, nats, without gradient.

    Args:
        model: the policy; its mode is left as it is.
        mismatched: trees of `mismatched_trees` with their reference log-probability, nats; of the whole step.
        micro_tokens: token budget of a forward pass.
    """
    device = device_of(model)
    logprob_B = torch.zeros(len(mismatched), device=device)
    for group in budget_packs([tree.length for tree, _ in mismatched], micro_tokens):
        logprob_B[group] = sequence_logprob(model, pack([mismatched[b][0] for b in group]).to(device)).float()
    return kto_reference_point(logprob_B, torch.tensor([value for _, value in mismatched], device=device))


def add_labels(totals: PairTotals, label_N: Tensor, **value_N: Tensor) -> None:
    """Add figures per response, averaged as `name/desirable` and `name/undesirable`."""
    for name, value in value_N.items():
        totals.add_figure(f"{name}__desirable", value.detach()[label_N > 0])
        totals.add_figure(f"{name}__undesirable", value.detach()[label_N < 0])
