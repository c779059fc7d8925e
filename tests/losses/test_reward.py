"""Reward-model losses by hand, their signs, ties and rankings, and calibration."""

import math

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from accord.losses import reward

NAN, INF, LOG2, LOG3 = math.nan, math.inf, math.log(2), math.log(3)


def test_bradley_terry_by_hand():
    assert_close(reward.bradley_terry(tensor([3.0]), tensor([2.0])), tensor([0.31326]), rtol=1e-4, atol=0)
    assert_close(reward.bradley_terry(tensor([LOG3]), tensor([0.0])), tensor([math.log(4 / 3)]))


def test_bradley_terry_raises_the_chosen_and_lowers_the_rejected():
    chosen_B, rejected_B = tensor([0.0], requires_grad=True), tensor([LOG3], requires_grad=True)
    reward.bradley_terry(chosen_B, rejected_B).sum().backward()
    assert_close(chosen_B.grad, tensor([-0.75]))  # -(1 - sigma(z)), sigma(-log 3) = 1/4
    assert_close(rejected_B.grad, tensor([0.75]))


def test_bradley_terry_swapped_turns_p_into_one_minus_p():
    chosen_B, rejected_B, p_B = torch.randn(3, 9, dtype=torch.float64)
    p_B = p_B.sigmoid()
    swapped = reward.bradley_terry(rejected_B, chosen_B, probability_B=1 - p_B)
    assert_close(reward.bradley_terry(chosen_B, rejected_B, probability_B=p_B), swapped)


def test_bradley_terry_soft_target_has_its_minimum_at_the_entropy_of_the_target():
    logit_B = tensor([math.log(0.8 / 0.2)], requires_grad=True)
    loss_B = reward.bradley_terry(logit_B, tensor([0.0]), probability_B=tensor([0.8]))
    loss_B.sum().backward()
    assert_close(loss_B.detach(), tensor([-0.8 * math.log(0.8) - 0.2 * math.log(0.2)]))
    assert_close(logit_B.grad, tensor([0.0]), rtol=0, atol=1e-7)


def test_bradley_terry_smoothing_and_margin():
    # z = 2 - 1 - 1 + log 3; e = 1/4 of p = 1: t = 3/4
    loss = reward.bradley_terry(tensor([2.0 + LOG3]), tensor([1.0]), margin_B=tensor([1.0]), label_smoothing=0.25)
    assert_close(loss, tensor([-0.75 * math.log(0.75) - 0.25 * math.log(0.25)]))
    # smoothing meets a soft target: t = 0.9 * 0.5 + 0.1 * 0.5 = 0.5
    both = reward.bradley_terry(tensor([LOG3]), tensor([0.0]), probability_B=tensor([0.5]), label_smoothing=0.1)
    assert_close(both, tensor([-0.5 * math.log(0.75) - 0.5 * math.log(0.25)]))


def test_bradley_terry_survives_infinite_gaps():
    assert_close(reward.bradley_terry(tensor([INF, -900.0]), tensor([0.0, 0.0])), tensor([0.0, 900.0]))


@pytest.mark.parametrize("smoothing", [-0.01, 0.51, NAN])
def test_bradley_terry_refuses_smoothing(smoothing):
    with pytest.raises(ValueError, match=r"label_smoothing is .*; pass a number from 0 to 0\.5"):
        reward.bradley_terry(tensor([0.0]), tensor([0.0]), label_smoothing=smoothing)


def three_outcomes(function, gap, **setting):
    gap_B = torch.full((3,), gap, dtype=torch.float64)
    return (-function(gap_B, torch.zeros_like(gap_B), tensor([1, 0, -1]), **setting)).exp()


@pytest.mark.parametrize("gap", [-7.0, -0.3, 0.0, 2.5, 30.0])
def test_tie_models_give_probabilities_that_sum_to_one(gap):
    for eta in (1e-6, 0.2, LOG3, 40.0):
        assert_close(three_outcomes(reward.rao_kupper, gap, threshold=eta).sum().item(), 1.0)
    for log_nu in (-INF, -3.0, LOG2, 5.0):
        assert_close(three_outcomes(reward.davidson, gap, log_nu=log_nu).sum().item(), 1.0)


def test_tie_models_give_half_to_a_tie_of_equals():
    expected = tensor([0.25, 0.5, 0.25], dtype=torch.float64)
    assert_close(three_outcomes(reward.rao_kupper, 0.0), expected)
    assert_close(three_outcomes(reward.davidson, 0.0), expected)


def test_tie_models_by_hand_at_gap_log_3():
    # Rao-Kupper: sigma(0) = 1/2, sigma(-2 log 3) = 1/10, tie 8 * 1/2 * 1/10; Davidson: 3, 2 sqrt 3, 1 over their sum
    assert_close(three_outcomes(reward.rao_kupper, LOG3), tensor([0.5, 0.4, 0.1], dtype=torch.float64))
    parts = tensor([3.0, 2 * math.sqrt(3), 1.0], dtype=torch.float64)
    assert_close(three_outcomes(reward.davidson, LOG3), parts / parts.sum())


def test_davidson_without_ties_is_bradley_terry_and_a_tie_then_costs_inf():
    first_B, second_B = torch.randn(2, 6, dtype=torch.float64)
    found = reward.davidson(first_B, second_B, torch.ones(6, dtype=torch.int64), log_nu=-INF)
    assert_close(found, reward.bradley_terry(first_B, second_B))
    assert reward.davidson(tensor([0.0]), tensor([0.0]), tensor([0]), log_nu=-INF).item() == INF


def test_tie_thresholds_can_be_learnt():
    eta, log_nu = tensor(0.7, requires_grad=True), tensor(0.1, requires_grad=True)
    rewards = (tensor([1.0, 0.0]), tensor([0.0, 0.0]), tensor([1, 0]))
    (reward.rao_kupper(*rewards, threshold=eta)[1] + reward.davidson(*rewards, log_nu=log_nu)[1]).backward()
    assert eta.grad < 0  # a wider threshold, and a larger nu, explain a tie better
    assert log_nu.grad < 0


@pytest.mark.parametrize("threshold", [0.0, -1.0])
def test_rao_kupper_refuses_a_threshold_that_forbids_ties(threshold):
    with pytest.raises(ValueError, match="threshold"):
        reward.rao_kupper(tensor([0.0]), tensor([0.0]), tensor([0]), threshold=threshold)


def test_pairwise_ranking_weights():
    # equal rewards: every comparison costs log 2. Ranks 1, 2, 2, failed: 5 comparisons of C(4, 2) = 6
    reward_BK, rank_BK = torch.zeros(1, 4), tensor([[1, 2, 2, 0]])
    for weight, expected in (("pairs", LOG2), ("choose", 5 / 6 * LOG2), ("sum", 5 * LOG2)):
        assert_close(reward.pairwise_ranking(reward_BK, rank_BK, weight=weight), tensor([expected]))
    for weight, expected in (("pairs", LOG2), ("choose", 2 / 3 * LOG2), ("sum", 2 * LOG2)):
        assert_close(reward.pairwise_ranking(reward_BK, rank_BK, weight=weight, failed="drop"), tensor([expected]))


def test_pairwise_ranking_pushes_the_better_up():
    reward_BK = tensor([[0.0, 0.0, NAN]], requires_grad=True)
    reward.pairwise_ranking(reward_BK, tensor([[2, 1, -1]])).sum().backward()
    assert_close(reward_BK.grad, tensor([[0.5, -0.5, 0.0]]))


def test_pairwise_ranking_refuses_words():
    with pytest.raises(ValueError, match="weight is 'mean'; choose from 'pairs', 'choose', 'sum'"):
        reward.pairwise_ranking(torch.zeros(1, 2), tensor([[1, 2]]), weight="mean")


def test_centering_pulls_the_mean_to_zero():
    chosen_B = tensor([3.0], requires_grad=True)
    loss_B = reward.centering(chosen_B, tensor([-1.0]))
    loss_B.sum().backward()
    assert_close(loss_B.detach(), tensor([0.04]))
    assert_close(chosen_B.grad, tensor([0.04]))  # 0.01 * 2 * 2


def test_accuracy_counts_a_tie_as_told():
    pairs = tensor([2.0, 1.0, 0.0, NAN]), tensor([1.0, 1.0, 1.0, 0.0])
    assert_close(reward.accuracy(*pairs), tensor([1.0, 0.5, 0.0, 0.0]))
    assert_close(reward.accuracy(*pairs, tie=0.0), tensor([1.0, 0.0, 0.0, 0.0]))


def test_calibration_by_hand():
    # confidence 3/4 twice, one right: |1/2 - 3/4| = 1/4. Confidence 1/2 once, a tie: 0. Weighted: 2/3 * 1/4.
    found = reward.calibration(tensor([LOG3, 0.0, 1.0]), tensor([0.0, LOG3, 1.0]), bins=2)
    assert_close(found.ece, tensor(1 / 6))
    assert_close(found.brier, tensor((1 / 16 + 9 / 16 + 1 / 4) / 3))
    assert_close(found.nll, tensor((math.log(4 / 3) + math.log(4) + LOG2) / 3))
    assert_close(found.confidence_M, tensor([0.5, 0.75]))
    assert_close(found.accuracy_M, tensor([0.5, 0.5]))
    assert_close(found.count_M, tensor([1, 2]))


def test_calibration_takes_soft_labels():
    found = reward.calibration(tensor([LOG3, 0.0]), tensor([0.0, LOG3]), probability_B=tensor([0.75, 0.25]), bins=1)
    assert_close(found.ece, tensor(0.0), rtol=0, atol=1e-6)
    assert_close(found.brier, tensor(0.0), rtol=0, atol=1e-6)


def test_calibration_does_not_depend_on_which_side_is_called_chosen():
    first_B, second_B, p_B = torch.randn(3, 40, dtype=torch.float64)
    one = reward.calibration(first_B, second_B, probability_B=p_B.sigmoid())
    other = reward.calibration(second_B, first_B, probability_B=1 - p_B.sigmoid())
    for name in one._fields:
        assert_close(getattr(one, name), getattr(other, name))


def test_calibration_needs_a_bin():
    with pytest.raises(ValueError, match="bins is 0"):
        reward.calibration(tensor([0.0]), tensor([0.0]), bins=0)
