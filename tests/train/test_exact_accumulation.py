"""The token budget of a forward pass is memory, never the result: loss and gradient of every job, ragged lengths.

field: G1, G2, K2, M4
"""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from transformers import AutoModelForSequenceClassification

from accord.data.batches import Preference
from accord.models.score import prepare, response_scores, rewards, values
from accord.records import Message
from accord.train import preference, reward, sft, updates
from accord.train.algorithms import Coefficients
from accord.train.configs import DpoConfig, PpoConfig, RewardConfig
from accord.train.experience import Actor, Experience
from accord.train.reward_objective import Objective
from accord.train.rewards import Responses
from accord.train.scoring import all_sequence_logprobs, firsts
from accord.trees import Branch, PromptTree, budget_packs, pack
from fakes import FAMILIES, VOCABULARY, tiny_llama

BUDGETS = [16, 64, 100_000]
BASE = {"model": "m", "data": ["d"], "out": "o"}


def draw(generator: torch.Generator, count: int) -> tuple[int, ...]:
    return tuple(torch.randint(4, VOCABULARY, (count,), generator=generator).tolist())


def ragged(responses: list[list[int]]) -> list[PromptTree]:
    """Prompts of 3 to 30 tokens, responses of the lengths given."""
    generator = torch.Generator().manual_seed(1)
    return [
        PromptTree(draw(generator, 3 + 9 * (b % 4)), tuple(Branch.response(draw(generator, n)) for n in lengths))
        for b, lengths in enumerate(responses)
    ]


def model_of(kind: str = "policy") -> nn.Module:
    model = tiny_llama()
    if kind == "reward":
        config = model.config
        config.num_labels = 1
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config)
    model = model.double().eval()
    assert prepare(model) is None
    return model


def gradient(*modules: nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for module in modules for p in module.parameters() if p.grad is not None])


def check_same(results: dict[int, tuple]) -> None:
    """(loss, gradient, figures) by budget."""
    loss, grad, figures = results[BUDGETS[-1]]
    assert float(grad.abs().max()) > 1e-4
    for budget in BUDGETS[:-1]:
        assert results[budget][0] == pytest.approx(loss, rel=1e-6)
        # RMSNorm squares in float32 even in a float64 model.
        assert_close(results[budget][1], grad, rtol=0, atol=2e-6 * float(grad.abs().max()))
        assert results[budget][2] == pytest.approx(figures, rel=1e-5, abs=1e-6)


def packs_of(trees, budget: int) -> int:
    return len(budget_packs([tree.length for tree in trees], budget))


def test_sft():
    trees = ragged([[1], [14], [2], [30], [7], [5]])
    conversation = Branch(
        draw(torch.Generator().manual_seed(2), 9), (True, False, False, True, True, False) + (True,) * 3
    )
    trees.append(PromptTree((5, 6, 7), (conversation,)))
    assert [packs_of(trees, budget) for budget in BUDGETS] == [6, 3, 1]
    results = {}
    for budget in BUDGETS:
        model = model_of()
        results[budget] = (sft.accumulate(model, trees, budget), gradient(model), {})
    check_same(results)
    # And it is the mean over all trained tokens of the step, not a mean of means.
    model = model_of()
    scores = [response_scores(model, pack([tree])).logprob_T for tree in trees]
    assert sum(one.numel() for one in scores) == 1 + 14 + 2 + 30 + 7 + 5 + 6
    loss = -torch.cat(scores).mean()
    loss.backward()
    assert results[16][0] == pytest.approx(loss.item(), rel=1e-9)
    assert_close(results[16][1], gradient(model), rtol=0, atol=1e-7)


def ranked() -> list[Preference]:
    ranks = [(1, 2), (2, 1, 2, 0), (1, 1), (3, 1, 2), (1, 2)]
    trees = ragged([[3, 9], [4, 1, 12, 2], [5, 5], [1, 2, 3], [20, 2]])
    items = [Preference(tree=tree, ranks=rank) for tree, rank in zip(trees, ranks, strict=True)]
    items[0] = replace(items[0], probability=0.7)
    items[4] = replace(items[4], probability=0.2)
    return items


def test_reward():
    items = ranked()
    items[0] = replace(items[0], margin=0.5)
    results = {}
    for budget in BUDGETS:
        model = model_of("reward")
        loss, totals = reward.accumulate(model, Objective(RewardConfig(**BASE)), items, budget)
        results[budget] = (loss, gradient(model), totals.means())
    check_same(results)
    model = model_of("reward")
    tree_losses = []
    for item in items:  # each response alone, each tree's mean, the mean over trees
        score = [
            rewards(model, pack([PromptTree(item.tree.prompt, (branch,))]))[0].double() for branch in item.tree.branches
        ]
        losses = []
        for i, first in enumerate(item.ranks):
            for j, second in enumerate(item.ranks):
                if first >= 1 and (second > first or second == 0):
                    p = 1.0 if item.probability is None else item.probability
                    z = score[i] - score[j] - (item.margin or 0.0)
                    losses.append(-p * nn.functional.logsigmoid(z) - (1 - p) * nn.functional.logsigmoid(-z))
        tree_losses.append(sum(losses) / max(1, len(losses)))
    loss = sum(tree_losses) / len(items)
    loss.backward()
    assert results[16][0] == pytest.approx(loss.item(), rel=1e-6)
    assert_close(results[16][1], gradient(model), rtol=0, atol=2e-6 * float(gradient(model).abs().max()))


@pytest.mark.parametrize("loss", ["rao-kupper", "davidson", "plackett-luce"])
def test_reward_with_ties_and_whole_rankings(loss):
    items = [replace(item, probability=None) for item in ranked()]
    ties = {} if loss == "plackett-luce" else {"learn_ties": True}
    results = {}
    for budget in BUDGETS:
        model, objective = model_of("reward"), Objective(RewardConfig(**BASE, loss=loss, centering=0.1, **ties))
        loss_value, totals = reward.accumulate(model, objective.double(), items, budget)
        results[budget] = (loss_value, gradient(model, objective), totals.means())
    check_same(results)


@pytest.mark.parametrize("loss", ["dpo", "ipo", "hinge"])
def test_dpo(loss):
    items = ranked()
    if loss != "dpo":
        items = [replace(item, probability=None) for item in items]
    trees = [item.tree for item in items]
    config = DpoConfig(**BASE, loss=loss, beta=0.3)

    class Exactly:  # a Precision of the model's own
        forward = staticmethod(torch.enable_grad)

    reference = {b: all_sequence_logprobs(tiny_reference(), trees, Exactly, b) for b in BUDGETS}
    results = {}
    for budget in BUDGETS:
        assert_close(reference[budget], reference[BUDGETS[-1]], rtol=1e-6, atol=1e-5)
        rows = [
            tuple(reference[BUDGETS[-1]][at : at + len(tree.branches)].tolist())
            for at, tree in zip(firsts(trees), trees, strict=True)
        ]
        model = model_of()
        settings = config.model_copy(update={"micro_tokens": budget})
        scored = [preference.Item(preference=item, reference=row) for item, row in zip(items, rows, strict=True)]
        value, totals = preference.accumulate(model, scored, settings)
        results[budget] = (value, gradient(model), totals.means())
    check_same(results)


def tiny_reference() -> nn.Module:
    model = tiny_llama(seed=9).double()
    prepare(model)
    return model


@torch.no_grad()
def ppo_by_definition(made: Experience, chosen: tuple[int, ...], actor: Actor) -> float:
    """Each response alone, token by token, the mean over the tokens of the minibatch; settings as in `test_ppo`."""
    terms = []
    for b in chosen:
        for k, branch in enumerate(made.responses.trees[b].branches):
            batch = pack([PromptTree(made.responses.trees[b].prompt, (branch,))])
            scores = response_scores(actor.policy, batch, entropy=True, value_head=actor.value_head)
            value_T = scores.value_T if actor.critic is None else values(actor.critic, batch)
            row = made.first_B[b] + k
            for t in range(len(branch.tokens)):
                old, old_value, advantage, target = (
                    float(table[row, t])
                    for table in (made.logprob_NT, made.value_NT, made.advantage_NT, made.return_NT)
                )
                ratio = math.exp(float(scores.logprob_T[t]) - old)
                surrogate = min(ratio * advantage, min(max(ratio, 0.7), 1.3) * advantage)
                value = float(value_T[t])
                near = old_value + min(max(value - old_value, -0.4), 0.4)
                worst = max((value - target) ** 2, (near - target) ** 2) / 2
                terms.append(-surrogate + 0.1 * worst - 0.03 * float(scores.entropy_T[t]))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_ppo(critic):
    trees = ragged([[3, 9], [4, 1], [12, 2], [1, 20], [6, 6]])
    lengths = [len(branch.tokens) for tree in trees for branch in tree.branches]
    generator = torch.Generator().manual_seed(4)
    mask_NT = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]

    def table(scale: float, mean: float = 0.0) -> torch.Tensor:
        entries = torch.randn(mask_NT.shape, generator=generator, dtype=torch.float64) * scale + mean
        return entries.masked_fill(~mask_NT, float("nan"))  # what lies outside the mask is never looked at

    prompts = [(Message(role="user", content="q"),)] * 5
    made = Experience(
        responses=Responses(prompts=prompts, trees=trees, texts_BK=[], finished_BK=[]),
        first_B=firsts(trees), mask_NT=mask_NT, sampled_NT=torch.zeros(mask_NT.shape),
        logprob_NT=table(0.3, -5.5), reference_NT=table(0.3, -5.5),
        value_NT=table(0.5), score_N=torch.zeros(10), advantage_NT=table(1.0), return_NT=table(1.0), figures={},
    )  # fmt: skip
    results = {}
    for budget in BUDGETS:
        model = model_of()
        torch.manual_seed(6)
        head = nn.Linear(32, 1).double() if critic == "shared" else None
        value_model = model_of("reward") if critic == "separate" else None
        actor = Actor(policy=model, reference=None, value_head=head, critic=value_model)
        config = PpoConfig(**BASE, reward="r", micro_tokens=budget, entropy_coefficient=0.03, value_clip=0.4, clip=0.3)
        figures = updates.accumulate(made, [3, 0, 4, 1], actor, config, Coefficients(config))  # not in order
        parts = [part for part in (model, head, value_model) if part is not None]
        results[budget] = (figures["loss"], gradient(*parts), figures)
    check_same(results)
    assert results[16][0] == pytest.approx(ppo_by_definition(made, (3, 0, 4, 1), actor), rel=1e-5)
    assert results[16][2]["entropy"] > 0  # field: S3
    assert 0 < results[16][2]["clip_fraction"] < 1


@pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("trees_packed", [True, False], ids=["tree", "rows"])
def test_a_changed_neighbour_changes_no_bit_of_the_others(make, trees_packed):  # field: K1
    model = make()
    if trees_packed:
        assert prepare(model) is None
    trees = ragged([[3, 9], [4, 1], [12, 2]])
    turned = PromptTree(trees[1].prompt[::-1], tuple(Branch.response(b.tokens[::-1]) for b in trees[1].branches))
    with torch.no_grad():
        before, after = (response_scores(model, pack([trees[0], one, trees[2]])) for one in (trees[1], turned))
    other = (before.response_T < 2) | (before.response_T > 3)
    assert torch.equal(before.logprob_T[other], after.logprob_T[other])
    assert not torch.equal(before.logprob_T[~other], after.logprob_T[~other])


def test_a_step_of_eight_rows_is_eight_steps_of_one_added_up():  # field: G1
    """Losses divide by the counts of the whole step, so the split into packs may be any, 8x1 as 1x8."""
    trees = ragged([[n] for n in (1, 9, 3, 14, 2, 6, 11, 5)])
    whole = model_of()
    sft.accumulate(whole, trees, 100_000)
    turned = model_of()
    sft.accumulate(turned, trees[::-1], 1)
    assert_close(gradient(turned), gradient(whole), rtol=0, atol=2e-6 * float(gradient(whole).abs().max()))
