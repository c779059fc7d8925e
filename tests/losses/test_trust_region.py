"""TRPO's step: Fisher products against a dense Hessian, conjugate gradients against a solver, the line search."""

import math

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from accord.losses import kl, policy


def softmax_kl(seed=0):
    """Mean KL(old || new) of a linear softmax model after a step, its parameters, and its dense Hessian."""
    generator = torch.Generator().manual_seed(seed)
    features, weight, bias, old = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((5, 2), (2, 3), (3,), (5, 3))
    )

    def mean_kl(flat_D):
        return kl.exact(old, features @ flat_D[:6].view(2, 3) + flat_D[6:]).mean()

    parameters = [weight.requires_grad_(), bias.requires_grad_()]
    flat_D = torch.cat([parameter.flatten() for parameter in parameters])
    return mean_kl(flat_D), parameters, torch.autograd.functional.hessian(mean_kl, flat_D.detach())


def test_fisher_vector_product_is_the_hessian_and_can_be_called_again():
    mean_kl, parameters, hessian_DD = softmax_kl()
    for vector_D in torch.eye(9, dtype=torch.float64):
        found = policy.fisher_vector_product(mean_kl, parameters, vector_D, damping=0.3)
        assert_close(found, hessian_DD @ vector_D + 0.3 * vector_D)
        assert not found.requires_grad


def test_fisher_vector_product_gives_zero_for_unused_and_linear_parameters():
    used, unused = tensor([2.0], requires_grad=True), torch.ones(2, 2, requires_grad=True)
    vector_D = tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    found = policy.fisher_vector_product(used.pow(3).sum(), [used, unused], vector_D, damping=0.1)
    assert_close(found, tensor([12.0, 0.0, 0.0, 0.0, 0.0]) + 0.1 * vector_D)
    linear = policy.fisher_vector_product(used.sum(), [used, unused], vector_D, damping=0.1)
    assert_close(linear, 0.1 * vector_D)


def test_conjugate_gradient_solves():
    root_DD = torch.randn(6, 6, dtype=torch.float64)
    matrix_DD, b_D = root_DD @ root_DD.T + torch.eye(6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    found = policy.conjugate_gradient(lambda vector_D: matrix_DD @ vector_D, b_D, iterations=20, tolerance=1e-26)
    assert_close(found, torch.linalg.solve(matrix_DD, b_D), rtol=1e-6, atol=1e-8)


def test_conjugate_gradient_tests_the_residual_before_each_product():
    calls = []

    def matvec(vector_D):
        calls.append(vector_D)
        return 2 * vector_D

    assert_close(policy.conjugate_gradient(matvec, tensor([4.0, 2.0]), tolerance=0.0), tensor([2.0, 1.0]))
    assert len(calls) == 1  # exact after one product; 0 / 0 is not tried
    assert_close(policy.conjugate_gradient(matvec, tensor([4.0, 2.0]), tolerance=21.0), tensor([0.0, 0.0]))
    assert_close(policy.conjugate_gradient(matvec, tensor([0.0, 0.0]), tolerance=0.0), tensor([0.0, 0.0]))
    assert len(calls) == 1


def test_trpo_step_ends_at_the_edge_of_the_trust_region():
    fisher_DD, direction_D = tensor([[2.0, 0.5], [0.5, 1.0]]), tensor([3.0, -1.0])
    step_D = policy.trpo_step(direction_D, fisher_DD @ direction_D, max_kl=0.02)
    assert_close(step_D @ fisher_DD @ step_D / 2, tensor(0.02))
    assert step_D[0] > 0 > step_D[1]
    for flat_D in (torch.zeros(2), -direction_D, tensor([math.nan, 0.0])):
        assert_close(policy.trpo_step(direction_D, flat_D), torch.zeros(2))
    with pytest.raises(ValueError, match="max_kl"):
        policy.trpo_step(direction_D, direction_D, max_kl=-1.0)


def search(improvement, divergence, **settings):
    """A search from 0 in steps of 1; both measures as functions of the fraction."""
    return policy.line_search(
        lambda theta_D: (improvement(theta_D.item()), divergence(theta_D.item())),
        tensor([0.0]),
        tensor([1.0]),
        **{"expected_improvement": 1.0, **settings},
    )


def test_line_search_takes_the_first_fraction_that_keeps_every_promise():
    found = search(lambda f: f, lambda f: 0.08 * f * f)
    assert (found.accepted, found.fraction, found.improvement) == (True, 0.25, 0.25)
    assert found.kl == pytest.approx(0.005)
    assert_close(found.parameters_D, tensor([0.25]))
    assert search(lambda f: f, lambda f: 0.01, max_kl=0.01).fraction == 1.0  # the bound itself is allowed
    assert search(lambda f: 0.1 * f, lambda f: 0.0).fraction == 1.0  # and so is the least improvement
    assert search(lambda f: f - 0.3 * f * f, lambda f: 0.0, accept_ratio=0.9, shrink=0.25).fraction == 0.25


@pytest.mark.parametrize(
    ("improvement", "divergence"),
    [
        (lambda f: -f, lambda f: 0.0),
        (lambda f: 0.0, lambda f: 0.0),
        (lambda f: 0.09 * f, lambda f: 0.0),
        (lambda f: f, lambda f: 1.0),
        (lambda f: math.nan, lambda f: 0.0),
        (lambda f: f, lambda f: math.nan),
    ],
)
def test_line_search_gives_the_start_back(improvement, divergence):
    found = search(improvement, divergence)
    assert found[1:] == (False, 0.0, 0.0, 0.0)
    assert_close(found.parameters_D, tensor([0.0]))


def test_line_search_without_a_promise_still_wants_an_improvement():
    assert not search(lambda f: -f, lambda f: 0.0, expected_improvement=-100.0).accepted


def test_line_search_stops_after_its_trials():
    trials = []
    search(lambda f: trials.append(f) or -1.0, lambda f: 0.0, backtracks=3)
    assert trials == [1.0, 0.5, 0.25]


def test_one_step_lowers_the_surrogate_within_the_trust_region():
    """The pieces together on a softmax policy over six words: a step that keeps its KL."""
    generator = torch.Generator().manual_seed(1)
    logits_V, advantage_V = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    old_V = logits_V.log_softmax(-1)

    def loss_and_kl(theta_V):
        logprob_V = theta_V.log_softmax(-1)
        loss = (old_V.exp() * policy.surrogate(logprob_V, old_V, advantage_V)).sum()
        return loss, kl.exact(old_V, logprob_V)

    theta_V = logits_V.clone().requires_grad_()
    loss, mean_kl = loss_and_kl(theta_V)
    gradient_V = -torch.autograd.grad(loss, theta_V, retain_graph=True)[0]

    def fisher(vector_V):
        return policy.fisher_vector_product(mean_kl, [theta_V], vector_V, damping=1e-3)

    direction_V = policy.conjugate_gradient(fisher, gradient_V)
    step_V = policy.trpo_step(direction_V, fisher(direction_V), max_kl=0.01)

    def evaluate(candidate_V):
        new_loss, new_kl = loss_and_kl(candidate_V)
        return (loss - new_loss).item(), new_kl.item()

    found = policy.line_search(evaluate, logits_V, step_V, expected_improvement=(gradient_V @ step_V).item())
    assert found.accepted
    assert found.improvement > 0.5 * found.fraction * (gradient_V @ step_V).item()
    assert 0.001 < found.kl <= 0.01
