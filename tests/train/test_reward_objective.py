"""The objective of a reward model by hand: which loss on which pairs, centering, and the tie parameter."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from accord.data.batches import Preference
from accord.losses import reward as losses
from accord.train.configs import RewardConfig
from accord.train.reward_objective import Objective, check_items
from accord.trees import Branch, PromptTree, pack

LOSSES = ["bradley-terry", "rao-kupper", "davidson", "plackett-luce"]


def item(*ranks: int, **targets: float) -> Preference:
    branches = tuple(Branch.response((10 + k,)) for k in range(len(ranks)))
    return Preference(tree=PromptTree((1, 2), branches), ranks=ranks, **targets)


def config(loss: str, **settings) -> RewardConfig:
    return RewardConfig(model="m", data=["d"], out="o", loss=loss, **settings)


def loss_of(loss: str, score: list[float], *items: Preference, **settings) -> float:
    objective = Objective(config(loss, **settings))
    return float(objective(torch.tensor(score), pack([one.tree for one in items]), items).loss)


def nll(p: float) -> float:
    return -math.log(p)


def sigma(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def test_bradley_terry_with_all_it_reads():
    """Scores 3, 1 with p = 0.75, margin 0.5 and a tenth of the labels flipped: z = 1.5, t = 0.9 * 0.75 + 0.1 * 0.25."""
    got = loss_of("bradley-terry", [3.0, 1.0], item(1, 2, probability=0.75, margin=0.5), label_smoothing=0.1)
    assert got == pytest.approx(0.7 * nll(sigma(1.5)) + 0.3 * nll(sigma(-1.5)))


def test_rao_kupper_reads_ties():
    """Scores 2, 1, 0.5 at ranks 1, 2, 2 and eta = 0.4: two wins and a tie, their mean."""
    gaps, eta = (1.0, 1.5), 0.4
    tie = (math.exp(2 * eta) - 1) * sigma(0.5 - eta) * sigma(-0.5 - eta)
    expected = (sum(nll(sigma(gap - eta)) for gap in gaps) + nll(tie)) / 3
    assert loss_of("rao-kupper", [2.0, 1.0, 0.5], item(1, 2, 2), threshold=eta) == pytest.approx(expected)


def test_davidson_reads_ties():
    """The same with nu = 2: weights e^(gap/2), 2, e^(-gap/2)."""

    def share(gap: float, weight: float) -> float:
        return weight / (math.exp(gap / 2) + 2 + math.exp(-gap / 2))

    expected = (sum(nll(share(gap, math.exp(gap / 2))) for gap in (1.0, 1.5)) + nll(share(0.5, 2.0))) / 3
    assert loss_of("davidson", [2.0, 1.0, 0.5], item(1, 2, 2), log_nu=math.log(2)) == pytest.approx(expected)


def test_plackett_luce_is_the_sum_of_its_places():
    """Scores 2, 1, 0.5 in that order: log(e^2 + e^1 + e^0.5) - 2 + log(e^1 + e^0.5) - 1; two prompts add up."""
    first = math.log(math.exp(2) + math.exp(1) + math.exp(0.5)) - 2
    second = math.log(math.exp(1) + math.exp(0.5)) - 1
    other = nll(sigma(0.25))
    got = loss_of("plackett-luce", [2.0, 1.0, 0.5, 0.0, 0.25], item(1, 2, 3), item(2, 1))
    assert got == pytest.approx(first + second + other)


@pytest.mark.parametrize("loss", LOSSES)
def test_two_failed_responses_say_nothing_of_each_other(loss):
    """A pair of failed ones adds no pair and, dropped, nothing at all."""
    assert loss_of(loss, [1.0, -3.0], item(0, 0)) == 0
    with_failed = loss_of(loss, [2.0, 1.0, 9.0], item(1, 2, 0), failed="drop")
    assert with_failed == pytest.approx(loss_of(loss, [2.0, 1.0], item(1, 2)))
    assert loss_of(loss, [2.0, 1.0, 9.0], item(1, 2, 0)) > with_failed + 1


@pytest.mark.parametrize("loss", LOSSES[:3])
def test_the_weight_of_pairs_reaches_every_loss_that_reads_it(loss):
    """Ranks 1, 2, 2 hold two ordered pairs and a tie of C(3, 2) = 3."""
    score, made = [2.0, 1.0, 0.5], 2 if loss == "bradley-terry" else 3
    total = loss_of(loss, score, item(1, 2, 2), pair_weight="sum")
    assert loss_of(loss, score, item(1, 2, 2), pair_weight="pairs") == pytest.approx(total / made)
    assert loss_of(loss, score, item(1, 2, 2), pair_weight="choose") == pytest.approx(total / 3)


@pytest.mark.parametrize("loss", LOSSES)
def test_centering_is_added_per_pair_with_the_weights_of_the_loss(loss):
    """Pairs (2, 1), (2, 0.5) and, where ties are read, (1, 0.5): squares of their sums, times 0.01."""
    squares = [3.0**2, 2.5**2] + ([1.5**2] if loss in ("rao-kupper", "davidson") else [])
    for weight, divisor in (("pairs", len(squares)), ("choose", 3), ("sum", 1)):
        if loss == "plackett-luce" and weight != "pairs":
            continue
        settings = {} if loss == "plackett-luce" else {"pair_weight": weight}
        plain, pulled = (
            loss_of(loss, [2.0, 1.0, 0.5], item(1, 2, 2), centering=coefficient, **settings)
            for coefficient in (0.0, 0.01)
        )
        assert pulled - plain == pytest.approx(0.01 * sum(squares) / divisor, rel=1e-4)


def test_centering_is_said_apart():
    objective = Objective(config("bradley-terry", centering=0.5))
    items = [item(1, 2), item(1, 1)]
    result = objective(torch.tensor([2.0, 1.0, 3.0, 4.0]), pack([one.tree for one in items]), items)
    assert_close(result.centering_B, torch.tensor([4.5, 0.0]))


# -- the tie parameter -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("loss", "name", "value"), [("rao-kupper", "threshold", 0.05), ("davidson", "log_nu", -1.3)])
def test_a_learned_tie_parameter_starts_where_it_is_told(loss, name, value):
    fixed, learned = (Objective(config(loss, learn_ties=learn, **{name: value})) for learn in (False, True))
    assert list(fixed.parameters()) == []
    assert fixed.tie == value
    assert fixed.facts() == {"loss": loss, name: value}
    assert learned.tie_value == pytest.approx(value, rel=1e-5)
    assert learned.facts() == {"loss": loss, name: pytest.approx(value, rel=1e-5)}


@pytest.mark.parametrize("loss", ["rao-kupper", "davidson"])
@pytest.mark.parametrize("share", [0.1, 0.7])
def test_a_learned_tie_parameter_finds_the_share_of_ties(loss, share):
    """Equal scores, some of which tie: the fitted parameter gives exactly that share (maximum likelihood)."""
    objective = Objective(config(loss, learn_ties=True))
    count = 20
    items = [item(1, 1) if i < share * count else item(1, 2) for i in range(count)]
    batch, score_N = pack([one.tree for one in items]), torch.zeros(2 * count)
    optimiser = torch.optim.Adam(objective.parameters(), lr=0.1)
    for _ in range(400):
        optimiser.zero_grad()
        objective(score_N, batch, items).loss.backward()
        optimiser.step()
    eta = log_nu = objective.tie_value
    shares = {
        "rao-kupper": math.expm1(2 * eta) * sigma(-eta) ** 2,
        "davidson": math.exp(log_nu) / (math.exp(log_nu) + 2),
    }
    assert shares[loss] == pytest.approx(share, abs=0.01)


def test_no_step_makes_the_threshold_negative():
    objective = Objective(config("rao-kupper", learn_ties=True, threshold=0.1))
    with torch.no_grad():
        objective.raw -= 30
        loss = objective(torch.zeros(2), pack([item(1, 1).tree]), [item(1, 1)]).loss
    assert 0 < objective.tie_value < 1e-10
    assert math.isfinite(float(loss))


def test_bradley_terry_has_no_tie_parameter():
    objective = Objective(config("bradley-terry"))
    assert objective.state_dict() == {}
    assert objective.facts() == {"loss": "bradley-terry"}
    got = objective(torch.tensor([1.0, 0.0]), pack([item(1, 2).tree]), [item(1, 2)]).loss
    assert_close(got, -F.logsigmoid(torch.tensor(1.0)))
    assert_close(got, losses.bradley_terry(torch.tensor([1.0]), torch.tensor([0.0]))[0])


# -- data --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES[1:])
@pytest.mark.parametrize("name", ["probability", "margin"])
def test_data_that_say_more_than_a_loss_reads_are_refused_by_name(loss, name):
    rows = [item(1, 2), item(1, 2, **{name: 0.5})]
    check_items(rows, config("bradley-terry"))
    check_items([item(1, 2)], config(loss))  # rankings without a tie are fine
    with pytest.raises(ValueError, match=f"the data has `{name}`, which --loss {loss} does not read; use --loss brad"):
        check_items(rows, config(loss))


def test_ties_that_are_to_be_learned_have_to_be_there():
    for rows in ([item(1, 2)], [item(1, 0, 0)]):
        with pytest.raises(ValueError, match="no two responses of a row tie, so --learn-ties would only"):
            check_items(rows, config("davidson", learn_ties=True))
    check_items([item(1, 2), item(1, 2, 2)], config("davidson", learn_ties=True))


def test_failures_alone_are_no_pair_where_they_are_dropped():
    check_items([item(1, 0)], config("bradley-terry"))
    with pytest.raises(ValueError, match="no pair to learn from"):
        check_items([item(1, 0)], config("bradley-terry", failed="drop"))
