"""TRPO's step on ragged packs: the Fisher matrix by finite differences, a bound that holds, a refusal that restores."""

import copy
import json
import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from accord.models.allocation import memory_available
from accord.models.quiet import quiet
from accord.models.score import prepare
from accord.train import fisher_memory, loop, policy, trust_region
from accord.train.algorithms import Coefficients
from accord.train.experience import Actor
from accord.train.fisher_memory import memory_needed, require_memory
from accord.train.loop import Precision, add_lora
from accord.train.progress import Quiet
from accord.train.rewards import FunctionReward
from accord.train.updates import Parts
from fakes import FAMILIES, VOCABULARY, tiny_llama
from train.data import many_a, metrics, prompts
from train.test_exact_algorithms import TEMPERATURE, config_of, experience_of, full_logprobs

CPU = torch.device("cpu")
BUDGETS = [16, 100_000]


def setting(**extra):
    return config_of("ppo-clip").model_validate(
        {"model": "m", "data": ["d"], "out": "o", "reward": "r", "algorithm": "trpo", "samples": 2,
         "max_new_tokens": 24, "temperature": TEMPERATURE, **extra}
    )  # fmt: skip


def parts_of(model, config, head=None, critic=None) -> Parts:
    actor = Actor(policy=model, reference=None, value_head=head, critic=critic)
    values = actor.value_function
    return Parts(
        actor=actor, optimiser=loop.make_optimiser([values], config, [1.0]) if values else None, config=config,
        precision=Precision("fp32", CPU), coefficients=Coefficients(config), ptx=None, run=None, total=4,
    )  # fmt: skip


def made_of(model):
    """A rollout of which the old log-probabilities are the model's own, so that ratios begin at 1."""
    made = experience_of(setting(), True)
    with torch.no_grad():
        for b, tree in enumerate(made.responses.trees):
            for k, branch in enumerate(tree.branches):
                logprob_TV = full_logprobs(model, tree, k)
                chosen = logprob_TV.gather(-1, torch.tensor(branch.tokens)[:, None])[:, 0]
                made.logprob_NT[made.first_B[b] + k, : len(branch.tokens)] = chosen
    return made


def model_of(family="llama", lora: bool = False) -> nn.Module:
    model = FAMILIES[family]().double()
    assert prepare(model) is None
    if lora:
        model = add_lora(model.requires_grad_(False), 4, 0, base="").double()
        for name, p in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(p, std=0.05, generator=torch.Generator().manual_seed(1))
    return loop.steady(model)


@torch.no_grad()
def kl_and_surrogate(old, new, made, chosen=range(5)) -> tuple[float, float]:
    """Mean exact KL(old || new) and mean surrogate over tokens, response by response."""
    divergences, losses = [], []
    for b in chosen:
        tree = made.responses.trees[b]
        for k, branch in enumerate(tree.branches):
            p, q = (full_logprobs(model, tree, k) for model in (old, new))
            divergences.append((p.exp() * (p - q)).sum(-1))
            said = torch.tensor(branch.tokens)[:, None]
            advantage = made.advantage_NT[made.first_B[b] + k, : len(branch.tokens)]
            losses.append(-(q - p).gather(-1, said)[:, 0].exp() * advantage)
    return float(torch.cat(divergences).mean()), float(torch.cat(losses).mean())


def pieces_of(model, made, budget, chosen=range(5), **extra):
    return trust_region.pieces_of(made, chosen, parts_of(model, setting(micro_tokens=budget, **extra)))


def nudged(model, vector_D, size):
    other = copy.deepcopy(model)
    parameters = loop.trainable(other)
    start_D = trust_region._flat(parameters)
    trust_region._assign(parameters, start_D + size * vector_D)
    return other


@pytest.mark.parametrize(("family", "lora"), [*((family, False) for family in FAMILIES), ("llama", True)])
def test_products_are_the_second_derivative_of_the_kl(family, lora):
    model = model_of(family, lora)
    made = made_of(model)
    size = trust_region._flat(loop.trainable(model)).numel()
    u, v = torch.randn(2, size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    config = setting(damping=0.0)
    products = [trust_region.fisher_product(model, pieces_of(model, made, b), v, config) for b in BUDGETS]
    assert len(pieces_of(model, made, 16)) == 5
    assert_close(*products, rtol=1e-4, atol=1e-5 * float(products[0].abs().max()))
    # KL(old || old + e v) = e^2 / 2 v.Fv + O(e^3); both signs take the third order away
    e = 3e-3 / math.sqrt(size)
    difference = sum(kl_and_surrogate(model, nudged(model, v, sign * e), made)[0] for sign in (1, -1)) / e**2
    assert float(v.dot(products[0])) == pytest.approx(difference, rel=2e-3)
    turned = trust_region.fisher_product(model, pieces_of(model, made, 64), u, config)
    assert float(v.dot(turned)) == pytest.approx(float(u.dot(products[0])), rel=1e-3, abs=1e-6)
    damped = trust_region.fisher_product(model, pieces_of(model, made, 16), v, setting(damping=0.5))
    assert_close(damped - products[0], 0.5 * v)  # once, not once a pack


def test_the_graph_may_be_checkpointed():
    model, vector = model_of(), None
    made, results = made_of(model), []
    for checkpointing in (False, True):
        if checkpointing:
            with quiet():
                model.gradient_checkpointing_enable({"use_reentrant": False})
            loop.steady(model)
        vector = torch.ones(trust_region._flat(loop.trainable(model)).numel(), dtype=torch.float64)
        results.append(trust_region.fisher_product(model, pieces_of(model, made, 64), vector, setting()))
    assert_close(*results)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("max_kl", [0.001, 0.01, 0.1])
def test_an_accepted_step_keeps_its_bound_and_says_what_it_did(lora, max_kl):
    ends = []
    for budget in BUDGETS:
        model = model_of(lora=lora)
        old, made = copy.deepcopy(model), made_of(model)
        config = setting(max_kl=max_kl, micro_tokens=budget, damping=1e-3)
        pieces = pieces_of(model, made, budget)
        figures = trust_region.natural_step(model, pieces, pieces, config)
        divergence, loss = kl_and_surrogate(old, model, made)
        _, before = kl_and_surrogate(old, old, made)
        assert figures["trpo__accepted"] == 1
        assert 0.02 * max_kl < divergence <= max_kl
        assert figures["trpo__kl"] == pytest.approx(divergence, rel=1e-4)
        assert figures["trpo__improvement"] == pytest.approx(before - loss, rel=1e-4, abs=1e-7)
        assert figures["trpo__improvement"] > 0
        assert figures["loss"] == pytest.approx(before, abs=1e-6)
        assert all(p.grad is None for p in model.parameters())
        ends.append(trust_region._flat(loop.trainable(model)))
    assert_close(
        *ends, rtol=0, atol=1e-4 * float((ends[0] - trust_region._flat(loop.trainable(old))).abs().max()) + 1e-7
    )


def test_the_step_is_the_natural_one():
    """Of all small steps of its KL the natural one lowers the loss most: more than the plain gradient of equal KL."""
    model = model_of()
    made, config = made_of(model), setting(max_kl=1e-5, damping=1e-6, cg_iterations=30)
    pieces = pieces_of(model, made, 512)
    gradient_D, _ = trust_region.surrogate_gradient(model, pieces, config)
    curvature = float(gradient_D.dot(trust_region.fisher_product(model, pieces, gradient_D, config)))
    plain = float(gradient_D.dot(gradient_D)) * math.sqrt(2e-5 / curvature)
    figures = trust_region.natural_step(model, pieces, pieces, config)
    assert figures["trpo__expected"] > 1.3 * plain
    assert figures["trpo__improvement"] == pytest.approx(figures["trpo__expected"] * figures["trpo__fraction"], rel=0.1)


@pytest.mark.parametrize("why", ["worse", "too far", "not a number"])
def test_a_refused_step_leaves_every_parameter_as_it_was(monkeypatch, why):
    model = model_of()
    start = copy.deepcopy(model.state_dict())
    made, asked = made_of(model), []
    plain = trust_region.measure

    def measure(*arguments):
        asked.append(trust_region._flat(loop.trainable(model)))
        loss, divergence = plain(*arguments)
        if len(asked) == 1:  # before the step
            return loss, divergence
        return {"worse": (loss + 10, 0.0), "too far": (loss, 0.02), "not a number": (math.nan, math.nan)}[why]

    monkeypatch.setattr(trust_region, "measure", measure)
    pieces = pieces_of(model, made, 64)
    figures = trust_region.natural_step(model, pieces, pieces, setting(backtracks=4))
    assert len(asked) == 5
    steps = [float((one - asked[0]).norm()) for one in asked[1:]]
    assert [step / steps[0] for step in steps] == pytest.approx([1, 0.5, 0.25, 0.125], rel=1e-6)
    assert (figures["trpo__accepted"], figures["trpo__fraction"], figures["trpo__kl"]) == (0, 0, 0)
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())


def test_equal_advantages_make_no_step_and_no_nan():
    model = model_of()
    made = made_of(model)
    made.advantage_NT[:] = 0
    start = copy.deepcopy(model.state_dict())
    pieces = pieces_of(model, made, 64)
    figures = trust_region.natural_step(model, pieces, pieces, setting())
    assert all(math.isfinite(value) for value in figures.values())
    assert figures["trpo__accepted"] == 0
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())


def test_a_share_of_the_prompts_is_a_function_of_the_seed():
    shares = [trust_region.seeded_share(10, setting(fisher_share=0.25, seed=seed), number) for seed, number in
              ((0, 0), (0, 0), (0, 1), (1, 0))]  # fmt: skip
    assert [len(share) for share in shares] == [3] * 4
    assert shares[0] == shares[1]
    assert shares[0] != shares[2]
    assert shares[0] != shares[3]
    assert trust_region.seeded_share(10, setting(), 5) == list(range(10))


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_values_are_fitted_apart_from_the_policy(critic):
    from train.test_exact_accumulation import model_of as made_for

    model = model_of()
    head = nn.Linear(32, 1).double() if critic == "shared" else None
    value_model = made_for("reward") if critic == "separate" else None
    config = setting(value_updates=30, schedule="constant", micro_tokens=64, max_grad_norm=100)
    parts = parts_of(model, config, head, value_model)
    start, made = copy.deepcopy(model.state_dict()), made_of(model)
    pieces = trust_region.pieces_of(made, range(5), parts)
    losses = [trust_region.fit_values(parts, pieces, 3e-3, lambda: "")["loss__value"] for _ in range(2)]
    assert losses[0] > 1.5 * losses[1]
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert trust_region.fit_values(parts_of(model, setting(value_updates=0), head, value_model), pieces, 1, str) == {}


# -- memory ------------------------------------------------------------------------------------------------------------


def test_too_little_memory_is_said_before_the_first_step(monkeypatch):
    model, config = tiny_llama(), setting(fisher_share=0.5)
    monkeypatch.setattr(fisher_memory, "memory_available", lambda device: 5_000_000)
    with pytest.raises(
        ValueError, match=r"a trpo step needs about 0\.\d GB .*; 0\.0 GB are available; .*--lora-rank 8"
    ):
        require_memory(model, [20] * 8, config)
    monkeypatch.undo()
    assert memory_available(CPU) > 10_000_000
    require_memory(model, [20] * 8, config)


def test_the_estimate_follows_what_it_is_made_of():
    model, config = tiny_llama(), setting(micro_tokens=64)
    one = memory_needed(model, [20], config)
    count = sum(p.numel() for p in model.parameters())
    logits = 2 * 24 * VOCABULARY  # one prompt's responses
    assert one > 4 * (10 * count + 8 * logits)
    assert memory_needed(model, [20] * 8, config) < 1.1 * one  # packs bound the graph; the old states are small
    assert memory_needed(model, [20] * 8, setting(micro_tokens=1024)) > 2 * one
    assert memory_needed(model, [20] * 8, setting(micro_tokens=1024, fisher_share=0.5)) < memory_needed(
        model, [20] * 8, setting(micro_tokens=1024)
    )
    assert memory_needed(add_lora(model.requires_grad_(False), 2, 0, base=""), [20], config) < one


def test_moved_weights_are_cast_anew():
    """The line search runs under one autocast, which keeps its copies of the weights."""
    model, precision = tiny_llama(hidden=64), Precision("bf16", CPU)
    prepare(model)
    parameters = loop.trainable(model)
    tokens = torch.arange(5, 12).unsqueeze(0)
    with precision.forward():
        first = model(tokens).logits
        with torch.no_grad():
            trust_region._assign(parameters, trust_region._flat(parameters) * 2)
            assert not torch.equal(model(tokens).logits, first)
            second = model(tokens).logits
    with precision.forward(), torch.no_grad():
        assert torch.equal(model(tokens).logits, second)


# -- the run -----------------------------------------------------------------------------------------------------------


def test_auto_is_fp32_and_says_so(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_fast_precision", lambda device: "bf16")
    notes = []

    class Notes(Quiet):
        def note(self, text):
            notes.append(text)

    settings = setting(
        model=str(tiny_folder), data=[prompts(tmp_path / "p.jsonl", 4)], out=tmp_path / "run", batch_size=4,
        max_new_tokens=4, max_length=64,
    )  # fmt: skip
    folder = policy.run(settings, Notes(), FunctionReward("many_a", many_a))
    assert json.loads((folder / "manifest.json").read_text())["precision"] == "fp32"
    assert "trpo: fp32" in "\n".join(notes)
    (row,) = metrics(folder)
    assert row["trpo/kl"] <= 0.01
    monkeypatch.setattr(fisher_memory, "memory_available", lambda device: 1000)
    with pytest.raises(ValueError, match="a trpo step needs"):
        policy.run(settings.model_copy(update={"out": tmp_path / "small"}), Quiet(), FunctionReward("a", many_a))
    assert not (tmp_path / "small" / "metrics.jsonl").exists()
