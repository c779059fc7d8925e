"""A layer as one function, its kernel of attention written out on a CPU, against the layer as transformers has it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from transformers import MistralConfig, MistralForCausalLM

from accord.losses.likelihood import segment_sum
from accord.models import layers, whole_layer
from accord.models.score import prepare, response_scores, trunk
from accord.train.loop import Precision, add_lora
from accord.trees import Branch, PromptTree, TreeBatch, pack
from fakes import tiny_llama, tiny_qwen
from models.flash_written_out import as_on_a_gpu

BF16 = {"device_type": "cpu", "dtype": torch.bfloat16}


def tiny_mistral(hidden: int, window: int | None = None) -> Any:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=260,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=window,
        max_position_embeddings=512,
    )
    return MistralForCausalLM(config).eval()


MAKERS = {"llama": tiny_llama, "qwen2": tiny_qwen, "mistral": tiny_mistral}


def trees(seed: int = 0) -> list[PromptTree]:
    generator = torch.Generator().manual_seed(seed)

    def words(size: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 250, (size,), generator=generator).tolist())

    sizes = [(9, (4, 7, 1)), (1, (1,)), (5, (6, 6)), (3, (2, 2, 2, 2))]
    return [PromptTree(words(n), tuple(Branch.response(words(m)) for m in branches)) for n, branches in sizes]


@pytest.fixture(autouse=True)
def kernel_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention as on a GPU, the kernel's two operations in float64."""
    as_on_a_gpu(monkeypatch)


def lively(model: Any) -> Any:
    """Norms and biases that are neither 1 nor 0."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return model


@pytest.fixture(params=MAKERS)
def model(request: pytest.FixtureRequest) -> Any:
    return lively(MAKERS[request.param](hidden=64))


def prepared(model: Any, *, whole: bool) -> Any:
    """A copy with its layers as one function, or as they were."""
    made = copy.deepcopy(model)
    prepare(made)
    if not whole:
        for layer in trunk(made).layers:
            del layer.forward
    return made


def results(model: Any, batch: TreeBatch, half: bool) -> dict[str, torch.Tensor]:
    with torch.autocast(**BF16, enabled=half):
        scores = response_scores(model, batch)
        loss = segment_sum(scores.logprob_T, scores.response_T, batch.count).tanh().sum() + scores.logprob_T.mean()
    loss.backward()
    return {"": scores.logprob_T.detach()} | {name: p.grad for name, p in model.named_parameters()}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each layer that was computed as one function."""
    made: list[int] = []

    def counted(*args: Any) -> torch.Tensor:
        made.append(1)
        return whole_layer.whole_layer(*args)

    monkeypatch.setattr(layers, "whole_layer", counted)
    return made


def test_in_float32_the_formulas_are_those_of_autograd(model, monkeypatch) -> None:
    monkeypatch.setattr(whole_layer, "HALF", torch.float32)
    made = prepared(model, whole=True)
    layer, batch = trunk(made).layers[1], pack(trees())
    count = batch.token_T.numel()
    x, grad = (torch.randn(1, count, 64, generator=torch.Generator().manual_seed(n)) for n in (2, 3))
    angle = batch.position_T[None, :, None] * torch.linspace(1, 0.1, 8).repeat(2)
    given = {"position_embeddings": (angle.cos(), angle.sin()), "tree": layers.TreeLayout(batch)}
    found = []
    for forward in (type(layer).forward, lambda of, x, **kw: layers._called(of, x, layers._sizes(of), *kw.values())):
        layer.zero_grad()
        leaf = x.clone().requires_grad_()
        y = forward(layer, leaf, **given)
        y.backward(grad)
        found.append([y.detach(), leaf.grad, *(p.grad.clone() for p in layer.parameters())])
    assert len(found[0]) in (11, 14)
    for expected, ours in zip(*found, strict=True):
        assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_in_bfloat16_it_is_as_close_to_float32_as_the_layer_is(model, calls) -> None:
    batch = pack(trees())
    exact = results(prepared(model, whole=False), batch, half=False)
    plain = results(prepared(model, whole=False), batch, half=True)
    made = prepared(model, whole=True)
    ours = results(made, batch, half=True)
    assert len(calls) == 1 + len(trunk(model).layers)  # one to see whether both ways agree
    for name, expected in exact.items():
        gaps = [float((found[name] - expected).norm() / expected.norm()) for found in (ours, plain)]
        assert gaps[0] < max(1.25 * gaps[1], 1e-3), name
        assert gaps[1] > 0, name


def test_splitting_a_pack_changes_roundings_alone(model) -> None:
    made = prepared(model, whole=True)
    with torch.no_grad(), torch.autocast(**BF16):
        together = response_scores(made, pack(trees())).logprob_T
        apart = torch.cat([response_scores(made, pack([tree])).logprob_T for tree in trees()])
    assert_close(together, apart, rtol=0, atol=2e-2)


def test_a_frozen_copy_scores_exactly_like_its_original(model) -> None:
    made, batch = prepared(model, whole=True), pack(trees())
    frozen = Precision("bf16", torch.device("cpu")).freeze(copy.deepcopy(made))
    assert trunk(frozen).layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    with torch.no_grad(), torch.autocast(**BF16):
        found = [response_scores(one, batch).logprob_T for one in (made, frozen)]
    assert torch.equal(*found)


def test_what_is_frozen_gets_no_gradient_and_the_rest_the_same(model) -> None:
    batch = pack(trees())
    expected = results(prepared(model, whole=True), batch, half=True)
    made = prepared(model, whole=True)
    left = ("layers.0.self_attn.q_proj.weight", "layers.0.mlp.up_proj.weight", "layers.1.input_layernorm.weight")
    for name, parameter in made.named_parameters():
        parameter.requires_grad_(name.endswith(left))
    found = results(made, batch, half=True)
    for name, gradient in found.items():
        if not name or name.endswith(left):
            assert torch.equal(gradient, expected[name]), name
            assert gradient.untyped_storage().nbytes() == gradient.nbytes, name  # nothing is kept beside it
        else:
            assert gradient is None, name


def hooked(made: Any) -> None:
    for layer in trunk(made).layers:
        layer.mlp.register_forward_hook(lambda module, inputs, output: output * 2)


def checkpointed(made: Any) -> None:
    made.gradient_checkpointing_enable({"use_reentrant": False})
    made.train()


def hooked_backward(made: Any) -> None:
    for layer in trunk(made).layers:
        layer.mlp.register_full_backward_hook(lambda module, grads, outs: None)


def windowed(made: Any) -> None:
    for layer in trunk(made).layers:
        layer.self_attn.sliding_window = layer.self_attn.config.sliding_window = 4


def normed(made: Any) -> None:
    for layer in trunk(made).layers:
        layer.input_layernorm = nn.LayerNorm(64)


def patched(made: Any) -> None:
    for layer in trunk(made).layers:
        plain = layer.mlp.forward
        layer.mlp.forward = lambda x, plain=plain: 2 * plain(x)


def replaced(made: Any) -> None:
    for layer in trunk(made).layers:
        layer.self_attn.v_proj = nn.utils.parametrizations.orthogonal(layer.self_attn.v_proj)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")  # until v6
@pytest.mark.parametrize("change", [hooked, hooked_backward, checkpointed, windowed, replaced, normed, patched])
def test_what_a_layer_became_since_is_respected(model, calls, change) -> None:
    batch, found = pack(trees()), []
    for whole in (True, False):
        made = prepared(model, whole=whole)
        calls.clear()
        change(made)
        with torch.autocast(**BF16):
            found.append(response_scores(made, batch).logprob_T.detach())
        assert not calls
    assert torch.equal(*found)


@pytest.mark.parametrize("first", [True, False], ids=["adapters first", "adapters last"])
def test_adapters_are_computed(model, calls, first) -> None:
    made = copy.deepcopy(model)
    if first:
        made = add_lora(made, 4, 0, base="")
    prepare(made)
    if not first:
        made = add_lora(made, 4, 0, base="")
    calls.clear()
    found = []
    for deviation in (0.0, 1.0):
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, 0.0, deviation)
        with torch.autocast(**BF16):
            found.append(response_scores(made, pack(trees())).logprob_T.detach())
    assert not calls
    assert (found[1] - found[0]).abs().max() > 0.1


def test_float32_rows_without_trees_and_what_is_no_pack_go_the_plain_way(model, calls) -> None:
    made, ids = prepared(model, whole=True), torch.arange(3, 9).unsqueeze(0)
    calls.clear()
    with torch.no_grad():
        response_scores(made, pack(trees()))
        with torch.autocast(**BF16):
            made(input_ids=ids)
    assert not calls


def test_a_layer_that_does_something_else_is_left_alone(model, monkeypatch, caplog) -> None:
    kind = type(trunk(model).layers[0])
    plain = kind.forward
    monkeypatch.setattr(kind, "forward", lambda *args, **kwargs: 1.1 * plain(*args, **kwargs))
    found, batch = [], pack(trees())
    for whole in (True, False):
        made = prepared(model, whole=whole)
        for _ in range(2):
            made.zero_grad()
            found.append(results(made, batch, half=True))  # the first step has all gradients
    for one in found[:-1]:
        assert all(torch.equal(value, found[-1][name]) for name, value in one.items())
    assert caplog.text.count("going on without") == 1


def test_a_window_that_a_family_says_in_its_configuration_is_seen(calls) -> None:
    """Longer than the tree on which both ways are tried, shorter than the prompt."""
    made, batch = tiny_mistral(64, window=24), pack([PromptTree(tuple(range(3, 103)), trees()[0].branches)])
    prepare(made)
    with torch.no_grad():
        exact = response_scores(made, batch).logprob_T
        with torch.autocast(**BF16):
            found = response_scores(made, batch).logprob_T
    assert not calls
    assert (found - exact).abs().max() < 0.1


def test_scores_in_inference_mode_leave_a_model_that_trains(model) -> None:
    made, batch = prepared(model, whole=True), pack(trees())
    with torch.autocast(**BF16):
        with torch.inference_mode():
            expected = response_scores(made, batch).logprob_T
        found = response_scores(made, batch).logprob_T
    found.mean().backward()
    assert torch.equal(found.detach(), expected.clone())


def test_second_derivatives_are_refused(model) -> None:
    """TRPO switches flash attention off, and with it this."""
    made = prepared(model, whole=True)
    with torch.autocast(**BF16):
        loss = response_scores(made, pack(trees())).logprob_T.mean()
    weight = trunk(made).layers[0].mlp.up_proj.weight
    (first,) = torch.autograd.grad(loss, weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
