"""Which comparisons a ranking holds, what they weigh, and what is measured of them, by hand."""

import math
import weakref

import pytest
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from accord.data.batches import Preference
from accord.losses.reward import bradley_terry, pairwise_ranking
from accord.train.pairs import PairTotals, pairs_of, ranks_of, require_pairs
from accord.trees import Branch, PromptTree, pack


def item(*ranks: int, probability: float | None = None, margin: float | None = None) -> Preference:
    branches = tuple(Branch.response((10 + k,) * (k + 1)) for k in range(len(ranks)))
    return Preference(tree=PromptTree((1, 2), branches), ranks=ranks, probability=probability, margin=margin)


def pairs(*items: Preference, **how):
    return pairs_of(pack([one.tree for one in items]), items, **how)


def as_set(found) -> set[tuple[int, int]]:
    return set(zip(found.better_P.tolist(), found.worse_P.tolist(), strict=True))


def test_four_responses_with_a_tie_and_a_failure():  # field: A7, W2
    """Ranks 2, 1, 2, F: 1 beats 0, 2 and 3; 0 and 2 beat 3, and tie with each other."""
    found = pairs(item(2, 1, 2, 0))
    assert as_set(found) == {(1, 0), (1, 2), (1, 3), (0, 3), (2, 3)}
    assert found.trees == 1
    assert found.probability_P.tolist() == [1.0] * 5
    assert found.margin_P.tolist() == [0.0] * 5


def test_pairs_of_a_tree_weigh_one_together():  # field: A7
    """Five pairs of loss 1, one pair of loss 7, and a tree in which all tie: 1 + 7 + 0."""
    found = pairs(item(2, 1, 2, 0), item(1, 2), item(1, 1, 1))
    assert found.tree_P.tolist() == [0] * 5 + [1]
    assert as_set(found) == {(1, 0), (1, 2), (1, 3), (0, 3), (2, 3), (4, 5)}
    assert_close(found.sum_of_tree_means(torch.tensor([1.0] * 5 + [7.0])), torch.tensor(8.0))
    assert_close(found.sum_of_tree_means(torch.tensor([5.0, 0, 0, 0, 0, 0])), torch.tensor(1.0))


def test_failures_do_not_beat_each_other_and_gaps_in_ranks_mean_nothing():
    assert as_set(pairs(item(0, 0))) == set()
    assert as_set(pairs(item(7, 3, 0, 0))) == {(1, 0), (1, 2), (1, 3), (0, 2), (0, 3)}


def test_dropped_failures_lose_to_nobody():
    found = pairs(item(2, 1, 2, 0), item(1, 0), failed="drop")
    assert as_set(found) == {(1, 0), (1, 2)}
    assert found.present_B.tolist() == [3, 1]
    assert pairs(item(2, 1, 2, 0), item(1, 0)).present_B.tolist() == [4, 2]


def test_ties_are_pairs_of_their_own():
    """Ranks 2, 1, 2, F, F: 0 and 2 tie, the failed ones do not; absent responses of a narrower tree never do."""
    found = pairs(item(2, 1, 2, 0, 0), item(1, 1), ties=True)
    outcomes = zip(found.better_P.tolist(), found.worse_P.tolist(), found.outcome_P.tolist(), strict=True)
    assert {(b, w) for b, w, outcome in outcomes if outcome == 0} == {(0, 2), (5, 6)}
    ranked = pairs(item(2, 1, 2, 0, 0), item(1, 1))
    assert as_set(ranked) == as_set(found) - {(0, 2), (5, 6)}
    assert ranked.outcome_P.tolist() == [1] * 8
    assert found.probability_P[found.outcome_P == 0].tolist() == [0.5, 0.5]
    assert found.decided_P.sum() == 8


@pytest.mark.parametrize("weight", ["pairs", "choose", "sum"])
@pytest.mark.parametrize("failed", ["last", "drop"])
def test_weights_are_those_of_the_loss(weight, failed):
    """Equal to `losses.reward.pairwise_ranking` on the same rectangle, ties, failures and narrow trees included."""
    items = [item(2, 1, 2, 0), item(1, 2), item(1, 1, 1), item(0, 0), item(1, 0), item(3, 1, 2, 4)]
    batch = pack([one.tree for one in items])
    score_N = torch.linspace(-2, 3, batch.count).square()
    found = pairs_of(batch, items, failed=failed)
    loss_P = bradley_terry(score_N[found.better_P], score_N[found.worse_P])
    expected_B = pairwise_ranking(
        batch.by_tree(score_N, math.nan), ranks_of(batch, items), weight=weight, failed=failed
    )
    assert_close(found.tree_means(loss_P, weight=weight), expected_B)
    assert_close(found.sum_of_tree_means(loss_P, weight=weight), expected_B.sum())


def test_weights_by_hand():
    """Ranks 2, 1, 2, F hold five pairs of six: losses of 1 sum to 5, 5/6 and 1; with their tie to 6, 1 and 1."""
    for ties, by_weight in ((False, (5, 5 / 6, 1)), (True, (6, 1, 1))):
        found = pairs(item(2, 1, 2, 0), ties=ties)
        ones_P = torch.ones(found.better_P.numel())
        got = [float(found.sum_of_tree_means(ones_P, weight=weight)) for weight in ("sum", "choose", "pairs")]
        assert got == pytest.approx(by_weight)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)])
def test_the_order_of_responses_changes_no_loss(order):
    ranks, score = (2, 1, 2, 0), torch.tensor([0.3, -1.0, 2.0, 0.5])
    turned = pairs(item(*(ranks[k] for k in order)))
    plain = pairs(item(*ranks))
    losses = [
        found.sum_of_tree_means(bradley_terry(one[found.better_P], one[found.worse_P]))
        for found, one in ((plain, score), (turned, score[list(order)]))
    ]
    assert_close(losses[0], losses[1])


def test_probability_and_margin_of_a_comparison_reach_its_pair():
    found = pairs(item(1, 2), item(1, 2, probability=0.75, margin=2.0))
    assert as_set(found) == {(0, 1), (2, 3)}
    assert found.probability_P.tolist() == [1.0, 0.75]
    assert found.margin_P.tolist() == [0.0, 2.0]


def test_a_chosen_one_that_most_did_not_choose_is_the_worse():  # field: W2
    found = pairs(item(1, 2, probability=0.25, margin=2.0))
    assert as_set(found) == {(1, 0)}
    assert (found.probability_P.tolist(), found.margin_P.tolist()) == ([0.75], [-2.0])
    first, second = torch.tensor([1.3]), torch.tensor([0.4])
    written = bradley_terry(first, second, probability_B=torch.tensor([0.25]), margin_B=torch.tensor([2.0]))
    assert_close(bradley_terry(second, first, probability_B=found.probability_P, margin_B=found.margin_P), written)


def test_totals_by_hand():  # field: W2, S3
    """Scores 3 > 1 right, 2 = 2 tied, 0 < 5 wrong; lengths 1, 2 of each pair: the longer one never wins."""
    found = pairs(item(1, 2), item(1, 2), item(1, 2))
    totals = PairTotals()
    length_N = torch.tensor([1, 2, 1, 2, 1, 2])
    totals.add(found, torch.tensor([3.0, 1, 2, 2, 0, 5], requires_grad=True), length_N, logprob=-length_N.float())
    means = totals.means()
    assert means["accuracy_tie_half"] == pytest.approx(0.5)
    assert means["accuracy_strict"] == pytest.approx(1 / 3)
    assert means["longer_wins_accuracy"] == 0
    assert means["margin"] == pytest.approx((2 + 0 - 5) / 3)
    assert (means["reward__chosen"], means["reward__rejected"]) == pytest.approx((5 / 3, 8 / 3))
    assert (means["length__chosen"], means["length__rejected"]) == (1, 2)
    assert (means["logprob__chosen"], means["logprob__rejected"]) == (-1, -2)


def test_of_ties_only_their_gap_is_kept():
    """Scores 3, 1, 2 at ranks 1, 2, 2: margins 2 and 1, and the tied ones are 1 apart."""
    plain, tied = PairTotals(), PairTotals()
    length_N = torch.tensor([1, 2, 3])
    plain.add(pairs(item(1, 2, 2)), torch.tensor([3.0, 1, 2]), length_N)
    tied.add(pairs(item(1, 2, 2), ties=True), torch.tensor([3.0, 1, 2]), length_N)
    assert tied.decided == 2
    assert tied.means() == plain.means() | {"ties__gap": 1.0}


def test_a_vote_that_is_split_evenly_has_no_accuracy():  # field: W2
    totals = PairTotals()
    found = pairs(item(1, 2, probability=0.5), item(1, 2, probability=0.2))
    totals.add(found, torch.tensor([1.0, 0, 0, 4]), torch.tensor([1, 1, 1, 2]))
    assert totals.decided == 1
    means = totals.means()
    assert (means["accuracy_strict"], means["accuracy_tie_half"], means["longer_wins_accuracy"]) == (1, 1, 1)
    assert means["margin"] == pytest.approx((1 + 4) / 2)  # every pair
    even = PairTotals()
    even.add(pairs(item(1, 2, probability=0.5)), torch.tensor([1.0, 0]), torch.tensor([1, 1]))
    assert "accuracy_strict" not in even.means()  # nothing measured is no number; field: E6


def test_a_split_vote_costs_least_at_equal_scores():  # field: W2
    found = pairs(item(1, 2, probability=0.5))
    score = torch.tensor([0.7, 0.7], requires_grad=True)
    loss = bradley_terry(score[found.better_P], score[found.worse_P], probability_B=found.probability_P).sum()
    loss.backward()
    assert_close(loss.detach(), torch.tensor(math.log(2)))
    assert float(score.grad.abs().max()) == 0


def test_totals_of_parts_add_up():
    items = [item(2, 1, 2, 0), item(1, 2), item(1, 1, 1), item(3, 1, 2)]
    score = torch.linspace(-2, 3, sum(len(one.ranks) for one in items))
    length = torch.tensor([len(branch.tokens) for one in items for branch in one.tree.branches])
    whole, parts = PairTotals(), PairTotals()
    whole.add(pairs(*items), score, length)
    start = 0
    for one in items:
        end = start + len(one.ranks)
        parts.add(pairs(one), score[start:end], length[start:end])
        start = end
    assert parts.means() == pytest.approx(whole.means())
    assert PairTotals().means() == {}


class Reads(TorchDispatchMode):
    """Counts numbers that the host reads: a GPU is waited for at each."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_totals_are_read_when_they_are_asked_for_and_hold_no_graph():
    totals, found = PairTotals(), pairs(item(1, 2), item(2, 1))
    leaf, factor = torch.tensor([3.0, 1, 2, 2], requires_grad=True), torch.ones(4)
    alive = weakref.ref(factor)  # as long as the graph, which keeps it for the backward pass
    score_N = leaf * factor
    del factor
    assert alive() is not None
    with Reads() as reads:
        totals.add(found, score_N, torch.tensor([1, 2, 1, 2]), logprob=score_N * 2)
        del score_N
        assert alive() is None
        assert reads.count == 0
        assert totals.means()["logprob__chosen"] == 5
        assert reads.count > 0
    once = totals.means()
    assert totals.means() == once  # nothing is added twice
    totals.add(found, torch.tensor([3.0, 1, 2, 2]), torch.tensor([1, 2, 1, 2]))
    assert totals.means()["margin"] == once["margin"]
    assert totals.decided == 4


def test_data_without_a_single_preference_is_refused():  # field: S2
    require_pairs([item(1, 1), item(0, 1)])
    with pytest.raises(ValueError, match="all responses tie or failed"):
        require_pairs([item(1, 1), item(0, 0)])
    with pytest.raises(ValueError, match="all responses tie or failed"):
        require_pairs([item(1, 1), item(0, 1)], failed="drop")
