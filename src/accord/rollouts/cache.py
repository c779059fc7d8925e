"""The sampler's key-value cache: room to write ahead, rows that leave, keys in the dtype attention reads.

transformers' own cache copies every key and value at each step to append one column, and under autocast it keeps
float32 keys that each step casts again. Here a step writes one column. R rows, H heads, T columns, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicLayer

__all__ = ["RowCache"]

# Columns added when a buffer is full: it is then copied once in 32 steps. The decoder computes with spare columns too.
ROOM = 32
# At most so many where a step is captured as a graph, which is made anew for each buffer.
ROOM_OF_GRAPHS = 256


class _RowLayer(DynamicLayer):
    """Keys and values of one layer; `keys` and `values` are the used part of buffers with spare columns.

    Every column is kept, in layers with a sliding window too: there the attention mask cuts the window.
    """

    is_initialized: bool
    key_buffer: Tensor
    value_buffer: Tensor

    def __init__(self, room: int = ROOM) -> None:
        super().__init__()
        self.room = room

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        key_states, value_states = _as_attention_reads(key_states), _as_attention_reads(value_states)
        if not self.is_initialized:
            self.is_initialized = True
            self._keep(key_states, value_states, key_states.shape[-2])
            return self.keys, self.values
        self.make_room(key_states.shape[-2])
        self.append(key_states, value_states)
        return self.keys, self.values

    def make_room(self, columns: int) -> int:
        """Let there be so many spare columns, which hold zeros; the width of the buffers."""
        start = self.keys.shape[-2]
        if start + columns > self.key_buffer.shape[-2]:
            room = (0, 0, 0, columns - 1 + self.room)
            self.key_buffer = torch.nn.functional.pad(self.keys, room)
            self.value_buffer = torch.nn.functional.pad(self.values, room)
            self._keep(self.key_buffer, self.value_buffer, start)
        return self.key_buffer.shape[-2]

    def append(self, key_states: Tensor, value_states: Tensor) -> None:
        """Write columns where there is room for them."""
        start = self.keys.shape[-2]
        end = start + key_states.shape[-2]
        self.key_buffer[..., start:end, :] = key_states
        self.value_buffer[..., start:end, :] = value_states
        self._keep(self.key_buffer, self.value_buffer, end)

    def advance(self) -> None:
        """Count one column in that was written into the buffers."""
        self._keep(self.key_buffer, self.value_buffer, self.keys.shape[-2] + 1)

    def _keep(self, key_buffer: Tensor, value_buffer: Tensor, columns: int) -> None:
        self.key_buffer, self.value_buffer = key_buffer, value_buffer
        self.keys, self.values = key_buffer[..., :columns, :], value_buffer[..., :columns, :]

    def repeated(self, index_R: Tensor) -> _RowLayer:
        copy = _RowLayer(self.room)
        if self.is_initialized:  # a layer that reads another layer's keys never is
            copy.is_initialized = True
            copy._keep(self.keys[index_R], self.values[index_R], self.keys.shape[-2])
        return copy

    def joined(self, rows_A: Tensor, first: int, other: _RowLayer) -> _RowLayer:
        """These rows without their first columns, and below them all rows of `other`; all end in the same column."""
        copy = _RowLayer(self.room)
        if self.is_initialized:
            kept = self.keys[..., first:, :], self.values[..., first:, :]
            columns = max(kept[0].shape[-2], other.keys.shape[-2])
            buffers = []
            for above, below in zip(kept, (other.keys, other.values), strict=True):
                shape = (len(rows_A) + len(below), above.shape[1], columns + self.room, above.shape[3])
                buffer = above.new_zeros(shape)
                buffer[: len(rows_A), :, columns - above.shape[2] : columns] = above[rows_A]
                buffer[len(rows_A) :, :, columns - below.shape[2] : columns] = below
                buffers.append(buffer)
            copy.is_initialized = True
            copy._keep(buffers[0], buffers[1], columns)
        return copy

    def retire(self, holes: Tensor, movers: Tensor, rows: int) -> None:
        if not self.is_initialized:
            return
        for buffer in (self.key_buffer, self.value_buffer):
            buffer[holes] = buffer[movers]
        self._keep(self.key_buffer[:rows], self.value_buffer[:rows], self.keys.shape[-2])


class RowCache(Cache):
    """A transformers cache whose rows are repeated after the prompt, leave, and are joined by others."""

    def __init__(self, layers: Sequence[_RowLayer] | None = None, room: int = ROOM) -> None:
        """Start empty; the model adds its layers in its first pass, and `room` columns when a buffer is full."""
        if layers is None:
            super().__init__(layer_class_to_replicate=partial(_RowLayer, room))
        else:
            super().__init__(layers=list(layers))

    def repeated(self, index_R: Tensor) -> RowCache:
        """Return a cache of its own with these rows, an index possibly repeated; `self` stays as it is."""
        return RowCache([layer.repeated(index_R) for layer in self.layers])

    def join(self, rows_A: Tensor, first: int, other: RowCache) -> None:
        """Keep some rows, without the columns before `first`, and put all rows of `other` below them."""
        for i, layer in enumerate(other.layers):  # one after the other: what is replaced is free at once
            self.layers[i] = self.layers[i].joined(rows_A, first, layer)

    def make_room(self, columns: int) -> int:
        """Let every layer have so many spare columns; the width of their buffers, the same for all."""
        return max(layer.make_room(columns) for layer in self.layers)

    def advance(self) -> None:
        """Count one column in that was written into the buffers of every layer."""
        for layer in self.layers:
            layer.advance()

    def retire(self, holes: Tensor, movers: Tensor, rows: int) -> None:
        """Move rows `movers` into the places `holes`, then keep the first `rows` rows."""
        for layer in self.layers:
            layer.retire(holes, movers, rows)


def _as_attention_reads(states: Tensor) -> Tensor:
    """Cast now what autocast would cast at every later step."""
    kind = states.device.type
    return states.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else states
