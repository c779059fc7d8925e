"""Products of linear layers by matrix units: what autocast computes, but for its rounding of weights' gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from accord.models import head as head_module
from accord.models import kernels, linear
from accord.models.head import Head, token_logprob
from accord.models.kernels import adamw
from accord.models.linear import own_products
from accord.models.score import prepare, response_scores
from accord.trees import Branch, PromptTree, pack
from fakes import tiny_llama

BF16, FP32 = torch.bfloat16, torch.float32


@pytest.fixture(autouse=True)
def as_with_tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere the layers are tried with PyTorch's product in place of the kernel."""
    if "tiles" not in request.fixturenames and not kernels.has_tiles():
        monkeypatch.setattr(linear, "_computes", lambda weight: weight.device.type == "cpu" and linear.fits(weight))


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = BF16) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("tokens", [1, 2, 31, 33, 64, 1024, 1025, 2100])
@pytest.mark.parametrize(("outputs", "features"), [(32, 32), (96, 64), (64, 160), (640, 608), (608, 640)])
@pytest.mark.usefixtures("tiles")
def test_a_weights_gradient(tokens: int, outputs: int, features: int, threads: int) -> None:
    grad, x = draw(tokens, outputs), draw(tokens, features, seed=1)
    expected = grad.double().T @ x.double()
    found = kernels.weight_gradient(grad, x)
    assert found is not None
    assert found.dtype == FP32
    assert (found - expected).norm() < 1e-6 * expected.norm()
    before = draw(outputs, features, seed=2, dtype=FP32)
    added = before.clone()
    assert kernels.weight_gradient(grad, x, added) is added
    assert_close(added, before + found, rtol=1e-5, atol=1e-4)
    apart = torch.zeros(before.numel() + 1)[1:].view_as(before)  # begins within a line of memory
    assert kernels.weight_gradient(grad, x, apart) is apart
    assert_close(apart, found, rtol=1e-5, atol=1e-4)


@pytest.mark.usefixtures("tiles")
def test_threads_change_no_bit() -> None:
    grad, x, before = draw(1500, 96), draw(1500, 64, seed=1), torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(kernels.weight_gradient(grad, x))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert other is not None
        assert found[0] is not None
        assert torch.equal(found[0], other)


@pytest.mark.usefixtures("tiles")
def test_what_does_not_fit_is_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    grad, x = draw(8, 32), draw(8, 64)
    assert kernels.weight_gradient(grad, x) is not None
    assert kernels.weight_gradient(grad, x[:7]) is None
    assert kernels.weight_gradient(grad.float(), x) is None
    assert kernels.weight_gradient(grad, x.float()) is None
    assert kernels.weight_gradient(draw(8, 48), x) is None
    assert kernels.weight_gradient(grad, draw(8, 80)) is None
    assert kernels.weight_gradient(draw(32, 8).T, x) is None
    assert kernels.weight_gradient(grad[:0], x[:0]) is None
    assert kernels.weight_gradient(grad, x, torch.zeros(64, 32)) is None
    assert kernels.weight_gradient(grad, x, torch.zeros(32, 64, dtype=BF16)) is None
    assert kernels.weight_gradient(grad, x, torch.zeros(32, 128)[:, ::2]) is None
    monkeypatch.setattr(kernels, "has_tiles", lambda: False)
    assert kernels.weight_gradient(grad, x) is None


SHAPES = [(32, 32), (96, 64), (64, 160), (224, 32), (640, 2112), (2112, 640)]  # the last two in parts


@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 32, 47, 64, 65, 130])
@pytest.mark.parametrize(("outputs", "features"), SHAPES)
@pytest.mark.parametrize("dtype", [FP32, BF16])
@pytest.mark.usefixtures("tiles")
def test_a_product_and_its_way_back(tokens: int, outputs: int, features: int, dtype: torch.dtype, threads: int) -> None:
    weight, bias = draw(outputs, features, dtype=dtype), draw(outputs, seed=3, dtype=dtype)
    x, grad = draw(tokens, features, seed=1), draw(tokens, outputs, seed=2)
    rounded = weight.to(BF16).double()
    for found, expected in (
        (kernels.linear(x, weight), x.double() @ rounded.T),
        (kernels.linear(x, weight, bias), x.double() @ rounded.T + bias.to(BF16).double()),
        (kernels.linear_back(grad, weight), grad.double() @ rounded),
    ):
        assert found is not None
        assert found.dtype == BF16
        # Half a step of bfloat16 of the number, and the rounding of sums in float32.
        assert ((found.double() - expected).abs() <= expected.abs() * 2**-8 + 1e-4).all()


@pytest.mark.usefixtures("tiles")
def test_a_large_weight_is_laid_out_in_parts(threads: int) -> None:
    weight, x, grad = draw(1216, 1024, dtype=FP32), draw(70, 1024, seed=1), draw(70, 1216, seed=2)  # 1,024 at a time
    wide = draw(1024, 1216, dtype=FP32)
    for found, expected in (
        (kernels.linear(x, weight), x.double() @ weight.to(BF16).double().T),
        (kernels.linear_back(draw(70, 1024, seed=2), wide), draw(70, 1024, seed=2).double() @ wide.to(BF16).double()),
        (kernels.linear_back(grad, weight), grad.double() @ weight.to(BF16).double()),
    ):
        assert found is not None
        assert ((found.double() - expected).abs() <= expected.abs() * 2**-8 + 1e-3).all()


@pytest.mark.usefixtures("tiles")
def test_a_row_has_its_numbers_whatever_stands_beside_it_and_whoever_computes() -> None:
    """What does not fill a tile is filled up; what is not finite stays in its row."""
    weight, before = draw(96, 64, dtype=FP32), torch.get_num_threads()
    x, grad = draw(90, 64, seed=1), draw(90, 96, seed=2)
    x[7], grad[7] = torch.nan, torch.inf
    x[50, 3] = torch.inf
    try:
        whole = kernels.linear(x, weight), kernels.linear_back(grad, weight)
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            for rows in (slice(0, 1), slice(5, 38), slice(51, 90), slice(8, 50)):
                for all_rows, some in zip(
                    whole, (kernels.linear(x[rows], weight), kernels.linear_back(grad[rows], weight)), strict=True
                ):
                    assert all_rows is not None
                    assert some is not None
                    assert_close(some, all_rows[rows], rtol=0, atol=0, equal_nan=True)
    finally:
        torch.set_num_threads(before)
    assert whole[0] is not None
    assert whole[0].isfinite().all(-1).logical_not().nonzero().flatten().tolist() == [7, 50]


@pytest.mark.usefixtures("tiles")
def test_products_that_do_not_fit_are_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = draw(8, 64), draw(32, 64, dtype=FP32)
    assert kernels.linear(x, weight) is not None
    assert kernels.linear(x.float(), weight) is None
    assert kernels.linear(x, weight.double()) is None
    assert kernels.linear(x, weight[:, :32]) is None
    assert kernels.linear(draw(8, 32), weight[:, :32]) is None  # not without gaps
    assert kernels.linear(draw(64, 8).T, weight) is None
    assert kernels.linear(draw(8, 48), draw(32, 48)) is None
    assert kernels.linear(x, draw(48, 64)) is None
    assert kernels.linear(x[:0], weight) is None
    assert kernels.linear(x[0], weight) is None
    assert kernels.linear(x, weight, draw(31)) is None
    assert kernels.linear_back(draw(8, 32), weight) is not None
    assert kernels.linear_back(x, weight) is None
    monkeypatch.setattr(kernels, "has_tiles", lambda: False)
    assert kernels.linear(x, weight) is None


def layers(bias: bool) -> tuple[nn.Sequential, nn.Sequential]:
    """Two layers as they are, and with products of our own."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(64, 96, bias=bias), nn.Linear(96, 32, bias=bias))
    exact = copy.deepcopy(plain)
    assert own_products(exact) == 2
    assert own_products(exact) == 0  # once
    return plain, exact


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [FP32, BF16])
@pytest.mark.usefixtures("tiles")
def test_all_but_the_rounding_is_autocasts(bias: bool, dtype: torch.dtype) -> None:
    found = []
    x = draw(3, 41, 64, dtype=dtype)
    for net in (*layers(bias), layers(bias)[0].double()):
        own = (x.double() if net[0].weight.dtype == torch.float64 else x).clone().requires_grad_()
        with torch.autocast("cpu", BF16, enabled=own.dtype != torch.float64):
            y = net(own)
            y.square().sum().backward()
        found.append((y, own.grad, *(p.grad for p in net.parameters())))
    plain, exact, truth = found
    assert exact[0].dtype == BF16
    assert exact[1].dtype == dtype
    for a, b, c in zip(plain, exact, truth, strict=True):
        assert a.dtype == b.dtype
        assert (b - c).norm() < 1.02 * (a - c).norm() < 0.02 * c.norm()
    assert torch.equal(plain[2], plain[2].to(BF16).float())  # what autocast rounds
    assert not torch.equal(exact[2], exact[2].to(BF16).float())


@pytest.mark.parametrize("what", ["scoring", "frozen", "bfloat16"])
@pytest.mark.usefixtures("tiles")
def test_passes_without_gradients_of_weights(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, real = [], kernels.linear
    monkeypatch.setattr(kernels, "linear", lambda *args: (calls.append(args), real(*args))[1])
    plain, net = layers(True)
    x = draw(5, 64).requires_grad_(what == "frozen")
    for model in (plain, net):
        model.requires_grad_(False)
        if what != "scoring":
            model.to(BF16)
    grads = []
    for model in (plain, net):
        with torch.autocast("cpu", BF16, enabled=what != "bfloat16"), torch.set_grad_enabled(what == "frozen"):
            y = model(x)
        if what == "frozen":
            grads.append(torch.autograd.grad(y.sum(), x)[0])
        grads.append(y)
    assert len(calls) == 2
    for a, b in zip(grads[: len(grads) // 2], grads[len(grads) // 2 :], strict=True):
        assert a.dtype == b.dtype == BF16
        assert_close(a, b, rtol=0.02, atol=0.02)


@pytest.mark.usefixtures("tiles")
def test_packs_are_summed() -> None:
    _, net = layers(False)
    whole, parts = draw(50, 64), copy.deepcopy(net)
    with torch.autocast("cpu", BF16):
        net(whole).square().sum().backward()
        for part in whole.split(17):
            parts(part).square().sum().backward()
    for a, b in zip(net.parameters(), parts.parameters(), strict=True):
        assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("tiles")
def test_the_gradient_is_kept_as_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not copied on its way to the weight."""
    made, real = [], kernels.weight_gradient

    def remembered(*args: Any) -> Tensor | None:
        found = real(*args)
        assert found is not None
        made.append(found.data_ptr())
        return found

    monkeypatch.setattr(kernels, "weight_gradient", remembered)
    _, net = layers(False)
    with torch.autocast("cpu", BF16):
        net(draw(5, 64)).sum().backward()
    assert {p.grad.data_ptr() for p in net.parameters() if p.grad is not None} == set(made)


def test_second_derivatives_are_autocasts() -> None:
    found = []
    for net in layers(True):
        with torch.autocast("cpu", BF16):
            y = torch.tanh(net(draw(9, 64))).square().sum()
            first = torch.autograd.grad(y, [*net.parameters()], create_graph=True)
            second = torch.autograd.grad(sum(g.square().sum() for g in first), [*net.parameters()])
        found.append([x.detach() for x in (*first, *second)])
    for a, b in zip(*found, strict=True):
        assert a.abs().sum() > 0
        assert_close(a, b, rtol=0.02, atol=0.02 * float(a.abs().max()))


def test_other_passes_are_pytorchs(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, net = layers(True)
    monkeypatch.setattr(linear, "_Linear", None)
    x = draw(5, 64, dtype=FP32)
    assert torch.equal(net(x), plain(x))  # float32
    with torch.autocast("cpu", BF16):
        assert torch.equal(net[0](input=x[0]), plain[0](x[0]))  # one vector
    assert own_products(nn.Sequential(nn.Linear(48, 64), nn.Linear(64, 1))) == 0
    assert own_products(nn.Linear(64, 64, device="meta")) == 0


def test_nothing_is_compiled_for_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled() -> None:
        raise AssertionError("compiled")

    monkeypatch.setattr(kernels, "has_tiles", compiled)
    monkeypatch.setattr(adamw, "library", compiled)
    assert own_products(nn.Linear(64, 64, device="meta")) == 0
    assert own_products(nn.Linear(48, 64)) == 0
    x, matrix, bias = (torch.ones(size, device="meta", dtype=BF16) for size in ((4, 64), (96, 64), (96,)))
    assert kernels.linear(x, matrix, bias) is None
    assert kernels.linear_back(torch.ones(4, 96, device="meta", dtype=BF16), matrix) is None
    weight = torch.ones(3, device="meta")
    assert not adamw.Parameters([weight], [weight]).fit


def test_only_what_is_needed_is_kept() -> None:
    """Under adapters a frozen layer's input is nobody's, where its weights' gradient is not asked for."""
    _, net = layers(True)
    net.requires_grad_(False)
    kept: list[tuple[int, ...]] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (kept.append(x.shape), x)[1], lambda x: x):  # type: ignore[func-returns-value]
        with torch.autocast("cpu", BF16):
            net(draw(5, 64).requires_grad_())
        assert kept == [(96, 64), (32, 96)]
        kept.clear()
        net.requires_grad_(True)
        with torch.autocast("cpu", BF16):
            net[0](draw(5, 64))
        assert kept == [(5, 64)]


def test_weights_are_read_as_they_are() -> None:
    _, net = layers(False)
    x = draw(5, 64).requires_grad_()
    with torch.autocast("cpu", BF16):
        first = net(x)
        with torch.no_grad():
            net[0].weight.mul_(2)
        assert not torch.equal(net(x), first)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            first.sum().backward()


@pytest.mark.usefixtures("tiles")
def test_the_heads_gradient_is_not_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, state, token = draw(96, 64, dtype=FP32), draw(40, 64, dtype=FP32, seed=1), torch.arange(40)
    found = []
    for how in ("exact", "plain", "truth"):
        if how == "plain":
            monkeypatch.setattr(kernels, "weight_gradient", lambda *_: None)
        own = (weight.double() if how == "truth" else weight).clone().requires_grad_()
        with torch.autocast("cpu", BF16, enabled=how != "truth"):
            token_logprob(state.to(own.dtype), Head(own), token)[0].sum().backward()
        assert own.grad is not None
        found.append(own.grad)
    exact, plain, truth = found
    assert (exact - truth).norm() < (plain - truth).norm() < 0.02 * truth.norm()
    assert torch.equal(plain, plain.to(BF16).float())
    assert not torch.equal(exact, exact.to(BF16).float())


@pytest.mark.usefixtures("tiles")
def test_a_token_has_its_log_probability_whatever_stands_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that policy and reference agree to the bit before the first step, however their packs are made up."""
    state, weight, bias = draw(70, 64), draw(96, 64, seed=1, dtype=FP32), draw(96, seed=2, dtype=FP32)
    token = torch.arange(70) % 96
    with torch.autocast("cpu", BF16):
        whole = token_logprob(state, Head(weight, bias), token)[0]
        for part in (slice(0, 1), slice(3, 20), slice(31, 70)):
            assert torch.equal(token_logprob(state[part], Head(weight, bias), token[part])[0], whole[part])
        assert torch.equal(token_logprob(state, Head(weight.to(BF16), bias), token)[0], whole)
        monkeypatch.setattr(head_module, "GROUP_BYTES", 9 * 2 * 96)
        assert torch.equal(token_logprob(state, Head(weight, bias), token)[0], whole)


def test_states_may_lie_apart_where_the_head_reads_them() -> None:
    weight, token = draw(96, 64, seed=1, dtype=FP32), torch.arange(40) % 96
    found = []
    for state in (draw(64, 40).T, draw(64, 40).T.contiguous()):
        own = weight.clone().requires_grad_()
        with torch.autocast("cpu", BF16):
            logprob = token_logprob(state, Head(own), token)[0]
            logprob.sum().backward()
        assert own.grad is not None
        found.append((logprob.detach(), own.grad))
    assert_close(found[0], found[1], rtol=0, atol=0)


@pytest.mark.parametrize("group", [2**20, 9 * 2 * 96])
def test_gradients_of_the_head(group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_module, "GROUP_BYTES", group)
    token, found = torch.arange(40) % 96, []
    for autocast in (True, False):
        leaves = [draw(40, 64).float(), draw(96, 64, seed=1).float() * 0.2, draw(96, seed=2).float()]
        state, weight, bias = (x.requires_grad_() for x in leaves)
        with torch.autocast("cpu", BF16, enabled=autocast):
            logprob, entropy = token_logprob(state, Head(weight, bias), token, entropy=True)
            assert entropy is not None
            (logprob.sum() + 0.3 * entropy.sum()).backward()
        found.append([logprob.detach(), *(x.grad for x in (state, weight, bias))])
    for ours, exact in zip(*found, strict=True):
        assert ours is not None
        assert exact is not None
        assert ours.dtype == FP32
        assert (ours - exact).norm() < 0.01 * exact.norm()


def test_a_model_goes_through_them_once_it_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls, real = tiny_llama(hidden=64), [], kernels.weight_gradient
    monkeypatch.setattr(kernels, "weight_gradient", lambda *args: (calls.append(len(args[1])), real(*args))[1])
    prepare(model)
    batch = pack([PromptTree((5, 6, 7), (Branch.response((8, 9)), Branch.response((3,))))])
    with torch.autocast("cpu", BF16):
        response_scores(model, batch).logprob_T.sum().backward()
    assert calls.count(len(batch.token_T)) == 7 * len(model.model.layers)  # the head's vocabulary is no multiple of 32


def test_sampling_reads_the_librarys_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, net = layers(True)
    monkeypatch.setattr(linear, "_Linear", None)
    x = draw(5, 64)
    with torch.autocast("cpu", BF16):
        with linear.library_products(), linear.library_products():
            assert torch.equal(net(x), plain(x))
        with pytest.raises(AttributeError), linear.library_products():
            raise AttributeError
        with pytest.raises(AttributeError):  # behind it they are our own again
            net(x)
