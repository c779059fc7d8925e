"""Each policy algorithm's step is its definition, loss and gradient, whatever the split into packs; ragged lengths."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from accord.losses import advantages, kl
from accord.losses import policy as losses
from accord.models.score import prepare, response_scores
from accord.records import Message
from accord.train import loop, updates
from accord.train.algorithms import Coefficients, weighted_sum
from accord.train.configs import PpoConfig
from accord.train.experience import Actor, Experience
from accord.train.loop import Precision, add_lora
from accord.train.rewards import Responses
from accord.train.scoring import firsts
from accord.trees import PromptTree, pack
from fakes import tiny_llama
from train.test_exact_accumulation import (
    BASE,
    BUDGETS,
    check_same,
    gradient,
    model_of,
    packs_of,
    ragged,
    tiny_reference,
)

LENGTHS = [[3, 9], [4, 1], [12, 2], [1, 20], [6, 6]]
CHOSEN = [3, 0, 4, 1]  # a minibatch, not in order
TEMPERATURE = 0.8
CASES = {
    "ppo-clip": {"clip": 0.1, "clip_high": 0.3, "dual_clip": 1.5},
    "ppo-clip sequence": {"average": "sequence"},
    "ppo-clip constant": {"average": "constant"},
    "ppo-penalty": {"penalty": 0.7, "entropy_coefficient": 0.03},
    "reinforce": {"value_coefficient": 0.3},
    "reinforce mean": {"baseline": "mean", "entropy_coefficient": 0.03},
    "rloo": {"kl_place": "loss", "kl_estimator": "k2", "kl_beta": 0.3},
    "grpo": {"kl_beta": 0.3},
    "grpo token exact": {"kl_beta": 0.3, "average": "token", "kl_estimator": "exact", "kl_place": "both"},
    "grpo constant k2": {"kl_beta": 0.3, "average": "constant", "kl_estimator": "k2"},
}


def config_of(case: str, **extra) -> PpoConfig:
    settings = {"algorithm": case.split()[0], "max_new_tokens": 24, "temperature": TEMPERATURE, "samples": 2}
    return PpoConfig(**BASE, reward="r", **settings, **CASES[case], **extra)


def experience_of(config: PpoConfig, values: bool) -> Experience:
    trees = ragged(LENGTHS)
    lengths = torch.tensor([n for row in LENGTHS for n in row])
    generator = torch.Generator().manual_seed(4)
    mask_NT = torch.arange(int(lengths.max())) < lengths[:, None]

    def table(scale: float, mean: float = 0.0) -> torch.Tensor:
        entries = torch.randn(mask_NT.shape, generator=generator, dtype=torch.float64) * scale + mean
        return entries.masked_fill(~mask_NT, float("nan"))  # what lies outside the mask is never looked at

    prompts = [(Message(role="user", content="q"),)] * 5
    return Experience(
        responses=Responses(prompts=prompts, trees=trees, texts_BK=[], finished_BK=[]), first_B=firsts(trees),
        mask_NT=mask_NT, sampled_NT=torch.zeros(mask_NT.shape),
        logprob_NT=table(0.3, -5.5), reference_NT=table(0.3, -5.5),
        value_NT=table(0.5) if values else None, return_NT=table(1.0) if values else None,
        score_N=torch.zeros(10), advantage_NT=table(1.0), figures={},
    )  # fmt: skip


def full_logprobs(model: nn.Module, tree: PromptTree, k: int) -> torch.Tensor:
    """(T, V) of one response alone, by the model's own head."""
    ids = torch.tensor([tree.prompt + tree.branches[k].tokens])
    return (model(input_ids=ids).logits[0, len(tree.prompt) - 1 : -1] / TEMPERATURE).log_softmax(-1)


def token_losses(case: str, logprob, old, advantage, reference, exact):
    """The formulas, written out once more."""
    ratio = (logprob - old).exp()
    gap = logprob - reference
    match case:
        case "ppo-clip":
            objective = torch.minimum(ratio * advantage, ratio.clamp(0.9, 1.3) * advantage)
            return -torch.where(advantage < 0, torch.maximum(objective, 1.5 * advantage), objective)
        case "ppo-penalty":
            return -(ratio * advantage - 0.7 * (ratio - 1 - (logprob - old)))
        case "reinforce" | "reinforce mean":
            return -advantage * logprob
        case "rloo":
            return -advantage * logprob + 0.3 * gap**2 / 2
    clipped = -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
    penalty = {"grpo": (-gap).exp() - 1 + gap, "grpo token exact": exact, "grpo constant k2": gap**2 / 2}
    return clipped + 0.3 * penalty.get(case, torch.zeros(()))


def by_definition(case: str, made: Experience, model: nn.Module, head: nn.Module, reference: nn.Module):
    """(loss, entropy) with their graph, each response alone."""
    terms, values, entropies = [], [], []
    for b in CHOSEN:
        for k, branch in enumerate(made.responses.trees[b].branches):
            tree, row, size = made.responses.trees[b], made.first_B[b] + k, len(branch.tokens)
            p, q = full_logprobs(model, tree, k), full_logprobs(reference, tree, k).detach()
            logprob = p.gather(-1, torch.tensor(branch.tokens)[:, None])[:, 0]
            tables = (made.logprob_NT, made.advantage_NT, made.reference_NT)
            old, advantage, ref = (table_NT[row, :size] for table_NT in tables)
            terms.append(token_losses(case, logprob, old, advantage, ref, (p.exp() * (p - q)).sum(-1)))
            entropies.append(-(p.exp() * p).sum(-1))
            if made.value_NT is not None:
                value = response_scores(model, pack([PromptTree(tree.prompt, (branch,))]), value_head=head).value_T
                values.append((value - made.return_NT[row, :size]) ** 2 / 2)
    loss = average_of(case, terms)
    if made.value_NT is not None:
        loss = loss + {"reinforce": 0.3}.get(case, 0.1) * torch.cat(values).mean()
    if "entropy_coefficient" in CASES[case]:
        loss = loss - 0.03 * torch.cat(entropies).mean()
    return loss


def average_of(case: str, terms: list[torch.Tensor]) -> torch.Tensor:
    if case in ("ppo-clip sequence", "grpo"):
        return torch.stack([term.mean() for term in terms]).mean()
    if "constant" in case:
        return torch.cat(terms).sum() / (len(terms) * 24)
    if case == "rloo":
        return torch.stack([term.sum() for term in terms]).mean()
    return torch.cat(terms).mean()


@pytest.mark.parametrize("case", CASES)
def test_a_step_is_its_definition_in_any_split(case):
    results, reference = {}, tiny_reference()
    values = case.startswith("ppo") or case == "reinforce"
    for budget in BUDGETS:
        config = config_of(case, micro_tokens=budget)
        made = experience_of(config, values)
        model = model_of()
        torch.manual_seed(6)
        head = nn.Linear(32, 1).double() if values else None
        actor = Actor(policy=model, reference=reference, value_head=head, critic=None)
        figures = updates.accumulate(made, CHOSEN, actor, config, Coefficients(config))
        parts = [part for part in (model, head) if part is not None]
        results[budget] = (figures["loss"], gradient(*parts), figures)
    assert packs_of([made.responses.trees[b] for b in CHOSEN], BUDGETS[0]) == 4
    check_same(results)
    assert ("loss__value" in figures) == values
    assert ("clip_fraction" in figures) == case.startswith(("ppo-clip", "grpo"))
    assert ("loss__kl" in figures) == case.startswith(("rloo", "grpo"))
    for part in parts:
        part.zero_grad(set_to_none=True)
    loss = by_definition(case, made, model, head, reference)
    loss.backward()
    assert results[16][0] == pytest.approx(loss.item(), rel=1e-5)
    expected = gradient(*parts)
    assert_close(results[16][1], expected, rtol=0, atol=2e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("lora", [0, 4])
def test_in_bf16_the_exact_kl_starts_at_zero_and_keeps_its_gradient(lora):
    """Autocast keeps weights it has cast: those of the reference's pass must not serve the policy, without a graph."""
    gradients = {}
    for name in ("bf16", "fp32"):
        precision, model = Precision(name, torch.device("cpu")), tiny_llama()
        assert prepare(model) is None
        reference = None if lora else precision.freeze(copy.deepcopy(model))
        if lora:
            model = add_lora(precision.freeze(model), lora, 0, base="")
        actor = Actor(policy=loop.steady(model), reference=reference, value_head=None, critic=None)
        config = config_of("grpo token exact", micro_tokens=64)
        made = experience_of(config, False)
        made = replace(made, logprob_NT=made.logprob_NT.float(), advantage_NT=made.advantage_NT.float())
        with precision.forward():
            assert updates.accumulate(made, CHOSEN, actor, config, Coefficients(config))["loss__kl"] == 0
        for number, p in enumerate(loop.trainable(model)):
            with torch.no_grad():
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(number)) * 0.05)
        model.zero_grad(set_to_none=True)
        made.advantage_NT.nan_to_num_()[:] = 0  # the KL alone
        with precision.forward():
            assert updates.accumulate(made, CHOSEN, actor, config, Coefficients(config))["loss__kl"] > 1e-3
        gradients[name] = gradient(model)
    assert gradients["bf16"].shape == gradients["fp32"].shape
    assert float(nn.functional.cosine_similarity(gradients["bf16"], gradients["fp32"], dim=0)) > 0.99


def tables():
    generator = torch.Generator().manual_seed(2)
    lengths = torch.tensor([3, 9, 4, 1, 12, 2])
    mask_NT = torch.arange(12) < lengths[:, None]
    loss_NT = torch.randn(mask_NT.shape, generator=generator, dtype=torch.float64)
    return loss_NT, mask_NT


@pytest.mark.parametrize("mode", ["token", "sequence", "constant"])
@pytest.mark.parametrize("split", [[6], [1, 5], [2, 2, 2]])
def test_averages_are_those_of_the_objectives_over_whole_tables(mode, split):
    loss_NT, mask_NT = tables()
    config = config_of("ppo-clip").model_copy(update={"average": mode})
    total, row = 0.0, 0
    for size in split:
        part, response_T = (
            mask_NT[row : row + size],
            torch.arange(size).repeat_interleave(mask_NT.sum(-1)[row : row + size]),
        )
        total += weighted_sum(loss_NT[row : row + size][part], response_T, config, tokens=31, responses=6) / 31
        row += size
    expected = losses.aggregate(loss_NT, mask_NT, mode=mode, max_length=24)
    assert_close(total, expected, rtol=1e-12, atol=0)


def test_rloo_is_that_of_the_objectives():
    logprob_NT, mask_NT = tables()
    reward_BK = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]], dtype=torch.float64)
    expected = losses.rloo((logprob_NT * mask_NT).sum(-1).view(2, 3), reward_BK).mean()
    advantage_NT = advantages.leave_one_out(reward_BK).view(6, 1).expand(6, 12)
    loss_T = losses.reinforce(logprob_NT[mask_NT], advantage_NT[mask_NT])
    response_T = torch.arange(6).repeat_interleave(mask_NT.sum(-1))
    assert_close(weighted_sum(loss_T, response_T, config_of("rloo"), tokens=31, responses=6) / 31, expected)


def test_grpo_is_that_of_the_objectives():
    """`accumulate` against `losses.grpo` and `losses.aggregate` on the tables of one minibatch."""
    config = config_of("grpo")
    made, model = experience_of(config, False), model_of()
    actor = Actor(policy=model, reference=None, value_head=None, critic=None)
    found = updates.accumulate(made, range(5), actor, config, Coefficients(config))
    logprob_NT = torch.zeros_like(made.logprob_NT)
    with torch.no_grad():
        logprob_NT[made.mask_NT] = response_scores(model, pack(made.responses.trees), temperature=TEMPERATURE).logprob_T
    loss_NT = losses.grpo(logprob_NT, made.logprob_NT, made.reference_NT, made.advantage_NT, kl_coefficient=0.3)
    assert found["loss"] == pytest.approx(float(losses.aggregate(loss_NT, made.mask_NT, mode="sequence")), rel=1e-6)
    kl_NT = kl.k3(logprob_NT, made.reference_NT)
    assert found["loss__kl"] == pytest.approx(float(losses.aggregate(kl_NT, made.mask_NT, mode="sequence")), rel=1e-6)
