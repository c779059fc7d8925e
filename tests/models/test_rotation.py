"""Rotations that round once: the values and gradients of transformers' own, second derivatives, foreign ones left."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers.models.llama import modeling_llama

from accord.models import rotation
from accord.models.quiet import quiet
from accord.models.rotation import _rotated, rotate_once
from accord.models.score import prepare

SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
TOKEN = torch.randint(0, 40, (2, 9), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", [(LlamaForCausalLM, LlamaConfig), (Qwen3ForCausalLM, Qwen3Config)])
@pytest.mark.parametrize("half", [False, True])
def test_models_compute_what_they_did(kind: Any, half: bool) -> None:
    torch.manual_seed(0)
    plain = kind[0](kind[1](**SIZES))
    ours = copy.deepcopy(plain)
    assert rotate_once(ours) == 2
    assert rotate_once(ours) == 0
    found = []
    for model in (plain, ours, copy.deepcopy(ours)):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            out = model(input_ids=TOKEN, labels=TOKEN)
        out.loss.backward()
        found.append([out.logits.detach(), *(p.grad for p in model.parameters())])
    for values in zip(*found, strict=True):
        for ours_too in values[1:]:
            torch.testing.assert_close(ours_too, values[0], rtol=2e-2 if half else 1e-5, atol=1e-3 if half else 1e-6)


def test_the_cache_of_a_sampler_holds_turned_keys() -> None:
    torch.manual_seed(0)
    plain: Any = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    ours = copy.deepcopy(plain)
    rotate_once(ours)
    with torch.no_grad():
        a, b = (model.generate(TOKEN, max_new_tokens=6, do_sample=False) for model in (plain, ours))
    assert torch.equal(a, b)


def test_first_and_second_derivatives() -> None:
    x = torch.randn(1, 2, 3, 8, dtype=torch.float64, requires_grad=True)
    half = torch.randn(1, 3, 4, dtype=torch.float64)
    angle = torch.cat([half, half], -1)

    def ours(x: torch.Tensor) -> torch.Tensor:
        return _rotated(x, x[:, :1], angle.cos(), angle.sin())[0].tanh()

    assert torch.autograd.gradcheck(ours, (x,))
    assert torch.autograd.gradgradcheck(ours, (x,))


def test_another_rotation_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = LlamaForCausalLM(LlamaConfig(**SIZES))

    def interleaved(q: Any, k: Any, cos: Any, sin: Any, unsqueeze_dim: int = 1) -> Any:
        return q * cos.unsqueeze(1), k

    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", interleaved)
    assert rotate_once(model) == 0
    assert rotation._ATTENTION  # and not for want of names


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 2.0},
        {"rope_type": "dynamic", "factor": 2.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4},  # turns and stretches
        {
            "rope_type": "llama3",
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 4,
        },
    ],
)
def test_angles_that_a_model_scales(rope: dict[str, Any]) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES, max_position_embeddings=16, rope_parameters={"rope_theta": 100.0, **rope})
    plain, found = LlamaForCausalLM(config), []
    ours = copy.deepcopy(plain)
    assert rotate_once(ours) == 2
    for model in (plain, ours):
        out = model(input_ids=TOKEN, labels=TOKEN)
        out.loss.backward()
        found.append([out.logits.detach(), *(p.grad for p in model.parameters())])
    for theirs, mine in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_adapters_and_blocks_that_are_computed_again() -> None:
    torch.manual_seed(0)
    plain: Any = LlamaForCausalLM(LlamaConfig(**SIZES))
    plain = get_peft_model(plain, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)).train()
    ours, found = copy.deepcopy(plain), []
    assert rotate_once(ours) == 2
    with quiet():
        ours.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
    for model in (plain, ours):
        model(input_ids=TOKEN, labels=TOKEN).loss.backward()
        found.append([p.grad for p in model.parameters() if p.requires_grad])
    for theirs, mine in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_it_is_tried_whatever_holds_where_the_model_is_prepared() -> None:
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    with torch.device("meta"), torch.autocast("cpu", torch.bfloat16):
        assert rotate_once(model) == 2


def test_a_prepared_model_turns_once_and_under_autocast_in_its_dtype() -> None:
    model: Any = LlamaForCausalLM(LlamaConfig(**SIZES))
    prepare(model)
    assert rotate_once(model) == 0
    q, angle = torch.randn(1, 2, 3, 8), torch.randn(1, 3, 8)
    assert _rotated(q, q, angle, angle)[1].dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert [x.dtype for x in _rotated(q, q, angle, angle)] == [torch.bfloat16] * 2
