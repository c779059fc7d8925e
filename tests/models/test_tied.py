"""The gradient of a tied embedding, added to the head's row by row."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.testing import assert_close

from accord.models import in_place
from accord.models.head import add_rows_alone, head_of, token_logprob
from fakes import tiny_llama

IDS = torch.tensor([[1, 2, 2, 5, 7, 1, 3, 9]])  # 3 is the padding token, whose row has no gradient of the lookup


def loss_of(model: Any, head: bool = True) -> Tensor:
    state = model.model(input_ids=IDS).last_hidden_state[0]
    return token_logprob(state, head_of(model), IDS[0])[0].sum() if head else state.square().sum()


def gradients(model: Any) -> list[Tensor]:
    return [p.grad.to_dense() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("head", [[True], [True, True], [False], [False, True], [True, False, True]])
@pytest.mark.parametrize("asked", [True, False])
def test_gradients_are_those_of_pytorch(head: list[bool], asked: bool) -> None:
    """With and without the head in a pass, over several passes, where gradients may be left in place and elsewhere."""
    plain = tiny_llama().train()
    rows = copy.deepcopy(plain)
    add_rows_alone(rows)
    assert rows.get_input_embeddings().sparse
    for one in head:
        loss_of(plain, one).backward()
        (in_place.backward if asked else torch.autograd.backward)(loss_of(rows, one))
    for a, b in zip(gradients(rows), gradients(plain), strict=True):
        assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_the_lookup_of_the_padding_token_has_no_gradient() -> None:
    model: Any = tiny_llama()
    add_rows_alone(model)
    embedding = model.get_input_embeddings()
    assert embedding.padding_idx == 3
    embedding.weight.grad = torch.zeros_like(embedding.weight)
    in_place.backward(embedding(IDS).sum())
    assert embedding.weight.grad.sum(-1).nonzero().flatten().tolist() == [1, 2, 5, 7, 9]
    assert embedding.weight.grad[1, 0] == embedding.weight.grad[2, 0] == 2


def test_nothing_as_large_as_the_vocabulary_is_made_or_copied_beside_the_heads_gradient() -> None:
    model: Any = tiny_llama()
    add_rows_alone(model)
    large = list(model.get_input_embeddings().weight.shape)
    found = {}
    for asked in (True, False):
        loss = loss_of(model)
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as recorded:
            (in_place.backward if asked else torch.autograd.backward)(loss)
        model.zero_grad(set_to_none=True)
        writes = ("aten::copy_", "aten::zero_", "aten::fill_")
        found[asked] = sum(event.name in writes and large in event.input_shapes for event in recorded.events())
    assert found[True] == 0 < found[False]


def test_a_gradient_that_was_left_is_that_of_the_next_pass_too() -> None:
    """No other tensor shares its memory: what a step reads is not written by a later pass."""
    model: Any = tiny_llama()
    add_rows_alone(model)
    in_place.backward(loss_of(model))
    first = model.get_input_embeddings().weight.grad
    kept = first.clone()
    model.zero_grad(set_to_none=True)
    in_place.backward(loss_of(model))
    second = model.get_input_embeddings().weight.grad
    assert torch.equal(first, kept)
    assert_close(second, kept)
    assert second.data_ptr() != first.data_ptr()


def test_what_is_wanted_returned_is_returned() -> None:
    model: Any = tiny_llama()
    expected = torch.autograd.grad(loss_of(model), model.get_input_embeddings().weight)[0]
    add_rows_alone(model)
    found = torch.autograd.grad(loss_of(model), model.get_input_embeddings().weight)[0]
    assert_close(found, expected)
    assert model.get_input_embeddings().weight.grad is None
    seen: list[Tensor] = []
    model.get_input_embeddings().weight.register_hook(seen.append)  # who asks for the gradient is given it
    in_place.backward(loss_of(model))
    assert_close(seen[0], expected)
