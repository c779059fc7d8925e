"""Gradients that products add to what is there: the same sums, and only where it was asked for."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from accord.models import head, in_place, kernels, linear, whole_layer
from accord.models.in_place import backward, there
from accord.models.score import prepare, response_scores, trunk
from accord.trees import Branch, PromptTree, pack
from fakes import tiny_llama
from models.flash_written_out import as_on_a_gpu


def tree(seed: int) -> PromptTree:
    generator = torch.Generator().manual_seed(seed)
    prompt, *branches = (tuple(torch.randint(3, 250, (n,), generator=generator).tolist()) for n in (7, 9, 12, 5))
    return PromptTree(prompt, tuple(map(Branch.response, branches)))


@pytest.fixture(params=["linear layers", "whole layers"])
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """With the products of a CPU with matrix units, where there are; or with layers as on a GPU."""
    if request.param == "whole layers":
        as_on_a_gpu(monkeypatch)
    made = tiny_llama(hidden=64)
    prepare(made)
    assert ("forward" in vars(trunk(made).layers[0])) == (request.param == "whole layers")
    return made


def loss_of(model: Any, seed: int) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return response_scores(model, pack([tree(seed)])).logprob_T.mean()


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The gradients that products were given to add to."""
    found: list[torch.Tensor] = []

    def seen(weight: torch.Tensor) -> torch.Tensor | None:
        total = there(weight)
        if total is not None:
            found.append(total)
        return total

    for module in (head, linear, whole_layer):
        monkeypatch.setattr(module, "there", seen)
    return found


def by_products(whole: bool) -> int:
    """Weights whose products add: all matrices of two layers, where there are such products."""
    return 14 if whole or kernels.has_tiles() else 0


def test_packs_add_up_as_by_autograd(model, added) -> None:
    found, layer = [], trunk(model).layers[0]
    for run in (lambda loss: loss.backward(), backward):
        model.zero_grad()
        for seed in range(3):
            run(loss_of(model, seed))
        places = {total.data_ptr() for total in added}
        assert len(places) == (by_products("forward" in vars(layer)) if found else 0)
        found.append(gradients(model))
    assert found[0].keys() == found[1].keys()
    for name, expected in found[0].items():
        assert_close(found[1][name], expected, rtol=1e-4, atol=1e-6, msg=name)


def test_a_hook_of_a_weight_gets_every_gradient(model, added) -> None:
    weight = trunk(model).layers[1].mlp.up_proj.weight
    seen: list[int] = []
    weight.register_hook(lambda grad: seen.append(1) or grad * 0)
    for seed in range(3):
        backward(loss_of(model, seed))
    assert seen == [1, 1, 1]
    assert not weight.grad.any()
    assert weight.grad.data_ptr() not in {total.data_ptr() for total in added}


def test_a_gradient_that_is_asked_for_is_returned_and_leaves_what_is_there(model) -> None:
    weights = [p for p in model.parameters() if p.dim() > 1]
    expected = torch.autograd.grad(loss_of(model, 1), weights)
    backward(loss_of(model, 0))
    before = gradients(model)
    found = torch.autograd.grad(loss_of(model, 1), weights)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)
    for name, grad in gradients(model).items():
        assert torch.equal(grad, before[name]), name


def test_a_part_that_is_frozen_stays_without(model) -> None:
    layer = trunk(model).layers[0]
    for module in (layer.self_attn.k_proj, layer.mlp.gate_proj, layer.mlp.down_proj):
        module.weight.requires_grad_(False)
    whole = copy.deepcopy(model)
    for seed in range(2):
        backward(loss_of(model, seed))
        loss_of(whole, seed).backward()
    assert layer.mlp.down_proj.weight.grad is None
    expected = gradients(whole)
    for name, grad in gradients(model).items():
        assert_close(grad, expected[name], rtol=1e-4, atol=1e-6, msg=name)


def test_what_a_product_may_add_to() -> None:
    weight = torch.zeros(4, 2, requires_grad=True)
    seen: list[torch.Tensor | None] = []

    class Look(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.sum()

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            seen.append(there(weight))
            return grad.expand(4, 2).clone()

    backward(Look.apply(weight))
    assert seen == [None]  # nothing is there
    assert there(weight) is None  # nobody asked
    backward(Look.apply(weight))
    assert seen[1] is weight.grad
    with pytest.raises(RuntimeError):
        backward(weight.detach())
    assert there(weight) is None


def test_a_gradient_that_products_cannot_write_is_left_to_autograd(monkeypatch) -> None:
    monkeypatch.setattr(in_place, "_asked_for", True)
    weight = torch.zeros(4, 2, requires_grad=True)
    weight.grad = torch.zeros(4, 2)
    assert there(weight) is weight.grad
    weight.grad = torch.zeros(2, 4).T
    assert there(weight) is None
    assert there(weight * 2) is None


@pytest.mark.skipif(not kernels.has_tiles(), reason="no matrix units")
@pytest.mark.parametrize("room", [head.GROUP_BYTES, 4096], ids=["one group", "several"])
def test_the_heads_products_add_too(monkeypatch, added, room) -> None:
    monkeypatch.setattr(head, "GROUP_BYTES", room)
    generator, grads = torch.Generator().manual_seed(0), []
    weight = torch.randn(96, 64, generator=generator).requires_grad_()
    hidden = [torch.randn(70, 64, generator=generator).bfloat16() for _ in range(2)]
    token = torch.arange(70) % 96
    for run in (lambda loss: loss.backward(), backward):
        weight.grad = None
        for state in hidden:
            with torch.autocast("cpu", torch.bfloat16):
                run(head.token_logprob(state, head.Head(weight), token)[0].mean())
        grads.append(weight.grad)
    assert [total.data_ptr() for total in added] == [weight.grad.data_ptr()]
    assert_close(*grads, rtol=1e-5, atol=1e-7)
