"""The sampler's cache against transformers' own, and what rows do in it."""

from __future__ import annotations

import torch
from torch import tensor
from transformers import DynamicCache

from accord.rollouts.cache import ROOM, RowCache


def states(rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, 2, columns, 4), torch.randn(rows, 2, columns, 4)


def filled(rows: int, columns: int) -> RowCache:
    """Two layers; the keys of row i are i everywhere."""
    cache = RowCache()
    for layer in range(2):
        key = torch.arange(rows).float()[:, None, None, None].expand(rows, 2, columns, 4).clone()
        cache.update(key, -key, layer)
    return cache


def key_rows(cache: RowCache) -> list[int]:
    for layer in cache.layers:
        assert torch.equal(layer.keys, -layer.values)
        assert (layer.keys == layer.keys[:, :1, :1, :1]).all()
    return cache.layers[1].keys[:, 0, 0, 0].int().tolist()


def test_columns_are_those_of_transformers_cache_past_several_enlargements():
    ours, theirs = RowCache(), DynamicCache()
    for columns in (5, *[1] * (2 * ROOM + 3), 2):
        new = states(3, columns)
        for layer in range(2):
            pairs = zip(ours.update(*new, layer), theirs.update(*new, layer), strict=True)
            assert all(torch.equal(mine, other) for mine, other in pairs)
        assert ours.get_seq_length() == theirs.get_seq_length()
        assert ours.get_mask_sizes(1, 0) == theirs.get_mask_sizes(1, 0)


def test_repeated_rows_are_a_cache_of_their_own():
    prompts = filled(2, 3)
    rows = prompts.repeated(tensor([1, 1, 0]))
    rows.update(*states(3, 1), 0)
    assert key_rows(prompts) == [0, 1]
    assert rows.layers[1].keys[:, 0, 0, 0].tolist() == [1, 1, 0]
    assert (prompts.get_seq_length(), rows.get_seq_length()) == (3, 4)


def test_retired_rows_are_replaced_by_the_last():
    cache = filled(5, 3)
    cache.retire(tensor([0, 1]), tensor([4, 3]), 3)
    assert key_rows(cache) == [4, 3, 2]
    key = torch.full((3, 2, 1, 4), 7.0)
    assert cache.update(key, -key, 0)[0].shape == (3, 2, 4, 4)


def test_under_autocast_keys_are_kept_as_attention_reads_them():
    cache = RowCache()
    with torch.autocast("cpu", torch.bfloat16):
        key, value = cache.update(*states(1, 2), 0)
    assert key.dtype == value.dtype == torch.bfloat16
    assert RowCache().update(*states(1, 2), 0)[0].dtype == torch.float32


def test_a_layer_that_keeps_nothing_of_its_own_is_passed_over():  # it reads the keys of an earlier layer
    cache = RowCache()
    cache.update(*states(2, 3), 1)
    rows = cache.repeated(tensor([0, 1, 1]))
    rows.retire(tensor([0]), tensor([2]), 2)
    assert rows.layers[1].keys.shape[0] == 2
    assert not rows.layers[0].is_initialized
    rows.join(tensor([0, 1]), 0, cache)
    assert rows.layers[1].keys.shape[0] == 4
    assert not rows.layers[0].is_initialized


def test_rows_that_join_end_in_the_same_column():
    for columns, first, others in ((6, 2, 3), (3, 0, 5), (4, 0, 4)):
        cache, other = filled(3, columns), filled(2, others)
        before = cache.layers[0].keys.clone()
        cache.join(tensor([2, 0]), first, other)
        width = max(columns - first, others)
        for layer in cache.layers:
            assert layer.keys.shape == (4, 2, width, 4)
            assert torch.equal(layer.keys[:2, :, first + width - columns :], before[[2, 0], :, first:])
            assert torch.equal(layer.keys[2:, :, width - others :], other.layers[0].keys)
            assert torch.equal(layer.keys, -layer.values)
            assert not layer.keys[:2, :, : first + width - columns].any()
        key = torch.full((4, 2, 1, 4), 7.0)
        assert cache.update(key, -key, 0)[0].shape == (4, 2, width + 1, 4)
        assert other.get_seq_length() == others  # it may have rows that still wait


def test_the_room_that_was_asked_for_is_kept_wherever_rows_go() -> None:
    cache, states = RowCache(room=5), torch.ones(2, 1, 3, 4)
    cache.update(states, states, 0)
    rows = torch.arange(2)
    repeated = cache.repeated(rows)
    assert repeated.make_room(1) == 3 + 5
    joined = cache.repeated(rows)
    joined.join(rows, 0, cache)
    assert joined.make_room(1) == 3 + 5
    assert joined.layers[0].key_buffer.shape == (4, 1, 8, 4)
    assert joined.make_room(6) == 3 + 5 + 5  # 5 more than the columns that were wanted, without the one they were for
