"""The step that a GPU captures, on a CPU: the same tensors and the same code, run again in place of replayed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from accord.rollouts import Rollout, Sampling
from accord.rollouts.cache import RowCache
from accord.rollouts.decoder import Decoder
from accord.rollouts.graphs import GraphStep
from accord.rollouts.native import NativeSampler
from fakes import tiny_llama
from rollouts.test_decoder import FAMILIES, PROMPTS, adapted, lively


class Again:
    """`Graphs` without a GPU: a replay runs what was captured, with the tensors of then, over the result of then."""

    def __init__(self) -> None:
        self.works, self.captured, self.replayed = True, 0, 0

    def warm_up(self, run: Callable[[], Tensor]) -> Tensor:
        return run()

    def capture(self, run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self.captured += 1
        result = torch.full_like(run(), torch.nan)  # nothing is computed while a graph is captured

        def replay() -> Tensor:
            self.replayed += 1
            return result.copy_(run())

        return replay


class Refusing(Again):
    """A step that cannot be captured."""

    def capture(self, run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self.captured += 1
        raise RuntimeError("operation not permitted when stream is capturing")


def sampler_of(model: nn.Module, graphs: Again | None, max_rows: int = 5) -> NativeSampler:
    """None samples by the model's own forward pass."""
    sampler = NativeSampler(model, end_ids=range(40), max_rows=max_rows, plain=graphs is None)
    sampler._graphs = graphs
    return sampler


def flat(rollouts_BK: list[list[Rollout]]) -> list[Rollout]:
    return [rollout for rollouts_K in rollouts_BK for rollout in rollouts_K]


def assert_same(ours: list[Rollout], plain: list[Rollout]) -> None:
    for a, b in zip(ours, plain, strict=True):
        assert (a.tokens, a.finish) == (b.tokens, b.finish)
        for name in ("logprob", "sampling_logprob"):
            torch.testing.assert_close(
                torch.tensor(getattr(a, name)), torch.tensor(getattr(b, name)), atol=1e-4, rtol=0
            )


@pytest.mark.parametrize("max_rows", [5, 64])  # rows join, rows only leave
@pytest.mark.parametrize("room", [3, 256])
@pytest.mark.parametrize("family", FAMILIES)
def test_samples_are_those_of_the_models_own_forward_pass(monkeypatch, family, room, max_rows) -> None:
    monkeypatch.setattr("accord.rollouts.native.ROOM_OF_GRAPHS", room)
    model, graphs = lively(FAMILIES[family]().double()), Again()
    sampling = Sampling(samples=3, max_new_tokens=12, min_new_tokens=2, top_p=0.95, seed=3)
    ours = flat(sampler_of(model, graphs, max_rows).sample(PROMPTS, sampling))
    assert_same(ours, flat(sampler_of(model, None, max_rows).sample(PROMPTS, sampling)))
    assert len({len(rollout.tokens) for rollout in ours}) > 2  # rows left at different steps
    assert 1 < graphs.captured < graphs.replayed


def test_a_buffer_with_room_for_the_whole_response_is_captured_once() -> None:
    graphs = Again()
    sampler = NativeSampler(lively(tiny_llama()), end_ids=[])
    sampler._graphs = graphs
    sampler.sample(PROMPTS, Sampling(samples=2, max_new_tokens=30))
    assert (graphs.captured, graphs.replayed) == (1, 28)  # 29 steps, the first one kernel by kernel


def test_rows_leave_when_half_of_them_are_idle() -> None:
    model, rows = lively(tiny_llama()), []
    sampler = NativeSampler(model, end_ids=range(40))
    sampler._graphs = Again()
    forward = sampler._forward
    sampler._forward = lambda batch: (rows.append(len(batch.rows)), forward(batch))
    rollouts = flat(sampler.sample(PROMPTS, Sampling(samples=8, max_new_tokens=20, seed=3)))
    alive = [sum(len(rollout.tokens) > step for rollout in rollouts) for step in range(1, len(rows) + 1)]
    assert len(set(rows)) > 2
    assert all(going <= count <= max(32, 2 * going) for count, going in zip(rows, alive, strict=True))
    assert all(after == before or 2 * after <= before + 8 for before, after in pairwise(rows))


def test_weights_are_read_anew_at_each_call() -> None:
    model, graphs = tiny_llama(), Again()
    sampler, sampling = sampler_of(model, graphs), Sampling(samples=2, max_new_tokens=8)
    first = sampler.sample(PROMPTS, sampling)
    assert sampler.sample(PROMPTS, sampling) == first
    lively(model)
    second = sampler.sample(PROMPTS, sampling)
    assert second != first
    assert_same(flat(second), flat(sampler_of(model, None).sample(PROMPTS, sampling)))


def test_adapters_count_while_they_are_switched_on() -> None:
    model = adapted(lively(tiny_llama()))
    sampler, sampling = sampler_of(model, Again()), Sampling(samples=3, max_new_tokens=10, seed=1)
    on = sampler.sample(PROMPTS, sampling)
    assert_same(flat(on), flat(sampler_of(model, None).sample(PROMPTS, sampling)))
    with model.disable_adapter():
        off = sampler.sample(PROMPTS, sampling)
        assert_same(flat(off), flat(sampler_of(model, None).sample(PROMPTS, sampling)))
    assert on != off


def test_what_cannot_be_captured_runs_kernel_by_kernel_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    model, graphs = lively(tiny_llama().double()), Refusing()
    sampler, sampling = sampler_of(model, graphs), Sampling(samples=3, max_new_tokens=12, seed=3)
    with caplog.at_level(logging.WARNING, "accord"):
        ours = [flat(sampler.sample(PROMPTS, sampling)) for _ in range(2)]
    assert_same(ours[0], flat(sampler_of(model, None).sample(PROMPTS, sampling)))
    assert ours[0] == ours[1]
    assert (graphs.captured, graphs.works) == (1, False)
    (record,) = caplog.records
    assert "could not be captured" in record.message
    assert "not permitted" in record.message


def test_a_step_equals_the_decoders_however_the_buffers_change() -> None:
    """The same tokens through both; after four steps a row leaves, which makes the captured tensors stale."""
    model = lively(tiny_llama())
    decoder, graphs = Decoder(model, torch.float32), Again()
    step, token_RT = GraphStep(decoder, graphs), torch.randint(0, 260, (3, 9))
    prompts = [[5, 6, 7, 8], [9, 10], [11, 12, 13]]
    _, mask_RT, cache = decoder.prefill(prompts)
    ours, theirs = cache.repeated(torch.arange(3)), cache
    position_R = mask_RT.sum(-1)
    for t in range(9):
        if t == 4:
            for each in (ours, theirs):
                assert isinstance(each, RowCache)
                each.retire(torch.tensor([0]), torch.tensor([2]), 2)
            token_RT, mask_RT, position_R = token_RT[[2, 1]], mask_RT[[2, 1]], position_R[[2, 1]]
        mask_RT = nn.functional.pad(mask_RT, (0, 1), value=1)
        found = step(token_RT[:, t], position_R, mask_RT, ours)
        torch.testing.assert_close(found, decoder.step(token_RT[:, t], position_R, mask_RT, theirs), rtol=0, atol=1e-4)
        position_R = position_R + 1
    assert (graphs.captured, graphs.replayed) == (2, 7)
    for a, b in zip(ours.layers, theirs.layers, strict=True):
        torch.testing.assert_close(a.keys, b.keys, rtol=0, atol=1e-4)
        torch.testing.assert_close(a.values, b.values, rtol=0, atol=1e-4)
