"""Rewards of tokens, returns, GAE and whitening by hand, with holes, padding on either side and garbage outside."""

import math

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from accord.losses import advantages

NAN, INF = math.nan, math.inf


def rollout(seed=0, width=7):
    generator = torch.Generator().manual_seed(seed)
    reward_NT, value_NT = torch.randn(2, 6, width, generator=generator, dtype=torch.float64)
    mask_NT = torch.rand(6, width, generator=generator) > 0.4
    mask_NT[0], mask_NT[1] = True, False
    return reward_NT, value_NT, mask_NT


def test_normalise_score_shifts_then_clips():
    score_N = tensor([3.0, 1.0, -9.0])
    assert_close(advantages.normalise_score(score_N, mean=1.0, std=2.0, clip=2.0), tensor([1.0, 0.0, -2.0]))
    assert_close(advantages.normalise_score(score_N), score_N)


def test_update_moments_in_parts_equals_the_whole():
    score_N = 1e6 + torch.randn(50, dtype=torch.float64)
    moments = (0, 0.0, 0.0)
    for part in score_N.split([1, 0, 30, 19]):
        moments = advantages.update_moments(*moments, part)
    count, mean, m2 = moments
    assert (count, mean) == (50, pytest.approx(score_N.mean().item(), rel=1e-14))
    assert m2 == pytest.approx(score_N.var(unbiased=False).item() * 50, rel=1e-8)
    assert [type(part) for part in moments] == [int, float, float]


def test_last_index_is_not_the_number_of_tokens():
    mask_NT = tensor([[True, False, True, False], [False, False, True, True], [False] * 4, [True, False, False, False]])
    assert advantages.last_index(mask_NT).tolist() == [2, 3, -1, 0]


def test_token_rewards_by_hand():
    mask_NT = tensor([[True, False, True, False], [False, True, True, True], [False] * 4])
    kl_NT = tensor([[1.0, NAN, -2.0, INF], [NAN, 0.0, 1.0, 3.0], [NAN] * 4])
    found = advantages.token_rewards(
        tensor([5.0, 7.0, NAN]),
        kl_NT,
        mask_NT,
        kl_coefficient=0.5,
        finished_N=tensor([True, False, True]),
        missing_eos_penalty=2.0,
    )
    expected = [[-0.5, 0.0, 6.0, 0.0], [0.0, 0.0, -0.5, 5.0 - 1.5], [0.0] * 4]
    assert_close(found, tensor(expected))


def test_returns_skip_holes_without_discounting_them():
    reward_NT = tensor([[1.0, NAN, 2.0, 4.0, NAN]])
    mask_NT = tensor([[True, False, True, True, False]])
    assert_close(advantages.returns(reward_NT, mask_NT, gamma=0.5), tensor([[3.0, 0.0, 4.0, 4.0, 0.0]]))


def test_gae_by_hand_across_a_hole():
    # tokens 0 and 2: delta_2 = 1 - 3, delta_0 = 2 + 0.5 * 3 - 1, A_0 = delta_0 + 0.25 * delta_2
    reward_NT, value_NT = tensor([[2.0, NAN, 1.0, INF]]), tensor([[1.0, INF, 3.0, NAN]])
    found = advantages.gae(reward_NT, value_NT, tensor([[True, False, True, False]]), gamma=0.5, lam=0.5)
    assert_close(found.advantage_NT, tensor([[2.0, 0.0, -2.0, 0.0]]))
    assert_close(found.return_NT, tensor([[3.0, 0.0, 1.0, 0.0]]))


@pytest.mark.parametrize("gamma", [0.0, 0.7, 1.0])
def test_gae_at_lambda_one_is_return_less_value_and_at_zero_the_one_step_error(gamma):
    reward_NT, value_NT, mask_NT = rollout()
    return_NT = advantages.returns(reward_NT, mask_NT, gamma=gamma)
    one = advantages.gae(reward_NT, value_NT, mask_NT, gamma=gamma, lam=1.0)
    assert_close(one.advantage_NT, advantages.advantage(return_NT, value_NT, mask_NT))
    assert_close(one.return_NT, return_NT)
    zero = advantages.gae(reward_NT[:1], value_NT[:1], mask_NT[:1], gamma=gamma, lam=0.0).advantage_NT
    next_value = torch.cat([value_NT[:1, 1:], torch.zeros(1, 1, dtype=torch.float64)], -1)
    assert_close(zero, reward_NT[:1] + gamma * next_value - value_NT[:1])


def test_a_row_with_holes_equals_the_row_without_them():
    reward_NT, value_NT, mask_NT = rollout(seed=5)
    wide = advantages.gae(reward_NT, value_NT, mask_NT, gamma=0.9, lam=0.8)
    for n in range(6):
        kept_T = mask_NT[n]
        full = torch.ones(1, int(kept_T.sum()), dtype=torch.bool)
        dense = advantages.gae(reward_NT[n : n + 1, kept_T], value_NT[n : n + 1, kept_T], full, gamma=0.9, lam=0.8)
        assert_close(wide.advantage_NT[n, kept_T], dense.advantage_NT[0])
        assert_close(wide.return_NT[n, kept_T], dense.return_NT[0])
        assert not wide.advantage_NT[n, ~kept_T].any()
        assert not wide.return_NT[n, ~kept_T].any()


@pytest.mark.parametrize("setting", [{"gamma": 1.1}, {"gamma": -0.1}, {"lam": 1.5}, {"lam": NAN}])
def test_discounts_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match=rf"{next(iter(setting))} is .*; pass a number from 0 to 1"):
        advantages.gae(*rollout(), **setting)


def test_whiten_uses_the_population_variance_of_what_is_masked_in():
    value_NT, mask_NT = tensor([[1.0, NAN], [3.0, 5.0]]), tensor([[True, False], [True, True]])
    deviation = math.sqrt(8 / 3)
    assert_close(advantages.whiten(value_NT, mask_NT), tensor([[-2 / deviation, 0.0], [0.0, 2 / deviation]]))
    kept = advantages.whiten(value_NT, mask_NT, shift_mean=False)
    assert_close(kept, tensor([[3 - 2 / deviation, 0.0], [3.0, 3 + 2 / deviation]]))
    damped = advantages.whiten(value_NT, mask_NT, eps=4 - 8 / 3)
    assert_close(damped, tensor([[-1.0, 0.0], [0.0, 1.0]]))


@pytest.mark.parametrize("eps", [1e-8, 0.0])
def test_whiten_of_equal_values_is_zero_even_where_their_mean_is_rounded(eps):
    for value in (2.3, 0.1, -1e4 / 3):
        value_NT, mask_NT = torch.full((3, 7), value), torch.ones(3, 7, dtype=torch.bool)
        assert_close(advantages.whiten(value_NT, mask_NT, eps=eps), torch.zeros(3, 7))
        assert_close(advantages.whiten(value_NT, mask_NT, eps=eps, shift_mean=False), value_NT)
    nothing = torch.zeros(1, 2, dtype=torch.bool)
    assert_close(advantages.whiten(tensor([[NAN, 1.0]]), nothing, eps=eps), torch.zeros(1, 2))


def test_group_baselines_by_hand():
    reward_BK = tensor([[3.0, 0.0, 0.0]])
    assert_close(advantages.leave_one_out(reward_BK), tensor([[3.0, -1.5, -1.5]]))
    assert_close(advantages.group_relative(reward_BK, scale=False), tensor([[2.0, -1.0, -1.0]]))
    deviation = math.sqrt(3) + 1e-4  # (4 + 1 + 1) / (3 - 1)
    assert_close(advantages.group_relative(reward_BK), tensor([[2.0, -1.0, -1.0]]) / deviation)


def test_leave_one_out_is_the_unscaled_group_advantage_times_k_over_k_minus_one():
    reward_BK = torch.randn(4, 5, dtype=torch.float64)
    mean_of_others = (reward_BK.sum(-1, keepdim=True) - reward_BK) / 4
    assert_close(advantages.leave_one_out(reward_BK), reward_BK - mean_of_others)
    assert_close(advantages.leave_one_out(reward_BK), advantages.group_relative(reward_BK, scale=False) * 5 / 4)


@pytest.mark.parametrize("count", [2, 3, 7, 11])
def test_equal_rewards_have_no_advantage_even_where_their_mean_is_rounded(count):
    reward_BK = torch.full((2, count), 0.7)
    for found in (
        advantages.group_relative(reward_BK),
        advantages.group_relative(reward_BK, eps=0.0),
        advantages.leave_one_out(reward_BK),
    ):
        assert_close(found, torch.zeros(2, count), rtol=0, atol=1e-9)


@pytest.mark.parametrize("function", [advantages.leave_one_out, advantages.group_relative])
def test_a_group_of_one_has_no_baseline(function):
    with pytest.raises(ValueError, match="at least 2 per prompt"):
        function(torch.ones(3, 1))


def test_nothing_here_carries_a_graph():
    reward_NT, value_NT, mask_NT = rollout()
    reward_NT.requires_grad_(), value_NT.requires_grad_()
    results = [
        *advantages.gae(reward_NT, value_NT, mask_NT),
        advantages.returns(reward_NT, mask_NT),
        advantages.advantage(reward_NT, value_NT, mask_NT),
        advantages.whiten(value_NT, mask_NT),
        advantages.token_rewards(reward_NT[:, 0], value_NT, mask_NT),
        advantages.leave_one_out(reward_NT),
        advantages.group_relative(reward_NT),
        advantages.normalise_score(reward_NT[:, 0]),
    ]
    assert not any(result.requires_grad for result in results)
