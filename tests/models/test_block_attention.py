"""Attention block by block: which keys a block reads, and that it gives what all scores at once give."""

from __future__ import annotations

import random

import pytest
import torch
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from accord.models import blocks
from accord.models.attention import TreeLayout
from accord.models.blocks import BlockPlan, SideBySide, block_attention, blocks_of
from accord.trees import Branch, PromptTree, pack


def cut_into(monkeypatch, size: int) -> None:
    """Runs of at most so many tokens, larger trees not side by side."""
    monkeypatch.setattr(blocks, "SIZE", size)
    monkeypatch.setattr(blocks, "SMALL", size)


def tree(prompt: int, *responses: int) -> PromptTree:
    return PromptTree(tuple(range(prompt)), tuple(Branch.response(range(size)) for size in responses))


def runs(trees: list[PromptTree]) -> list[tuple[int, int, tuple[tuple[int, int], ...]]]:
    """Of each block: queries, and the runs of its keys, or the lengths of trees side by side."""
    return [
        (b.start, b.stop, b.lengths if isinstance(b, SideBySide) else tuple((run.start, run.stop) for run in b.keys))
        for b in blocks_of(trees)
    ]


def test_blocks_by_hand(monkeypatch):
    cut_into(monkeypatch, 10)
    assert runs([tree(3, 2), tree(2, 2, 1)]) == [(0, 10, (5, 5))]  # small trees side by side
    assert runs([tree(3, 2), tree(2, 1)]) == [(0, 5, (5,)), (5, 8, (3,))]  # one would be padded too much
    assert runs([tree(3, 6), tree(9, 2)]) == [(0, 9, (9,)), (9, 18, ((9, 18),)), (18, 20, ((9, 20),))]
    assert runs([tree(3, 5), tree(3, 7)]) == [(0, 18, (8, 10))]  # the second just small enough
    monkeypatch.setattr(blocks, "SCORES", 60)
    assert runs([tree(3, 2)] * 5) == [(0, 10, (5, 5)), (10, 20, (5, 5)), (20, 25, (5,))]
    assert runs([tree(6, 3, 4, 5, 2)]) == [
        (0, 9, ((0, 9),)),  # the prompt and a response
        (9, 18, ((0, 6), (9, 18))),  # two more: the prompt, and nothing of the first
        (18, 20, ((0, 6), (18, 20))),
    ]
    assert runs([tree(15, 12)]) == [
        (0, 7, ((0, 7),)),  # a long prompt in parts, each behind all before it
        (7, 15, ((0, 15),)),
        (15, 21, ((0, 21),)),  # the first response follows its prompt: one run
        (21, 27, ((0, 27),)),
    ]
    assert runs([tree(2, 2), tree(9, 2, 3), tree(2, 2)]) == [
        (0, 4, (4,)),
        (4, 13, ((4, 13),)),
        (13, 18, ((4, 18),)),
        (18, 22, (4,)),
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tree_gets_the_same_in_every_pack(dtype):
    """To the bit: DPO's reference passes pack otherwise than its steps, and its first loss is log 2."""
    generator = torch.Generator().manual_seed(0)
    trees = [tree(90, 60, 50), tree(90, 30), tree(70, 25), tree(20, 30), tree(200, 10)]
    trees += [tree(size - 1, 1) for size in (3, 4, 7, 9, 11, 14, 20, 15, 21, 57, 40)]
    counts = [t.length for t in trees]
    q, k, v = (torch.randn(sum(counts), heads, 64, generator=generator).to(dtype) for heads in (9, 3, 3))
    whole = block_attention(q, k, v, BlockPlan(pack(trees)), None, 0.125)
    at = 0
    for one, count in zip(trees, counts, strict=True):
        part = slice(at, at + count)
        alone = block_attention(q[part], k[part], v[part], BlockPlan(pack([one])), None, 0.125)
        assert torch.equal(alone, whole[part]), count
        at += count


def random_trees(seed: int) -> list[PromptTree]:
    draw = random.Random(seed)
    return [
        tree(draw.randint(1, 30), *(draw.randint(1, 20) for _ in range(draw.randint(1, 4))))
        for _ in range(draw.randint(1, 4))
    ]


@pytest.mark.parametrize("size", [3, 16, 160])
@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("seed", range(6))
def test_values_and_gradients_are_those_of_all_scores_at_once(monkeypatch, seed, window, size):
    cut_into(monkeypatch, size)
    batch = pack(random_trees(seed))
    count, layout = batch.token_T.numel(), TreeLayout(batch)
    generator = torch.Generator().manual_seed(seed)
    q, k, v, grad = (torch.randn(count, heads, 4, dtype=torch.float64, generator=generator) for heads in (4, 2, 2, 4))
    for states in (q, k, v):
        states.requires_grad_()
    # The layout's mask, laid back onto the pack: (T, T), nothing of it computed by blocks.
    where_T = layout.padded.scatter_T
    seen = torch.block_diag(*layout.padded.mask(window)[:, 0].double()).bool()[where_T][:, where_T]
    score = torch.einsum("qhd,khd->hqk", q, k.repeat_interleave(2, 1)) * 0.3
    share = score.masked_fill(~seen, -torch.inf).softmax(-1)
    expected = torch.einsum("hqk,khd->qhd", share, v.repeat_interleave(2, 1))
    found = block_attention(q, k, v, BlockPlan(batch), window, 0.3)
    assert_close(found, expected, rtol=1e-10, atol=1e-12)
    for ours, plain in zip(*(torch.autograd.grad(x, (q, k, v), grad) for x in (found, expected)), strict=True):
        assert_close(ours, plain, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize("size", [4, 160])
def test_values_may_be_narrower_than_keys(monkeypatch, width, size):
    """Column by column they are what they are beside others."""
    cut_into(monkeypatch, size)
    plan = BlockPlan(pack([tree(3, 2, 3), tree(4, 3)]))
    q, k, v = (torch.randn(15, heads, 6, dtype=torch.float64) for heads in (4, 2, 2))
    v.requires_grad_()
    found = block_attention(q, k, v[..., :width], plan, None, 0.5)
    expected = block_attention(q, k, v, plan, None, 0.5)[..., :width]
    assert_close(found, expected)
    for ours, plain in zip(*(torch.autograd.grad(x.square().sum(), v) for x in (found, expected)), strict=True):
        assert_close(ours, plain)


def test_sums_over_blocks_do_not_stall_in_bf16(monkeypatch):
    cut_into(monkeypatch, 1)
    q, k, v = (torch.zeros(601, 1, 4, dtype=torch.bfloat16, requires_grad=True) for _ in "qkv")
    block_attention(q, k, v, BlockPlan(pack([tree(1, *[1] * 600)])), None, 0.5).sum().backward()
    assert_close(v.grad[0], torch.full((1, 4), 301.0).bfloat16())  # 1 + 600 / 2


def test_a_backward_pass_under_autocast_is_no_less_exact():
    plan, found = BlockPlan(pack([tree(30, 9, 7)])), []
    for inside in (False, True):
        generator = torch.Generator().manual_seed(0)
        q, k, v = (
            (torch.randn(46, heads, 16, generator=generator) + 4).bfloat16().requires_grad_() for heads in (4, 2, 2)
        )
        with torch.autocast("cpu", torch.bfloat16):
            out = block_attention(q, k, v, plan, None, 0.25).float().square().sum()
        with torch.autocast("cpu", torch.bfloat16, enabled=inside):
            found.append(torch.autograd.grad(out, (q, k, v)))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_layer_has_the_same_gradients(reentrant):
    plan = BlockPlan(pack([tree(3, 2, 3), tree(2, 2)]))
    states, weight = torch.randn(12, 8, requires_grad=True), torch.randn(8, 32, requires_grad=True)

    def layer(x: torch.Tensor) -> torch.Tensor:
        q, k, v = (x @ weight).view(12, 4, 8).split((2, 1, 1), 1)
        return block_attention(q, k, v, plan, None, 0.3)

    expected = torch.autograd.grad(layer(states).square().sum(), (states, weight))
    checkpoint(layer, states, use_reentrant=reentrant).square().sum().backward()
    assert torch.equal(states.grad, expected[0])
    assert torch.equal(weight.grad, expected[1])


@pytest.mark.parametrize("need", [(1, 0, 0), (0, 1, 0), (1, 0, 1), (0, 1, 1)])
def test_second_derivatives_of_some(need):
    plan = BlockPlan(pack([tree(3, 2), tree(2, 2)]))
    given = [
        torch.randn(9, heads, 2, dtype=torch.float64, requires_grad=bool(one))
        for heads, one in zip((2, 1, 1), need, strict=True)
    ]
    assert torch.autograd.gradgradcheck(lambda *states: block_attention(*states, plan, None, 0.7), given)


def test_second_derivatives(monkeypatch):
    cut_into(monkeypatch, 4)
    batch = pack([tree(3, 2, 3), tree(2, 2)])
    given = [torch.randn(12, heads, 2, dtype=torch.float64, requires_grad=True) for heads in (2, 1, 1)]
    plan = BlockPlan(batch)

    def attend(*states: torch.Tensor) -> torch.Tensor:
        return block_attention(*states, plan, None, 0.7)

    assert torch.autograd.gradcheck(attend, given)
    assert torch.autograd.gradgradcheck(attend, given)


def test_what_is_kept_is_no_larger_than_the_states():
    """Scores are not: 8 heads and 900 tokens would be 6.5 million numbers."""
    batch = pack([tree(800, 100)])
    q, k, v = (torch.randn(900, heads, 8, requires_grad=True) for heads in (8, 2, 2))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        block_attention(q, k, v, BlockPlan(batch), None, 0.3)
    assert sum(kept) <= 900 * 8 * (8 + 2 + 2)
