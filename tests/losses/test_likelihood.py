"""Likelihood by hand: trees, segments, masks, weights, and parts that add up."""

import math

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from accord.losses import likelihood

NAN, INF = math.nan, math.inf


def test_tree_logprob_of_two_branches_reads_both_first_tokens_from_the_prompt():
    # prompt: token 0; branch a: 1, 0; branch b: 0. Logits after the prompt say 1/4, 3/4, after a's "1" they say 1/2.
    logits_TV = tensor([[0.0, math.log(3)], [5.0, 5.0], [NAN, NAN], [NAN, NAN]])
    found = likelihood.tree_logprob(logits_TV, tensor([0, 1, 0, 0]), tensor([-1, 0, 1, 0]))
    assert_close(found, tensor([0.0, math.log(3 / 4), math.log(1 / 2), math.log(1 / 4)]))


def test_tree_logprob_divides_logits_by_the_temperature():
    # logits log 3 apart; temperature 1/2 doubles that: 1/10 and 9/10
    logits_TV = tensor([[0.0, math.log(3)], [0.0, 0.0]])
    found = likelihood.tree_logprob(logits_TV, tensor([0, 1]), tensor([-1, 0]), temperature=0.5)
    assert_close(found, tensor([0.0, math.log(0.9)]))


def test_tree_logprob_keeps_garbage_at_unused_rows_out_of_the_gradient():
    logits_TV = tensor([[NAN, INF], [0.0, 0.0], [NAN, NAN]], requires_grad=True)
    found = likelihood.tree_logprob(logits_TV, tensor([0, 0, 1]), tensor([-1, -1, 1]))
    found.sum().backward()
    assert_close(found, tensor([0.0, 0.0, -math.log(2)]))
    assert_close(logits_TV.grad, tensor([[0.0, 0.0], [-0.5, 0.5], [0.0, 0.0]]))


def test_tree_logprob_is_the_sequence_log_softmax_shifted_by_one():
    logits_TV, token_T = torch.randn(6, 5, dtype=torch.float64), torch.randint(5, (6,))
    expected = [logits_TV[t - 1].log_softmax(-1)[token_T[t]] for t in range(1, 6)]
    found = likelihood.tree_logprob(logits_TV, token_T, torch.arange(6) - 1)
    assert_close(found[1:], torch.stack(expected))


def test_segments_sum_and_mean():
    value_T, segment_T = tensor([NAN, 1.0, 2.0, 5.0, INF]), tensor([-1, 2, 2, 0, -1])
    assert_close(likelihood.segment_sum(value_T, segment_T, 4), tensor([5.0, 0.0, 3.0, 0.0]))
    assert_close(likelihood.segment_mean(value_T, segment_T, 4), tensor([5.0, 0.0, 1.5, 0.0]))


def test_segment_gradient_reaches_only_what_belongs_to_a_segment():
    value_T = tensor([NAN, 1.0, 2.0], requires_grad=True)
    likelihood.segment_mean(value_T, tensor([-1, 0, 0]), 1).sum().backward()
    assert_close(value_T.grad, tensor([0.0, 0.5, 0.5]))


def test_nll_by_hand_and_its_sign():
    logprob_T = tensor([-1.0, -3.0, NAN], requires_grad=True)
    loss = likelihood.nll(logprob_T, tensor([True, True, False]), token_count=2)
    loss.backward()
    assert_close(loss.detach(), tensor(2.0))
    assert_close(logprob_T.grad, tensor([-0.5, -0.5, 0.0]))


def test_nll_of_parts_adds_up_to_the_whole_step():
    logprob_T, mask_T = -torch.rand(12, dtype=torch.float64), torch.rand(12) > 0.4
    whole = likelihood.nll(logprob_T, mask_T, token_count=mask_T.sum())
    assert_close(whole, -logprob_T[mask_T].mean())
    for cut in (1, 5, 11):
        parts = [
            likelihood.nll(logprob_T[s], mask_T[s], token_count=int(mask_T.sum())) for s in (slice(cut), slice(cut, 12))
        ]
        assert_close(sum(parts), whole)


def test_nll_takes_weights():
    loss = likelihood.nll(tensor([-1.0, -2.0, -INF]), tensor([1.0, 0.5, 0.0]), token_count=1.5)
    assert_close(loss, tensor(2.0 / 1.5))


def test_nll_stays_in_its_dtype_whatever_the_count():
    for count in (2, 2.0, tensor(2), tensor(2.0), tensor(2.0, dtype=torch.float64)):
        for dtype, expected in (
            (torch.float32, torch.float32),
            (torch.float64, torch.float64),
            (torch.bfloat16, torch.float32),
        ):
            loss = likelihood.nll(torch.ones(3, dtype=dtype), torch.ones(3, dtype=torch.bool), token_count=count)
            assert loss.dtype == expected


@pytest.mark.parametrize("count", [0, -1, 0.0, NAN])
def test_nll_of_a_step_without_tokens_is_an_error(count):
    with pytest.raises(ValueError, match="no token to train on"):
        likelihood.nll(tensor([-1.0]), tensor([False]), token_count=count)


def test_sequence_nll_weighs_rows_and_not_tokens():
    logprob_NT = tensor([[-1.0, -3.0, NAN], [-5.0, NAN, NAN], [NAN, NAN, INF]])
    mask_NT = tensor([[True, True, False], [True, False, False], [False, False, False]])
    assert_close(likelihood.sequence_nll(logprob_NT, mask_NT), tensor([2.0, 5.0, 0.0]))
    assert_close(likelihood.sequence_nll(logprob_NT, mask_NT, average=False), tensor([4.0, 5.0, 0.0]))


def test_ptx_is_27_point_8_times_nll():
    logprob_T, mask_T = tensor([-1.0, -2.0]), tensor([True, True])
    assert_close(likelihood.ptx(logprob_T, mask_T, token_count=2), tensor(27.8 * 1.5))
    assert_close(likelihood.ptx(logprob_T, mask_T, token_count=2, coefficient=2.0), tensor(3.0))


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"shapes \(2, 1\) and \(2,\)"):
        likelihood.nll(torch.ones(2, 1), torch.ones(2, dtype=torch.bool), token_count=1)
