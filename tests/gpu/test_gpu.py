"""On a GPU: fast paths against plain ones, against a CPU, and jobs that learn. `pytest -m gpu tests/gpu`."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close

from accord.data.batches import Preference
from accord.losses.likelihood import segment_sum
from accord.models import fused, gates, head, in_place, norms, rotation, whole_layer
from accord.models.attention import NAME, TreeLayout, tree_attention
from accord.models.blocks import BlockPlan, block_attention
from accord.models.flash import takes
from accord.models.head import Distribution, exact_kl, head_of, token_logprob
from accord.models.in_place import backward
from accord.models.score import base_of, prepare, response_scores, response_states, trunk
from accord.train import policy, preference, sft
from accord.train.configs import DpoConfig, PpoConfig, SftConfig
from accord.train.pairs import PairTotals
from accord.train.progress import Quiet
from accord.train.rewards import FunctionReward
from accord.trees import Branch, PromptTree, TreeBatch, pack
from fakes import tiny_llama, tiny_qwen
from train.data import comparisons, demonstrations, many_a, metrics, prompts

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # torch's own, when its compiler is imported
]
GPU = "cuda"
BF16 = {"device_type": GPU, "dtype": torch.bfloat16}


def some_trees(seed: int = 0, count: int = 6, longest: int = 90, most: int = 4) -> list[PromptTree]:
    generator = torch.Generator().manual_seed(seed)

    def number(high: int) -> int:
        return int(torch.randint(1, high + 1, (), generator=generator))

    def words(high: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 250, (number(high),), generator=generator).tolist())

    return [
        PromptTree(words(longest), tuple(Branch.response(words(longest)) for _ in range(number(most))))
        for _ in range(count)
    ]


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
    return float((found - expected).norm() / expected.norm())


# -- attention ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 2, 5])
@pytest.mark.parametrize(("heads", "groups", "width"), [(4, 4, 16), (8, 2, 64), (6, 2, 128)])
def test_flash_attention_of_trees(most: int, heads: int, groups: int, width: int) -> None:
    batch = pack(some_trees(most, most=most))
    count, generator = batch.token_T.numel(), torch.Generator().manual_seed(1)
    states = [torch.randn(1, h, count, width, generator=generator).bfloat16() for h in (heads, groups, groups)]
    grad = torch.randn(1, count, heads, width, generator=generator).bfloat16()
    exact = [x[0].transpose(0, 1).double().requires_grad_() for x in states]
    out = block_attention(*exact, BlockPlan(batch), None, width**-0.5)
    expected = [out.unsqueeze(0), *torch.autograd.grad(out, exact, grad[0].double())]
    leaves = [x.to(GPU).requires_grad_() for x in states]
    assert takes(leaves[0][0].transpose(0, 1), leaves[2], None)
    out, _ = tree_attention(None, *leaves, None, tree=TreeLayout(batch.to(GPU)))  # type: ignore[arg-type]
    found = [out, *torch.autograd.grad(out, leaves, grad.to(GPU))]
    found = [found[0], *(x[0].transpose(0, 1) for x in found[1:])]
    for ours, theirs in zip(found, expected, strict=True):
        assert relative(ours, theirs) < 8e-3


def test_masks_take_over_where_flash_attention_is_off() -> None:
    batch = pack(some_trees()).to(GPU)
    states = [torch.randn(1, h, batch.token_T.numel(), 32, device=GPU).bfloat16() for h in (4, 2, 2)]
    with_flash = tree_attention(None, *states, None, tree=TreeLayout(batch))[0]  # type: ignore[arg-type]
    with sdpa_kernel(SDPBackend.MATH):
        without = tree_attention(None, *states, None, tree=TreeLayout(batch))[0]  # type: ignore[arg-type]
    assert relative(with_flash, without) < 8e-3


# -- kernels -----------------------------------------------------------------------------------------------------------


def plain(function: Any, *args: Any) -> Any:
    return function.__wrapped__(*args)


@torch.no_grad()
def test_fused_kernels() -> None:
    for rows in (7, 300):
        x, weight = torch.randn(rows, 64, device=GPU) * 3, torch.rand(64, device=GPU) + 0.5
        y, r = norms.normal(x, weight, 1e-5, torch.bfloat16)
        expected = plain(norms.normal, x, weight, 1e-5, torch.bfloat16)
        assert_close(y, expected[0], rtol=1e-2, atol=1e-3)
        assert_close(r, expected[1])
        grad = torch.randn_like(x).bfloat16()
        given = (grad, x, weight, r, True)
        for a, b in zip(norms._gradients(*given), plain(norms._gradients, *given), strict=True):
            assert relative(a, b) < 1e-5
        gate, up = (torch.randn(rows, 96, device=GPU).bfloat16() for _ in range(2))
        assert relative(gates._product(gate, up), plain(gates._product, gate.double(), up.double())) < 5e-3
        q, k = (torch.randn(rows, heads, 16, device=GPU).bfloat16() for heads in (4, 2))
        angle = torch.randn(rows, 1, 8, device=GPU)
        args = (q, k, angle.cos(), angle.sin(), torch.bfloat16)
        for a, b in zip(rotation._turned(*args), plain(rotation._turned, *args), strict=True):
            assert relative(a, b) < 5e-3
    assert not fused._failed


@pytest.mark.parametrize(("scale", "softcap", "temperature"), [(1.0, None, 1.0), (0.25, 5.0, 0.7)])
@pytest.mark.parametrize("entropy", [False, True])
def test_the_head(entropy: bool, scale: float, softcap: float | None, temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(90, 32, generator=generator), torch.randn(1000, 32, generator=generator)
    token, results = torch.randint(0, 1000, (90,), generator=generator), []
    for device, dtype in (("cpu", torch.float64), (GPU, torch.float32), (GPU, torch.bfloat16)):
        leaves = [x.to(device, dtype).requires_grad_() for x in (hidden, weight)]
        on = head.Head(leaves[1], None, scale, softcap)
        logprob, entropies = token_logprob(leaves[0], on, token.to(device), temperature=temperature, entropy=entropy)
        total = logprob.sum() + (0 if entropies is None else entropies.sum())
        results.append([logprob.detach(), *torch.autograd.grad(total, leaves)])
    for expected, single, half in zip(*results, strict=True):
        assert relative(single, expected) < 1e-5
        assert relative(half, expected) < 2e-2
    assert not fused._failed


def test_exact_kl_of_equal_models_is_zero_and_its_gradient_right() -> None:
    torch.manual_seed(0)
    states, weight = torch.randn(40, 16, device=GPU), torch.randn(300, 16, device=GPU)
    mine = states.clone().requires_grad_()
    on = head.Head(weight)
    assert float(exact_kl(Distribution(mine, on), Distribution(states, on)).detach().abs().max()) == 0
    other = Distribution(states + 0.1, on)
    (found,) = torch.autograd.grad(exact_kl(Distribution(mine, on), other).sum(), mine)
    p, q = (mine @ weight.T).log_softmax(-1), (other.state_TD @ weight.T).log_softmax(-1)
    (expected,) = torch.autograd.grad((p.exp() * (p - q)).sum(), mine)
    assert relative(found, expected) < 1e-4


# -- models ------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["llama", "qwen"])
def model(request: pytest.FixtureRequest) -> Any:
    made: Any = {"llama": tiny_llama, "qwen": tiny_qwen}[request.param](hidden=64)
    return made.eval()


def gradient_of(model: Any, batch: TreeBatch, half: bool) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.autocast(next(model.parameters()).device.type, torch.bfloat16, enabled=half):
        scores = response_scores(model, batch)
        loss = segment_sum(scores.logprob_T, scores.response_T, batch.count).tanh().sum() + scores.logprob_T.mean()
        loss.backward()
    return scores.logprob_T.detach(), torch.cat([p.grad.flatten() for p in model.parameters()])


def test_scores_and_gradients_are_those_of_a_cpu(model: Any) -> None:
    batch = pack(some_trees(longest=30))
    twin, half = copy.deepcopy(model).to(GPU), copy.deepcopy(model).to(GPU)
    for one in (model, twin, half):
        assert prepare(one) is None
        assert base_of(one).config._attn_implementation == NAME
    expected = gradient_of(model, batch, False)
    for ours, theirs in zip(gradient_of(twin, batch.to(GPU), False), expected, strict=True):
        assert relative(ours, theirs) < 1e-4
    for ours, theirs in zip(gradient_of(half, batch.to(GPU), True), expected, strict=True):
        assert relative(ours, theirs) < 4e-2


def test_whole_layers_give_what_layers_give(model: Any) -> None:
    batch = pack(some_trees(longest=30))
    expected = gradient_of(copy.deepcopy(model), batch, False)
    found = []
    for whole in (True, False):
        made = copy.deepcopy(model).to(GPU)
        prepare(made)
        for layer in trunk(made).layers:
            assert "forward" in vars(layer)
            if not whole:
                del layer.forward
        found.append(gradient_of(made, batch.to(GPU), True))
    assert not fused._failed
    for whole, plain, exact in zip(*found, expected, strict=True):
        assert 0 < relative(whole, exact) < max(1.25 * relative(plain, exact), 2e-3)


def test_packs_and_order_do_not_matter(model: Any) -> None:
    trees = some_trees(longest=30)
    model.to(GPU)
    prepare(model)
    with torch.no_grad(), torch.autocast(**BF16):
        whole = response_states(model, pack(trees).to(GPU))
        parts = torch.cat([response_states(model, pack([tree]).to(GPU)) for tree in trees])
    assert relative(parts, whole) < 1e-2
    assert head_of(model).weight_VD.device.type == GPU


# -- jobs --------------------------------------------------------------------------------------------------------------

FAST = {"precision": "bf16", "learning_rate": 3e-3, "max_length": 128, "micro_tokens": 512}


def test_sft_learns_in_bf16(tiny_folder: Any, tmp_path: Any) -> None:
    data = demonstrations(tmp_path / "data.jsonl")
    config = SftConfig(model=str(tiny_folder), data=[data], out=tmp_path / "sft", batch_size=8, epochs=20, **FAST)
    folder = sft.run(config, Quiet())
    rows = metrics(folder)
    assert rows[0]["loss"] > 4.5
    assert rows[-1]["loss"] < 0.4


def test_dpo_starts_at_log_2_and_learns(tiny_folder: Any, tmp_path: Any) -> None:
    data = comparisons(tmp_path / "data.jsonl")
    config = DpoConfig(model=str(tiny_folder), data=[data], out=tmp_path / "dpo", batch_size=8, epochs=10, **FAST)
    rows = metrics(preference.run(config, Quiet()))
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=2e-3)
    assert rows[-1]["accuracy_tie_half"] == 1.0


@pytest.mark.parametrize("algorithm", ["ppo-clip", "grpo"])
def test_policies_run_in_bf16(tiny_folder: Any, tmp_path: Any, algorithm: str) -> None:
    data = prompts(tmp_path / "data.jsonl", 16)
    config = PpoConfig(
        model=str(tiny_folder), data=[data], out=tmp_path / "ppo", algorithm=algorithm, reward="r", batch_size=4,
        samples=4, max_new_tokens=6, **FAST,
    )  # fmt: skip
    rows = metrics(policy.run(config, Quiet(), FunctionReward("many_a", many_a)))
    assert all(math.isfinite(row["loss"]) for row in rows)
    assert max(row["sampler/gap"] for row in rows) < 0.05


@pytest.mark.parametrize("loss", ["dpo", "dpo-length", "ipo"])
def test_no_pack_of_a_step_waits_for_the_device(model: Any, loss: str) -> None:
    """Else the device is idle until the next pack is laid out."""
    model.to(GPU)
    prepare(model)
    trees = [PromptTree(tree.prompt, tree.branches[:2]) for tree in some_trees(count=9) if len(tree.branches) > 1]
    items = [preference.Item(preference=Preference(tree=tree, ranks=(1, 2)), reference=(-3.0, -4.0)) for tree in trees]
    config = DpoConfig(model="m", data=["d"], out="o", loss=loss)
    point, totals = torch.zeros(()), PairTotals()
    for mode in ("default", "error"):  # compiled first
        torch.cuda.set_sync_debug_mode(mode)
        try:
            with torch.autocast(**BF16):
                for part in (items[:2], items[2:]):
                    backward(preference.loss_of(model, part, config, totals, point))
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert totals.decided == 2 * len(items)


def test_gradients_add_up_in_place(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    added: list[Any] = []
    for module in (head, whole_layer):
        monkeypatch.setattr(module, "there", lambda weight: added.append(in_place.there(weight)) or added[-1])
    model.to(GPU)
    prepare(model)
    packs, found = [pack(some_trees(seed)).to(GPU) for seed in range(3)], []
    for run in (lambda loss: loss.backward(), backward):
        model.zero_grad()
        for batch in packs:
            with torch.autocast(**BF16):
                run(response_scores(model, batch).logprob_T.mean())
        found.append([p.grad.clone() for p in model.parameters()])
    for ours, expected in zip(*found, strict=True):
        assert relative(ours, expected) < 2e-3
    assert sum(total is not None for total in added) >= 2 * (2 * 7 + 1)
