"""How many rows are decoded at once, and how many prompts are computed together."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from accord.rollouts import Sampling, native
from accord.rollouts.native import NativeSampler
from accord.rollouts.places import ROWS, ROWS_GPU, rows_with_room
from fakes import tiny_llama

SAMPLING = Sampling(samples=2, max_new_tokens=6, seed=1)
ROW = 2 * 3 * 2 * 8 * (10 + 6) * 4  # bytes: keys and values, 3 layers, 2 heads of 8, 10 tokens and 6 new ones, float32


def model_on_gpu(**config: int) -> Any:
    text = SimpleNamespace(num_hidden_layers=3, num_attention_heads=4, **config)
    weight = SimpleNamespace(device=torch.device("cuda"), element_size=lambda: 4)
    return SimpleNamespace(parameters=lambda: iter([weight]), config=SimpleNamespace(get_text_config=lambda: text))


@pytest.mark.parametrize(("rows", "expected"), [(7, 7), (0, 1), (1000, ROWS_GPU)])
def test_on_a_gpu_two_caches_take_a_quarter_of_what_is_free(
    monkeypatch: pytest.MonkeyPatch, rows: int, expected: int
) -> None:
    """Free is also what torch holds for tensors and no tensor has: here three rows' worth."""
    free = 4 * 2 * ROW * rows
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free - 3 * ROW, 10**12))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5 * ROW)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2 * ROW)
    grouped = model_on_gpu(hidden_size=1, head_dim=8, num_key_value_heads=2)
    assert rows_with_room(grouped, 10, SAMPLING) == expected
    plain = model_on_gpu(hidden_size=16)  # four heads of 4 are as wide
    assert rows_with_room(plain, 10, SAMPLING) == expected


def test_a_cpu_has_its_own_number() -> None:
    assert rows_with_room(tiny_llama(), 10, SAMPLING) == ROWS


def test_prompts_computed_together_have_so_many_tokens_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [[5] * length for length in (9, 5, 5, 4, 2)]
    sampler, together = NativeSampler(tiny_llama(), end_ids=[]), list[list[int]]()
    prefill = sampler._prefill

    def noted(prompts: Any, rows: Any) -> Any:
        together.append([len(prompt) for prompt in prompts])
        return prefill(prompts, rows)

    monkeypatch.setattr(sampler, "_prefill", noted)
    expected = sampler.sample(prompts, SAMPLING)
    assert together == [[9, 5, 5, 4, 2]]
    together.clear()
    monkeypatch.setattr(native, "PROMPT_TOKENS", 12)
    found = sampler.sample(prompts, SAMPLING)
    assert together == [[9], [5, 5], [4, 2]]  # a longer one goes alone
    assert [[row.tokens for row in rows] for rows in found] == [[row.tokens for row in rows] for rows in expected]
