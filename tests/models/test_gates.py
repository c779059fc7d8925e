"""Gated layers that keep less: the same numbers, fewer bytes, second derivatives, other families left alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import GemmaConfig, GemmaForCausalLM, LlamaConfig, LlamaForCausalLM

from accord.models import gates, kernels
from accord.models.gates import keep_two, keeps_two
from accord.models.quiet import quiet

SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "attn_implementation": "eager",  # its backward pass has one of its own
}
TOKEN = torch.randint(0, 40, (2, 9), generator=torch.Generator().manual_seed(1))


def both(adapters: bool = False) -> tuple[Any, Any]:
    torch.manual_seed(0)
    plain: Any = LlamaForCausalLM(LlamaConfig(**SIZES))
    if adapters:
        plain = get_peft_model(plain, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    ours = copy.deepcopy(plain)
    assert keeps_two(ours)
    assert keep_two(ours) == 2
    return plain, ours


@pytest.fixture
def written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's operations, which are the model's own; a kernel's exponential may differ in the last bit."""
    monkeypatch.setattr(kernels, "library", lambda: None)


def loss_of(model: Any, half: bool) -> Any:
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        return model(input_ids=TOKEN, labels=TOKEN).loss


@pytest.mark.parametrize("adapters", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_gradients_with_kernels(half: bool, adapters: bool) -> None:
    plain, ours = both(adapters)
    for model in (plain, ours):
        loss_of(model, half).backward()
    for (name, p), q in zip(plain.named_parameters(), ours.parameters(), strict=True):
        if p.requires_grad:
            assert (p.grad - q.grad).norm() <= (1e-2 if half else 1e-5) * p.grad.norm(), name


@pytest.mark.usefixtures("written_out")
@pytest.mark.parametrize("adapters", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_gradients_are_the_same_bit_for_bit(half: bool, adapters: bool) -> None:
    plain, ours = both(adapters)
    for model in (plain, ours, (twin := copy.deepcopy(ours))):
        loss_of(model, half).backward()
    for (name, p), q, r in zip(plain.named_parameters(), ours.parameters(), twin.parameters(), strict=True):
        if p.requires_grad:
            assert torch.equal(p.grad, q.grad), name
            assert torch.equal(p.grad, r.grad), name


def test_second_derivatives_are_those_of_the_plain_layer() -> None:
    found = []
    for model in both():
        weights = list(model.parameters())
        first = torch.autograd.grad(loss_of(model, False), weights, create_graph=True)
        found.append(torch.autograd.grad(sum(g.square().sum() for g in first), weights))
    for plain, ours in zip(*found, strict=True):
        assert (plain - ours).norm() < 1e-5 * plain.norm()


def test_two_of_four_tensors_are_kept() -> None:
    """Whoever counts memory alone would not see a hook that keeps the product in its recipe."""
    found = []
    for model in both():
        layer = model.model.layers[0].mlp
        x = torch.randn(1024, 32)
        loss = layer(x).square().sum()
        tensors: dict[int, int] = {}
        todo, seen = [loss.grad_fn], set()
        while todo:
            node = todo.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            todo += [one for one, _ in node.next_functions]
            for name in dir(node):
                if name.startswith("_raw_saved_") or name == "saved_tensors":
                    kept = getattr(node, name)
                    for one in kept if isinstance(kept, tuple) else [kept]:
                        held = one if isinstance(one, torch.Tensor) else one.data
                        held = held if isinstance(held, tuple) else (held,)
                        for tensor in held:
                            if isinstance(tensor, torch.Tensor) and tensor.shape[-1] == 64 and tensor.dim() == 2:
                                tensors[tensor.data_ptr()] = tensor.numel()
        found.append(sum(n for n in tensors.values() if n == 1024 * 64) // (1024 * 64))
    assert found == [4, 2]


@pytest.mark.usefixtures("written_out")
def test_a_block_that_is_computed_again_keeps_no_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hooks within it would hide gate and up from those that throw them away, and keep them for every block."""
    made: list[object] = []
    recipe = gates._instead_of
    monkeypatch.setattr(gates, "_instead_of", lambda *parts: made.append(parts) or recipe(*parts))
    plain, ours = both()
    for model in (plain, ours):
        model.train()
        with quiet():
            model.gradient_checkpointing_enable({"use_reentrant": False})
        loss_of(model, False).backward()
    assert made == []
    for (name, p), q in zip(plain.named_parameters(), ours.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad), name
    with quiet():
        ours.gradient_checkpointing_disable()
    loss_of(ours, False)
    assert len(made) == 2


@pytest.mark.usefixtures("written_out")
def test_without_gradients_and_in_other_families_nothing_changes() -> None:
    plain, ours = both()
    with torch.no_grad():
        assert torch.equal(plain(input_ids=TOKEN).logits, ours(input_ids=TOKEN).logits)
    assert keep_two(ours) == 0  # once is enough
    gemma = GemmaForCausalLM(GemmaConfig(**SIZES, head_dim=8))
    assert not keeps_two(gemma)
    other = LlamaForCausalLM(LlamaConfig(**SIZES, hidden_act="gelu"))
    assert keep_two(other) == 0
    assert isinstance(other.model.layers[0].mlp, nn.Module)


def test_a_reference_rounds_where_the_policy_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiled product rounds once, the model's own twice: without gradients, and where blocks are computed again in
    the backward pass, it has to be the same one. Here another function stands for the compiled one."""
    monkeypatch.setattr(gates, "_product", lambda gate, up: 2 * nn.functional.silu(gate) * up)
    plain, ours = both()
    expected = ours(input_ids=TOKEN).logits
    assert not torch.allclose(expected, plain(input_ids=TOKEN).logits)
    with torch.no_grad():
        assert torch.equal(ours(input_ids=TOKEN).logits, expected)
    with quiet():
        ours.gradient_checkpointing_enable({"use_reentrant": False})
    assert torch.equal(ours.train()(input_ids=TOKEN).logits, expected)
