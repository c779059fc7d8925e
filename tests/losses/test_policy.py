"""Policy losses by hand: signs, clips, caps, constants, averages and controllers."""

import math

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from accord.losses import advantages, kl, policy

NAN, INF = math.nan, math.inf


def gradient(function, logprob_T, *arguments, **settings):
    leaf_T = logprob_T.detach().clone().requires_grad_()
    function(leaf_T, *arguments, **settings).sum().backward()
    return leaf_T.grad


def test_importance_ratio_is_capped_above_only():
    ratio_T = tensor([-50.0, 0.0, math.log(2), 20.0, 21.0, 800.0], dtype=torch.float64)
    expected = torch.cat([ratio_T[:3].exp(), tensor([math.exp(20)] * 3, dtype=torch.float64)])
    zero_T = torch.zeros_like(ratio_T)
    assert_close(policy.importance_ratio(ratio_T, zero_T), expected)
    assert_close(gradient(policy.importance_ratio, ratio_T, zero_T)[2:], tensor([2.0, 0, 0, 0], dtype=torch.float64))


def test_importance_ratio_lets_nan_through():
    assert policy.importance_ratio(tensor([NAN]), tensor([0.0])).isnan().all()


def test_reinforce_raises_what_did_better_than_its_baseline():
    found = policy.reinforce(tensor([-2.0]), tensor([5.0]), baseline_T=tensor([2.0]))
    assert_close(found, tensor([6.0]))
    assert_close(gradient(policy.reinforce, tensor([-2.0, -2.0]), tensor([5.0, -1.0])), tensor([-5.0, 1.0]))


def test_surrogate_clip_and_penalty_have_the_policy_gradient_at_equal_models():
    logprob_T, advantage_T = torch.randn(2, 8, dtype=torch.float64)
    expected = gradient(policy.reinforce, logprob_T, advantage_T)
    assert_close(expected, -advantage_T)
    for function in (policy.surrogate, policy.ppo_clip):
        assert_close(function(logprob_T, logprob_T, advantage_T), -advantage_T)
        assert_close(gradient(function, logprob_T, logprob_T, advantage_T), expected)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.5, 2.0, -2.4, 0.0),  # good, already more likely: cut
        (1.5, -2.0, 3.0, 3.0),  # bad and more likely: pushed down
        (0.5, 2.0, -1.0, -1.0),  # good and less likely: pushed up
        (0.5, -2.0, 1.6, 0.0),  # bad, already less likely: cut
        (1.1, 2.0, -2.2, -2.2),  # inside
    ],
)
def test_ppo_clip_in_each_quadrant(ratio, advantage, loss, slope):
    logprob_T, old_T, advantage_T = tensor([math.log(ratio) - 1]), tensor([-1.0]), tensor([advantage])
    assert_close(policy.ppo_clip(logprob_T, old_T, advantage_T), tensor([loss]))
    assert_close(gradient(policy.ppo_clip, logprob_T, old_T, advantage_T), tensor([slope]))


def test_ppo_clip_sides_and_dual_clip():
    log_ratio_T = tensor([1.5, 1.5, 0.5, 9.0]).log()
    zero_T, advantage_T = torch.zeros(4), tensor([1.0, -1.0, -1.0, -1.0])
    found = policy.ppo_clip(log_ratio_T, zero_T, advantage_T, clip=0.1, clip_high=0.3, dual_clip=3.0)
    assert_close(found, tensor([-1.3, 1.5, 0.9, 3.0]))
    assert_close(gradient(policy.ppo_clip, log_ratio_T, zero_T, advantage_T, dual_clip=3.0)[3], tensor(0.0))
    kept = policy.ppo_clip(tensor([9.0]).log(), tensor([0.0]), tensor([1.0]), dual_clip=3.0)
    assert_close(kept, tensor([-1.2]))  # a good token is not bounded


def test_ppo_clip_is_the_surrogate_inside_the_clip():
    old_T, advantage_T = torch.randn(2, 20, dtype=torch.float64)
    logprob_T = old_T + torch.empty(20, dtype=torch.float64).uniform_(-0.18, 0.18)
    assert_close(policy.ppo_clip(logprob_T, old_T, advantage_T), policy.surrogate(logprob_T, old_T, advantage_T))


@pytest.mark.parametrize(
    "setting", [{"clip": 0.0}, {"clip": -0.2}, {"clip_high": 0.0}, {"dual_clip": 1.0}, {"dual_clip": NAN}]
)
def test_ppo_clip_refuses_numbers(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        policy.ppo_clip(*torch.zeros(3, 2), **setting)


def test_clip_fraction_counts_tokens_that_are_cut():
    log_ratio_T = tensor([1.5, 1.5, 0.5, 0.5, 1.0, NAN]).log()
    advantage_T, mask_T = tensor([1.0, -1.0, 1.0, -1.0, 1.0, 1.0]), tensor([True] * 5 + [False])
    found = policy.clip_fraction(log_ratio_T, torch.zeros(6), advantage_T, mask_T)
    assert_close(found, tensor(2 / 5))
    assert_close(policy.clip_fraction(log_ratio_T, torch.zeros(6), advantage_T, mask_T, clip_high=0.6), tensor(1 / 5))
    assert_close(policy.clip_fraction(log_ratio_T, torch.zeros(6), advantage_T, ~mask_T), tensor(0.0))


def test_ppo_penalty_adds_the_kl():
    logprob_T, old_T = tensor([math.log(2)]), tensor([0.0])
    found = policy.ppo_penalty(logprob_T, old_T, tensor([3.0]), tensor([0.5]), coefficient=2.0)
    assert_close(found, tensor([-6.0 + 1.0]))
    pulled = gradient(
        lambda p: policy.ppo_penalty(p, old_T, tensor([0.0]), kl.k3(old_T, p), coefficient=2.0), logprob_T
    )
    assert pulled > 0  # back towards the old policy


def test_value_losses_by_hand():
    value_T, return_T = tensor([3.0, 1.0, -1.0]), tensor([1.0, 1.0, 1.0])
    assert_close(policy.value_loss(value_T, return_T), tensor([2.0, 0.0, 2.0]))
    assert_close(gradient(policy.value_loss, value_T, return_T), tensor([2.0, 0.0, -2.0]))
    clipped = policy.clipped_value_loss(value_T, tensor([0.0, 0.0, 0.0]), return_T, clip=0.5)
    assert_close(clipped, tensor([2.0, 0.125, 2.0]))
    slopes = gradient(policy.clipped_value_loss, value_T, tensor([0.0, 0.0, 0.0]), return_T, clip=0.5)
    assert_close(slopes, tensor([2.0, 0.0, -2.0]))
    with pytest.raises(ValueError, match="clip is 0"):
        policy.clipped_value_loss(value_T, value_T, return_T, clip=0)


def test_entropy_by_hand():
    logits_TV = tensor([[0.0, 0.0, -INF, 0.0], [0.0, math.log(3), -INF, -INF]], requires_grad=True)
    found = policy.entropy(logits_TV)
    found.sum().backward()
    expected = [math.log(3), 0.25 * math.log(4) + 0.75 * math.log(4 / 3)]
    assert_close(found.detach(), tensor(expected))
    # dH/dz_v = -p_v (log p_v + H)
    slope = -0.25 * (math.log(0.25) + expected[1])
    assert_close(logits_TV.grad, tensor([[0.0] * 4, [slope, -slope, 0.0, 0.0]]), rtol=1e-4, atol=1e-6)


def test_ppo_total_forms():
    parts = tensor(2.0), tensor(3.0), tensor(0.5)
    assert_close(policy.ppo_total(*parts, c1=0.1, c2=0.2), tensor(3.0 + 0.2 - 0.1))
    assert_close(policy.ppo_total(*parts, c1=0.1, c2=0.2, form="paper"), tensor(2.0 + 0.3 - 0.1))
    assert_close(policy.ppo_total(*parts, c2=0.2, form="paper"), policy.ppo_total(*parts, c2=0.2))
    # c1_paper = 1 / c1_seed and c2_paper = c2_seed / c1_seed, up to the overall scale
    paper = policy.ppo_total(*parts, c1=1 / 0.4, c2=0.3 / 0.4, form="paper")
    assert_close(policy.ppo_total(*parts, c1=0.4, c2=0.3), 0.4 * paper)


def test_aggregate_by_hand():
    loss_NT = tensor([[1.0, 3.0, NAN], [8.0, INF, NAN], [NAN, NAN, NAN]], requires_grad=True)
    mask_NT = tensor([[True, True, False], [True, False, False], [False] * 3])
    by_hand = {
        "token": (12 / 3, [[1 / 3, 1 / 3, 0], [1 / 3, 0, 0], [0] * 3]),
        "sequence": ((2 + 8) / 2, [[1 / 4, 1 / 4, 0], [1 / 2, 0, 0], [0] * 3]),
        "constant": (12 / (2 * 10), [[1 / 20, 1 / 20, 0], [1 / 20, 0, 0], [0] * 3]),
    }
    for mode, (expected, slopes) in by_hand.items():
        loss_NT.grad = None
        found = policy.aggregate(loss_NT, mask_NT, mode=mode, max_length=10)
        found.backward()
        assert_close(found.detach(), tensor(expected))
        assert_close(loss_NT.grad, tensor(slopes, dtype=torch.float32))


@pytest.mark.parametrize("mode", ["token", "sequence", "constant"])
def test_aggregate_of_parts_with_the_counts_of_the_step_adds_up(mode):
    loss_NT, mask_NT = torch.randn(6, 5, dtype=torch.float64), torch.rand(6, 5) > 0.3
    mask_NT[2] = False
    counts = {"token_count": mask_NT.sum(), "sequence_count": int(mask_NT.any(-1).sum())}
    whole = policy.aggregate(loss_NT, mask_NT, mode=mode, max_length=5)
    parts = [
        policy.aggregate(loss_NT[s], mask_NT[s], mode=mode, max_length=5, **counts)
        for s in (slice(0, 2), slice(2, 3), slice(3, 6))
    ]
    assert_close(sum(parts), whole)
    assert_close(policy.aggregate(loss_NT, torch.zeros_like(mask_NT), mode=mode, max_length=5).item(), 0.0)


def test_aggregate_refuses_what_it_cannot_do():
    arguments = torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="max_length"):
        policy.aggregate(*arguments, mode="constant")
    with pytest.raises(ValueError, match="mode is 'mean'"):
        policy.aggregate(*arguments, mode="mean")


def test_kl_controllers():
    assert policy.adapt_kl_proportional(0.1, 6.6, target=6.0) == pytest.approx(0.101)  # an error of 0.1
    assert policy.adapt_kl_proportional(0.1, 60.0, target=6.0) == pytest.approx(0.102)
    assert policy.adapt_kl_proportional(0.1, -60.0, target=6.0, gain=0.5, clip=0.4) == pytest.approx(0.08)
    found = [policy.adapt_kl_doubling(1.0, divergence, target=3.0) for divergence in (1.9, 2.1, 4.4, 4.6)]
    assert found == [0.5, 1.0, 1.0, 2.0]
    assert [policy.stop_early(divergence, target=0.01) for divergence in (0.0149, 0.0151)] == [False, True]
    assert policy.stop_early(0.0151, target=0.01, factor=2.0) is False


@pytest.mark.parametrize("target", [0.0, -1.0])
@pytest.mark.parametrize("name", ["adapt_kl_proportional", "adapt_kl_doubling", "stop_early"])
def test_kl_controllers_refuse_targets(name, target):
    arguments = (0.1,) if name == "stop_early" else (0.1, 1.0)
    with pytest.raises(ValueError, match="target"):
        getattr(policy, name)(*arguments, target=target)


def test_rloo_is_reinforce_against_the_siblings():
    logprob_BK, reward_BK = torch.randn(2, 3, 4, dtype=torch.float64)
    expected = policy.reinforce(logprob_BK, advantages.leave_one_out(reward_BK))
    assert_close(policy.rloo(logprob_BK, reward_BK), expected)
    assert_close(gradient(policy.rloo, tensor([[-1.0, -1.0]]), tensor([[1.0, 0.0]])), tensor([[-1.0, 1.0]]))


def test_grpo_is_clip_plus_kl_to_the_reference():
    logprob_T, old_T, ref_T, advantage_T = torch.randn(4, 9, dtype=torch.float64)
    for name, estimator in (("k2", kl.k2), ("k3", kl.k3)):
        found = policy.grpo(logprob_T, old_T, ref_T, advantage_T, kl_coefficient=0.3, kl_estimator=name)
        assert_close(found, policy.ppo_clip(logprob_T, old_T, advantage_T) + 0.3 * estimator(logprob_T, ref_T))
    with pytest.raises(ValueError, match="kl_estimator is 'k1'"):
        policy.grpo(logprob_T, old_T, ref_T, advantage_T, kl_estimator="k1")


CONSTANTS = {
    "importance_ratio": 1,
    "reinforce": 1,
    "surrogate": 2,
    "ppo_clip": 2,
    "value_loss": 1,
    "clipped_value_loss": 2,
    "grpo": 3,
    "rloo": 1,
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_get_no_gradient_even_if_the_caller_forgot(name):
    arguments = [torch.randn(3, 4, requires_grad=True) for _ in range(1 + CONSTANTS[name])]
    getattr(policy, name)(*arguments).sum().backward()
    assert arguments[0].grad is not None
    assert all(argument.grad is None for argument in arguments[1:])
