"""Float32 gradients of weights by matrix units: what autocast computes, but for its rounding of them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from accord.models import kernels, linear
from accord.models.head import Head, token_logprob
from accord.models.linear import casting_once, forget_casts, gradients_in_float32
from accord.models.score import prepare, response_scores
from accord.trees import Branch, PromptTree, pack
from fakes import tiny_llama

BF16, FP32 = torch.bfloat16, torch.float32


@pytest.fixture
def tiles() -> None:
    if not kernels.has_tiles():
        pytest.skip("no matrix units here")


@pytest.fixture(autouse=True)
def as_with_tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere the layers are tried with PyTorch's product in place of the kernel."""
    if "tiles" not in request.fixturenames:
        monkeypatch.setattr(kernels, "has_tiles", lambda: True)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = BF16) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("tokens", [1, 2, 31, 33, 64, 1024, 1025, 2100])
@pytest.mark.parametrize(("outputs", "features"), [(32, 32), (96, 64), (64, 160)])
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


def layers(bias: bool) -> tuple[nn.Sequential, nn.Sequential]:
    """A layer as it is and one whose gradient is exact."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(64, 96, bias=bias), nn.Linear(96, 32, bias=bias))
    exact = copy.deepcopy(plain)
    assert gradients_in_float32(exact) == 2
    assert gradients_in_float32(exact) == 0  # once
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
    assert torch.equal(plain[0], exact[0])
    assert torch.equal(plain[1], exact[1])
    for a, b, c in zip(plain[2:], exact[2:], truth[2:], strict=True):
        assert a.dtype == b.dtype == FP32
        assert (b - c).norm() < 1.01 * (a - c).norm() < 0.02 * c.norm()
    assert torch.equal(plain[2], plain[2].to(BF16).float())  # what autocast rounds
    assert not torch.equal(exact[2], exact[2].to(BF16).float())


@pytest.mark.usefixtures("tiles")
def test_packs_are_summed() -> None:
    _, net = layers(False)
    whole, parts = draw(50, 64), copy.deepcopy(net)
    with torch.autocast("cpu", BF16), casting_once():
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
        with torch.no_grad():
            assert torch.equal(net(x), plain(x))
        net.requires_grad_(False)  # as under adapters
        assert torch.equal(net(x), plain(x))
        net.requires_grad_(True)
        plain[0](x[0])
        assert torch.equal(net[0](input=x[0]), plain[0](x[0]))  # one vector
    assert gradients_in_float32(nn.Sequential(nn.Linear(48, 64), nn.Linear(64, 1))) == 0
    assert gradients_in_float32(nn.Linear(64, 64, device="meta")) == 0


def test_weights_are_cast_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _, net = layers(False)
    x = draw(5, 64)
    with torch.autocast("cpu", BF16), casting_once():
        first = net(x)
        with torch.no_grad():
            net[0].weight.mul_(2)
        assert torch.equal(net(x), first)  # as autocast has it
        with casting_once():
            assert torch.equal(net(x), first)
        forget_casts()
        assert not torch.equal(net(x), first)
    with torch.autocast("cpu", BF16):
        second = net(x)
        with torch.no_grad():
            net[0].weight.mul_(2)
        assert not torch.equal(net(x), second)  # nobody said that they stay
    assert linear._cast is None


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


def test_a_model_goes_through_them_once_it_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls, real = tiny_llama(hidden=64), [], kernels.weight_gradient
    monkeypatch.setattr(kernels, "weight_gradient", lambda *args: (calls.append(len(args[1])), real(*args))[1])
    prepare(model)
    batch = pack([PromptTree((5, 6, 7), (Branch.response((8, 9)), Branch.response((3,))))])
    with torch.autocast("cpu", BF16), casting_once():
        response_scores(model, batch).logprob_T.sum().backward()
    assert calls.count(len(batch.token_T)) == 7 * len(model.model.layers)  # the head's vocabulary is no multiple of 32
