"""A whole step of decoding in one kernel against the same step in PyTorch's operations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from accord.models.kernels import decoding
from accord.rollouts.cache import RowCache
from accord.rollouts.decoder import Decoder, _steps
from fakes import tiny_llama
from rollouts.test_decoder import adapted

BF16, FP32, FP64 = torch.bfloat16, torch.float32, torch.float64
COLUMNS = 12


pytestmark = pytest.mark.usefixtures("compiled")


def model(heads: int = 6, groups: int = 2, vocabulary: int = 50, size: int = 32, rank: int = 0) -> nn.Module:
    """Biases and norms of heads, widths that differ, a vocabulary that is no multiple of 16; some layers adapted."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        head_dim=size,
        attention_bias=True,
        max_position_embeddings=64,
    )
    made = Qwen3ForCausalLM(config).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(3).add_(0.2 * torch.randn_like(weight))
    names = ["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"]
    return adapted(made, 0.1, rank, names) if rank else made


def begun(
    rows: int, dtype: torch.dtype, layers: int = 3, groups: int = 2, size: int = 32
) -> tuple[Tensor, Tensor, Tensor, RowCache]:
    """Tokens, positions and mask of a step, and a cache before it: row r has r mod 12 columns of padding."""
    generator = torch.Generator().manual_seed(rows)
    padding_R = torch.arange(rows) % COLUMNS
    mask_RT = (torch.arange(COLUMNS + 1) >= padding_R[:, None]).long()
    cache = RowCache()
    for layer in range(layers):
        kept = [torch.randn(rows, groups, COLUMNS, size, generator=generator) for _ in "kv"]
        cache.update(*(x.masked_fill(mask_RT[:, None, :-1, None] == 0, 0).to(dtype) for x in kept), layer)
    token_R = torch.randint(0, 16, (rows,), generator=generator)
    return token_R, mask_RT.sum(-1) - 1, mask_RT, cache


def plain(made: nn.Module, dtype: torch.dtype) -> Decoder:
    decoder = Decoder(made.to(dtype) if dtype == FP64 else made, dtype)
    decoder._steps = None
    return decoder


def by(unit: str, made: nn.Module, dtype: torch.dtype = BF16) -> Decoder:
    """A decoder whose products are made by a unit, if there is one here."""
    if decoding.UNITS.index(unit) > decoding.best_unit():
        pytest.skip(f"this processor has no {unit}")
    decoder = Decoder(made, dtype)
    decoder._steps = _steps(decoder, unit)
    assert decoder._steps is not None
    return decoder


def kept(cache: RowCache) -> Tensor:
    return torch.stack([torch.stack([layer.keys, layer.values]) for layer in cache.layers])  # type: ignore[attr-defined]


@pytest.mark.parametrize("rank", [0, 4, 40])
@pytest.mark.parametrize("rows", [1, 5, 16, 17, 64, 70, 130])
@pytest.mark.parametrize(("heads", "groups", "vocabulary", "size"), [(6, 2, 50, 32), (1, 1, 16, 64), (10, 2, 64, 96)])
def test_float32_is_that_of_pytorch(
    rows: int, heads: int, groups: int, vocabulary: int, size: int, rank: int, threads: int
) -> None:
    made = model(heads, groups, vocabulary, size, rank)
    (*step, ours), (*_, theirs), (*_, exact) = (begun(rows, x, groups=groups, size=size) for x in (FP32, FP32, FP64))
    found = Decoder(made, FP32)._at_once(*step, made_room(ours))
    expected = plain(made, FP32).step(*step, theirs)
    truth = plain(made, FP64).step(*step, exact)
    assert found is not None
    assert found.shape == truth.shape
    for a, b, c in ((found, expected, truth), (kept(ours), kept(theirs), kept(exact))):
        assert (a - c).norm() < 3 * (b - c).norm() + 1e-7 * c.norm() < 1e-5 * c.norm()


def made_room(cache: RowCache) -> RowCache:
    cache.make_room(1)
    return cache


@pytest.mark.parametrize("rows", [1, 8, 20, 33, 70])
@pytest.mark.parametrize(("size", "rank"), [(32, 0), (128, 0), (32, 24), (64, 64)])
@pytest.mark.parametrize("unit", decoding.UNITS)
def test_bfloat16_errs_as_much_as_pytorch(rows: int, size: int, rank: int, unit: str, threads: int) -> None:
    made = model(size=size, rank=rank)
    (*step, ours), (*_, theirs), (*_, exact) = (begun(rows, x, size=size) for x in (BF16, BF16, FP64))
    found = by(unit, made)._at_once(*step, made_room(ours))
    expected = plain(made, BF16).step(*step, theirs)
    truth = plain(made, FP64).step(*step, exact)
    assert found is not None
    assert found.dtype == BF16
    for a, b, c in ((found, expected, truth), (kept(ours), kept(theirs), kept(exact))):
        assert (a - c).norm() < 1.3 * (b - c).norm() < 0.1 * c.norm()


@pytest.mark.parametrize("unit", decoding.UNITS)
def test_a_row_does_not_depend_on_the_rows_beside_it(unit: str) -> None:
    """To the bit: alone, among 70, beside one of numbers that are none, with any number of threads."""
    decoder, before = by(unit, model(rank=4)), torch.get_num_threads()
    token_R, position_R, mask_RT, cache = begun(70, BF16)
    rows = torch.tensor([3, 20, 66])
    few = cache.repeated(rows)
    cache.layers[1].values[5] = torch.nan  # type: ignore[attr-defined]
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            copy = cache.repeated(torch.arange(70))
            found.append(decoder.step(token_R, position_R, mask_RT, copy))
            few_copy = few.repeated(torch.arange(3))
            assert torch.equal(decoder.step(token_R[rows], position_R[rows], mask_RT[rows], few_copy), found[0][rows])
            assert torch.equal(kept(few_copy), kept(copy)[:, :, rows])
    finally:
        torch.set_num_threads(before)
    assert found[0][5].isnan().all()
    assert found[0].isnan().any(-1).sum() == 1
    assert all(torch.equal(other.nan_to_num(), found[0].nan_to_num()) for other in found)


def test_only_a_rows_own_columns_are_read() -> None:
    decoder = Decoder(model(), FP32)
    token_R, position_R, mask_RT, cache = begun(9, FP32)
    other = cache.repeated(torch.arange(9))
    for one in (cache, other):
        one.make_room(4)
    expected = decoder.step(token_R, position_R, mask_RT, cache)
    for layer in other.layers:
        for buffer in (layer.key_buffer, layer.value_buffer):  # type: ignore[attr-defined]
            buffer[..., COLUMNS:, :] = torch.nan
            buffer[:, :, :COLUMNS].masked_fill_(mask_RT[:, None, :-1, None] == 0, torch.nan)
    assert torch.equal(decoder.step(token_R, position_R, mask_RT, other), expected)
    assert expected.isfinite().all()


def test_biases_of_every_product_count() -> None:
    torch.manual_seed(0)
    made = tiny_llama(hidden=128, attention_bias=True, mlp_bias=True)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if name.endswith("bias"):
                weight.normal_()
    (*step, ours), (*_, theirs) = (begun(7, FP32, layers=2) for _ in range(2))
    found = Decoder(made, FP32)._at_once(*step, made_room(ours))
    assert found is not None
    torch.testing.assert_close(found, plain(made, FP32).step(*step, theirs), rtol=1e-4, atol=1e-5)


def test_the_same_token_is_drawn_step_after_step() -> None:
    """Twenty steps, in which a buffer is made anew and rows leave."""
    made = model()
    ours, theirs = Decoder(made, FP32), plain(made, FP32)
    token_R, position_R, mask_RT, cache = begun(6, FP32)
    copy = cache.repeated(torch.arange(6))
    for t in range(20):
        found, expected = (
            ours.step(token_R, position_R, mask_RT, cache),
            theirs.step(token_R, position_R, mask_RT, copy),
        )
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        if t == 9:  # the last row comes to the place of the second
            holes, movers = torch.tensor([1]), torch.tensor([5])
            for one in (cache, copy):
                one.retire(holes, movers, 5)
            position_R, mask_RT, expected = (x[[0, 5, 2, 3, 4]] for x in (position_R, mask_RT, expected))
        token_R, position_R = expected.argmax(-1), position_R + 1
        mask_RT = nn.functional.pad(mask_RT, (0, 1), value=1)


def test_what_does_not_fit_is_left_to_pytorch() -> None:
    decoder = Decoder(model(), FP32)
    steps: Any = decoder._steps
    token_R, position_R, mask_RT, cache = begun(4, FP32)
    x, (cos, sin) = decoder._embedded(token_R, position_R)
    cache.make_room(1)
    layers: Any = cache.layers
    keys, values = [layer.key_buffer for layer in layers], [layer.value_buffer for layer in layers]
    first, room = mask_RT.argmax(-1), keys[0].shape[2]
    assert steps(x, cos, sin, keys, values, room - 1, first) is not None
    assert steps(x, cos, sin, keys, values, room, first) is None
    assert steps(x, cos, sin, keys, values, -1, first) is None
    assert steps(x[:3], cos, sin, keys, values, COLUMNS, first) is None
    assert steps(x.double(), cos, sin, keys, values, COLUMNS, first) is None
    assert steps(x, cos[:, :8], sin[:, :8], keys, values, COLUMNS, first) is None
    assert steps(x, cos, sin, keys[:2], values[:2], COLUMNS, first) is None
    assert steps(x, cos, sin, [*keys[:2], keys[2].bfloat16()], values, COLUMNS, first) is None
    assert steps(x, cos, sin, [*keys[:2], keys[2][..., ::2]], values, COLUMNS, first) is None
    assert steps(x, cos, sin, keys, [*values[:2], values[2][:, :, :5]], COLUMNS, first) is None
    assert steps(x, cos, sin, keys, values, COLUMNS, first[:2]) is None
    assert steps(x, cos, sin, keys, values, COLUMNS, first + COLUMNS + 1) is None  # nothing would be read
    assert steps(x, cos, sin, keys, values, COLUMNS, first - 1) is None
    none = [keys[0][:0]] * 3
    assert steps(x[:0], cos[:0], sin[:0], none, none, COLUMNS, first[:0]) is None


def test_weights_of_other_kinds_are_left_to_pytorch() -> None:
    assert Decoder(tiny_llama(), FP32)._steps is None  # heads of 8
    assert Decoder(model().double(), FP64)._steps is None
    assert Decoder(tiny_llama(hidden=128, hidden_act="gelu"), FP32)._steps is None
    made = tiny_llama(hidden=128)
    made.model.layers[1].input_layernorm.variance_epsilon = 0.1
    assert Decoder(made, FP32)._steps is None
    decoder = Decoder(tiny_llama(hidden=128), FP32)
    assert decoder._steps is not None
    head = replace(decoder.head, weight=decoder.head.weight[:15])
    layer: Any = decoder.layers[0]
    parts = {"heads": layer.query_key_value, "output": layer.output, "gate_up": layer.gate_up, "down": layer.down}
    norm = layer.before_mlp.weight
    given = decoding.Layer(**parts, norm=norm, norm_mlp=norm, norm_query=None, norm_key=None)
    how = {"key_heads": 2, "eps": 1e-5, "eps_heads": 0.0, "scaling": 1.0}
    assert decoding.Steps.of([given], decoder.head, norm, **how) is not None
    assert decoding.Steps.of([given], head, norm, **how) is None
    wider = torch.cat([given.down.weight, given.down.weight[:, :16]], 1)
    odd = replace(given, down=decoding.Linear(wider, None, given.down.weight[:16]))  # a rank the kernel cannot read
    assert decoding.Steps.of([odd], decoder.head, norm, **how) is None
    assert decoding.Steps.of([given], decoder.head, norm, **how | {"key_heads": 3}) is None
    assert decoding.Steps.of([given], decoder.head, norm, **how, unit="tiles") is None  # of float32
