"""The written-out prompts and decoding steps against the model's own forward pass."""

from __future__ import annotations

import copy
from itertools import product

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from accord.models import kernels
from accord.models.kernels import decoding
from accord.models.kernels.decoding import Steps
from accord.rollouts import Rollout, Sampling, products
from accord.rollouts.cache import RowCache
from accord.rollouts.decoder import Decoder, decoder_of
from accord.rollouts.native import NativeSampler
from accord.rollouts.products import Apart
from accord.train.loop import Precision
from fakes import tiny_gemma, tiny_gpt2, tiny_llama, tiny_qwen

PROMPTS = [list(range(20, 43)), [7, 3], [9, 8], [60, 61, 62, 63, 64, 65, 66]]


def tiny_qwen3(heads: int = 16, inner: int = 48) -> nn.Module:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=inner,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=heads,
        max_position_embeddings=256,
    )
    return Qwen3ForCausalLM(config).eval()


def lively(model: nn.Module) -> nn.Module:
    """Weights large enough for attention, norms and biases to matter."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3).add_(0.2 * torch.randn_like(weight))
    return model


def adapted(
    model: nn.Module, size: float = 1.0, rank: int = 4, names: str | list[str] = "all-linear", **how: object
) -> nn.Module:
    """With low-rank adapters of numbers of this size that are not zero."""
    model = get_peft_model(model, LoraConfig(r=rank, target_modules=names, task_type="CAUSAL_LM", **how))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=size)
    return model


FAMILIES = {"llama": tiny_llama, "qwen2": tiny_qwen, "qwen3": tiny_qwen3}


def sampled(model: nn.Module, plain: bool, **how: object) -> list[Rollout]:
    sampler = NativeSampler(model, end_ids=range(40), max_rows=5, plain=plain, **how)
    rollouts_BK = sampler.sample(PROMPTS, Sampling(samples=3, max_new_tokens=12, seed=3))
    assert (sampler._decodes is True) is not plain
    return [rollout for rollouts_K in rollouts_BK for rollout in rollouts_K]


@pytest.mark.parametrize("family", FAMILIES)
def test_samples_are_those_of_the_models_own_forward_pass(family: str) -> None:
    model = lively(FAMILIES[family]().double())
    ours, plain = sampled(model, False), sampled(model, True)
    assert [rollout.tokens for rollout in ours] == [rollout.tokens for rollout in plain]
    assert len({len(rollout.tokens) for rollout in ours}) > 2  # rows retired at different steps
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(torch.tensor(a.logprob), torch.tensor(b.logprob), atol=3e-5, rtol=0)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_steps_by_kernels_are_those_without(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to rounding, which these weights make much of; rows leave and join."""
    if kernels.build.library() is None:
        pytest.skip("no C++ compiler")
    model, calls, real = lively(tiny_llama(hidden=128) if family == "llama" else tiny_qwen3(32, 64)), [], Steps.__call__

    def counted(*args: object) -> object:
        calls.append(found := real(*args))  # type: ignore[arg-type]
        return found

    monkeypatch.setattr(Steps, "__call__", counted)
    ours = sampled(model, False)
    assert len(calls) > 10
    assert all(found is not None for found in calls)
    step = Decoder(model, torch.bfloat16)
    begun, _, cache = step.prefill([[5, 6, 7], [8, 9]])
    token, position, mask = torch.tensor([4, 3]), torch.tensor([3, 2]), torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]])
    behind = step.step(token, position, mask, cache)
    monkeypatch.setattr(kernels, "library", lambda: None)
    monkeypatch.setattr(decoding, "library", lambda: None)
    calls.clear()
    plain = sampled(model, False)
    assert not calls
    assert [rollout.tokens for rollout in ours] == [rollout.tokens for rollout in plain]
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(torch.tensor(a.logprob), torch.tensor(b.logprob), atol=3e-4, rtol=0)
    rough, exact = Decoder(model, torch.bfloat16), Decoder(model, torch.float32)
    (rough_begun, _, cache), (first, _, wide) = (one.prefill([[5, 6, 7], [8, 9]]) for one in (rough, exact))
    rough_behind, second = rough.step(token, position, mask, cache), exact.step(token, position, mask, wide)
    for found, other, expected in ((begun, rough_begun, first), (behind, rough_behind, second)):
        assert (found - expected).norm() < 1.5 * (other - expected).norm() < 0.3 * expected.norm()


@pytest.mark.parametrize("lengths", [(2,), (9, 2, 5), (300, 40, 170)])
def test_prompts_without_padding_leave_the_same_cache(lengths: tuple[int, ...]) -> None:
    model = lively(tiny_llama())
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(0, 260, (length,), generator=generator).tolist() for length in lengths]
    logit_PV, mask_PT, cache = Decoder(model, torch.float32).prefill(prompts)
    assert mask_PT.sum(-1).tolist() == list(lengths)
    assert mask_PT[:, -1].tolist() == [1] * len(lengths)
    for p, prompt in enumerate(prompts):
        theirs = RowCache()
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([prompt]), past_key_values=theirs, use_cache=True).logits[0, -1]
        torch.testing.assert_close(logit_PV[p], expected, rtol=1e-4, atol=1e-4)
        for ours, plain in zip(cache.layers, theirs.layers, strict=True):
            for name in ("keys", "values"):
                found, kept = getattr(ours, name)[p], getattr(plain, name)[0]
                torch.testing.assert_close(found[:, -len(prompt) :], kept, rtol=1e-4, atol=1e-4)
                assert not found[:, : -len(prompt)].any()


def test_a_prompt_of_one_token_is_left_to_the_model() -> None:
    model, sampling = lively(tiny_llama()), Sampling(samples=2, max_new_tokens=3, seed=1)
    prompts = [[5], [7, 8, 9]]
    ours = NativeSampler(model, end_ids=[]).sample(prompts, sampling)
    plain = NativeSampler(model, end_ids=[], plain=True).sample(prompts, sampling)
    assert [[r.tokens for r in rows] for rows in ours] == [[r.tokens for r in rows] for rows in plain]


def where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frozen weights are read as on a GPU."""
    monkeypatch.setattr(products, "_in_place", lambda device: True)


@pytest.mark.parametrize(("adapter", "in_place"), [(None, False), *product([1e-3, 1.0], [False, True])])
def test_autocast_differs_by_rounding_alone(
    adapter: float | None, in_place: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same tokens through both, step by step: each errs about as much as the other against float64."""
    model = lively(tiny_llama(hidden=64))
    if adapter is not None:
        model = adapted(Precision("bf16", torch.device("cpu")).freeze(model), adapter)
    if in_place:
        where_they_are(monkeypatch)
    token_RT = torch.randint(0, 260, (4, 14), generator=torch.Generator().manual_seed(2))
    mask_RT = torch.ones_like(token_RT)
    mask_RT[1, :3] = mask_RT[3, :1] = 0
    position_RT = (mask_RT.cumsum(-1) - 1).clamp(min=0)
    errors = torch.zeros(2)
    exact = copy.deepcopy(model).double()
    decoder = Decoder(model, torch.bfloat16)
    assert isinstance(decoder.layers[0].down, Apart) == in_place
    assert decoder_of(model, torch.bfloat16) is not None

    def step(which: nn.Module, cache: RowCache, columns: slice) -> torch.Tensor:
        with torch.no_grad():
            return which(
                input_ids=token_RT[:, columns],
                attention_mask=mask_RT[:, : columns.stop],
                position_ids=position_RT[:, columns],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]

    prompts = [row[keep].tolist() for row, keep in zip(token_RT[:, :6], mask_RT[:, :6].bool(), strict=True)]
    with torch.autocast("cpu", torch.bfloat16):
        caches = RowCache(), decoder.prefill(prompts)[2], RowCache()
        step(model, caches[0], slice(0, 6))
    step(exact, caches[2], slice(0, 6))
    for t in range(6, 14):
        with torch.autocast("cpu", torch.bfloat16):
            plain = step(model, caches[0], slice(t, t + 1))
            ours = decoder.step(token_RT[:, t], position_RT[:, t], mask_RT[:, : t + 1], caches[1])
        truth = step(exact, caches[2], slice(t, t + 1)).log_softmax(-1)
        errors += torch.stack([(x.double().log_softmax(-1) - truth).abs().mean() for x in (plain, ours)]).float()
    assert 0 < errors[1] < 1.5 * errors[0] < 8 * 0.5


def test_what_bfloat16_would_round_away_is_left_to_the_model() -> None:
    assert decoder_of(tiny_qwen(), torch.bfloat16) is None  # large scores by biases of queries and keys
    assert decoder_of(tiny_qwen(), torch.float32) is not None


def test_weights_are_read_anew_at_each_call() -> None:
    model = tiny_llama()
    sampler = NativeSampler(model, end_ids=[])
    first = sampler.sample(PROMPTS, Sampling(max_new_tokens=8))
    lively(model)
    second = sampler.sample(PROMPTS, Sampling(max_new_tokens=8))
    assert second == NativeSampler(model, end_ids=[]).sample(PROMPTS, Sampling(max_new_tokens=8)) != first


def test_adapters_count_while_they_are_switched_on() -> None:
    model = adapted(lively(tiny_llama()))
    on = sampled(model, False)
    assert [rollout.tokens for rollout in on] == [rollout.tokens for rollout in sampled(model, True)]
    with model.disable_adapter():
        off = sampled(model, False)
        assert [rollout.tokens for rollout in off] == [rollout.tokens for rollout in sampled(model, True)]
    assert on != off


def small_step(model: nn.Module) -> torch.Tensor:
    decoder = Decoder(model, torch.bfloat16)
    _, _, cache = decoder.prefill([[5, 6, 7], [8, 9]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]])
    return decoder.step(torch.tensor([4, 3]), torch.tensor([3, 2]), mask, cache)


@pytest.mark.parametrize("in_place", [False, True])
def test_an_adapter_too_small_for_bfloat16_weights_counts(in_place: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Added to its weight it would be rounded away: no weight changes by as much as half a step of bfloat16."""
    plain = lively(tiny_llama(hidden=128))
    with torch.no_grad():  # outputs near zero, where a small part is not rounded away either
        for name, weight in plain.named_parameters():
            if "o_proj" in name or "down_proj" in name:
                weight.copy_(1.0 + 0.3 * torch.rand_like(weight))
                weight[:, 1::2] *= -1
    if in_place:
        where_they_are(monkeypatch)
    model = adapted(Precision("bf16", torch.device("cpu")).freeze(plain), 1e-4)
    for module in model.modules():
        if hasattr(module, "get_delta_weight"):
            weight = module.base_layer.weight.bfloat16()
            change = (weight.float() + module.get_delta_weight("default")).bfloat16() != weight
            assert change.float().mean() < 0.2
    on = small_step(model)
    with model.disable_adapter():
        off = small_step(model)
    assert not torch.equal(on, off)


def test_frozen_weights_of_bfloat16_are_tried_in_float32() -> None:
    """Where rounding hides nothing; and no weight is copied for it."""
    model = adapted(Precision("bf16", torch.device("cpu")).freeze(lively(tiny_llama(hidden=64))), 0.3)
    decoder = decoder_of(model, torch.bfloat16)
    assert decoder is not None
    base = model.get_base_model()
    linear = base.model.layers[0].mlp.down_proj
    assert linear.base_layer.weight.dtype == torch.bfloat16
    with torch.no_grad():
        linear.lora_B["default"].register_forward_hook(lambda module, inputs, output: output * 1.01)
    assert decoder_of(model, torch.bfloat16) is None


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings")
@pytest.mark.parametrize("kind", [{"use_dora": True}, {"lora_bias": True}, {"target_modules": ["embed_tokens"]}])
def test_adapters_of_other_kinds_go_the_models_own_way(kind: dict[str, object]) -> None:
    """Also where they do nothing yet, and a trial would not tell."""
    how: dict[str, object] = {"r": 4, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    base = tiny_llama(attention_bias=True, mlp_bias=True)
    model = get_peft_model(base, LoraConfig(**how | kind))
    for tried in (False, True):
        assert decoder_of(model, torch.float32, tried=tried) is None


def test_a_hook_that_comes_later_is_seen() -> None:
    model = adapted(lively(tiny_llama()))
    sampler = NativeSampler(model, end_ids=[])
    first = sampler.sample(PROMPTS, Sampling(max_new_tokens=8))
    assert sampler._decodes
    part = model.get_base_model().model.layers[0].mlp.down_proj.lora_B["default"]
    part.register_forward_hook(lambda module, inputs, output: output * -3)
    found = sampler.sample(PROMPTS, Sampling(max_new_tokens=8))
    assert found == NativeSampler(model, end_ids=[], plain=True).sample(PROMPTS, Sampling(max_new_tokens=8)) != first


def test_a_layer_that_names_its_arguments_is_widened_too() -> None:
    x, weight, bias = torch.randn(3, 32), torch.randn(4, 32).bfloat16(), torch.randn(4).bfloat16()
    expected = x @ weight.float().T + bias.float()
    with products.in_float32():
        torch.testing.assert_close(nn.functional.linear(x, weight, bias), expected)
        torch.testing.assert_close(nn.functional.linear(input=x, weight=weight, bias=bias), expected)
        torch.testing.assert_close(nn.functional.linear(x, weight=weight, bias=bias), expected)


def test_several_adapters_of_several_layers_count() -> None:
    """Of one product some layers have an adapter, some have two, with scales of their own."""
    base = lively(tiny_llama(hidden=64))
    model = adapted(base, 1.0, 3, ["q_proj", "v_proj", "down_proj"], lora_alpha=12)
    model.add_adapter("other", LoraConfig(r=5, lora_alpha=2, target_modules=["v_proj", "up_proj", "o_proj"]))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.5)
    model.base_model.set_adapter(["default", "other"])
    token_RT = torch.tensor([[5, 6, 7, 4], [8, 9, 2, 3]])
    exact = copy.deepcopy(model).double()(input_ids=token_RT, attention_mask=torch.ones_like(token_RT)).logits[:, -1]
    for apart in (False, True):
        decoder = Decoder(model, torch.float32, apart=apart)
        _, _, cache = decoder.prefill(token_RT[:, :3].tolist())
        found = decoder.step(token_RT[:, 3], torch.tensor([3, 3]), torch.ones(2, 4, dtype=torch.long), cache)
        torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)


def test_what_it_does_not_know_goes_the_models_own_way() -> None:
    assert decoder_of(tiny_gpt2(), torch.float32) is None
    assert decoder_of(tiny_gemma(), torch.float32) is None
    hooked = tiny_llama()
    hooked.model.layers[1].mlp.register_forward_hook(lambda module, inputs, output: output * 2)
    assert decoder_of(hooked, torch.float32) is None
    assert decoder_of(tiny_llama(), torch.float32) is not None
