"""Ranking losses by hand: orders, ties, failures, absences, PRO's temperatures."""

import math
from itertools import permutations

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from accord.losses import listwise, preference, reward

NAN, INF, LOG2, LOG3 = math.nan, math.inf, math.log(2), math.log(3)
DEGENERATE = tensor([[1, 1, 1], [0, 0, 0], [-1, -1, -1], [-1, 7, -1], [-1, 0, -1]])


def test_ranking_pairs_by_hand():
    rank_BK = tensor([[3, 1, 0], [2, 2, -1], [0, 9, 4]])
    last = [[0, 0, 2], [0, 1, 0], [0, 1, 2], [2, 1, 0], [2, 2, 0], [2, 2, 1]]
    drop = [[0, 1, 0], [2, 2, 1]]
    assert listwise.ranking_pairs(rank_BK).tolist() == last
    assert listwise.ranking_pairs(rank_BK, failed="drop").tolist() == drop
    assert listwise.ranking_pairs(DEGENERATE).shape == (0, 3)
    assert listwise.ranking_pairs(rank_BK).dtype == torch.int64


def test_plackett_luce_is_the_probability_of_the_order():
    score_K = tensor([0.3, -1.0, 0.8, 0.1], dtype=torch.float64)
    total = 0.0
    for order in permutations(range(4)):
        rank_K = torch.empty(4, dtype=torch.int64)
        rank_K[list(order)] = torch.arange(1, 5)
        left, product = score_K.exp().tolist(), 1.0
        for best in order:
            product *= left[best] / sum(left)
            left[best] = 0.0
        found = listwise.plackett_luce(score_K[None], rank_K[None]).item()
        assert found == pytest.approx(-math.log(product))
        total += math.exp(-found)
    assert total == pytest.approx(1)


def test_plackett_luce_sums_all_terms():
    assert_close(listwise.plackett_luce(torch.zeros(1, 4), tensor([[4, 2, 1, 3]])), tensor([math.log(24)]))


def test_plackett_luce_of_two_is_bradley_terry():
    score_BK = torch.randn(5, 2, dtype=torch.float64)
    rank_BK = tensor([[1, 2]] * 5)
    expected = reward.bradley_terry(score_BK[:, 0], score_BK[:, 1])
    for function in (
        listwise.plackett_luce,
        listwise.pro,
        listwise.info_nce,
        reward.plackett_luce,
        reward.pairwise_ranking,
    ):
        assert_close(function(score_BK, rank_BK), expected)


def test_plackett_luce_pushes_the_best_up_and_the_worst_down():
    score_BK = torch.zeros(1, 3, requires_grad=True)
    listwise.plackett_luce(score_BK, tensor([[2, 1, 3]])).sum().backward()
    # first term: 1 of {0, 1, 2} wins; second: 0 of {0, 2}
    assert_close(score_BK.grad, tensor([[1 / 3 + 1 / 2 - 1, 1 / 3 - 1, 1 / 3 + 1 / 2]]))


def test_ties_leave_each_others_denominator():
    # both best at log 3 against one at 0: log 4/3 each, and no term between the two
    score_BK = tensor([[LOG3, LOG3, 0.0]], requires_grad=True)
    loss_B = listwise.plackett_luce(score_BK, tensor([[1, 1, 2]]))
    loss_B.sum().backward()
    assert_close(loss_B.detach(), tensor([2 * math.log(4 / 3)]))
    assert_close(score_BK.grad, tensor([[-0.25, -0.25, 0.5]]))


def test_failed_responses_stand_last_or_nowhere():
    score_BK, rank_BK = torch.zeros(1, 4), tensor([[0, 5, 0, 8]])
    # 5 beats three, 8 beats the two failed ones: log 4 + log 3
    assert_close(listwise.plackett_luce(score_BK, rank_BK), tensor([math.log(12)]))
    assert_close(listwise.plackett_luce(score_BK, rank_BK, failed="drop"), tensor([LOG2]))
    assert_close(listwise.info_nce(score_BK, rank_BK), tensor([math.log(4)]))
    assert_close(listwise.info_nce(score_BK, rank_BK, failed="drop"), tensor([LOG2]))


def test_info_nce_divides_by_the_temperature_and_means_over_tied_best():
    score_BK = tensor([[LOG3 / 2, 0.0, -5.0], [LOG3 / 2, 0.0, 0.0]])
    rank_BK = tensor([[1, 2, -1], [4, 4, 6]])
    found = listwise.info_nce(score_BK, rank_BK, temperature=0.5)
    assert_close(found, tensor([math.log(4 / 3), (math.log(4 / 3) + LOG2) / 2]))


def test_info_nce_is_plackett_luce_when_all_but_the_best_tie():
    score_BK, rank_BK = torch.randn(3, 5, dtype=torch.float64), tensor([[2, 2, 1, 2, 2]] * 3)
    assert_close(listwise.info_nce(score_BK, rank_BK), listwise.plackett_luce(score_BK, rank_BK))


def test_plackett_luce_dpo_of_two_is_dpo():
    logprob_BK, ref_BK = torch.randn(2, 5, 2, dtype=torch.float64)
    found = listwise.plackett_luce_dpo(logprob_BK, ref_BK, tensor([[2, 1]] * 5), beta=0.7)
    expected = preference.dpo(logprob_BK[:, 1], logprob_BK[:, 0], ref_BK[:, 1], ref_BK[:, 0], beta=0.7)
    assert_close(found, expected)


def test_pro_by_hand():
    # ranks 1, 2, 3, rewards 3, 2, 0, scores 1, 2, 1. Step 1: gaps 1 and 3, own 3: logsumexp(3, 2, 3) - 3.
    # Step 2: gap 2, own 2: logsumexp(4, 2) - 4.
    arguments = tensor([[1.0, 2.0, 1.0]]), tensor([[1, 2, 3]])
    expected = math.log(2 + math.exp(-1)) + math.log(1 + math.exp(-2))
    found = listwise.pro(*arguments, reward_BK=tensor([[3.0, 2.0, 0.0]]), sft_nll_B=tensor([4.0]), sft_weight=0.5)
    assert_close(found, tensor([expected + 2.0]))


def test_pro_takes_a_contradicting_reward_for_gap_zero():
    score_BK = tensor([[5.0, -5.0]], requires_grad=True)
    loss_B = listwise.pro(score_BK, tensor([[1, 2]]), reward_BK=tensor([[0.0, 1.0]]))
    loss_B.sum().backward()
    assert_close(loss_B.detach(), tensor([LOG2]))
    assert_close(score_BK.grad, torch.zeros(1, 2))


def test_pro_rewards_get_no_gradient_and_their_garbage_stays_out():
    score_BK = tensor([[0.0, NAN, 1.0]], requires_grad=True)
    reward_BK = tensor([[2.0, INF, 1.0]], requires_grad=True)
    loss_B = listwise.pro(score_BK, tensor([[1, -1, 2]]), reward_BK=reward_BK)
    loss_B.sum().backward()
    assert_close(loss_B.detach(), tensor([math.log(1 + math.e)]))
    assert reward_BK.grad is None
    assert score_BK.grad[0, 1] == 0
    assert score_BK.grad[0, 0] < 0 < score_BK.grad[0, 2]


@pytest.mark.parametrize("function", [listwise.info_nce, listwise.plackett_luce, listwise.pro, reward.pairwise_ranking])
@pytest.mark.parametrize("failed", ["last", "drop"])
def test_nothing_to_compare_costs_nothing(function, failed):
    score_BK = torch.randn(5, 3, requires_grad=True)
    loss_B = function(score_BK, DEGENERATE, failed=failed)
    loss_B.sum().backward()
    assert_close(loss_B.detach(), torch.zeros(5))
    assert_close(score_BK.grad, torch.zeros(5, 3))


def test_pro_keeps_the_sft_term_where_nothing_is_compared():
    found = listwise.pro(torch.zeros(5, 3), DEGENERATE, reward_BK=torch.zeros(5, 3), sft_nll_B=torch.ones(5))
    assert_close(found, torch.full((5,), 0.05))


def test_words_and_temperatures_are_checked():
    with pytest.raises(ValueError, match="failed is 'first'; choose from 'last', 'drop'"):
        listwise.ranking_pairs(tensor([[1, 2]]), failed="first")
    with pytest.raises(ValueError, match="temperature is 0"):
        listwise.info_nce(torch.zeros(1, 2), tensor([[1, 2]]), temperature=0)
    with pytest.raises(ValueError, match="shapes"):
        listwise.plackett_luce(torch.zeros(1, 2), tensor([[1, 2, 3]]))
