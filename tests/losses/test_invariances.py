"""What must change nothing: the order of trees and responses, what lies under a mask, half precision, the device."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor
from torch.testing import assert_close

from accord.losses import advantages, kl, likelihood, listwise, policy, preference, reward
from losses.test_vectors import VECTORS, function_of, value_of

GARBAGE = (math.nan, math.inf, -math.inf)
RANKED = {
    "plackett_luce": listwise.plackett_luce,
    "info_nce": listwise.info_nce,
    "pro": listwise.pro,
    "pro with rewards": lambda score_BK, rank_BK, **word: listwise.pro(
        score_BK, rank_BK, reward_BK=2 * score_BK.detach() - rank_BK, **word
    ),
    "plackett_luce_dpo": lambda score_BK, rank_BK, **word: listwise.plackett_luce_dpo(
        score_BK, -0.5 * score_BK.detach(), rank_BK, **word
    ),
    "pairs": reward.pairwise_ranking,
    "choose": lambda *arguments, **word: reward.pairwise_ranking(*arguments, weight="choose", **word),
}


@st.composite
def rankings(draw):
    """Scores and ranks of up to 4 trees of up to 5 responses: ties, gaps, failed and absent ones."""
    trees, count = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    rank = st.sampled_from([-1, -1, 0, 0, 1, 2, 3, 9])
    score = st.floats(-30, 30, allow_subnormal=False)
    rows = [st.lists(item, min_size=count, max_size=count) for item in (score, rank)]
    score_BK, rank_BK = (draw(st.lists(row, min_size=trees, max_size=trees)) for row in rows)
    return tensor(score_BK, dtype=torch.float64), tensor(rank_BK)


def value_and_gradient(function, score_BK, rank_BK, failed):
    score_BK = score_BK.clone().requires_grad_()
    loss_B = function(score_BK, rank_BK, failed=failed)
    (loss_B * torch.arange(1, len(loss_B) + 1)).sum().backward()
    return loss_B.detach(), score_BK.grad


@pytest.mark.parametrize("name", RANKED)
@given(ranking=rankings(), failed=st.sampled_from(["last", "drop"]), data=st.data())
@settings(max_examples=40, deadline=None)
def test_order_of_trees_and_responses_and_absent_scores_change_nothing(name, ranking, failed, data):
    score_BK, rank_BK = ranking
    loss_B, slope_BK = value_and_gradient(RANKED[name], score_BK, rank_BK, failed)
    order_K = data.draw(st.permutations(range(score_BK.shape[1])))
    order_B = data.draw(st.permutations(range(len(score_BK))))
    moved_B, moved_BK = value_and_gradient(RANKED[name], score_BK[:, order_K], rank_BK[:, order_K], failed)
    assert_close(moved_B, loss_B)
    assert_close(moved_BK, slope_BK[:, order_K])
    assert_close(RANKED[name](score_BK[order_B], rank_BK[order_B], failed=failed), loss_B[order_B])

    garbage = data.draw(st.sampled_from(GARBAGE))
    out_BK = rank_BK < (1 if failed == "drop" else 0)
    spoilt_B, spoilt_BK = value_and_gradient(RANKED[name], score_BK.masked_fill(out_BK, garbage), rank_BK, failed)
    assert_close(spoilt_B, loss_B)
    assert_close(spoilt_BK, slope_BK)
    assert not spoilt_BK[out_BK].any()


@given(ranking=rankings(), failed=st.sampled_from(["last", "drop"]))
@settings(max_examples=40, deadline=None)
def test_ranking_pairs_are_what_the_losses_compare(ranking, failed):
    score_BK, rank_BK = ranking
    pair_P3 = listwise.ranking_pairs(rank_BK, failed=failed)
    loss_P = reward.bradley_terry(score_BK[pair_P3[:, 0], pair_P3[:, 1]], score_BK[pair_P3[:, 0], pair_P3[:, 2]])
    sum_B = likelihood.segment_sum(loss_P, pair_P3[:, 0], len(score_BK))
    assert_close(reward.pairwise_ranking(score_BK, rank_BK, weight="sum", failed=failed), sum_B)
    count = len(pair_P3)
    assert [pair.tolist() for pair in pair_P3] == sorted(pair.tolist() for pair in pair_P3)
    assert len({tuple(pair.tolist()) for pair in pair_P3}) == count


@given(st.permutations(range(5)), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_order_of_pairs_moves_the_losses_along(order, seed):
    generator = torch.Generator().manual_seed(seed)
    pair_4B = 5 * torch.randn(4, 5, generator=generator, dtype=torch.float64) - 30
    lengths_2B = torch.randint(0, 9, (2, 5), generator=generator)
    losses = {
        preference.dpo: (*pair_4B,),
        preference.robust_dpo: (*pair_4B,),
        preference.ipo: (*pair_4B,),
        preference.hinge: (*pair_4B,),
        preference.dpo_length: (*pair_4B, *lengths_2B),
        preference.simpo: (*pair_4B[:2], *lengths_2B),
        preference.orpo: (*pair_4B[:2], *lengths_2B),
        preference.slic: (*pair_4B[:3],),
        reward.bradley_terry: (*pair_4B[:2],),
        reward.rao_kupper: (*pair_4B[:2], lengths_2B[0] % 3 - 1),
        reward.davidson: (*pair_4B[:2], lengths_2B[0] % 3 - 1),
    }
    for function, arguments in losses.items():
        assert_close(function(*(x[list(order)] for x in arguments)), function(*arguments)[list(order)])


def masked_results(value_NT, other_NT, mask_NT):
    """Everything that takes a mask, on two (N, T) tensors; `value_NT` carries the gradient."""
    segment_T = torch.where(mask_NT, torch.arange(len(mask_NT))[:, None], -1).flatten()
    yield likelihood.nll(value_NT, mask_NT, token_count=3)
    yield likelihood.nll(value_NT, mask_NT.double() / 2, token_count=3)
    yield likelihood.sequence_nll(value_NT, mask_NT)
    yield likelihood.sequence_nll(value_NT, mask_NT, average=False)
    yield likelihood.segment_sum(value_NT.flatten(), segment_T, len(mask_NT))
    yield likelihood.segment_mean(value_NT.flatten(), segment_T, len(mask_NT))
    for estimator in ("k1", "k2", "k3"):
        yield kl.sequence(value_NT, other_NT, mask_NT, estimator=estimator)
    for mode in ("token", "sequence", "constant"):
        yield policy.aggregate(value_NT, mask_NT, mode=mode, max_length=9)
    yield policy.clip_fraction(value_NT, other_NT, other_NT, mask_NT)
    yield advantages.returns(value_NT, mask_NT, gamma=0.9)
    yield advantages.advantage(value_NT, other_NT, mask_NT)
    yield from advantages.gae(value_NT, other_NT, mask_NT, gamma=0.9)
    yield advantages.whiten(value_NT, mask_NT)
    yield advantages.whiten(value_NT, mask_NT, shift_mean=False)
    yield advantages.token_rewards(value_NT.new_full((len(mask_NT),), 2.0), value_NT, mask_NT)


@given(st.integers(0, 10_000), st.sampled_from(GARBAGE))
@settings(max_examples=25, deadline=None)
def test_garbage_under_a_mask_reaches_neither_value_nor_gradient(seed, garbage):
    generator = torch.Generator().manual_seed(seed)
    mask_NT = torch.rand(3, 4, generator=generator) > 0.5
    clean = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64).masked_fill(~mask_NT, 0)
    results, slopes = [], []
    for pair in (clean, clean.masked_fill(~mask_NT, garbage)):
        leaf_NT, other_NT = pair[0].clone().requires_grad_(), pair[1]
        found = list(masked_results(leaf_NT, other_NT, mask_NT))
        sum(item.square().sum() for item in found if item.requires_grad).backward()
        results.append([item.detach() for item in found])
        slopes.append(leaf_NT.grad)
    assert_close(results[1], results[0])
    assert_close(slopes[1], slopes[0])
    assert not slopes[1][~mask_NT].any()


READS_CONTENTS = {  # their results have a size or a stopping point that depends on contents, or are Python numbers
    "listwise.ranking_pairs",
    "advantages.update_moments",
    "policy.conjugate_gradient",
    "policy.line_search",
    "policy.fisher_vector_product",
}
CASES = [case for case in VECTORS["cases"] if "raises" not in case and case["function"] not in READS_CONTENTS]


def tensors_of(result):
    return [item for item in (result if isinstance(result, tuple) else (result,)) if isinstance(item, torch.Tensor)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_no_function_looks_at_contents_and_half_precision_is_raised(case):
    """On the meta device there are no contents: a test of one, the cause of a device sync, is an error."""
    arguments = {name: value_of(value, torch.bfloat16) for name, value in case["inputs"].items()}
    if not any(isinstance(value, torch.Tensor) for value in arguments.values()):
        return
    arguments = {k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
    found, expected = function_of(case)(**arguments), value_of(case["expected"], torch.float32)
    expected = vars(expected).values() if hasattr(expected, "__dict__") and not tensors_of(expected) else [expected]
    for one, other in zip(tensors_of(found), expected, strict=True):
        assert (one.shape, one.dtype, one.device.type) == (other.shape, other.dtype, "meta")
