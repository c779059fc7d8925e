"""Preference losses by hand, their gradients, and the direction every one of them pushes in."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import tensor
from torch.testing import assert_close

from accord.losses import preference, reward

LOG2, LOG3 = math.log(2), math.log(3)
LENGTHS = {"chosen_length_B": tensor([4, 2, 9, 5]), "rejected_length_B": tensor([2, 2, 5, 11])}
REFERENCED = {
    "dpo": {},
    "robust_dpo": {},
    "ipo": {},
    "ipo by mean": LENGTHS,
    "hinge": {},
    "dpo_length": LENGTHS,
}
FREE = {"slic": {}, "simpo": LENGTHS, "orpo": LENGTHS}


def four(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(-20 + 3 * torch.randn(4, 4, generator=generator, dtype=torch.float64))


def test_dpo_at_equal_models_is_log_2_with_gradient_half_beta():
    chosen_B, rejected_B = tensor([-7.0], requires_grad=True), tensor([-9.0], requires_grad=True)
    loss_B = preference.dpo(chosen_B, rejected_B, tensor([-7.0]), tensor([-9.0]), beta=0.4)
    loss_B.sum().backward()
    assert_close(loss_B.detach(), tensor([LOG2]))
    assert_close(chosen_B.grad, tensor([-0.2]))
    assert_close(rejected_B.grad, tensor([0.2]))


def test_dpo_by_hand_reads_every_argument_with_its_sign():
    # gap = (-5 + 8) - (-6 + 5) = 4 nats; beta 1/4 log 3: z = log 3
    arguments = tensor([-5.0]), tensor([-6.0]), tensor([-8.0]), tensor([-5.0])
    assert_close(preference.dpo(*arguments, beta=LOG3 / 4), tensor([math.log(4 / 3)]))
    smooth = preference.dpo(*arguments, beta=LOG3 / 4, label_smoothing=0.25)
    assert_close(smooth, tensor([-0.75 * math.log(0.75) - 0.25 * math.log(0.25)]))


def test_dpo_is_bradley_terry_on_implicit_rewards():
    chosen_B, rejected_B, chosen_ref_B, rejected_ref_B = four()
    rewards = preference.implicit_reward(chosen_B, chosen_ref_B), preference.implicit_reward(rejected_B, rejected_ref_B)
    p_B = torch.rand(4, dtype=torch.float64)
    assert_close(preference.dpo(*four()), reward.bradley_terry(*rewards))
    assert_close(preference.dpo(*four(), probability_B=p_B), reward.bradley_terry(*rewards, probability_B=p_B))
    assert_close(preference.dpo(*four(), probability_B=torch.ones(4)), preference.dpo(*four()))


def swapped(chosen_B, rejected_B, chosen_ref_B, rejected_ref_B):
    return rejected_B, chosen_B, rejected_ref_B, chosen_ref_B


def test_dpo_swapped_turns_p_into_one_minus_p():
    p_B = tensor([0.1, 0.5, 0.7, 1.0])
    found = preference.dpo(*swapped(*four()), probability_B=1 - p_B)
    assert_close(found, preference.dpo(*four(), probability_B=p_B))


def test_metrics_are_implicit_rewards():
    found = preference.metrics(tensor([-5.0, -5.0]), tensor([-6.0, -5.0]), tensor([-8.0, -6.0]), tensor([-5.0, -6.0]))
    assert_close(found.chosen_reward_B, tensor([0.3, 0.1]))
    assert_close(found.rejected_reward_B, tensor([-0.1, 0.1]))
    assert_close(found.margin_B, tensor([0.4, 0.0]))
    assert_close(found.accuracy_B, tensor([1.0, 0.5]))


def test_robust_dpo_is_unbiased_under_flipped_labels():
    # flip a share e of the labels: the expected robust loss is the plain loss on the true labels
    kept = preference.robust_dpo(*four(), label_smoothing=0.3)
    flipped = preference.robust_dpo(*swapped(*four()), label_smoothing=0.3)
    assert_close(0.7 * kept + 0.3 * flipped, preference.dpo(*four()))
    assert_close(preference.robust_dpo(*four(), label_smoothing=0.0), preference.dpo(*four()))


@pytest.mark.parametrize("smoothing", [-0.1, 0.5, 0.9])
def test_robust_dpo_refuses_a_coin(smoothing):
    with pytest.raises(ValueError, match="label_smoothing"):
        preference.robust_dpo(*four(), label_smoothing=smoothing)


def test_ipo_by_sum_and_by_mean():
    # log-ratios +2 over 4 tokens, -1 over 2: sum 3 - 5, mean 1/2 + 1/2 - 5
    arguments = tensor([-8.0]), tensor([-5.0]), tensor([-10.0]), tensor([-4.0])
    assert_close(preference.ipo(*arguments), tensor([4.0]))
    lengths = {"chosen_length_B": tensor([4]), "rejected_length_B": tensor([2])}
    assert_close(preference.ipo(*arguments, **lengths), tensor([16.0]))
    assert_close(preference.ipo(*arguments, **lengths, beta=0.5), tensor([0.0]))


def test_ipo_pulls_back_what_has_passed_its_target():
    chosen_B = tensor([10.0], requires_grad=True)
    preference.ipo(chosen_B, tensor([0.0]), tensor([0.0]), tensor([0.0])).sum().backward()
    assert_close(chosen_B.grad, tensor([10.0]))  # 2 * (10 - 5)


@pytest.mark.parametrize("missing", ["chosen_length_B", "rejected_length_B"])
def test_ipo_refuses_one_length(missing):
    with pytest.raises(ValueError, match="pass both"):
        preference.ipo(*four(), **{missing: torch.ones(4)})


def test_hinge_and_slic_have_gradient_zero_at_the_kink():
    chosen_B = tensor([10.0], requires_grad=True)
    preference.hinge(chosen_B, tensor([0.0]), tensor([0.0]), tensor([0.0])).sum().backward()
    assert_close(chosen_B.grad, tensor([0.0]))
    other_B = tensor([-1.0], requires_grad=True)
    preference.slic(other_B, tensor([-2.0])).sum().backward()
    assert_close(other_B.grad, tensor([0.0]))


def test_slic_by_hand():
    # max(0, 2 + 3 - 4) - 0.5 * (-6)
    found = preference.slic(tensor([-3.0]), tensor([-4.0]), tensor([-6.0]), delta=2.0, regularisation=0.5)
    assert_close(found, tensor([4.0]))


def test_dpo_length_lets_the_longer_response_lose_in_the_derived_form():
    equal = [tensor([-9.0])] * 4
    lengths = tensor([30]), tensor([20])
    derived = preference.dpo_length(*equal, *lengths, alpha=LOG3 / 10)
    printed = preference.dpo_length(*equal, *lengths, alpha=LOG3 / 10, form="printed")
    assert_close(derived, tensor([math.log(4 / 3)]))
    assert_close(printed, tensor([math.log(4)]))
    assert_close(preference.dpo_length(*equal, *lengths, alpha=-LOG3 / 10), printed)


def test_dpo_length_without_alpha_or_difference_is_dpo():
    lengths = LENGTHS["chosen_length_B"], LENGTHS["rejected_length_B"]
    assert_close(preference.dpo_length(*four(), *lengths, alpha=0.0), preference.dpo(*four()))
    assert_close(preference.dpo_length(*four(), lengths[0], lengths[0], alpha=0.7), preference.dpo(*four()))


def test_simpo_by_hand():
    # 2 * (-4/4 + 6/2) - 1 = 3
    found = preference.simpo(tensor([-4.0]), tensor([-6.0]), tensor([4]), tensor([2]))
    assert_close(found, -F.logsigmoid(tensor([3.0])))


def test_orpo_by_hand():
    # means log 3/4 and log 1/4: odds 3 and 1/3, ratio 9; log 4/3 + 0.5 log 10/9
    found = preference.orpo(
        tensor([2 * math.log(3 / 4)]), tensor([3 * math.log(1 / 4)]), tensor([2]), tensor([3]), coefficient=0.5
    )
    assert_close(found, tensor([math.log(4 / 3) + 0.5 * math.log(10 / 9)]))


def test_orpo_is_finite_where_a_response_is_certain():
    chosen_B = tensor([0.0], requires_grad=True)
    preference.orpo(chosen_B, tensor([-1.0]), tensor([1]), tensor([1])).sum().backward()
    assert_close(chosen_B.grad, tensor([-1.0]))  # likelihood only: the odds are held


def test_orpo_holds_the_odds_of_a_certain_response_at_one_to_1e_7():
    # rejected certain: log odds log(1e7); chosen at mean -1: -1 - log(1 - 1/e)
    pair = tensor([-1.0], dtype=torch.float64), tensor([0.0], dtype=torch.float64)
    ratio = -1 - math.log(1 - math.exp(-1)) - math.log(1e7)
    found = preference.orpo(*pair, tensor([1]), tensor([1]), coefficient=1.0)
    assert found.item() == pytest.approx(1 + math.log1p(math.exp(-ratio)), abs=1e-6)


def test_kto_by_hand():
    # r = 2 and z0 = 1, beta log 3: sigma(log 3) = 3/4
    arguments = tensor([-1.0, -1.0]), tensor([-3.0, -3.0]), tensor([True, False])
    found = preference.kto(*arguments, 1.0, beta=LOG3, desirable_weight=2.0, undesirable_weight=4.0)
    assert_close(found, tensor([2 / 4, 4 * 3 / 4]))


def test_kto_raises_the_desirable_and_lowers_the_other():
    logprob_B, point = tensor([-1.0, -1.0], requires_grad=True), tensor(0.3, requires_grad=True)
    preference.kto(logprob_B, tensor([-1.0, -1.0]), tensor([True, False]), point).sum().backward()
    assert logprob_B.grad[0] < 0 < logprob_B.grad[1]
    assert point.grad is None


def test_kto_reference_point_is_a_clamped_mean_without_gradient():
    logprob_B = tensor([-1.0, -4.0], requires_grad=True)
    found = preference.kto_reference_point(logprob_B, tensor([-4.0, -5.0]))
    assert_close(found, tensor(2.0))
    assert not found.requires_grad
    assert_close(preference.kto_reference_point(tensor([-6.0]), tensor([-5.0])), tensor(0.0))


@pytest.mark.parametrize("name", [*REFERENCED, *FREE])
def test_raising_the_chosen_and_lowering_the_rejected_lowers_every_pair_loss(name):
    settings = REFERENCED.get(name, FREE.get(name))
    chosen_B, rejected_B = (torch.full((4,), x, dtype=torch.float64, requires_grad=True) for x in (-20.0, -20.5))
    references = [chosen_B.detach(), rejected_B.detach()] if name in REFERENCED else []
    function = getattr(preference, name.split()[0])
    function(chosen_B, rejected_B, *references, **settings).sum().backward()
    assert (chosen_B.grad < 0).all()
    assert (rejected_B.grad > 0).all()


@pytest.mark.parametrize("name", [*REFERENCED, *FREE])
def test_lengths_and_references_of_other_dtypes_change_nothing_about_the_result(name):
    settings = REFERENCED.get(name, FREE.get(name))
    function, pairs = getattr(preference, name.split()[0]), four()[: 4 if name in REFERENCED else 2]
    whole = function(*pairs, **settings)
    assert whole.dtype == torch.float64
    mixed = function(*(x.float() for x in pairs), **{key: x.double() for key, x in settings.items()})
    assert mixed.dtype == torch.float32
    assert_close(mixed.double(), whole, rtol=1e-4, atol=1e-4)
    assert function(*(x.bfloat16() for x in pairs), **settings).dtype == torch.float32


def test_shapes_that_would_broadcast_are_refused():
    column = torch.ones(4, 1)
    with pytest.raises(ValueError, match="shapes"):
        preference.dpo(torch.ones(4), column, torch.ones(4), column)
    with pytest.raises(ValueError, match="shapes"):
        preference.kto(torch.ones(4), torch.ones(4), torch.ones(4, 1, dtype=torch.bool), 0.0)
