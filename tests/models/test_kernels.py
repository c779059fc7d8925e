"""Kernels of a CPU: the numbers of PyTorch's operations for every shape they take, and a clean way without them."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu
from torch.testing import assert_close

from accord.models import gates, kernels, logits, norms, rotation
from accord.models.attention import TreeLayout
from accord.models.blocks import BlockPlan, block_attention
from accord.models.kernels import build
from accord.trees import Branch, PromptTree, pack

BF16, FP32 = torch.bfloat16, torch.float32


pytestmark = pytest.mark.usefixtures("compiled")


def draw(*shape: int, dtype: torch.dtype = FP32, seed: int = 0, size: float = 1.0) -> Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * size).to(dtype)


def plain(function: Any, *args: Any) -> Any:
    """Without kernels, as it stands in the text."""
    return function.__wrapped__(*args)


def close(found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Equal up to one rounding; in bfloat16 nearly everywhere to the bit."""
    assert found.dtype == expected.dtype == dtype
    if dtype == BF16:
        assert_close(found, expected, rtol=2**-7, atol=1e-6)
        assert (found != expected).float().mean() < 0.01
    else:
        assert_close(found, expected, rtol=2e-6, atol=2e-6)


# -- between the products ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 3, 50])
def test_norms(rows: int, threads: int) -> None:
    x, weight, grad = draw(rows, 48, size=3), draw(48, seed=1), draw(rows, 48, dtype=BF16, seed=2)
    y, r = plain(norms.normal, x, weight, 1e-5, BF16)
    found = kernels.norm(x, weight, 1e-5, BF16)
    assert found is not None
    close(found[0], y, BF16)
    close(found[1], r, FP32)
    back = kernels.norm_back(grad, x, weight, r, True)
    assert back is not None
    assert back[1] is not None
    expected = plain(norms._gradients, grad, x, weight, r, True)
    close(back[0], expected[0], FP32)
    assert_close(back[1], expected[1], rtol=1e-5, atol=1e-5)  # a sum over tokens, in another order
    alone = kernels.norm_back(grad, x, weight, r, False)
    assert alone is not None
    assert alone[1] is None
    assert torch.equal(alone[0], back[0])


def test_threads_change_no_bit_of_a_norms_gradient() -> None:
    grad, x, weight, before = (
        draw(333, 32, dtype=BF16),
        draw(333, 32, seed=1),
        draw(32, seed=2),
        torch.get_num_threads(),
    )
    y = kernels.norm(x, weight, 1e-5, BF16)
    assert y is not None
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            back = kernels.norm_back(grad, x, weight, y[1], True)
            assert back is not None
            assert back[1] is not None
            found.append(back[1])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert_close(found[0], plain(norms._gradients, grad, x, weight, y[1], True)[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [FP32, BF16])
def test_gates(dtype: torch.dtype, threads: int) -> None:
    gate, up, grad = (draw(31, 32, dtype=dtype, seed=seed, size=4) for seed in range(3))
    found, back = kernels.gate(gate, up), kernels.gate_back(grad, gate, up)
    assert found is not None
    assert back is not None
    close(found, silu(gate) * up, dtype)
    for ours, expected in zip(back, plain(gates._gradients, grad, gate, up), strict=True):
        close(ours, expected, dtype)


def test_gates_far_out() -> None:
    """No overflow where the exponential leaves float32, and what is not a number stays none."""
    gate = torch.tensor(
        [-1e38, -torch.inf, -1e4, -200.0, -90.0, -20.0, -0.0, 0.0, 20.0, 90.0, 200.0, 1e4, torch.nan, torch.inf]
        + [1.0] * 2
    )
    gate, up = gate[None], torch.ones(1, 16)
    found, back = kernels.gate(gate, up), kernels.gate_back(up, gate, up)
    assert found is not None
    assert back is not None
    assert_close(found, silu(gate), equal_nan=True)
    assert_close(back[1], silu(gate), equal_nan=True)
    assert back[0][0, 2:12].isfinite().all()
    assert back[0][0, 12].isnan()


@pytest.mark.parametrize("dtype", [FP32, BF16])
def test_rotations(dtype: torch.dtype, threads: int) -> None:
    q, k, angle = draw(13, 3, 64, dtype=dtype), draw(13, 1, 64, dtype=dtype, seed=1), draw(13, 1, 64, seed=2)[..., :32]
    args = (q, k, angle.cos(), angle.sin(), dtype)
    found = kernels.turn(*args)
    assert found is not None
    for ours, expected in zip(found, plain(rotation._turned, *args), strict=True):
        close(ours, expected, dtype)


def test_rounding_is_that_of_torch() -> None:
    """Ties to even, the largest, infinities; and subnormal numbers, unless they are lost."""
    bits = torch.arange(2**16, dtype=torch.int32).repeat_interleave(4) * 2**16
    bits += torch.tensor([0, 0x7FFF, 0x8000, 0x8001], dtype=torch.int32).repeat(2**16)
    x = bits.view(FP32)
    found = kernels.turn(*[x.view(-1, 1, 64)] * 2, torch.ones(4096, 1, 32), torch.zeros(4096, 1, 32), FP32)
    assert found is not None  # times 1, plus 0 times the other half: x again, but for infinities
    finite = x.view(-1, 64).isfinite().all(1)
    assert torch.equal(found[0].view(-1, 64)[finite], x.view(-1, 64)[finite])
    wide, one = x.view(-1, 16), torch.ones(16)
    ours = kernels.norm(wide, one, 1e30, BF16)  # r = 1e-15 exactly for all of them: one product, then rounding
    assert ours is not None
    small = wide.abs().amax(1) < 1e10
    expected = (wide * ours[1] * one).to(BF16)
    lost = (expected.abs() <= torch.finfo(BF16).tiny) & (ours[0] == 0)  # some processors round these to nothing
    assert torch.equal(ours[0][small], expected.masked_fill(lost, 0)[small])


@pytest.mark.parametrize("dtype", [FP32, BF16])
def test_a_sum_and_its_norm(dtype: torch.dtype, threads: int) -> None:
    x, more, weight = draw(5, 32), draw(5, 32, dtype=dtype, seed=1), draw(32, seed=2)
    expected, before = x + more, x.clone()
    found = kernels.add_norm(x, more, weight, 1e-5)
    if dtype == FP32:
        assert found is None
        assert torch.equal(x, before)
    else:
        assert found is not None
        assert torch.equal(x, expected)
        close(found, plain(norms.normal, expected, weight, 1e-5, BF16)[0], BF16)


def test_a_sum_of_nothing_has_a_norm_and_a_nan_stays_one() -> None:
    none = kernels.add_norm(torch.zeros(1, 32), torch.zeros(1, 32, dtype=BF16), torch.ones(32), 1e-5)
    assert none is not None
    assert torch.equal(none, torch.zeros(1, 32, dtype=BF16))
    x = draw(1, 32)
    x.view(torch.int32)[0, 3] = 0x7FFFFFFF  # rounded as a number it would be -0
    found = kernels.norm(x, torch.ones(32), 1e-5, BF16)
    assert found is not None
    assert found[0].isnan().all()


# -- logits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("dtype", [FP32, BF16])
def test_logprobs(dtype: torch.dtype, entropy: bool, temperature: float, threads: int) -> None:
    raw, token = draw(7, 96, dtype=dtype, size=5), torch.tensor([0, 15, 16, 47, 80, 95, 3])
    raw[2, 20:70] = -torch.inf
    raw[3, 5] = 300  # all others have no probability left
    how = (0.5, None, temperature, entropy)
    found, expected = kernels.logprob(raw, token, *how), plain(logits.read, raw, token, *how)
    assert found is not None
    for ours, theirs in zip(found, expected, strict=True):
        assert ours is theirs is None or torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    grads = draw(7, seed=1), draw(7, seed=2) if entropy else None
    ours, theirs = raw.clone(), raw.clone()
    assert kernels.logprob_back(ours, token, *grads, *how[:3], False) is not None
    plain(logits.to_gradient, theirs, token, *grads, *how[:3], False)
    close(ours, theirs, dtype)


def test_logprobs_of_grads_that_lie_apart() -> None:
    """What is copied for the kernel lives until it is done."""
    raw, token = draw(4, 4096), torch.arange(8)[::2]
    expected = raw.clone()
    grad = torch.tensor(2.0).expand(4)
    assert kernels.logprob_back(raw, token, grad, None, 1.0, None, 1.0, False) is not None
    plain(logits.to_gradient, expected, token, grad, None, 1.0, None, 1.0, False)
    close(raw, expected, FP32)


def test_logits_that_are_left_to_torch() -> None:
    raw, token, grad = draw(2, 32), torch.tensor([1, 2]), torch.ones(2)
    assert kernels.logprob(raw, token, 1.0, 30.0, 1.0, False) is None
    assert kernels.logprob_back(raw, token, grad, None, 1.0, 30.0, 1.0, False) is None
    assert kernels.logprob_back(raw, token, grad, None, 1.0, None, 1.0, True) is None
    assert kernels.logprob(draw(2, 50257), token, 1.0, None, 1.0, False) is None
    nothing = kernels.logprob(torch.full((1, 32), torch.nan), token[:1], 1.0, None, 1.0, False)
    assert nothing is not None
    assert nothing[0].isnan()


# -- attention ---------------------------------------------------------------------------------------------------------


def tree(prompt: int, *responses: int) -> PromptTree:
    return PromptTree(tuple(range(prompt)), tuple(Branch.response(range(size)) for size in responses))


def random_trees(seed: int) -> list[PromptTree]:
    pick = random.Random(seed)
    sizes = [(1, 30), (60, 140), (300, 900)][seed % 3]
    return [
        tree(pick.randint(*sizes), *(pick.randint(1, sizes[1] // 3) for _ in range(pick.randint(1, 4))))
        for _ in range(pick.randint(1, 4))
    ]


def seen_by(trees: list[PromptTree], window: int | None) -> Tensor:
    layout = TreeLayout(pack(trees))
    where_T = layout.padded.scatter_T
    return torch.block_diag(*layout.padded.mask(window)[:, 0].float()).bool()[where_T][:, where_T]


@pytest.mark.parametrize("window", [None, 1, 40])
@pytest.mark.parametrize("widths", [(16, 16), (64, 32), (80, 96)])
@pytest.mark.parametrize("seed", range(6))
def test_attention_is_that_of_all_scores_at_once(seed: int, widths: tuple[int, int], window: int | None) -> None:
    trees = random_trees(seed)
    tokens, heads, groups = sum(t.length for t in trees), 6, 2 + seed % 2
    q, k, v, grad = (
        draw(tokens, count, width, seed=at, size=1.5)
        for at, (count, width) in enumerate(
            ((heads, widths[0]), (groups, widths[0]), (groups, widths[1]), (heads, widths[1]))
        )
    )
    wide = [x.double().requires_grad_() for x in (q, k, v)]
    repeated = [x.repeat_interleave(heads // groups, 1) for x in wide[1:]]
    score = torch.einsum("qhd,khd->hqk", wide[0], repeated[0]) * 0.2
    share = score.masked_fill(~seen_by(trees, window), -torch.inf).softmax(-1)
    expected = torch.einsum("hqk,khd->qhd", share, repeated[1])
    gradients = torch.autograd.grad(expected, wide, grad.double())
    tables = BlockPlan(pack(trees)).tables
    found = kernels.attend(q, k, v, *tables, window, 0.2)
    back = kernels.attend_back(q, k, v, grad, *tables, window, 0.2)
    assert found is not None
    assert back is not None
    assert_close(found.double(), expected.detach(), rtol=1e-5, atol=1e-5)
    for ours, plain_ in zip(back, gradients, strict=True):
        assert_close(ours.double(), plain_, rtol=2e-5, atol=1e-4)


def test_in_bf16_only_the_results_are_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no matrix units."""
    monkeypatch.setattr(kernels, "has_tiles", lambda: False)
    trees = [tree(70, 50, 30), tree(20, 40)]
    args = [draw(210, heads, 64, dtype=BF16, seed=heads) for heads in (9, 3, 3, 9)]
    args[2] = draw(210, 3, 64, dtype=BF16, seed=7)
    tables = BlockPlan(pack(trees)).tables
    found = kernels.attend(*args[:3], *tables, None, 0.125)
    exact = kernels.attend(*(x.float() for x in args[:3]), *tables, None, 0.125)
    back = kernels.attend_back(*args, *tables, None, 0.125)
    exact_back = kernels.attend_back(*(x.float() for x in args), *tables, None, 0.125)
    assert found is not None
    assert exact is not None
    assert back is not None
    assert exact_back is not None
    assert torch.equal(found, exact.to(BF16))
    assert all(torch.equal(a, b.to(BF16)) for a, b in zip(back, exact_back, strict=True))


OF_TILES = (
    [tree(70, 50, 30), tree(20, 40)],
    [tree(33, 5, 47), tree(1, 1), tree(130, 97, 200)],
    [tree(32, 32, 31), tree(64, 1)],
    [tree(5, 3)],
    [tree(700, 90, 20), tree(3, 400)],
    [tree(9, 7) for _ in range(20)],
)


@pytest.mark.parametrize("window", [None, 1, 40])
@pytest.mark.parametrize("widths", [(64, 32), (32, 96)])
@pytest.mark.parametrize("trees", OF_TILES, ids=[f"{len(x)}x{x[0].length}" for x in OF_TILES])
@pytest.mark.usefixtures("tiles")
def test_attention_by_matrix_units(trees: list[PromptTree], widths: tuple[int, int], window: int | None) -> None:
    tokens, tables = sum(one.length for one in trees), BlockPlan(pack(trees)).tables
    d, w = widths
    args = [draw(tokens, h, of, dtype=BF16, seed=i) for i, (h, of) in enumerate(((6, d), (2, d), (2, w), (6, w)))]
    assert kernels._of_heads("attend", args[0], args[2]) == "attend_tiles"
    found = kernels.attend(*args[:3], *tables, window, 0.3)
    back = kernels.attend_back(*args, *tables, window, 0.3)
    exact = kernels.attend(*(x.float() for x in args[:3]), *tables, window, 0.3)
    exact_back = kernels.attend_back(*(x.float() for x in args), *tables, window, 0.3)
    assert back is not None
    assert exact_back is not None
    for ours, of_float in zip((found, *back), (exact, *exact_back), strict=True):
        assert ours is not None
        assert of_float is not None
        # Weights and their gradients are rounded to eight bits on the way: no row is off by more than a few of them.
        off, size = (ours - of_float).flatten(1).norm(dim=1), of_float.flatten(1).norm(dim=1)
        assert (off <= 0.008 * size + 2e-3 * size.mean() + 1e-5).all()
        assert off.norm() < 0.004 * size.norm() + 1e-4


@pytest.mark.usefixtures("tiles")
def test_matrix_units_take_scores_as_they_are() -> None:
    """Where all that is seen weighs the same, nothing but the result is rounded."""
    trees = [tree(70, 50, 30), tree(20, 40)]
    q, k, v = (draw(210, heads, 64, dtype=BF16, seed=heads) for heads in (9, 3, 3))
    tables = BlockPlan(pack(trees)).tables
    q[100:] = 0
    k[:100, :, 1:], q[:100, :, 1:] = 0, 0
    k[:100, :, 0], q[:100, :, 0] = k[:100, :, 0].sign() * 256, 256  # scores are as large as they get, or nothing
    found, exact = (
        kernels.attend(q, k, v, *tables, None, 1.0),
        kernels.attend(*(x.float() for x in (q, k, v)), *tables, None, 1.0),
    )
    assert found is not None
    assert exact is not None
    close(found, exact.to(BF16), BF16)


@pytest.mark.usefixtures("tiles")
def test_what_is_not_a_number_stays_in_its_tree_and_behind() -> None:
    q, k, v = (draw(60, 2, 32, dtype=BF16, seed=seed) for seed in range(3))
    k[12, 0, 3] = torch.nan
    tables = BlockPlan(pack([tree(20, 5, 5), tree(10, 20)])).tables
    found = kernels.attend(q, k, v, *tables, None, 0.25)
    assert found is not None
    assert found[:, 0].isnan().all(-1).tolist() == [False] * 12 + [True] * 18 + [False] * 30
    assert found[:, 1].isfinite().all()


@pytest.mark.parametrize("dtype", [FP32, BF16])
def test_attention_does_not_depend_on_threads(dtype: torch.dtype) -> None:
    trees, before = [tree(100, 30, 40), tree(20, 10)], torch.get_num_threads()
    args = [draw(200, heads, 32, dtype=dtype, seed=at) for at, heads in enumerate((4, 2, 2, 4))]
    tables, found = BlockPlan(pack(trees)).tables, []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            back = kernels.attend_back(*args, *tables, None, 0.2)
            assert back is not None
            found.append((kernels.attend(*args[:3], *tables, None, 0.2), *back))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert torch.equal(other[0], found[0][0])
        assert torch.equal(other[1], found[0][1])
        for a, b in zip(other[2:], found[0][2:], strict=True):  # sums over query heads, by one thread or by several
            assert_close(a, b, rtol=1e-5 if dtype == FP32 else 8e-3, atol=1e-6)


@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize("prompt", [1, 31, 32, 64, 90, 700])
def test_a_response_gets_the_same_in_a_tree_as_in_a_row(prompt: int, window: int | None) -> None:
    """To the bit, whatever stands beside it."""
    one, tokens = tree(prompt, 40, 60), prompt + 100
    q, k, v = (draw(tokens + 57, heads, 64, dtype=BF16, seed=at) for at, heads in enumerate((6, 2, 2)))
    beside = kernels.attend(q, k, v, *BlockPlan(pack([one, tree(50, 7)])).tables, window, 0.125)
    assert beside is not None
    for start, stop in ((prompt, prompt + 40), (prompt + 40, tokens)):
        row = [torch.cat([x[:prompt], x[start:stop]]) for x in (q, k, v)]
        alone = kernels.attend(*row, *BlockPlan(pack([tree(len(row[0]) - 1, 1)])).tables, window, 0.125)
        assert alone is not None
        assert torch.equal(alone[:prompt], beside[:prompt])
        assert torch.equal(alone[prompt:], beside[start:stop])


def test_what_is_not_a_number_is_passed_on() -> None:
    q, k, v = (draw(12, 2, 16, seed=seed) for seed in range(3))
    k[5, 0, 3] = torch.nan
    found = kernels.attend(q, k, v, *BlockPlan(pack([tree(4, 4, 4)])).tables, None, 0.25)
    assert found is not None
    assert found[:, 0].isnan().all(-1).tolist() == [False] * 5 + [True] * 3 + [False] * 4
    assert found[:, 1].isfinite().all()


# -- who uses them -----------------------------------------------------------------------------------------------------


def test_autograd_goes_through_them(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, calls = BlockPlan(pack([tree(9, 4, 3)])), []
    for name in ("attend", "attend_back"):
        known = getattr(kernels, name)
        monkeypatch.setattr(kernels, name, lambda *args, name=name, known=known: (calls.append(name), known(*args))[1])
    q, k, v = (draw(16, heads, 16, seed=heads).requires_grad_() for heads in (4, 2, 1))
    k, v = k, draw(16, 2, 16, seed=9).requires_grad_()
    block_attention(q, k, v, plan, None, 0.25).square().sum().backward()
    assert calls == ["attend", "attend_back"]
    found = [x.grad for x in (q, k, v)]
    monkeypatch.setattr(kernels, "library", lambda: None)
    others = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    block_attention(*others, plan, None, 0.25).square().sum().backward()
    for ours, other in zip(found, others, strict=True):
        assert ours is not None
        assert other.grad is not None
        assert_close(ours, other.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_types_are_left_to_torch(dtype: torch.dtype) -> None:
    x = draw(4, 32).to(dtype)
    assert kernels.gate(x, x) is None
    assert kernels.norm(x, x[0], 1e-5, BF16) is None
    plan = BlockPlan(pack([tree(3, 1)]))
    assert kernels.attend(*(x.view(4, 2, 16) for _ in "qkv"), *plan.tables, None, 1.0) is None


def test_odd_widths_and_mixed_types_are_left_to_torch() -> None:
    x = draw(4, 24)
    assert kernels.gate(x, x) is None
    assert kernels.gate(draw(4, 32), draw(4, 32, dtype=BF16)) is None
    assert kernels.gate(draw(32, 4).T, draw(32, 4).T) is None
    assert kernels.gate(draw(0, 32), draw(0, 32)) is None
    assert kernels.norm(draw(4, 32), draw(32, dtype=BF16), 1e-5, BF16) is None
    assert kernels.norm(draw(4, 32), draw(32), 1e-5, FP32) is None
    assert kernels.attend(*(draw(4, 2, 12) for _ in "qkv"), *BlockPlan(pack([tree(3, 1)])).tables, None, 1.0) is None


def test_what_does_not_fit_together_is_left_to_torch() -> None:
    """It would be read or written out of bounds."""
    x, row = draw(4, 32), draw(1, 32)
    assert kernels.gate(draw(3, 1), draw(3, 1)) is None
    assert kernels.gate(x, row) is None
    assert kernels.gate_back(x, x, row) is None
    assert kernels.norm(x, draw(16), 1e-5, BF16) is None
    assert kernels.norm_back(x.bfloat16(), x, draw(16), draw(4, 1), True) is None
    assert kernels.norm_back(x.bfloat16(), x, draw(32), draw(3, 1), True) is None
    assert kernels.add_norm(x, row.bfloat16(), draw(32), 1e-5) is None
    heads = draw(4, 2, 64)
    assert kernels.turn(heads, heads, draw(4, 1, 16), draw(4, 1, 16), FP32) is None  # half of a head is turned
    assert kernels.turn(heads, heads, draw(1, 1, 32), draw(1, 1, 32), FP32) is None
    for token in (torch.tensor([0, 1, 32, 2]), torch.tensor([0, -1, 3, 2]), torch.tensor([0, 1])):
        assert kernels.logprob(x, token, 1.0, None, 1.0, False) is None
        assert kernels.logprob_back(x.clone(), token, torch.ones(4), None, 1.0, None, 1.0, False) is None
    tables = BlockPlan(pack([tree(3, 2)])).tables
    for count in (4, 6):
        qkv = [draw(count, 2, 16) for _ in "qkv"]
        assert kernels.attend(*qkv, *tables, None, 1.0) is None
        assert kernels.attend_back(*qkv, qkv[0], *tables, None, 1.0) is None
    assert kernels.attend(draw(5, 3, 16), draw(5, 2, 16), draw(5, 2, 16), *tables, None, 1.0) is None


def test_results_are_where_and_what_their_arguments_are() -> None:
    raw = draw(2, 32)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            found = kernels.logprob(raw, torch.zeros(2, dtype=torch.int64, device="cpu"), 1.0, None, 1.0, True)
            gated = kernels.gate(raw, raw)
    finally:
        torch.set_default_dtype(FP32)
    assert found is not None
    assert gated is not None
    assert found[1] is not None
    assert {x.dtype for x in (*found, gated)} == {FP32}  # type: ignore[union-attr]
    assert_close(gated, silu(raw) * raw)


def test_scores_that_are_all_minus_infinity_are_not_a_number() -> None:
    q, k, v = draw(3, 1, 16).fill_(1e20), draw(3, 1, 16).fill_(-1e20), draw(3, 1, 16)
    found = kernels.attend(q, k, v, *BlockPlan(pack([tree(2, 1)])).tables, None, 1.0)
    assert found is not None
    assert found.isnan().all()
    other = torch.tensor([0x7FC00001], dtype=torch.int32).view(FP32)  # not the usual bits of it
    logprob = kernels.logprob(other.expand(1, 32).contiguous(), torch.tensor([3]), 1.0, None, 1.0, False)
    assert logprob is not None
    assert logprob[0].isnan()


def test_a_forked_process_computes() -> None:
    code = (
        "import os, torch; torch.set_num_threads(2); from accord.models import kernels\n"
        "x = torch.ones(2, 32); assert kernels.gate(x, x) is not None; child = os.fork()\n"
        "if not child: kernels.gate(x, x); os._exit(0)\n"
        "os._exit(os.waitpid(child, 0)[1])"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)


# -- compiling ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
    """Nothing compiled yet, an empty cache."""
    monkeypatch.setenv("ACCORD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "library", build.library.__wrapped__)
    monkeypatch.setattr(build, "_warn", build._warn.__wrapped__)
    return tmp_path / "cache"


def test_compiled_once(anew: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build.library() is not None
    made = list(anew.rglob("*"))
    assert [path.suffix for path in made if path.is_file()] == [".so"]
    real, calls = subprocess.run, []
    monkeypatch.setattr(subprocess, "run", lambda words, **how: (calls.append(words), real(words, **how))[1])
    assert build.library() is not None
    assert [words[-1] for words in calls] == ["--version"]
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-DOTHER"))
    assert build.library() is not None
    assert len(list(anew.rglob("*.so"))) == 2


def test_no_openmp_of_its_own(anew: Any) -> None:
    """It would keep a second team of threads."""
    code = (
        "from pathlib import Path\n"
        "def teams(): return {x.split()[-1] for x in Path('/proc/self/maps').read_text().splitlines() if 'gomp' in x}\n"
        "import torch; before = teams(); from accord.models.kernels import build\n"
        "assert build.library() is not None; assert teams() == before, teams()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_system_without_proc(anew: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Not even looked at where nothing is to be compiled; elsewhere a reason to go without."""

    def absent(*_: object, **__: object) -> str:
        raise FileNotFoundError("/proc/cpuinfo")

    monkeypatch.setattr(build.Path, "read_text", absent)
    with caplog.at_level(logging.WARNING):
        assert build.library() is None
        assert "going on without" in caplog.text
        caplog.clear()
        monkeypatch.setattr(sys, "platform", "darwin")
        assert build.library() is None
    assert not caplog.messages


def test_asked_for_none(anew: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("ACCORD_KERNELS", "0")
    with caplog.at_level(logging.WARNING):
        assert build.library() is None
    assert not caplog.messages
    assert not anew.exists()


def test_no_compiler(anew: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(anew))
    with caplog.at_level(logging.WARNING):
        assert build.library() is None
    assert "there is no C++ compiler" in caplog.text


@pytest.mark.parametrize("script", ["exit 1", "echo strange >&2; [ $1 = --version ]", "true"])
def test_a_compiler_that_fails(
    script: str, anew: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compiler = anew.parent / "compiler"
    compiler.write_text(f"#!/bin/sh\n{script}\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with caplog.at_level(logging.WARNING):
        assert build.library() is None
    assert "going on without" in caplog.text
    assert not list(anew.rglob("*.so"))


def test_a_cache_that_cannot_be_written(anew: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    anew.parent.joinpath("file").write_text("")
    monkeypatch.setenv("ACCORD_CACHE", str(anew.parent / "file" / "cache"))
    assert build.library() is not None


@pytest.mark.slow
def test_a_process_says_so_once_and_goes_on(tmp_path: Any) -> None:
    code = (
        "import torch; from accord.models import gates; x = torch.ones(2, 32)\n"
        "with torch.no_grad(): y = [gates._product(x, x) for _ in range(3)]\n"
        "assert torch.allclose(y[2], torch.nn.functional.silu(x) * x); print('done')"
    )
    environment = os.environ | {"CXX": "/nowhere", "ACCORD_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "done\n"
    assert done.stderr.count("nothing compiled for this CPU") == 1
