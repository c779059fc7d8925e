"""Sampling on a CUDA GPU: graphs against the model's own forward pass, and what happens where there can be none."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn

from accord.rollouts import Rollout, Sampling, graphs
from accord.rollouts.decoder import Decoder
from accord.rollouts.draw import draw
from accord.rollouts.native import NativeSampler
from accord.rollouts.products import Apart
from accord.train.loop import Precision
from rollouts.test_decoder import FAMILIES, PROMPTS, adapted, lively
from rollouts.test_graphs import assert_same, flat

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch.cuda is not available"),
]
GREEDY = Sampling(temperature=0, samples=2, max_new_tokens=24)
SAMPLED = Sampling(samples=3, max_new_tokens=24, min_new_tokens=2, seed=3)
CUT = Sampling(samples=3, max_new_tokens=24, temperature=0.8, top_p=0.9, top_k=50, presence_penalty=0.5, seed=4)


def bf16() -> torch.autocast:
    return torch.autocast("cuda", torch.bfloat16)


def on_gpu(family: str) -> Any:
    return lively(FAMILIES[family]()).cuda()


def sampler_of(model: nn.Module, *, plain: bool = False, max_rows: int = 5, half: bool = False) -> NativeSampler:
    autocast = bf16 if half else nullcontext
    return NativeSampler(model, end_ids=range(40), max_rows=max_rows, plain=plain, autocast=autocast)


def plainly(model: nn.Module, sampling: Sampling) -> list[Rollout]:
    return flat(sampler_of(model, plain=True).sample(PROMPTS, sampling))


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED, CUT], ids=["greedy", "sampled", "cut"])
@pytest.mark.parametrize("max_rows", [5, 64])  # rows join, rows only leave
@pytest.mark.parametrize("family", FAMILIES)
def test_fp32_samples_are_those_of_the_models_own_forward_pass(family, max_rows, sampling) -> None:
    model = on_gpu(family)
    sampler = sampler_of(model, max_rows=max_rows)
    for _ in range(2):
        assert_same(flat(sampler.sample(PROMPTS, sampling)), plainly(model, sampling))
    assert sampler._graphs.works
    assert 0 < sampler._graphs.captured <= sampler._graphs.replayed


@pytest.mark.parametrize("room", [3, 256])
def test_buffers_that_grow_are_captured_anew(monkeypatch, room) -> None:
    monkeypatch.setattr("accord.rollouts.native.ROOM_OF_GRAPHS", room)
    model = on_gpu("llama")
    sampler = NativeSampler(model, end_ids=[])
    rollouts = flat(sampler.sample(PROMPTS, SAMPLED))
    assert_same(rollouts, flat(NativeSampler(model, end_ids=[], plain=True).sample(PROMPTS, SAMPLED)))
    # 23 steps; of each buffer the first one runs kernel by kernel, the second one is captured.
    buffers = 1 if room == 256 else 8
    assert sampler._graphs.replayed == 23 - buffers
    assert sampler._graphs.captured == buffers


def bf16_gap(model: Any, sampler: NativeSampler) -> float:
    """Mean distance, in nats a token, from a forward pass over the same tokens."""
    prompts = [prompt for prompt in PROMPTS for _ in range(SAMPLED.samples)]
    gaps = []
    for prompt, rollout in zip(prompts, flat(sampler.sample(PROMPTS, SAMPLED)), strict=True):
        token_1T = torch.tensor([[*prompt, *rollout.tokens]], device="cuda")
        with torch.no_grad(), bf16():
            logit_TV = model(token_1T).logits[0, len(prompt) - 1 : -1].float()
        expected_T = logit_TV.log_softmax(-1).gather(-1, token_1T[0, len(prompt) :, None])[:, 0].cpu()
        gaps += (torch.tensor(rollout.logprob) - expected_T).abs().tolist()
    return sum(gaps) / len(gaps)


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_log_probabilities_are_those_of_a_forward_pass_over_the_same_tokens(family) -> None:
    """Within rounding, of which the model's own steps have about as much; weights of this size make it large."""
    model = on_gpu(family)
    sampler = sampler_of(model, half=True)
    gap = bf16_gap(model, sampler)
    plain_gap = bf16_gap(model, sampler_of(model, half=True, plain=True))
    assert gap < max(0.02, 1.5 * plain_gap) < 0.06
    assert sampler._graphs.replayed >= sampler._graphs.captured > 0


def test_frozen_weights_in_bfloat16_are_read_where_they_are_and_adapters_beside_them() -> None:
    model = adapted(Precision("bf16", torch.device("cuda")).freeze(on_gpu("llama")), 0.1).cuda()
    sampler = sampler_of(model, half=True)
    gap = bf16_gap(model, sampler)
    assert gap < max(0.02, 1.5 * bf16_gap(model, sampler_of(model, half=True, plain=True))) < 0.06
    assert sampler._graphs.replayed >= sampler._graphs.captured > 0
    layer = Decoder(model, torch.bfloat16).layers[0]
    weight = model.get_base_model().model.layers[0].mlp.down_proj.base_layer.weight
    assert isinstance(layer.down, Apart)
    assert layer.down.parts[0].weight.data_ptr() == weight.data_ptr()


def test_weights_are_read_anew_at_each_call() -> None:
    model = FAMILIES["qwen3"]().cuda()
    sampler = sampler_of(model)
    first = flat(sampler.sample(PROMPTS, SAMPLED))
    assert_same(first, plainly(model, SAMPLED))
    lively(model)
    second = flat(sampler.sample(PROMPTS, SAMPLED))
    assert_same(second, plainly(model, SAMPLED))
    assert [rollout.tokens for rollout in first] != [rollout.tokens for rollout in second]


def test_adapters_count_while_they_are_switched_on() -> None:
    model = adapted(on_gpu("llama"), 0.1)
    sampler = sampler_of(model)
    on = flat(sampler.sample(PROMPTS, SAMPLED))
    assert_same(on, plainly(model, SAMPLED))
    with model.disable_adapter():
        off = flat(sampler.sample(PROMPTS, SAMPLED))
        assert_same(off, plainly(model, SAMPLED))
    assert on != off
    assert sampler._graphs.replayed > 0


def assert_falls_back(model: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
    sampler = sampler_of(model)
    with caplog.at_level(logging.WARNING, "accord"):
        for _ in range(2):
            assert_same(flat(sampler.sample(PROMPTS, SAMPLED)), plainly(model, SAMPLED))
    assert not sampler._graphs.works
    assert sampler._graphs.replayed == 0
    (record,) = caplog.records
    assert "could not be captured" in record.message


def test_without_graphs_steps_run_kernel_by_kernel(monkeypatch, caplog) -> None:
    def refuse(self: object, run: object) -> None:
        raise RuntimeError("no graphs today")

    monkeypatch.setattr(graphs.Graphs, "capture", refuse)
    assert_falls_back(on_gpu("llama"), caplog)


def test_a_step_that_waits_for_the_device_is_not_captured(monkeypatch, caplog) -> None:
    """CUDA itself refuses here, in the middle of a capture; afterwards everything works."""
    plain = graphs._step

    def waiting(decoder: Any, inputs: Any, buffers: Any) -> torch.Tensor:
        assert inputs.column.item() > 0
        return plain(decoder, inputs, buffers)

    with monkeypatch.context() as patch:
        patch.setattr(graphs, "_step", waiting)
        assert_falls_back(on_gpu("llama"), caplog)
    torch.cuda.empty_cache()  # the allocator does not wait for the end of a capture
    model = on_gpu("llama")
    sampler = sampler_of(model)
    assert_same(flat(sampler.sample(PROMPTS, SAMPLED)), plainly(model, SAMPLED))
    assert sampler._graphs.replayed > 0


@pytest.mark.parametrize("sampling", [SAMPLED, CUT, GREEDY, Sampling(top_p=0.5), Sampling(top_k=3)])
def test_a_draw_is_that_of_a_cpu(sampling) -> None:
    generator = torch.Generator().manual_seed(0)
    logit_RV = torch.randn(6, 1000, generator=generator) * 3
    uniform_R = torch.rand(6, generator=generator, dtype=torch.float64)
    forbidden_R, present_R = [(1, 2), (), (3,), (), (), (4,)], [[5, 5, 6], [], [7], [8], [], [9]]
    ours = draw(logit_RV.cuda(), uniform_R.cuda(), sampling, forbidden_R, present_R).rows()
    for a, b in zip(ours, draw(logit_RV, uniform_R, sampling, forbidden_R, present_R).rows(), strict=True):
        assert a[0] == b[0]
        assert type(a[0]) is int
        assert a[1:] == pytest.approx(b[1:], abs=1e-5)


@pytest.mark.parametrize("sampling", [SAMPLED, CUT, GREEDY])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_are_an_error_and_leave_the_device_usable(sampling, bad) -> None:
    model = on_gpu("llama")
    with torch.no_grad():
        model.model.norm.weight[3] = bad
    with pytest.raises(ValueError, match="not finite"):
        sampler_of(model, plain=True).sample(PROMPTS, sampling)
    torch.cuda.synchronize()
    assert torch.ones(3, device="cuda").sum().item() == 3


def test_float32_products_are_not_rounded() -> None:
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cuda.matmul.allow_tf32
