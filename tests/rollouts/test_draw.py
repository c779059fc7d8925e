"""One token from one uniform number: numbers by hand, cut-offs, the distribution itself, awkward weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import tensor

from accord.models import kernels
from accord.rollouts import Sampling
from accord.rollouts.draw import Draw, _edge_of_all, _edge_of_few, draw, inverse_cdf, row_uniforms


def logits_of(*weights: float) -> torch.Tensor:
    return tensor(weights).log()


def drawn_tokens(
    logit_V: torch.Tensor, sampling: Sampling, forbidden: tuple[int, ...] = (), count: int = 2000
) -> set[int]:
    uniform_R = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return set(draw(logit_V.expand(count, -1), uniform_R, sampling, [forbidden] * count).token_R.tolist())


def test_inverse_cdf_by_hand():  # weights 1, 0, 3: the first quarter is token 0, the rest token 2
    uniform_R = tensor([0.0, 0.2, 0.25, 0.9, 1 - 2**-53], dtype=torch.float64)
    assert inverse_cdf(tensor([[1.0, 0.0, 3.0]]).expand(5, -1), uniform_R).tolist() == [0, 0, 2, 2, 2]


@pytest.mark.parametrize("vocabulary", [1, 255, 256, 257, 1000])
def test_only_the_single_token_with_weight_is_drawn(vocabulary):
    for token in {0, vocabulary // 2, vocabulary - 1}:
        weight_RV = torch.zeros(3, vocabulary)
        weight_RV[:, token] = 1e-30
        uniform_R = tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
        assert inverse_cdf(weight_RV, uniform_R).tolist() == [token] * 3


def test_a_token_without_weight_is_never_drawn():
    generator = torch.Generator().manual_seed(0)
    weight_RV = torch.rand(400, 5000, generator=generator) ** 20
    weight_RV[torch.rand(400, 5000, generator=generator) < 0.9] = 0.0
    uniform_R = torch.cat([torch.zeros(100), torch.rand(200, generator=generator), torch.ones(100)]).double()
    token_R = inverse_cdf(weight_RV, uniform_R.clamp(max=1 - 2**-53))
    assert (weight_RV.gather(-1, token_R[:, None]) > 0).all()


def test_a_vocabulary_of_260_000_keeps_its_tail():  # at a million, a float32 running sum no longer sees 0.0256 a block
    vocabulary, first, other = 260_000, 1e6, 1e-4
    weight_RV = torch.full((3, vocabulary), other)
    weight_RV[:, 0] = first
    others = other * (vocabulary - 1)
    uniform_R = (first + others * tensor([0.25, 0.5, 0.999], dtype=torch.float64)) / (first + others)
    expected_R = tensor([0.25, 0.5, 0.999]) * vocabulary
    assert (inverse_cdf(weight_RV, uniform_R) - expected_R).abs().max() < 30


def test_draws_follow_the_distribution():  # chi-square, 9 degrees of freedom: above 27.9 once in a thousand
    weight_V = tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0])
    uniforms = [u for prompt in range(50) for sample in range(4) for u in row_uniforms(3, prompt, sample, 100)]
    count = len(uniforms)
    drawn = draw(weight_V.log().expand(count, -1), tensor(uniforms, dtype=torch.float64), Sampling())
    expected_V = weight_V / weight_V.sum() * count
    seen_V = torch.bincount(drawn.token_R, minlength=10)
    assert ((seen_V - expected_V) ** 2 / expected_V).sum() < 27.9


def test_log_probabilities_by_hand():  # of 1:2:5 at temperature 1, and of squares 1:4:25 at temperature 1/2
    logit_RV = logits_of(1, 2, 5)[None]
    uniform_R = tensor([0.1], dtype=torch.float64)  # 0.1 of 30 lies in token 1's stretch, 1 to 5
    drawn = draw(logit_RV, uniform_R, Sampling(temperature=0.5))
    assert drawn.token_R.item() == 1
    assert drawn.logprob_R.item() == pytest.approx(math.log(2 / 8))
    assert drawn.sampling_logprob_R.item() == pytest.approx(math.log(4 / 30))


def test_plain_sampling_has_one_log_probability():
    drawn = draw(torch.randn(6, 999), torch.rand(6, dtype=torch.float64), Sampling())
    torch.testing.assert_close(drawn.logprob_R, drawn.sampling_logprob_R)


def test_top_k_keeps_the_k_most_probable():
    logit_V = logits_of(1, 4, 3, 2)
    assert drawn_tokens(logit_V, Sampling(top_k=2)) == {1, 2}
    drawn = draw(logit_V[None], tensor([0.0], dtype=torch.float64), Sampling(top_k=2))
    assert drawn.logprob_R.item() == pytest.approx(math.log(0.4))
    assert drawn.sampling_logprob_R.item() == pytest.approx(math.log(4 / 7))
    assert drawn_tokens(logit_V, Sampling(top_k=9)) == {0, 1, 2, 3}


def test_top_p_keeps_the_smallest_set_that_reaches_p():  # 0.5, 0.3, 0.15, 0.05
    logit_V = logits_of(0.15, 0.5, 0.05, 0.3)
    assert drawn_tokens(logit_V, Sampling(top_p=0.4)) == {1}
    assert drawn_tokens(logit_V, Sampling(top_p=0.79)) == {1, 3}
    assert drawn_tokens(logit_V, Sampling(top_p=0.81)) == {1, 3, 0}
    assert drawn_tokens(logit_V, Sampling(top_p=0.96)) == {0, 1, 2, 3}
    drawn = draw(logit_V[None], tensor([0.99], dtype=torch.float64), Sampling(top_p=0.79))
    assert drawn.sampling_logprob_R.item() == pytest.approx(math.log(0.3 / 0.8))


def test_top_p_counts_what_top_k_left():  # of 0.5, 0.3 top-k leaves 5/8 and 3/8
    logit_V = logits_of(0.15, 0.5, 0.05, 0.3)
    assert drawn_tokens(logit_V, Sampling(top_k=2, top_p=0.6)) == {1}
    assert drawn_tokens(logit_V, Sampling(top_k=2, top_p=0.63)) == {1, 3}


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.999])
def test_top_p_equals_a_full_sort(top_p):  # the two log-probabilities differ by the probability that is kept
    logit_RV = torch.randn(8, 700, generator=torch.Generator().manual_seed(1)) * 2
    probability_RV, order_RV = logit_RV.double().softmax(-1).sort(descending=True)
    kept_RV = (probability_RV.cumsum(-1) - probability_RV) < top_p
    drawn = draw(logit_RV, torch.full((8,), 0.5, dtype=torch.float64), Sampling(top_p=top_p))
    mass_R = (probability_RV * kept_RV).sum(-1)
    torch.testing.assert_close((drawn.logprob_R - drawn.sampling_logprob_R).exp(), mass_R, atol=1e-6, rtol=0)
    assert (kept_RV & (order_RV == drawn.token_R[:, None])).any(-1).all()


def test_greedy_takes_the_largest_and_costs_nothing():
    drawn = draw(logits_of(1, 5, 2)[None], tensor([0.99], dtype=torch.float64), Sampling(temperature=0, top_k=2))
    assert (drawn.token_R.item(), drawn.sampling_logprob_R.item()) == (1, 0.0)
    assert drawn.logprob_R.item() == pytest.approx(math.log(5 / 8))


def test_a_tiny_temperature_is_nearly_greedy_and_finite():
    drawn = draw(tensor([[1.0, 500.0, 499.0]]), tensor([0.999], dtype=torch.float64), Sampling(temperature=1e-30))
    assert drawn.token_R.item() == 1
    assert drawn.sampling_logprob_R.item() == 0.0


def test_forbidden_tokens_are_never_drawn_but_keep_their_probability():
    logit_V = logits_of(8, 1, 1)
    assert drawn_tokens(logit_V, Sampling(), forbidden=(0,)) == {1, 2}
    assert drawn_tokens(logit_V, Sampling(temperature=0), forbidden=(0, 1)) == {2}
    drawn = draw(logit_V[None], tensor([0.9], dtype=torch.float64), Sampling(), [(0,)])
    assert drawn.logprob_R.item() == pytest.approx(math.log(0.1))
    assert drawn.sampling_logprob_R.item() == pytest.approx(math.log(0.5))


def test_the_presence_penalty_falls_once_on_tokens_that_were_there():  # ln 2 off the middle one: 1:4:5 become 1:2:5
    sampling = Sampling(presence_penalty=math.log(2))
    logit_RV = logits_of(1, 4, 5).expand(2, -1)
    drawn = draw(logit_RV, tensor([0.2, 0.2], dtype=torch.float64), sampling, present_R=[[1, 1], []])
    assert drawn.token_R.tolist() == [1, 1]  # 1/8 < 0.2 < 3/8; without it 0.1 < 0.2 < 0.5
    torch.testing.assert_close(drawn.sampling_logprob_R.exp(), tensor([2 / 8, 4 / 10], dtype=torch.float64))
    torch.testing.assert_close(drawn.logprob_R.exp(), tensor([4 / 10, 4 / 10], dtype=torch.float64))
    greedy = Sampling(temperature=0, presence_penalty=2.0)
    assert draw(logit_RV, tensor([0.0, 0.0], dtype=torch.float64), greedy, present_R=[[2], []]).token_R.tolist() == [
        1,
        2,
    ]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_an_error(bad):
    with pytest.raises(ValueError, match="not finite"):
        draw(tensor([[0.0, bad]]), tensor([0.5], dtype=torch.float64), Sampling())


def test_many_rows_in_parts_equal_one_at_a_time(monkeypatch):
    logit_RV, uniform_R = torch.randn(7, 300), torch.rand(7, dtype=torch.float64)
    whole = draw(logit_RV, uniform_R, Sampling(top_p=0.9))
    monkeypatch.setattr("accord.rollouts.draw.ENTRIES", 600)
    assert all(torch.equal(a, b) for a, b in zip(whole, draw(logit_RV, uniform_R, Sampling(top_p=0.9)), strict=True))


def test_uniform_numbers_depend_on_every_argument_and_a_longer_list_starts_the_same():
    first = row_uniforms(1, 2, 3, 5)
    assert row_uniforms(1, 2, 3, 9)[:5] == first
    others = [row_uniforms(*key, 5) for key in ((2, 2, 3), (1, 3, 3), (1, 2, 4), (2, 1, 3))]
    assert len({tuple(numbers) for numbers in [first, *others]}) == 5
    assert all(0 <= number < 1 for number in first)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("samples", 0),
        ("max_new_tokens", 0),
        ("min_new_tokens", 65),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("stop", ("",)),
        ("stop", "text"),
        ("seed", -1),
    ],
)
def test_meaningless_settings_are_named(setting, value):
    with pytest.raises(ValueError, match=f"`{setting}`"):
        Sampling(**{setting: value})


def test_every_row_has_its_own_forbidden_tokens_however_many_are_worked_on_at_once(monkeypatch):
    monkeypatch.setattr("accord.rollouts.draw.ENTRIES", 6)  # two rows of three
    forbidden_R = [(0, 1), (), (1, 2), (0,), ()]
    drawn = draw(logits_of(8, 7, 6).expand(5, -1), torch.zeros(5).double(), Sampling(temperature=0), forbidden_R)
    assert drawn.token_R.tolist() == [2, 0, 0, 1, 0]


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.999])
def test_a_sort_of_whole_rows_finds_the_same_nucleus(top_p):  # as a GPU does it
    weight_RV = (torch.randn(8, 700, generator=torch.Generator().manual_seed(1)) * 2).exp()
    weight_RV[:4] = weight_RV[:4].round()  # many are equal, or 0
    assert torch.equal(_edge_of_all(weight_RV, top_p), _edge_of_few(weight_RV, top_p))


@pytest.mark.parametrize("entries", [3, 300, 512])
def test_what_has_no_place_gets_one_that_is_there(entries):  # on a GPU another one would end the process
    uniform_R = tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    token_R = inverse_cdf(torch.full((3, entries), math.nan), uniform_R)
    assert 0 <= token_R.min() <= token_R.max() < 256 * -(-entries // 256)


def test_numbers_of_a_draw_by_row():
    drawn = Draw(tensor([3, 1]), tensor([-0.5, -1.5]).double(), tensor([0.0, -2.0]).double())
    assert drawn.rows() == [(3, -0.5, 0.0), (1, -1.5, -2.0)]
    with pytest.raises(ValueError, match="not finite"):
        drawn._replace(logprob_R=tensor([-0.5, math.nan])).rows()


# -- the kernel --------------------------------------------------------------------------------------------------------


def both(logit_RV, uniform_R, monkeypatch, **settings):
    sampling = Sampling(max_new_tokens=1, **settings)
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "draw", lambda *_: None)
        plain = draw(logit_RV, uniform_R, sampling)
    calls, real = [], kernels.draw
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "draw", lambda *args: (calls.append(1), real(*args))[1])
        return plain, draw(logit_RV, uniform_R, sampling), bool(calls)


@pytest.mark.parametrize("vocabulary", [16, 240, 256, 272, 4096, 49152])
@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.9, 1e-3, 50.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.usefixtures("compiled")
def test_a_kernel_draws_the_same(vocabulary, temperature, dtype, threads, monkeypatch):
    generator = torch.Generator().manual_seed(vocabulary)
    logit_RV = (torch.randn(40, vocabulary, generator=generator) * 4).to(dtype)
    logit_RV[3, 5:] = -torch.inf
    uniform_R = torch.rand(40, generator=generator, dtype=torch.float64)
    uniform_R[0], uniform_R[1], uniform_R[2] = 0.0, 1 - 2**-53, 0.5
    plain, found, asked = both(logit_RV, uniform_R, monkeypatch, temperature=temperature)
    assert asked
    # Where a uniform number falls between the sums of both, the neighbouring token of weight is as good.
    same_R = plain.token_R == found.token_R
    assert same_R.sum() >= 39
    assert found.token_R[3] < 5
    for ours, expected in zip(found[1:], plain[1:], strict=True):
        assert ours.dtype == expected.dtype
        torch.testing.assert_close(ours[same_R], expected[same_R], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    "settings", [{"temperature": 0.0}, {"top_k": 3}, {"top_p": 0.9}, {"temperature": 1e-39}], ids=str
)
@pytest.mark.usefixtures("compiled")
def test_what_the_kernel_does_not_cut_is_left_to_pytorch(settings, monkeypatch):
    logit_RV, uniform_R = torch.randn(3, 32), torch.rand(3, dtype=torch.float64)
    plain, found, _ = both(logit_RV, uniform_R, monkeypatch, **settings)
    assert all(torch.equal(a, b) for a, b in zip(plain, found, strict=True))
    assert kernels.draw(logit_RV[:, :31], uniform_R, 1.0) is None
    assert kernels.draw(logit_RV, uniform_R[:2], 1.0) is None
    assert kernels.draw(logit_RV, uniform_R.float(), 1.0) is None
    assert kernels.draw(logit_RV.double(), uniform_R, 1.0) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.usefixtures("compiled")
def test_the_kernel_says_what_is_not_finite(bad):
    logit_RV = torch.zeros(3, 32)
    logit_RV[1] = bad
    with pytest.raises(ValueError, match="not finite"):
        draw(logit_RV, torch.rand(3, dtype=torch.float64), Sampling(max_new_tokens=1))
    logit_RV[1, 1:] = 0.0
    if bad != -math.inf:
        with pytest.raises(ValueError, match="not finite"):
            draw(logit_RV, torch.rand(3, dtype=torch.float64), Sampling(max_new_tokens=1))
