"""AdamW by kernels against PyTorch's."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from accord.models.head import add_rows_alone, head_of, token_logprob
from accord.models.kernels.adamw import Parameters
from accord.train.optimiser import AdamW
from fakes import tiny_llama, tiny_qwen

SIZES = [(1,), (15,), (16,), (3, 33), (70, 1000), (1 << 15,), ((1 << 15) + 5,), (3, 1 << 15)]
MOST = 1.0


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def weights() -> list[nn.Parameter]:
    return [nn.Parameter(draw(*size, seed=i)) for i, size in enumerate(SIZES)]


def groups(parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
    return [
        {"params": parameters[::2], "weight_decay": 0.1, "scale": 1.0},
        {"params": parameters[1::2], "weight_decay": 0.0, "scale": 3.0},
    ]


def pair() -> tuple[list[nn.Parameter], AdamW, list[nn.Parameter], torch.optim.AdamW]:
    own, other = weights(), weights()
    reference = torch.optim.AdamW(groups(other), lr=0.01, betas=(0.9, 0.95))
    return own, AdamW(groups(own), lr=0.01, betas=(0.9, 0.95)), other, reference


def give(parameters: list[nn.Parameter], step: int, size: float, left_out: int = -1) -> None:
    for i, p in enumerate(parameters):
        p.grad = None if i == left_out else torch.empty_like(p).copy_(draw(*p.shape, seed=100 * step + i) * size)


def advance(optimiser: Any, parameters: list[nn.Parameter], rate: float) -> float:
    for group in optimiser.param_groups:
        group["lr"] = rate * group["scale"]
    if isinstance(optimiser, AdamW):
        norm = optimiser.norm()
        optimiser.clip(norm, MOST)
    else:
        norm = float(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).double().norm())
        nn.utils.clip_grads_with_norm_(parameters, MOST, torch.tensor(norm))
    optimiser.step()
    return norm


@pytest.mark.parametrize("size", [1e-4, 1.0])
@pytest.mark.usefixtures("compiled")
def test_steps_are_those_of_pytorch(threads: int, size: float) -> None:
    own, ours, other, reference = pair()
    for step in range(5):
        give(own, step, size, left_out=2 if step in (0, 3) else -1)  # its count of steps is another one
        give(other, step, size, left_out=2 if step in (0, 3) else -1)
        rate = 0.01 / (step + 1)
        assert advance(ours, own, rate) == pytest.approx(advance(reference, other, rate), rel=1e-6)
        for p, q in zip(own, other, strict=True):
            assert_close(p, q, rtol=2e-6, atol=1e-7)
    for p, q in zip(own, other, strict=True):
        assert set(ours.state[p]) == set(reference.state[q])
        for name, value in ours.state[p].items():
            assert_close(value, reference.state[q][name], rtol=1e-5, atol=1e-9)


@pytest.mark.usefixtures("compiled")
def test_the_norm_is_exact_and_the_same_for_any_threads() -> None:
    gradients = [draw(3_000_017, seed=0) * 1e-3, draw(5, seed=1) * 100]
    exact = float(torch.cat(gradients).double().norm())
    before, found = torch.get_num_threads(), set()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.add(Parameters(gradients, gradients).norm())
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1
    assert found.pop() == pytest.approx(exact, rel=1e-7)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.usefixtures("compiled")
def test_the_norm_says_what_is_not_finite(bad: float) -> None:
    gradient = torch.zeros(2000)
    gradient[1234] = bad
    assert not torch.tensor(Parameters([gradient], [gradient]).norm()).isfinite()


@pytest.mark.usefixtures("compiled")
def test_a_checkpoint_goes_on_in_either() -> None:
    own, ours, other, reference = pair()
    for step in range(2):
        give(own, step, 1.0)
        advance(ours, own, 0.01)
    saved = copy.deepcopy(ours.state_dict())
    with torch.no_grad():
        for p, q in zip(own, other, strict=True):
            q.copy_(p)
    reference.load_state_dict(copy.deepcopy(saved))
    again, resumed, _, _ = pair()
    with torch.no_grad():
        for p, q in zip(own, again, strict=True):
            q.copy_(p)
    resumed.load_state_dict(saved)
    for optimiser, parameters in ((ours, own), (reference, other), (resumed, again)):
        give(parameters, 7, 1.0)
        advance(optimiser, parameters, 0.01)
    for p, q, r in zip(own, other, again, strict=True):
        assert_close(p, q, rtol=2e-6, atol=1e-7)
        assert torch.equal(p, r)


@pytest.mark.parametrize("without", ["library", "gaps", "double"])
def test_what_has_no_kernel_is_pytorchs(monkeypatch: pytest.MonkeyPatch, without: str) -> None:
    if without == "library":
        monkeypatch.setattr("accord.models.kernels.adamw.library", lambda: None)
    own, ours, other, reference = pair()
    for parameters in (own, other):
        if without == "gaps":
            parameters[4].data = parameters[4].data.t().contiguous().t()
        if without == "double":
            parameters[4].data = parameters[4].data.double()
    for step in range(3):
        for optimiser, parameters in ((ours, own), (reference, other)):
            give(parameters, step, 1.0)
            advance(optimiser, parameters, 0.01)
    for p, q in zip(own, other, strict=True):
        assert_close(p, q, rtol=2e-6, atol=1e-6)


@pytest.mark.usefixtures("compiled")
def test_a_graph_from_before_a_step_is_an_error() -> None:
    own, ours, _, _ = pair()
    give(own, 0, 1.0)
    advance(ours, own, 0.01)  # PyTorch's, which does not see it
    loss = (own[4] ** 2).sum()
    give(own, 1, 1.0)
    advance(ours, own, 0.01)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()  # type: ignore[no-untyped-call]
    again = copy.deepcopy(ours)
    give(again.param_groups[0]["params"], 5, 1.0)
    again.step()


@pytest.mark.usefixtures("compiled")
def test_moments_of_another_shape_are_refused() -> None:
    x = torch.ones(4)
    with pytest.raises(AssertionError, match="moments"):
        Parameters([x], [x]).step([x], [torch.ones(3)], [1], rate=0.1, betas=(0.9, 0.95), eps=1e-8, decay=0.0)


@pytest.mark.usefixtures("compiled")
def test_gradients_are_left_as_they_are() -> None:
    own, ours, _, _ = pair()
    for step in range(2):
        give(own, step, 1.0)
        before = [p.grad.clone() for p in own if p.grad is not None]
        advance(ours, own, 0.01)
    assert all(torch.equal(p.grad, g) for p, g in zip(own, before, strict=True))
    ours.zero_grad()
    ours.step()  # nothing to do, and no scale left over
    assert ours._scale == 1.0


# -- the gradient of a tied embedding ----------------------------------------------------------------------------------


def gradient_of(model: Any, *, tied: bool, backward: bool = True) -> Tensor:
    if tied:
        add_rows_alone(model)
    ids = torch.tensor([[1, 2, 2, 5, 7, 1]])
    state = model.model(input_ids=ids).last_hidden_state[0]
    loss = token_logprob(state, head_of(model), ids[0])[0].sum() if backward else state.sum()
    loss.backward()
    return model.get_input_embeddings().weight.grad


@pytest.mark.parametrize("times", [1, 2])
def test_rows_are_added_to_the_heads_gradient(times: int) -> None:
    model = tiny_llama()
    plain, rows = model, copy.deepcopy(model)
    for _ in range(times):
        expected, found = gradient_of(plain, tied=False), gradient_of(rows, tied=True)
    assert rows.get_input_embeddings().sparse
    assert not plain.get_input_embeddings().sparse
    assert found.layout == torch.strided
    assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_a_pass_without_the_head_ends_dense_too() -> None:
    model = tiny_llama()
    expected = gradient_of(copy.deepcopy(model), tied=False, backward=False)
    model.requires_grad_(True)
    assert gradient_of(model, tied=True, backward=False).is_sparse
    optimiser = AdamW([{"params": list(model.parameters())}], lr=0.01, betas=(0.9, 0.95))
    norm = optimiser.norm()
    found = model.get_input_embeddings().weight.grad
    assert_close(found, expected)
    assert norm > 0
    optimiser.step()


def test_an_embedding_of_its_own_is_left_alone() -> None:
    model = tiny_qwen()
    add_rows_alone(model)
    add_rows_alone(nn.Linear(3, 1))
    add_rows_alone(model.model)
    assert not model.get_input_embeddings().sparse
