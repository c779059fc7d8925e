"""Tree attention on a CPU: what autocast may and may not round."""

from __future__ import annotations

import pytest
import torch

from accord.models.attention import TreeLayout, tree_attention
from accord.trees import Branch, PromptTree, pack


@pytest.mark.parametrize("prompt", [10, 400])
def test_large_scores_keep_their_differences(prompt: int) -> None:
    """An offset that all keys share changes no share; rounding a score of 1,000 to bfloat16 would change them all."""
    branches = (Branch.response(range(9)), Branch.response(range(7)))
    batch = pack([PromptTree(tuple(range(prompt)), branches), PromptTree((1, 2, 3), branches)])
    generator = torch.Generator().manual_seed(0)
    count = batch.token_T.numel()
    q, k, v = (torch.randn(1, heads, count, 16, generator=generator).bfloat16() for heads in (4, 2, 2))
    q, k = q + 8, k + 8

    def attend(*states: torch.Tensor) -> torch.Tensor:
        return tree_attention(None, *states, None, tree=TreeLayout(batch))[0]

    exact = attend(q.double(), k.double(), v.double())
    with torch.autocast("cpu", torch.bfloat16):
        found = attend(q.float(), k.float(), v)
    assert (found.double() - exact).norm() < 0.01 * exact.norm()
