"""KL: estimators against sums over a whole small vocabulary, where a penalty may stand, caps and masks."""

import math

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from accord.losses import kl

NAN, INF, LOG2 = math.nan, math.inf, math.log(2)


def distributions():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, 3, generator=generator, dtype=torch.float64)


def test_estimators_by_hand():
    # p 1/2, q 1/4: d = log 2
    pair = tensor([math.log(1 / 2)]), tensor([math.log(1 / 4)])
    assert_close(kl.k1(*pair), tensor([LOG2]))
    assert_close(kl.k2(*pair), tensor([LOG2**2 / 2]))
    assert_close(kl.k3(*pair), tensor([0.5 - 1 + LOG2]))


def test_exact_by_hand_and_in_which_direction():
    p, q = tensor([[0.0, 0.0]]), tensor([[0.0, math.log(3)]])
    assert_close(kl.exact(p, q), tensor([LOG2 - math.log(3) / 2]))
    assert_close(kl.exact(q, p), tensor([0.25 * math.log(0.5) + 0.75 * math.log(1.5)]))


def test_k1_and_k3_are_unbiased_for_samples_of_the_first_argument():
    p, q = (logits.log_softmax(-1) for logits in distributions())
    for estimator in (kl.k1, kl.k3):
        assert_close((p.exp() * estimator(p, q)).sum(), kl.exact(p, q))


def test_where_a_penalty_to_the_reference_may_stand():
    """Expected gradients by enumeration of a three-word vocabulary, against that of KL(policy || reference)."""
    logits_V, reference_V = distributions()
    logits_V.requires_grad_()
    reference_V = reference_V.log_softmax(-1)

    def gradient(loss_of):
        logprob_V = logits_V.log_softmax(-1)
        return torch.autograd.grad(loss_of(logprob_V, logprob_V.detach().exp()), logits_V)[0]

    wanted = gradient(lambda p, _: kl.exact(p, reference_V))
    reverse = gradient(lambda p, _: kl.exact(reference_V, p))
    in_reward = {k: gradient(lambda p, w, k=k: (w * k(p, reference_V).detach() * p).sum()) for k in (kl.k1, kl.k3)}
    in_loss = {k: gradient(lambda p, w, k=k: (w * k(p, reference_V)).sum()) for k in (kl.k1, kl.k2, kl.k3)}
    assert_close(in_reward[kl.k1], wanted)
    assert not torch.allclose(in_reward[kl.k3], wanted, rtol=0.05)
    assert_close(in_loss[kl.k1], torch.zeros(3, dtype=torch.float64))
    assert_close(in_loss[kl.k2], wanted)
    assert_close(in_loss[kl.k3], reverse)


def test_k3_is_never_negative_and_its_gradient_vanishes_beyond_the_floor():
    ratio_T = tensor([-800.0, -20.5, -20.0, -19.5, 0.0, 3.0], dtype=torch.float64, requires_grad=True)
    found = kl.k3(ratio_T, torch.zeros_like(ratio_T))
    found.sum().backward()
    assert (found >= 0).all()
    assert_close(found[:3].detach(), torch.full((3,), math.exp(20) - 21, dtype=torch.float64))
    assert_close(ratio_T.grad[:3], torch.zeros(3, dtype=torch.float64))
    assert ratio_T.grad[3] < 0 == ratio_T.grad[4] < ratio_T.grad[5]
    tiny_T = torch.randn(10_000) * 1e-4
    assert (kl.k3(tiny_T, torch.zeros_like(tiny_T)) >= 0).all()


def test_estimators_keep_the_graph_of_both_arguments():
    for estimator in (kl.k1, kl.k2, kl.k3):
        pair = tensor([-1.0], requires_grad=True), tensor([-2.0], requires_grad=True)
        estimator(*pair).sum().backward()
        assert_close(pair[0].grad, -pair[1].grad)
        assert pair[0].grad > 0


def test_exact_of_words_that_cannot_be_said():
    p_TV = tensor([[0.0, 0.0, -INF], [0.0, 0.0, -INF]], requires_grad=True)
    found = kl.exact(p_TV, tensor([[0.0, 0.0, 0.0], [0.0, math.log(3), -INF]]))
    found.sum().backward()
    assert_close(found.detach(), tensor([math.log(3 / 2), LOG2 - math.log(3) / 2]))
    assert p_TV.grad.isfinite().all()
    assert kl.exact(tensor([[0.0, 0.0]]), tensor([[0.0, -INF]])).item() == INF
    assert kl.exact(tensor([[900.0, 0.0]]), tensor([[0.0, -INF]])).item() == 0  # p is 0 in this precision


def test_sequence_sums_and_leaves_masked_tokens_out():
    one_NT, other_NT = tensor([[-1.0, NAN, -1.0], [NAN, INF, NAN]]), tensor([[-2.0, -INF, -4.0], [NAN, 0.0, NAN]])
    one_NT.requires_grad_()
    mask_NT = tensor([[True, False, True], [False, False, False]])
    for name, expected in (("k1", 4.0), ("k2", 0.5 + 4.5), ("k3", math.exp(-1) + math.exp(-3) - 2 + 4)):
        one_NT.grad = None
        found = kl.sequence(one_NT, other_NT, mask_NT, estimator=name)
        found.sum().backward()
        assert_close(found.detach(), tensor([expected, 0.0]))
        assert_close(one_NT.grad != 0, mask_NT)


def test_sequence_refuses_words():
    with pytest.raises(ValueError, match="estimator is 'exact'; choose from 'k1', 'k2', 'k3'"):
        kl.sequence(torch.zeros(1, 1), torch.zeros(1, 1), tensor([[True]]), estimator="exact")


def test_best_of_n_as_published():
    found = [kl.best_of_n(n) for n in (1, 2, 4, 16, 64)]
    assert found == pytest.approx([0, 0.1931, 0.6363, 1.8351, 3.1745], abs=5e-5)
    with pytest.raises(ValueError, match="n is 0"):
        kl.best_of_n(0)
