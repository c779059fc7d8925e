"""Tree attention on a CPU: what autocast may and may not round."""

from __future__ import annotations

import pytest
import torch

from accord.models.attention import TreeLayout, tree_attention
from accord.trees import Branch, PromptTree, pack


def test_dropout_is_not_lost() -> None:
    layout = TreeLayout(pack([PromptTree(tuple(range(8)), (Branch.response(range(3)), Branch.response(range(2))))]))
    q, k, v = (torch.ones(1, heads, 13, 4) for heads in (2, 1, 1))
    torch.manual_seed(0)
    torch.testing.assert_close(tree_attention(None, q, k, v, None, tree=layout)[0], torch.ones(1, 13, 2, 4))
    dropped = tree_attention(None, q, k, v, None, dropout=0.5, tree=layout)[0]
    assert float((dropped - 1).abs().max()) > 0.1


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
