"""The head in groups against its definition: values, gradients, sizes, bf16, words that cannot be said."""

import weakref

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from accord.models import head as module
from accord.models.head import Distribution, Head, exact_kl, head_of, token_logprob
from fakes import FAMILIES, tiny_llama

T, D, V = 7, 5, 11
VARIANTS = {
    "plain": {},
    "bias": {"bias": True},
    "scale": {"scale": 0.3},
    "softcap": {"softcap": 2.0},
    "everything": {"bias": True, "scale": 1.7, "softcap": 3.0},
}


def parts(bias: bool = False, scale: float = 1.0, softcap: float | None = None, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    hidden, weight, bias_V = draw(T, D), draw(V, D), draw(V) if bias else None
    return hidden, weight, bias_V, torch.tensor([0, 3, 3, 10, 7, 1, 5]), scale, softcap


def by_definition(hidden, weight, bias_V, token_T, scale, softcap, temperature):
    logits = scale * (hidden @ weight.T + (0 if bias_V is None else bias_V))
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logprob_TV = (logits / temperature).log_softmax(-1)
    return logprob_TV.gather(-1, token_T[:, None])[:, 0], -(logprob_TV.exp() * logprob_TV).sum(-1)


def ours(hidden, weight, bias_V, token_T, scale, softcap, temperature):
    return token_logprob(hidden, Head(weight, bias_V, scale, softcap), token_T, temperature=temperature, entropy=True)


def cut_into(monkeypatch, group: int, part: int, row_bytes: int) -> None:
    """Logits of so many tokens by one product, worked on by so many."""
    monkeypatch.setattr(module, "GROUP_BYTES", group * row_bytes)
    monkeypatch.setattr(module, "PART_BYTES", -(-part * row_bytes // torch.get_num_threads()))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("temperature", [1.0, 0.7, 3.0])
@pytest.mark.parametrize("cut", [(1, 1), (3, 2), (100, 3), (100, 100)], ids=str)
def test_values_and_gradients_are_those_of_the_definition(monkeypatch, variant, temperature, cut):  # field: M1, S5, S6
    cut_into(monkeypatch, *cut, 8 * V)
    weigh = [torch.linspace(-1, 2, T, dtype=torch.float64), torch.linspace(3, -1, T, dtype=torch.float64)]
    gradients = []
    for compute in (by_definition, ours):
        given = parts(**VARIANTS[variant])
        results = compute(*given, temperature)
        sum((w * x).sum() for w, x in zip(weigh, results, strict=True)).backward()
        gradients.append((*results, *(x.grad for x in given[:3] if x is not None)))
    for expected, found in zip(*gradients, strict=True):
        assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_finite_differences_agree(variant):
    hidden, weight, bias_V, token_T, scale, softcap = parts(**VARIANTS[variant])
    inputs = (hidden, weight) if bias_V is None else (hidden, weight, bias_V)

    def both(*given):
        bias = given[2] if len(given) == 3 else None
        return ours(given[0], given[1], bias, token_T, scale, softcap, 0.8)

    assert torch.autograd.gradcheck(both, inputs, eps=1e-6, atol=1e-7)


def test_entropy_by_hand():
    """Two equal words have entropy ln 2; at temperature 1/2 odds of 1:3 become 1:9."""
    weight = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    logprob_T, entropy_T = token_logprob(
        torch.tensor([[0.0], [1.0986122886681098]], dtype=torch.float64),
        Head(weight),
        torch.tensor([0, 1]),
        temperature=0.5,
        entropy=True,
    )
    assert_close(logprob_T.exp(), torch.tensor([0.5, 0.9], dtype=torch.float64))
    assert_close(entropy_T, torch.tensor([0.6931471805599453, 0.3250829733914482], dtype=torch.float64))


def test_entropy_is_computed_only_if_asked_for():
    hidden, weight, _, token_T, *_ = parts()
    assert token_logprob(hidden, Head(weight), token_T)[1] is None


def test_words_that_cannot_be_said_count_nothing():
    """A bias of -inf takes a word out: as if the vocabulary did not hold it, gradients included."""
    hidden, weight, _, token_T, *_ = parts()
    bias = torch.zeros(V, dtype=torch.float64)
    bias[[2, 9]] = -torch.inf
    results = token_logprob(hidden, Head(weight, bias), token_T, temperature=0.9, entropy=True)
    sum(x.sum() for x in results).backward()
    found = [*(x.detach() for x in results), hidden.grad.clone(), weight.grad.clone()]

    hidden.grad = weight.grad = None
    kept = torch.tensor([v for v in range(V) if v not in (2, 9)])
    place = torch.tensor([kept.tolist().index(int(t)) for t in token_T])
    results = by_definition(hidden, weight[kept], None, place, 1.0, None, 0.9)
    sum(x.sum() for x in results).backward()
    for one, expected in zip(found, [*(x.detach() for x in results), hidden.grad, weight.grad], strict=True):
        assert_close(one, expected, rtol=1e-10, atol=1e-12)
    assert float(found[1].min()) >= 0  # entropy; field: S3
    assert float(found[3][[2, 9]].abs().max()) == 0


def test_huge_logits_stay_finite():
    hidden = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    weight = torch.tensor([[1.0], [0.0]], requires_grad=True)
    logprob_T, entropy_T = token_logprob(hidden, Head(weight), torch.tensor([1, 1]), entropy=True)
    assert_close(logprob_T.detach(), torch.tensor([-1e4, 0.0]))
    (logprob_T.sum() + entropy_T.sum()).backward()
    assert bool(hidden.grad.isfinite().all())
    assert bool(weight.grad.isfinite().all())
    assert float(entropy_T.detach().abs().max()) == 0


def large(dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(96, 32, generator=generator).to(dtype)
    weight = (torch.randn(500, 32, generator=generator) * 0.3).to(dtype)
    return hidden.requires_grad_(), weight.requires_grad_(), torch.randint(0, 500, (96,), generator=generator)


def run(chunk: int, monkeypatch, autocast: bool):
    cut_into(monkeypatch, chunk, -(-chunk // 2), (2 if autocast else 4) * 500)
    hidden, weight, token_T = large()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logprob_T, _ = token_logprob(hidden, Head(weight), token_T)
    logprob_T.sum().backward()
    return logprob_T.detach(), hidden.grad, weight.grad


def test_the_size_of_a_group_changes_nothing_in_fp32(monkeypatch):  # field: S6
    whole = run(96, monkeypatch, False)
    for chunk in (1, 7, 32):
        for found, expected in zip(run(chunk, monkeypatch, False), whole, strict=True):
            assert_close(found, expected, rtol=1e-6, atol=1e-5)


def test_bf16_stays_near_fp32_however_many_groups_are_summed(monkeypatch):  # field: S6
    exact = run(96, monkeypatch, False)
    for chunk in (1, 7, 96):
        logprob_T, hidden_grad, weight_grad = run(chunk, monkeypatch, True)
        assert logprob_T.dtype == hidden_grad.dtype == weight_grad.dtype == torch.float32
        assert float((logprob_T - exact[0]).abs().max()) < 0.05
        for found, expected in ((hidden_grad, exact[1]), (weight_grad, exact[2])):
            assert float((found - expected).norm() / expected.norm()) < 0.01


def test_a_second_backward_pass_gives_the_same():
    """The first one writes gradients where logits were kept."""
    hidden, weight, token_T = large()
    logprob_T, entropy_T = token_logprob(hidden, Head(weight), token_T, entropy=True)
    loss = logprob_T.sum() + entropy_T.sum()
    first = torch.autograd.grad(loss, (hidden, weight), retain_graph=True)
    for found, expected in zip(torch.autograd.grad(loss, (hidden, weight)), first, strict=True):
        assert_close(found, expected, rtol=0, atol=0)


def test_one_group_of_logits_is_held_at_a_time(monkeypatch):
    monkeypatch.setattr(module, "GROUP_BYTES", 10 * 4 * 50)
    made, alive, plain = [], [], Head.raw

    def raw(self, x):
        alive.append(1 + sum(reference() is not None for reference in made))
        logits = plain(self, x)
        made.append(weakref.ref(logits))
        return logits

    monkeypatch.setattr(Head, "raw", raw)
    hidden, weight = torch.randn(30, 8, requires_grad=True), torch.randn(50, 8, requires_grad=True)
    token_logprob(hidden, Head(weight), torch.arange(30))[0].sum().backward()
    assert alive == [1] * 6
    alive.clear()
    sides = Distribution(hidden, Head(weight)), Distribution(hidden.detach(), Head(weight.detach()))
    exact_kl(*sides).sum().backward()
    assert alive == [1, 2] * 12  # half as large


def test_kept_logits_are_let_go(monkeypatch):
    made, plain = [], Head.raw

    def raw(self, x):
        logits = plain(self, x)
        made.append(weakref.ref(logits))
        return logits

    monkeypatch.setattr(Head, "raw", raw)
    hidden, weight = torch.randn(30, 8, requires_grad=True), torch.randn(50, 8, requires_grad=True)
    with torch.no_grad():
        held = token_logprob(hidden, Head(weight), torch.arange(30))
    assert made[-1]() is None
    held = token_logprob(hidden, Head(weight), torch.arange(30))
    assert made[-1]() is not None
    held[0].sum().backward(retain_graph=True)
    assert made[-1]() is None


def test_logits_of_one_group_are_made_once_and_of_several_twice(monkeypatch):
    made: list[int] = []
    plain = Head.raw
    monkeypatch.setattr(Head, "raw", lambda self, x: made.append(len(x)) or plain(self, x))
    for group, expected in ((96, [96]), (48, [48] * 4)):
        made.clear()
        run(group, monkeypatch, False)
        assert made == expected


def test_a_long_sum_over_groups_does_not_stall_in_bf16(monkeypatch):  # field: S6
    """1,024 equal terms, one a group: a sum in bf16 stops growing where a term is less than half its last bit."""
    cut_into(monkeypatch, 1, 1, 2 * 4)
    weight = torch.zeros(4, 1, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        logprob_T, _ = token_logprob(torch.ones(1024, 1), Head(weight), torch.zeros(1024, dtype=torch.int64))
    logprob_T.sum().backward()
    assert_close(weight.grad[:, 0], torch.tensor([768.0, -256, -256, -256]))
    bias = torch.zeros(4, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        logprob_T, _ = token_logprob(torch.ones(1024, 1), Head(weight, bias), torch.zeros(1024, dtype=torch.int64))
    logprob_T.sum().backward()
    assert_close(bias.grad, torch.tensor([768.0, -256, -256, -256]))


def test_gradients_are_made_only_for_what_asks():
    hidden, weight, _, token_T, *_ = parts()
    token_logprob(hidden, Head(weight.detach()), token_T)[0].sum().backward()  # LoRA: the head is frozen
    assert weight.grad is None
    assert hidden.grad is not None
    hidden.grad = None
    token_logprob(hidden.detach(), Head(weight), token_T)[0].sum().backward()
    assert hidden.grad is None
    assert weight.grad is not None


def test_no_tokens_is_no_error():
    hidden, weight, *_ = parts()
    logprob_T, _ = token_logprob(hidden[:0], Head(weight), torch.zeros(0, dtype=torch.int64))
    logprob_T.sum().backward()
    assert float(weight.grad.abs().max()) == 0


def test_a_second_derivative_is_refused_rather_than_wrong():
    hidden, weight, _, token_T, *_ = parts()
    logprob_T, _ = token_logprob(hidden, Head(weight), token_T)
    gradient = torch.autograd.grad(logprob_T.square().sum(), hidden, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.square().sum().backward()


def others():
    """States and weights of a reference of the same shape."""
    generator = torch.Generator().manual_seed(9)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((T, D), (V, D), (V,))]


def kl_by_definition(given, other, temperature):
    logprobs = []
    for hidden, weight, bias_V in (given[:3], other):
        logits = given[4] * (hidden @ weight.T + (0 if bias_V is None else bias_V))
        if given[5] is not None:
            logits = given[5] * torch.tanh(logits / given[5])
        logprobs.append((logits / temperature).log_softmax(-1))
    return (logprobs[0].exp() * (logprobs[0] - logprobs[1])).sum(-1)


def our_kl(given, other, temperature):
    sides = [Distribution(side[0], Head(side[1], side[2], given[4], given[5])) for side in (given, other)]
    return exact_kl(*sides, temperature=temperature)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("temperature", [1.0, 0.7, 3.0])
@pytest.mark.parametrize("cut", [(1, 1), (3, 2), (100, 3), (100, 100)], ids=str)
def test_exact_kl_and_its_gradients_are_those_of_the_definition(monkeypatch, variant, temperature, cut):
    cut_into(monkeypatch, *cut, 8 * V)
    weigh = torch.linspace(-1, 2, T, dtype=torch.float64)
    found = []
    for compute in (kl_by_definition, our_kl):
        given = parts(**VARIANTS[variant])
        other = others() if given[2] is not None else [*others()[:2], None]
        kl_T = compute(given, other, temperature)
        assert bool((kl_T > 0).all())
        (weigh * kl_T).sum().backward()
        found.append((kl_T, *(x.grad for x in given[:3] if x is not None)))
    for expected, ours_ in zip(*found, strict=True):
        assert_close(ours_, expected, rtol=1e-10, atol=1e-12)


def test_the_other_side_of_the_kl_is_a_constant_and_equal_sides_have_none():
    given, other = parts(bias=True), [x.requires_grad_() for x in others()]
    our_kl(given, other, 1.0).sum().backward()
    assert all(x.grad is None for x in other)
    assert our_kl(given, given, 0.7).tolist() == [0.0] * T
    with pytest.raises(ValueError, match="need a temperature above 0"):
        our_kl(given, other, 0.0)


def test_exact_kl_with_words_that_cannot_be_said_is_finite():
    hidden, weight, *_ = parts()
    bias = torch.zeros(V, dtype=torch.float64)
    bias[[2, 9]] = -torch.inf
    other = others()
    kl_T = our_kl((hidden, weight, bias, None, 1.0, None), (other[0], other[1], bias), 1.0)
    kl_T.sum().backward()
    kept = torch.tensor([v for v in range(V) if v not in (2, 9)])
    expected = kl_by_definition((hidden, weight[kept], None, None, 1.0, None), (other[0], other[1][kept], None), 1.0)
    assert_close(kl_T.detach(), expected.detach())
    assert bool(hidden.grad.isfinite().all())
    assert float(weight.grad[[2, 9]].abs().max()) == 0


def test_the_kl_sums_its_weight_gradient_over_groups_in_float32(monkeypatch):
    results = []
    for chunk, autocast in ((96, False), (1, True), (96, True)):
        cut_into(monkeypatch, chunk, -(-chunk // 2), (2 if autocast else 4) * 500)
        hidden, weight, _ = large()
        other = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)) * 0.3
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            kl_T = exact_kl(Distribution(hidden, Head(weight)), Distribution(hidden.detach(), Head(other)))
        kl_T.sum().backward()
        assert kl_T.dtype == hidden.grad.dtype == weight.grad.dtype == torch.float32
        results.append((hidden.grad, weight.grad))
    for found in results[1:]:
        for ours_, exact in zip(found, results[0], strict=True):
            assert float((ours_ - exact).norm() / exact.norm()) < 0.01


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_means_nothing_is_refused(temperature):
    hidden, weight, _, token_T, *_ = parts()
    with pytest.raises(ValueError, match="need a temperature above 0"):
        token_logprob(hidden, Head(weight), token_T, temperature=temperature)


def odd_families():
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {
        "vocab_size": 260, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 3,
    }  # fmt: skip
    settings = {"cohere": {"logit_scale": 0.25}, "granite": {"logits_scaling": 4.0}, "phi": {}, "gemma2": {}}
    for name, extra in settings.items():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **shape, **extra)).eval()
        for parameter in model.parameters():  # biases and norms that start at 0 or 1 prove nothing
            nn.init.normal_(parameter, std=0.3)
        yield name, model


@pytest.mark.parametrize(("name", "model"), [*odd_families(), *((name, make()) for name, make in FAMILIES.items())])
def test_the_head_read_off_a_model_is_the_model_s_own(name, model):
    ids = torch.tensor([[5, 9, 200, 31]])
    with torch.no_grad():
        expected = model(input_ids=ids).logits[0].float()
        hidden = model.base_model(input_ids=ids).last_hidden_state[0]
        head = head_of(model)
        found = head.logits(head.raw(hidden))
    assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert (head_of(model).softcap is None) == (name != "gemma2")


def test_the_head_of_a_model_with_adapters_is_that_of_its_base():
    from accord.train.loop import add_lora

    model = tiny_llama()
    weight = model.get_output_embeddings().weight
    assert head_of(add_lora(model, 2, 0, base="")).weight_VD is weight
