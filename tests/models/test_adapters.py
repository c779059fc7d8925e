"""Linear layers with low-rank adapters as one function, against PEFT's own."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from accord.models.adapters import own_adapters
from accord.models.linear import library_products, own_products
from accord.models.score import prepare, response_states
from accord.train.loop import Precision, add_lora
from accord.trees import pack
from fakes import tiny_llama
from train.test_memory import LONG_TREES

BF16, FP32 = torch.bfloat16, torch.float32


class Block(nn.Module):
    def __init__(self, features: int = 64, outputs: int = 96, bias: bool = True) -> None:
        super().__init__()
        self.layer = nn.Linear(features, outputs, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x)
        return found


def adapted(rank: int = 4, dtype: torch.dtype = BF16, bias: bool = True, **how: Any) -> nn.Module:
    """A layer with an adapter of numbers that are not zero, its weight frozen."""
    torch.manual_seed(0)
    block = Block(bias=bias).requires_grad_(False).to(dtype)
    model = get_peft_model(block, LoraConfig(r=rank, lora_alpha=3 * rank, target_modules=["layer"], **how))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.3)
    return model


def layer_of(model: nn.Module) -> Any:
    return model.get_base_model().layer  # type: ignore[operator]


def run(model: nn.Module, x: Tensor, seed: int = 1, autocast: bool = True) -> tuple[Tensor, list[Tensor]]:
    """The result, and gradients of x and of what is trained."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", BF16, enabled=autocast):
        y = model(x)
    y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(seed)).to(y.dtype))
    trained = [p for p in model.parameters() if p.requires_grad]
    return y.detach(), [x.grad, *(p.grad for p in trained)]  # type: ignore[list-item]


def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one at each call of the one function."""
    from accord.models import adapters

    calls: list[int] = []
    real = adapters._Adapted.apply
    monkeypatch.setattr(adapters._Adapted, "apply", lambda *of: (calls.append(1), real(*of))[1])
    return calls


@pytest.mark.parametrize("rank", [1, 16, 40])
@pytest.mark.parametrize("dtype", [BF16, FP32])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(70, 64), (2, 9, 64)])
def test_it_errs_as_much_as_pefts_layer(
    rank: int, dtype: torch.dtype, bias: bool, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = adapted(rank, dtype, bias)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    exact = copy.deepcopy(plain).double()
    ours = copy.deepcopy(plain)
    own_products(ours)
    assert own_adapters(ours) == 1
    assert own_adapters(ours) == 0  # once
    calls = taken(monkeypatch)
    truth = run(exact, x.to(BF16).double(), autocast=False)
    found, theirs = run(ours, x), run(plain, x)
    assert len(calls) == 1
    assert found[0].dtype == theirs[0].dtype == BF16
    for a, b, c in zip((found[0], *found[1]), (theirs[0], *theirs[1]), (truth[0], *truth[1]), strict=True):
        assert a.shape == c.shape
        assert a.dtype == b.dtype
        assert (a - c).norm() < 1.4 * (b - c).norm() < 0.02 * c.norm()


def test_what_is_not_trained_has_no_gradient_and_a_frozen_weight_may_be_asked_for_one() -> None:
    model = adapted()
    own_adapters(model)
    layer_of(model).base_layer.requires_grad_(True)
    layer_of(model).lora_A.requires_grad_(False)
    plain = adapted()
    layer_of(plain).base_layer.requires_grad_(True)
    layer_of(plain).lora_A.requires_grad_(False)
    x = torch.randn(30, 64)
    (_, ours), (_, theirs) = run(model, x), run(plain, x)
    assert len(ours) == len(theirs) == 4
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0.03, atol=0.05)
    assert layer_of(model).lora_A["default"].weight.grad is None


@pytest.mark.parametrize("shape", [(30, 64), (2, 15, 64)])
def test_second_derivatives_are_those_of_pefts_layer(shape: tuple[int, ...]) -> None:
    """Of two layers: the gradient of the second one's adapter depends on the first one by its input."""
    found = []
    for own in (True, False):
        layers = adapted(), adapted()
        if own:
            assert [own_adapters(layer) for layer in layers] == [1, 1]
        weights = [p for layer in layers for p in layer.parameters() if p.requires_grad]
        x = torch.randn(shape, generator=torch.Generator().manual_seed(4)).requires_grad_()
        with torch.autocast("cpu", BF16):
            result = layers[1](torch.tanh(layers[0](x))[..., :64])
            first = torch.autograd.grad(result.float().square().sum(), [*weights, x], create_graph=True)
            inner = sum((g * torch.sin(torch.arange(g.numel()).view_as(g))).sum() for g in first)
            found.append(torch.autograd.grad(inner, [*weights, x]))  # type: ignore[arg-type]
    assert len(found[0]) == 5
    for a, b in zip(*found, strict=True):
        assert (a - b).norm() < 0.03 * b.norm()
        assert b.norm() > 1


def test_a_result_may_be_written_into_and_a_layer_kept() -> None:
    model = adapted()
    own_adapters(model)
    own_products(model)
    x = torch.randn(2, 9, 64)
    with torch.autocast("cpu", BF16):
        y = layer_of(model)(x)
        expected = y + 1
        y += 1
        assert torch.equal(y, expected)
        y.float().sum().backward()
        again = pickle.loads(pickle.dumps(layer_of(model)))
        assert torch.equal(again(x) + 1, expected) or (again(x) + 1 - expected).norm() < 0.01 * expected.norm()


def odd(model: nn.Module, what: str) -> None:
    layer = layer_of(model)
    if what == "hook":
        layer.lora_B["default"].register_forward_hook(lambda module, inputs, output: output * 2)
    elif what == "two adapters":
        model.add_adapter("other", LoraConfig(r=2, target_modules=["layer"], init_lora_weights=False))  # type: ignore
        model.base_model.set_adapter(["default", "other"])  # type: ignore[union-attr, operator]
    elif what == "switched off":
        model.base_model.disable_adapter_layers()  # type: ignore[union-attr, operator]
    elif what == "merged":
        model.merge_adapter()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("what", "how"),
    [
        ("hook", {}),
        ("two adapters", {}),
        ("switched off", {}),
        ("merged", {}),
        ("dropout", {"lora_dropout": 0.5}),
        ("dora", {"use_dora": True}),
        ("bias", {"lora_bias": True}),
    ],
)
def test_what_is_not_plain_is_left_to_peft(what: str, how: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    ours, plain = adapted(**how).train(), adapted(**how).train()
    own_adapters(ours)
    calls, x = taken(monkeypatch), torch.randn(12, 64)
    found = []
    for model in (ours, plain):
        torch.manual_seed(7)
        odd(model, what)
        with torch.autocast("cpu", BF16):
            found.append(model(x))
    assert not calls
    assert torch.equal(*found)
    if what == "dropout":  # which an evaluation has not
        with torch.autocast("cpu", BF16):
            ours.eval()(x)
        assert calls


def test_float32_and_sampling_are_left_to_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = adapted(dtype=FP32), torch.randn(12, 64)
    own_adapters(model)
    calls = taken(monkeypatch)
    model(x)
    with library_products(), torch.autocast("cpu", BF16):
        model(x)
    assert not calls
    with torch.autocast("cpu", BF16):
        model(x)
    assert calls


def test_a_model_of_a_job_computes_what_pefts_layers_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, found = taken(monkeypatch), []
    for own in (True, False):
        torch.manual_seed(0)
        model: Any = tiny_llama(hidden=64)
        prepare(model)
        precision = Precision("bf16", torch.device("cpu"))
        model = add_lora(precision.freeze(model), 4, 0, base="")
        torch.manual_seed(1)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(weight, std=0.2)
        for module in model.modules():
            if not own and hasattr(module, "lora_A"):
                del module.forward
        with precision.forward():
            states = response_states(model, pack(LONG_TREES))
        states.float().square().sum().backward()
        trained = [p for p in model.parameters() if p.requires_grad]
        found.append([states.detach().float(), *(p.grad for p in trained)])
    assert len(calls) == 2 * 7
    for a, b in zip(*found, strict=True):
        assert (a - b).norm() < 0.03 * b.norm()
