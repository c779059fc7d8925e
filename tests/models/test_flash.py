"""Flash attention over runs, with the kernel written out: which runs it gets, and what becomes of its gradients."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from accord.models.blocks import BlockPlan, block_attention
from accord.models.flash import FlashPlan, attend, attend_back, flash_attention, takes
from accord.trees import Branch, PromptTree, pack
from models.flash_written_out import backward_written_out, written_out


def tree(prompt: int, *responses: int) -> PromptTree:
    return PromptTree(tuple(range(prompt)), tuple(Branch.response(range(size)) for size in responses))


TREES = {
    "one response": [tree(3, 4), tree(1, 2)],
    "pairs": [tree(5, 3, 4), tree(2, 1, 6)],
    "mixed": [tree(4, 2), tree(3, 1, 2, 5), tree(7, 3), tree(1, 1, 1)],
}


@pytest.fixture
def kernel_written_out(monkeypatch):
    """The kernel's two operations, on a CPU."""
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", written_out)
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_backward", backward_written_out)


@pytest.mark.parametrize("name", TREES)
def test_runs_give_what_all_scores_at_once_give(kernel_written_out, name):
    batch = pack(TREES[name])
    generator = torch.Generator().manual_seed(0)
    count = batch.token_T.numel()
    states = [torch.randn(count, h, 8, generator=generator, dtype=torch.float64) for h in (4, 2, 2)]
    grad = torch.randn(count, 4, 8, generator=generator, dtype=torch.float64)
    found = []
    for attention in (
        lambda *x: flash_attention(*x, FlashPlan.of(batch.trees, torch.device("cpu")), 0.3),
        lambda *x: block_attention(*x, BlockPlan(batch), None, 0.3),
    ):
        leaves = [x.clone().requires_grad_() for x in states]
        out = attention(*leaves)
        found.append([out.detach(), *torch.autograd.grad(out, leaves, grad)])
    for ours, expected in zip(*found, strict=True):
        assert_close(ours, expected)


def test_a_prompts_gradient_is_summed_in_float32(kernel_written_out):
    """2^-9 added to 1 in bfloat16 is lost, however often."""
    plan = FlashPlan.of([tree(1, *[1] * 10)], torch.device("cpu"))
    q, kv = (torch.zeros(11, heads, 8, dtype=torch.bfloat16) for heads in (1, 2))
    out, lse = attend(q, kv, plan, 1.0)  # each response gives half of its weight to the prompt
    grad = torch.full_like(out, 2**-8)
    grad[:2] = 1.0  # of the prompt itself and of its first response
    of_value = attend_back(grad, q, kv, out, lse, plan, 1.0)[2]
    assert of_value.dtype == torch.float32
    assert of_value[0, 0].tolist() == pytest.approx([1.5 + 9 * 2**-9] * 8, abs=0)


def test_runs_by_hand():
    plan = FlashPlan.of(TREES["mixed"], torch.device("cpu"))
    assert plan.query_start.tolist() == [0, 6, 10, 12, 17, 27, 29, 30]  # a prompt with its first response is one
    assert plan.key_start.tolist() == [0, 6, 10, 15, 23, 33, 35, 37]
    assert (plan.longest_query, plan.longest_key) == (10, 10)
    assert plan.key_S.tolist() == [
        *range(6), *range(6, 10), *(6, 7, 8, 10, 11), *(6, 7, 8, *range(12, 17)), *range(17, 27), 27, 28, 27, 29
    ]  # fmt: skip
    alone = FlashPlan.of(TREES["one response"], torch.device("cpu"))
    assert alone.key_S is None
    assert alone.key_start.tolist() == alone.query_start.tolist() == [0, 7, 10]


def test_a_cpu_is_not_taken():
    q = torch.zeros(3, 2, 8, dtype=torch.bfloat16)
    assert not takes(q, q, None)
