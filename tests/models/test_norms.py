"""Norms that round once: the values and gradients of the plain ones, second derivatives included."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import GemmaConfig, GemmaForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from accord.models.norms import _RmsNorm, round_once

SIZES = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.fixture
def norm() -> LlamaRMSNorm:
    torch.manual_seed(0)
    norm = LlamaRMSNorm(16)
    norm.weight.data.uniform_(0.5, 1.5)
    return norm


def test_values_are_the_plain_ones_rounded(norm: LlamaRMSNorm) -> None:
    x = torch.randn(3, 5, 16) * 4
    ours = _RmsNorm.apply(x, norm.weight, norm.variance_epsilon, torch.bfloat16)
    assert torch.equal(ours, norm(x).bfloat16())


def test_first_and_second_derivatives(norm: LlamaRMSNorm) -> None:
    x = torch.randn(4, 16, dtype=torch.float64, requires_grad=True)
    weight = norm.weight.detach().double().requires_grad_()

    def ours(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return _RmsNorm.apply(x, weight, 1e-3, torch.float64)

    assert torch.autograd.gradcheck(ours, (x, weight))
    assert torch.autograd.gradgradcheck(ours, (x, weight))


def test_the_gradient_is_not_rounded_under_autocast(norm: LlamaRMSNorm) -> None:
    x = torch.randn(64, 16)
    gradient = x + 0.01 * torch.randn(64, 16)  # mostly along x, where two large terms cancel
    found = {}
    for name in ("plain", "ours"):
        leaf = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = norm(leaf) if name == "plain" else _RmsNorm.apply(leaf, norm.weight, 1e-6, torch.float32)
            (found[name],) = torch.autograd.grad(out, leaf, gradient)
    assert (found["ours"] - found["plain"]).norm() < 1e-5 * found["plain"].norm()


def test_a_model_gives_the_same_states_and_gradients_under_autocast() -> None:
    torch.manual_seed(0)
    plain = LlamaForCausalLM(LlamaConfig(**SIZES))
    ours = copy.deepcopy(plain)
    assert round_once(ours) == 4
    token = torch.randint(0, 40, (2, 9))
    losses = {}
    for name, model in (("plain", plain), ("ours", ours), ("copy", copy.deepcopy(ours))):
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=token, labels=token).loss
        loss.backward()
        losses[name] = loss.item()
    assert losses["plain"] == losses["ours"] == losses["copy"]
    for (name, p), q in zip(plain.named_parameters(), ours.parameters(), strict=True):
        gap = (p.grad - q.grad).norm() / p.grad.norm()
        assert gap < 0.02, name


def test_without_autocast_nothing_changes() -> None:
    torch.manual_seed(0)
    plain = LlamaForCausalLM(LlamaConfig(**SIZES))
    ours = copy.deepcopy(plain)
    round_once(ours)
    token = torch.randint(0, 40, (2, 9))
    assert torch.equal(plain(input_ids=token).logits, ours(input_ids=token).logits)


def test_other_families_are_left_alone() -> None:
    # Gemma multiplies by 1 + w, and its block is not in the table.
    assert round_once(GemmaForCausalLM(GemmaConfig(**SIZES, head_dim=8))) == 0


def test_a_norm_that_computes_something_else_is_left_alone() -> None:
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    norm = model.model.layers[0].input_layernorm
    norm.register_forward_hook(lambda module, inputs, output: output * 2)
    assert round_once(model) == 3
