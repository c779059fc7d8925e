"""--profile: it counts the arithmetic of the formulas, its seconds add up, and training is not changed by it."""

import json

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch.profiler import ProfilerActivity, profile, record_function

from accord.cli.profile_table import profile_table
from accord.models import head, kernels
from accord.models.quiet import quiet
from accord.models.score import prepare, response_scores
from accord.rollouts.decoder import Decoder
from accord.train import loop, profile_events, sft, work
from accord.train.configs import SftConfig
from accord.train.profile_events import sort_events, tracing_modules
from accord.train.progress import Quiet
from accord.train.work import counting_work
from accord.trees import Branch, PromptTree, pack
from fakes import VOCABULARY, tiny_gemma, tiny_gpt2, tiny_llama
from train.data import demonstrations

TREES = [
    PromptTree(tuple(range(5, 15)), (Branch.response((3, 4, 5)), Branch.response((7, 8)))),
    PromptTree(tuple(range(20, 24)), (Branch.response((9, 9, 9, 2)),)),
]
TOKENS, SCORED = 15 + 8, 5 + 4


def measured(model, gradients=True):
    """Sorted events and work of one pass over the trees."""
    prepare(model)
    batch = pack(TREES)
    with (
        tracing_modules(),
        counting_work(),
        profile(activities=[ProfilerActivity.CPU], record_shapes=True, acc_events=True) as seen,
        torch.set_grad_enabled(gradients),
    ):
        loss = response_scores(model, batch).logprob_T.sum()
        if gradients:
            loss.backward()
    found = sort_events(seen.events(), "cpu")
    return found, found.work["training"]


def matrices(model):
    """Numbers in the weights of linear layers of a Llama's trunk."""
    return sum(m.weight.numel() for m in model.model.modules() if isinstance(m, torch.nn.Linear))


def test_six_flop_per_weight_and_token_and_what_runs_is_what_is_counted():
    model = tiny_llama()
    found, work = measured(model)
    assert work.linear == 6 * matrices(model) * TOKENS == found.flop["training"]["matmul"]
    assert work.tokens == TOKENS


@pytest.mark.parametrize("kept", [True, False])
def test_the_head_counts_scored_tokens_and_not_the_logits_it_makes_again(kept, monkeypatch):
    model = tiny_llama()
    if not kept:
        monkeypatch.setattr(head, "GROUP_BYTES", 4 * 4 * VOCABULARY)  # four tokens: several groups are made again
    found, _ = measured(model)
    width = model.config.hidden_size
    assert found.flop["training"]["head"] == (6 if kept else 8) * SCORED * width * VOCABULARY
    assert found.repeated["training"] == (0 if kept else 2) * SCORED * width * VOCABULARY


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.usefixtures("tiles")
def test_the_same_where_kernels_make_the_products(kept, monkeypatch):
    if not kept:
        monkeypatch.setattr(head, "GROUP_BYTES", 4 * 2 * 96)
    state, weight = torch.randn(9, 32).bfloat16().requires_grad_(), torch.randn(96, 32, requires_grad=True)
    with (
        torch.autocast("cpu", torch.bfloat16),
        profile(activities=[ProfilerActivity.CPU], record_shapes=True, acc_events=True) as seen,
    ):
        head.token_logprob(state, head.Head(weight), torch.arange(9))[0].sum().backward()
    found = sort_events(seen.events(), "cpu")
    assert found.flop["training"] == {"head": (6 if kept else 8) * 9 * 32 * 96}
    assert found.repeated["training"] == (0 if kept else 2) * 9 * 32 * 96


def test_attention_counts_the_pairs_that_see_each_other():
    model = tiny_llama()
    _, work = measured(model, gradients=False)
    pairs = (10 * 11 / 2 + 3 * 10 + 6 + 2 * 10 + 3) + (4 * 5 / 2 + 4 * 4 + 10)
    assert work.attention == 2 * 4 * 32 * pairs  # two layers, width 32
    found, again = measured(model)
    assert again.attention == 3 * work.attention < found.flop["training"]["attention"]


def test_frozen_weights_under_adapters_have_no_gradient_to_compute():
    model = tiny_llama()
    frozen = matrices(model)
    adapted = loop.add_lora(model, 2, 0, base="")
    added = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    found, work = measured(adapted)
    assert work.linear == (4 * frozen + 6 * added) * TOKENS
    # Nothing reads the gradient of what the first adapters see: autograd leaves it out.
    assert 0.85 * work.linear < found.flop["training"]["matmul"] <= work.linear


def test_activations_made_again_are_computed_but_not_useful():
    model = tiny_llama()
    with quiet():
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    found, work = measured(model)
    assert found.flop["training"]["matmul"] == pytest.approx(8 / 6 * work.linear, rel=0.1)
    assert work.linear == 6 * matrices(model) * TOKENS


def test_work_has_the_phase_it_was_done_in():
    model, batch = tiny_llama(), pack(TREES)
    prepare(model)
    with counting_work(), profile(activities=[ProfilerActivity.CPU], record_shapes=True, acc_events=True) as seen:
        response_scores(model, batch)
        with record_function("accord.evaluation"), torch.no_grad():
            response_scores(model, batch)
    found = sort_events(seen.events(), "cpu")
    assert found.work["training"].linear == 3 * found.work["evaluation"].linear > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_of_decoding_counts_its_products_whoever_makes_them(dtype):
    model, found = tiny_llama(hidden=128), []
    for at_once in (True, False):
        decoder = Decoder(model, dtype)
        assert decoder._steps is not None or kernels.build.library() is None
        decoder._steps = decoder._steps if at_once else None
        mask = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]])
        cache = decoder.prefill([[5, 6, 7], [8, 9], [3, 4, 5]])[2]
        with (
            profile(activities=[ProfilerActivity.CPU], record_shapes=True, acc_events=True) as seen,
            record_function("accord.sampling"),
        ):
            decoder.step(torch.tensor([4, 3, 2]), mask.sum(-1) - 1, mask, cache)
        of_products = sort_events(seen.events(), "cpu").flop["sampling"]
        found.append(of_products["matmul"] + of_products["head"])
    expected = 2 * 3 * (matrices(model) + model.lm_head.weight.numel())
    assert found == [expected, expected]


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_gemma])
def test_other_families(make):
    found, work = measured(make())
    assert found.flop["training"]["matmul"] == pytest.approx(work.linear, rel=0.01)
    assert work.attention > 0


def config(folder, tiny, data, **extra):
    settings = {"precision": "fp32", "batch_size": 4, "max_steps": 6, "max_length": 128, "learning_rate": 1e-3}
    return SftConfig(model=str(tiny), data=(data,), out=folder, **settings, **extra)


def test_the_rate_is_the_higher_of_before_and_behind(tmp_path, tiny_folder, monkeypatch):
    measured_rates = iter([3e9, 5e9, 4e9, 2e9])  # fp32 and bf16, before and behind
    monkeypatch.setattr("accord.train.profile.matmul_rate", lambda dtype, device: next(measured_rates))
    folder = sft.run(config(tmp_path / "run", tiny_folder, demonstrations(tmp_path / "d.jsonl"), profile=True), Quiet())
    found = json.loads((folder / "profile.json").read_text(encoding="utf8"))
    assert found["matmul_rate"] == {"fp32": 4e9, "bf16": 5e9}
    assert found["share_of_ceiling"] == pytest.approx(found["useful_flop_per_second"] / 4e9)


@pytest.mark.parametrize("name", ["aten::_flash_attention_forward", "aten::_flash_attention_backward"])
def test_flash_attention_is_attention_wherever_it_is_called(name):
    assert profile_events._kind(name, None) == "attention"


def test_a_profiled_run(tmp_path, tiny_folder, capfd):
    data = demonstrations(tmp_path / "d.jsonl")
    plain = sft.run(config(tmp_path / "plain", tiny_folder, data), Quiet())
    folder = sft.run(config(tmp_path / "run", tiny_folder, data, profile=True), Quiet())
    assert capfd.readouterr().err.count("USDT") == 0  # the profiler's library talks past Python
    name = "model/model.safetensors"
    weights = load_file(folder / name)
    assert all(torch.equal(weights[key], value) for key, value in load_file(plain / name).items())
    assert not (plain / "profile.json").exists()

    found = json.loads((folder / "profile.json").read_text(encoding="utf8"))
    assert found["steps"] == [2, 3, 4]
    kinds = found["phases"]["training"]
    assert sum(kinds.values()) == pytest.approx(found["seconds"], rel=0.02)
    assert all(kinds[kind] > 0 for kind in ("matmul", "attention", "head", "pointwise", "optimiser", "data", "other"))
    rate = found["useful_flop_per_second"]
    assert rate == pytest.approx(sum(found["useful_flop"].values()) / found["seconds"])
    assert found["share_of_ceiling"] == pytest.approx(rate / found["matmul_rate"]["fp32"])
    assert 0 < found["share_of_ceiling"] < 1

    console = Console(width=100, record=True)
    console.print(profile_table(found))
    text = console.export_text()
    assert "steps 2 to 4: fp32 on cpu" in " ".join(text.split())
    assert "Besides" not in text
    assert f"{kinds['matmul'] / found['seconds']:.1%}" in text


def test_the_only_step_of_a_run_is_measured_and_said_so(tmp_path, tiny_folder):
    data = demonstrations(tmp_path / "d.jsonl", 4)
    folder = sft.run(config(tmp_path / "run", tiny_folder, data, profile=True), Quiet())
    found = json.loads((folder / "profile.json").read_text(encoding="utf8"))
    assert found["steps"] == [1]
    assert found["first_step_included"]
    saved = sum(found["phases"]["checkpoint"].values())
    assert 0 < saved < found["seconds"]  # the last step writes one, and that is no part of what a step takes
    useful = sum(found["useful_flop"].values())
    assert found["useful_flop_per_second"] == pytest.approx(useful / (found["seconds"] - saved))
    console = Console(width=100, record=True)
    console.print(profile_table(found))
    assert "Besides: checkpoint" in console.export_text()


def test_pairs_of_a_tree_by_hand():
    """A prompt of 3 with responses of 1 and 2: 6 of the prompt, 4, and 4 + 5; with a window of 2: 5, 2, and 2 + 2."""
    trees = [PromptTree((1, 2, 3), (Branch.response((4,)), Branch.response((5, 6))))]
    assert work._tree_pairs(trees, None) == 6 + 4 + 9
    assert work._tree_pairs(trees, 2) == 5 + 2 + 4
