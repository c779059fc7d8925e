"""A rollout's arithmetic by hand: where rewards land, what whitens what, and samplers that do not tell the truth."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from accord.losses import advantages
from accord.models.score import prepare, response_scores
from accord.records import Message
from accord.rollouts import Rollout
from accord.rollouts.native import NativeSampler
from accord.text import Template
from accord.train import loop, updates
from accord.train.algorithms import Coefficients
from accord.train.configs import PpoConfig
from accord.train.experience import Actor, as_responses, collect, from_packs, to_pack
from accord.train.loop import Precision, add_lora
from accord.train.rewards import FunctionReward
from accord.trees import budget_packs, pack
from fakes import tiny_gpt2, tiny_llama, tiny_tokenizer

PROMPTS = [(Message(role="user", content=text),) for text in ("ab", "hello", "x")]
CPU = torch.device("cpu")


def config(**extra) -> PpoConfig:
    settings = {"model": "m", "data": ["d"], "out": "o", "reward": "r", "samples": 2, "max_new_tokens": 5, **extra}
    return PpoConfig(**settings, precision="fp32")


def actor_of(model, lora: bool = False) -> Actor:
    prepare(model)
    reference = None
    if lora:
        model = add_lora(model, 2, 0, base="")
    else:
        reference = Precision("fp32", CPU).freeze(copy.deepcopy(model))
    head = nn.Linear(model.config.hidden_size, 1)
    torch.manual_seed(5)
    nn.init.normal_(head.weight)
    return Actor(policy=model, reference=reference, value_head=head, critic=None)


class Scripted:
    """Answers from a list; probabilities are the model's own unless told otherwise."""

    def __init__(self, actor: Actor, answers, finishes, lie: float = 0.0) -> None:
        self.actor, self.answers, self.finishes, self.lie = actor, answers, finishes, lie

    def sample(self, prompts, sampling):
        lengths = [[len(answer) for answer in answers] for answers in self.answers]
        blank = [[self._rollout(a, [0.0] * len(a), f) for a, f in zip(A, F, strict=True)] for A, F in self._rows()]
        trees = as_responses(PROMPTS[: len(prompts)], prompts, blank, Template(tiny_tokenizer())).trees
        with torch.no_grad():
            truth = response_scores(self.actor.policy.eval(), pack(trees), temperature=sampling.temperature).logprob_T
        said = iter((truth + self.lie).split([n for row in lengths for n in row]))
        return [[self._rollout(a, next(said).tolist(), f) for a, f in zip(A, F, strict=True)] for A, F in self._rows()]

    def _rows(self):
        return zip(self.answers, self.finishes, strict=True)

    @staticmethod
    def _rollout(tokens, logprob, finish):
        return Rollout(tokens=tuple(tokens), logprob=tuple(logprob), sampling_logprob=tuple(logprob), finish=finish)


ANSWERS = [[(70, 71, 2), (72, 2)], [(73, 74, 75, 76, 77), (2,)]]
FINISHES = [["stop", "stop"], ["length", "stop"]]
SCORES = [1.0, -2.0, 0.5, 4.0]


def roll_out(actor=None, sampler=None, reward=None, coefficient=0.1, **extra):
    actor = actor or actor_of(tiny_llama())
    sampler = sampler or Scripted(actor, ANSWERS, FINISHES)
    template = Template(tiny_tokenizer())
    prompts = PROMPTS[: len(sampler.answers)] if isinstance(sampler, Scripted) else PROMPTS
    reward = reward or FunctionReward("fixed", lambda c: SCORES)
    settings = config(**extra)
    return collect(
        prompts, [template.prompt(p) for p in prompts], actor, reward, sampler, template, settings,
        Precision("fp32", CPU), seed=7, coefficient=coefficient,
    )  # fmt: skip


def moved(actor: Actor) -> Actor:
    """The policy after an update: no longer the reference."""
    with torch.no_grad():
        for p in actor.policy.parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) * 0.02)
    return actor


def rewards_of(experience, monkeypatch=None):
    """Per-token rewards, recovered from returns at gamma 1, lambda 1: differences of neighbouring returns."""
    return_NT = experience.return_NT
    later = torch.cat([return_NT[:, 1:], torch.zeros(len(return_NT), 1)], 1)
    return torch.where(experience.mask_NT, return_NT - later, 0)


def test_the_score_lands_on_the_last_token_and_the_kl_on_every_one():  # field: P1
    actor = moved(actor_of(tiny_llama()))
    experience = roll_out(actor, lam=1.0, coefficient=0.1)
    assert experience.mask_NT.int().tolist() == [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]]
    kl_NT = (experience.logprob_NT - experience.reference_NT) * experience.mask_NT
    assert float(kl_NT.abs().max()) > 0.01
    expected = -0.1 * kl_NT
    for n, (last, score) in enumerate(zip([2, 1, 4, 0], SCORES, strict=True)):
        expected[n, last] += score
    assert_close(rewards_of(experience), expected, rtol=1e-4, atol=1e-5)
    assert experience.figures["kl__reference"] == pytest.approx(float(kl_NT.sum(-1).mean()), abs=1e-5)


def test_without_kl_one_token_of_each_response_is_paid():  # field: P1
    experience = roll_out(lam=1.0, coefficient=0.0)
    reward_NT = rewards_of(experience)
    assert_close(reward_NT[0], torch.tensor([0.0, 0, 1, 0, 0]), rtol=0, atol=1e-5)
    assert_close(reward_NT[2], torch.tensor([0.0, 0, 0, 0, 0.5]), rtol=0, atol=1e-5)  # cut off: the last token sampled


def test_advantages_by_hand():  # field: P1
    """lambda 0.95 and the values as they were read: A_t = delta_t + 0.95 A_{t+1}, nothing behind the last token."""
    experience = roll_out(coefficient=0.0, lam=0.95, gamma=1.0)
    v = experience.value_NT[0]
    a2 = 1.0 - v[2]
    a1 = v[2] - v[1] + 0.95 * a2
    a0 = v[1] - v[0] + 0.95 * a1
    raw = experience.return_NT - experience.value_NT
    assert_close(raw[0, :3], torch.stack([a0, a1, a2]), rtol=1e-5, atol=1e-6)
    assert_close(raw[3, 0], 4.0 - experience.value_NT[3, 0])
    # Whitened over the whole rollout, over tokens that exist, with the population variance.
    kept = raw[experience.mask_NT]
    assert_close(
        experience.advantage_NT[experience.mask_NT], (kept - kept.mean()) / kept.std(correction=0), rtol=1e-4, atol=1e-5
    )
    assert float(experience.advantage_NT[~experience.mask_NT].abs().max()) == 0
    assert experience.figures["advantage__mean"] == pytest.approx(float(kept.mean()), rel=1e-4)


@pytest.mark.parametrize(("penalty", "third"), [(0.0, 0.5), (3.0, -2.5)])
def test_only_what_was_cut_off_pays_for_its_missing_end(penalty, third):  # field: P2
    """The fourth response is its end token alone and has stopped; the third has no end token and has not."""
    experience = roll_out(lam=1.0, coefficient=0.0, missing_eos_penalty=penalty)
    assert_close(rewards_of(experience).sum(-1), torch.tensor([1.0, -2, third, 4]), rtol=1e-4, atol=1e-5)
    assert experience.figures["length__cut"] == 0.25
    assert experience.figures["length__mean"] == (3 + 2 + 5 + 1) / 4
    assert experience.responses.finished_BK == [[True, True], [False, True]]


def test_a_response_stopped_by_another_token_has_finished():  # field: P2
    """A stop string or a second end token ended it: no penalty, whatever its last token is."""
    actor = actor_of(tiny_llama())
    sampler = Scripted(actor, [[(70, 71), (72, 73)]], [["stop", "length"]])
    reward = FunctionReward("zero", lambda c: [0.0, 0.0])
    experience = roll_out(actor, sampler, reward, lam=1.0, coefficient=0.0, missing_eos_penalty=2.0)
    assert_close(rewards_of(experience).sum(-1), torch.tensor([0.0, -2.0]), rtol=1e-4, atol=1e-5)


def test_scores_are_normalised_then_clipped_and_the_penalty_comes_after():
    reward = FunctionReward("fixed", lambda c: SCORES)
    reward.mean, reward.std = 1.0, 0.5
    experience = roll_out(reward=reward, lam=1.0, coefficient=0.0, score_clip=3.0, missing_eos_penalty=1.0)
    assert_close(rewards_of(experience).sum(-1), torch.tensor([0.0, -3, -2, 3]), rtol=1e-4, atol=1e-5)
    assert experience.figures["reward__mean"] == pytest.approx(0.875)  # as the reward gave it
    assert experience.figures["reward__std"] == pytest.approx(float(torch.tensor(SCORES).std(correction=0)))
    assert experience.figures["reward__normalised"] == pytest.approx((0 - 3 - 1 + 3) / 4)
    assert experience.score_N.tolist() == SCORES


def test_values_are_read_before_each_token_and_never_behind_the_last():  # field: P1
    """Changing the last token of a response changes no value of it."""
    actor = actor_of(tiny_llama())
    plain = roll_out(actor)
    other = [[(70, 71, 99), (72, 2)], [(73, 74, 75, 76, 98), (97,)]]
    changed = roll_out(actor, Scripted(actor, other, FINISHES))
    assert torch.equal(plain.value_NT, changed.value_NT)
    assert not torch.equal(plain.logprob_NT, changed.logprob_NT)
    model, tree = actor.policy, plain.responses.trees[0]
    with torch.no_grad():
        states = model.base_model(input_ids=torch.tensor([tree.prompt + tree.branches[0].tokens])).last_hidden_state
        expected = actor.value_head(states[0, len(tree.prompt) - 1 : -1])[:, 0]
    assert_close(plain.value_NT[0, :3], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("lora", [False, True])
def test_before_the_first_update_kl_is_zero_and_ratios_are_one(temperature, lora):  # field: S5
    actor = actor_of(tiny_llama(), lora)
    sampler = NativeSampler(actor.policy, end_ids=(2,))
    settings = {"temperature": temperature, "samples": 3, "max_new_tokens": 6}
    experience = roll_out(
        actor, sampler, FunctionReward("length", lambda c: [len(x[-1].content) for x in c]), **settings
    )
    assert torch.equal(experience.logprob_NT, experience.reference_NT)
    assert experience.figures["kl__reference"] == 0
    assert experience.figures["sampler__gap"] < 1e-5  # field: S4
    loop.steady(actor.policy)
    figures = updates.accumulate(experience, range(3), actor, config(**settings), Coefficients(config()))
    assert figures["kl__old"] == pytest.approx(0, abs=1e-9)
    assert figures["clip_fraction"] == 0
    scores = response_scores(actor.policy, pack(experience.responses.trees), temperature=temperature)
    rows = list(range(9))
    assert torch.equal(to_pack(experience.logprob_NT, experience.mask_NT, rows), scores.logprob_T.detach())


def test_dropout_of_the_model_makes_no_ratio():  # field: S5
    model = tiny_gpt2()  # attn, resid and embd dropout of 0.1, as GPT-2 is published
    assert model.config.resid_pdrop == 0.1
    actor = actor_of(model)
    experience = roll_out(actor)
    steady = replace(actor, policy=loop.steady(actor.policy))
    figures = updates.accumulate(experience, range(2), steady, config(), Coefficients(config()))
    assert figures["kl__old"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_temperature_is_respected(temperature):  # field: S5
    actor = actor_of(tiny_llama())
    experience = roll_out(actor, temperature=temperature)
    tree = experience.responses.trees[1]
    ids = torch.tensor([tree.prompt + tree.branches[0].tokens])
    with torch.no_grad():
        logits_TV = actor.policy(input_ids=ids).logits[0, len(tree.prompt) - 1 : -1]
    expected = (logits_TV / temperature).log_softmax(-1).gather(-1, ids[0, len(tree.prompt) :, None])[:, 0]
    assert_close(experience.logprob_NT[2], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lie", [1.0, -0.6, math.nan])
def test_a_sampler_of_another_model_is_caught(lie):  # field: S4
    actor = actor_of(tiny_llama())
    with pytest.raises(ValueError, match="sampler and trainer disagree by"):
        roll_out(actor, Scripted(actor, ANSWERS, FINISHES, lie=lie))
    kept = roll_out(actor, Scripted(actor, ANSWERS, FINISHES, lie=0.02))  # rounding of bf16
    assert kept.figures["sampler__gap"] == pytest.approx(0.02, abs=1e-5)


def test_packs_and_tables_are_inverses():
    experience = roll_out()
    trees = experience.responses.trees
    generator = torch.Generator().manual_seed(0)
    table_NT = torch.randn(experience.mask_NT.shape, generator=generator) * experience.mask_NT
    for groups in ([[0, 1]], [[1], [0]], [[1, 0]]):
        parts = []
        for group in groups:
            rows = [experience.first_B[b] + k for b in group for k in range(len(trees[b].branches))]
            packed = to_pack(table_NT, experience.mask_NT, rows)
            assert packed.numel() == pack([trees[b] for b in group]).scored_index.numel()
            parts.append((rows, packed))
        assert torch.equal(from_packs(parts, experience.mask_NT), table_NT)


def test_the_token_budget_changes_nothing():  # field: K2, G2
    actor = moved(actor_of(tiny_llama()))
    whole = roll_out(actor, micro_tokens=100_000)
    alone = roll_out(actor, micro_tokens=16)
    assert len(budget_packs([tree.length for tree in whole.responses.trees], 16)) == 2
    for name in ("logprob_NT", "reference_NT", "value_NT", "advantage_NT", "return_NT"):
        assert_close(getattr(alone, name), getattr(whole, name), rtol=1e-4, atol=1e-5)


def test_explained_variance_of_a_perfect_and_a_constant_value():
    from accord.train.experience import _explained

    returns = torch.tensor([1.0, 2.0, 4.0])
    assert _explained(returns, returns) == 1.0
    assert _explained(returns, torch.zeros(3)) == pytest.approx(0.0)
    assert _explained(returns, -returns) < 0
    assert _explained(torch.ones(3), returns) == 0.0


def test_the_reward_sees_texts_without_end_tokens():
    seen = []
    roll_out(reward=FunctionReward("spy", lambda c: seen.extend(c) or SCORES))
    decode = Template(tiny_tokenizer()).decode
    assert [c[-1].content for c in seen] == [decode(answer) for answers in ANSWERS for answer in answers]
    assert seen[3][-1].content == ""
    assert [c[0].content for c in seen] == ["ab", "ab", "hello", "hello"]


def test_whitening_is_that_of_the_objectives():
    experience = roll_out(moved(actor_of(tiny_llama())))
    raw = experience.return_NT - experience.value_NT
    assert_close(experience.advantage_NT, advantages.whiten(raw, experience.mask_NT), rtol=1e-3, atol=1e-4)
