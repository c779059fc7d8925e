"""Advantages of each algorithm by hand, and where a KL penalty may stand, by enumerating every response there is."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close
from transformers import LlamaConfig, LlamaForCausalLM

from accord.losses import advantages
from accord.records import Message
from accord.rollouts import Rollout
from accord.train import updates
from accord.train.algorithms import ALGORITHMS, Coefficients
from accord.train.configs import PpoConfig
from accord.train.experience import Actor, collect
from accord.train.loop import Precision
from accord.train.methods import METHODS
from accord.train.rewards import FunctionReward
from fakes import tiny_llama
from train.test_experience import SCORES, actor_of, config, moved, roll_out

CPU = torch.device("cpu")


def rolled(algorithm: str, values: bool = False, **extra):
    actor = moved(actor_of(tiny_llama()))
    actor = actor if values else replace(actor, value_head=None)
    return roll_out(actor, algorithm=algorithm, **extra)


def kl_of(experience) -> torch.Tensor:
    return (experience.logprob_NT - experience.reference_NT) * experience.mask_NT


def test_every_algorithm_of_the_configuration_is_in_the_table():
    assert ALGORITHMS.keys() == {method.name for method in METHODS if method.job == "ppo"}
    assert {name for name, entry in ALGORITHMS.items() if entry.natural} == {"trpo"}
    fits = {name for name, entry in ALGORITHMS.items() if entry.fits_values(config(algorithm=name))}
    assert fits == {"ppo-clip", "ppo-penalty", "trpo", "reinforce"}


@pytest.mark.parametrize("algorithm", ["ppo-clip", "ppo-penalty", "trpo"])
@pytest.mark.parametrize("white", [True, False])
def test_actor_critics_use_gae_and_whiten_if_asked(algorithm, white):
    made = rolled(algorithm, True, whiten_advantages=white, lam=0.7, gamma=0.9)
    reward_NT = -0.1 * kl_of(made)
    reward_NT[range(4), [2, 1, 4, 0]] += torch.tensor(SCORES)
    expected = advantages.gae(reward_NT, made.value_NT, made.mask_NT, gamma=0.9, lam=0.7)
    assert_close(made.return_NT, expected.return_NT, rtol=1e-4, atol=1e-5)
    wanted = advantages.whiten(expected.advantage_NT, made.mask_NT) if white else expected.advantage_NT
    assert_close(made.advantage_NT, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("baseline", ["value", "mean", "none"])
def test_reinforce_subtracts_its_baseline_from_the_return(baseline):
    made = rolled("reinforce", baseline == "value", baseline=baseline)
    assert (made.value_NT is None) == (made.return_NT is None) == (baseline != "value")
    assert ("value__explained" in made.figures) == (baseline == "value")
    kl_NT = kl_of(made)
    for n, (size, score) in enumerate(zip([3, 2, 5, 1], SCORES, strict=True)):
        for t in range(size):
            expected = score - 0.1 * float(kl_NT[n, t:].sum())
            if baseline == "value":
                assert float(made.return_NT[n, t]) == pytest.approx(expected, abs=1e-4)
                expected -= float(made.value_NT[n, t])
            elif baseline == "mean":
                expected -= float(mean_return(kl_NT))
            assert float(made.advantage_NT[n, t]) == pytest.approx(expected, abs=1e-4)


def mean_return(kl_NT: torch.Tensor) -> torch.Tensor:
    returns = [
        score - 0.1 * kl_NT[n, t:].sum()
        for n, (size, score) in enumerate(zip([3, 2, 5, 1], SCORES, strict=True))
        for t in range(size)
    ]
    return torch.stack(returns).mean()


@pytest.mark.parametrize("place", ["reward", "loss"])
@pytest.mark.parametrize("algorithm", ["rloo", "grpo", "grpo unscaled"])
def test_siblings_are_the_baseline_on_every_token(algorithm, place):
    """Two prompts of two: each against the other, the KL of the whole response in its reward if it stands there."""
    extra = {"scale_advantages": False} if algorithm == "grpo unscaled" else {}
    estimator = "k1" if place == "reward" else "k3"
    made = rolled(algorithm.split()[0], kl_place=place, kl_estimator=estimator, missing_eos_penalty=0.25, **extra)
    reward = torch.tensor(SCORES) - torch.tensor([0, 0, 0.25, 0])  # the third is cut off
    if place == "reward":
        reward = reward - 0.1 * kl_of(made).sum(-1)
    gap = torch.stack([reward[0] - reward[1], reward[2] - reward[3]])
    half = {"rloo": gap, "grpo unscaled": gap / 2, "grpo": (gap / 2) / (gap.abs() / 2**0.5 + 1e-4)}[algorithm]
    expected = torch.stack([half[0], -half[0], half[1], -half[1]])[:, None] * made.mask_NT
    assert_close(made.advantage_NT, expected, rtol=1e-4, atol=1e-5)


def test_without_a_value_function_there_is_none(monkeypatch):
    from accord.models import score

    monkeypatch.setattr(score, "read_number", lambda *_: pytest.fail("a value was read"))
    made = rolled("grpo")
    assert made.value_NT is None
    assert made.return_NT is None
    assert "value__explained" not in made.figures


def test_coefficients_adapt_and_are_kept():
    settings = {"algorithm": "ppo-penalty", "kl_target": 2.0, "kl_beta": 0.5, "penalty": 3.0, "penalty_target": 0.01}
    weights = Coefficients(config(**settings))
    weights.adapt(4.0, 0.1)  # a relative error of 1, clipped to 0.2, times 0.1; ten times the target: doubled
    assert weights.kl == pytest.approx(0.51)
    assert weights.penalty == 6.0
    weights.adapt(2.0, 0.001)
    assert weights.kl == pytest.approx(0.51)
    assert weights.penalty == 3.0
    again = Coefficients(config(**settings))
    again.load_state_dict(weights.state_dict())
    assert (again.kl, again.penalty) == (weights.kl, weights.penalty)
    fixed = Coefficients(config(algorithm="ppo-penalty"))
    fixed.adapt(100.0, None)
    assert (fixed.kl, fixed.penalty) == (0.02, 1.0)


# -- every response there is: two tokens of a vocabulary of three, all equally likely under the policy -----------------

RESPONSES = [(a, b) for a in range(3) for b in range(3)]
PROMPT = (1, 2, 0)


def three_words(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=3, tie_word_embeddings=False, pad_token_id=0, **shape)).double()
    torch.manual_seed(seed)
    torch.nn.init.normal_(model.lm_head.weight, std=0.5)
    return model.eval()  # scored one row per response: `prepare` probes with more words than there are


class Everything:
    """Samples each response once: the mean over the samples is the expectation under a uniform policy."""

    def sample(self, prompts, sampling):
        uniform = (-torch.tensor(3.0).log().item(),) * 2
        one = [Rollout(tokens=y, logprob=uniform, sampling_logprob=uniform, finish="stop") for y in RESPONSES]
        return [one for _ in prompts]


class NoText:
    decode = staticmethod(lambda tokens: "")


def trained_gradient(place: str, estimator: str) -> torch.Tensor:
    """Of the head's weight, per response, as the trainer makes it with a KL weight of 1 and no other reward."""
    policy, reference = three_words(0), three_words(7)
    torch.nn.init.zeros_(policy.lm_head.weight)  # uniform, with a gradient
    settings = PpoConfig(
        model="m", data=["d"], out="o", reward="r", algorithm="reinforce", baseline="none", samples=9, kl_beta=1.0,
        kl_place=place, kl_estimator=estimator, max_new_tokens=2,
    )  # fmt: skip
    actor = Actor(policy=policy, reference=reference.requires_grad_(False), value_head=None, critic=None)
    made = collect(
        [(Message(role="user", content="q"),)], [PROMPT], actor, FunctionReward("none", lambda c: [0.0] * 9),
        Everything(), NoText(), settings, Precision("fp32", CPU), seed=0, coefficient=1.0,
    )  # fmt: skip
    updates.accumulate(made, [0], actor, settings, Coefficients(settings))
    return 2 * policy.lm_head.weight.grad  # the mean is over tokens, two a response


def true_gradient(of) -> torch.Tensor:
    """Of `of(log pi, log ref, probability of each response)`, with (9, 2, 3) log-probabilities."""
    policy, reference = three_words(0), three_words(7)
    torch.nn.init.zeros_(policy.lm_head.weight)
    ids = torch.tensor([PROMPT + y for y in RESPONSES])
    p, q = (model(input_ids=ids).logits[:, 2:4].log_softmax(-1) for model in (policy, reference))
    said = torch.tensor(RESPONSES)[..., None]
    response_logprob = p.gather(-1, said)[..., 0].sum(-1)
    ref_logprob = q.gather(-1, said)[..., 0].sum(-1).detach()
    of(p, q.detach(), response_logprob, ref_logprob).backward()
    return policy.lm_head.weight.grad


def whole_kl(p, q, response_logprob, ref_logprob):
    return (response_logprob.exp() * (response_logprob - ref_logprob)).sum()


def own_terms(p, q, response_logprob, ref_logprob):
    return (p.exp() * (p - q)).sum((-1, -2)).mean()


def other_direction(p, q, response_logprob, ref_logprob):
    return (q.exp() * (q - p)).sum((-1, -2)).mean()


@pytest.mark.parametrize(
    ("place", "estimator", "truth"),
    [
        ("reward", "k1", whole_kl),
        ("both", "exact", whole_kl),
        ("loss", "exact", own_terms),
        ("loss", "k2", own_terms),
        ("loss", "k3", other_direction),
    ],
)
def test_the_penalty_has_the_gradient_it_promises(place, estimator, truth):
    expected = true_gradient(truth)
    assert float(expected.abs().max()) > 0.01
    assert_close(trained_gradient(place, estimator), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_the_others_are_biased_in_the_reward(estimator):
    expected = true_gradient(whole_kl)
    gap = trained_gradient("reward", estimator) - expected
    assert float(gap.norm() / expected.norm()) > 0.1


def test_own_terms_are_not_the_whole_gradient():
    """What a token does to later ones is missing: the places differ in what they estimate."""
    whole, own = true_gradient(whole_kl), true_gradient(own_terms)
    assert float((whole - own).norm() / whole.norm()) > 0.05
