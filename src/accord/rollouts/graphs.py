"""A decoding step whose tensors stay where they are, so that a GPU can replay it as one CUDA graph.

A step of a small model is some five hundred kernels of a few microseconds. Launched one by one they take longer than
they run; captured once and replayed they take one call. Whatever changes from step to step therefore stands in tensors
that keep their addresses: the tokens, their positions, the column to write, the mask, and the cache's buffers. Where
those are replaced (rows left or joined, the buffers were full) the step is made anew: its first time kernel by kernel,
which is the warm-up that libraries need, its second time captured.

R rows, T columns of the buffers, V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from accord.rollouts.cache import RowCache

if TYPE_CHECKING:
    from accord.rollouts.decoder import Decoder

__all__ = ["GraphStep", "Graphs"]

logger = logging.getLogger("accord")

# Others look for the best kernel of each shape, at the first step with it.
_KERNELS = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
# The allocators of torch go on naming a graph whose capture failed.
_FAILED: list[torch.cuda.CUDAGraph] = []
_ALIGNED = 16  # columns: the kernel copies a mask whose rows start elsewhere


class Graphs:
    """Captures of one sampler, all in one pool of memory; only the last one is replayed.

    That one is kept until the next is there, over calls too: torch gives up a pool that no graph uses, and a pool given
    up cannot be used again.

    Attributes:
        works: False once a capture has failed: steps then run kernel by kernel.
        captured: how many steps were captured.
        replayed: how many were replayed.
    """

    def __init__(self, device: torch.device) -> None:
        self.works = True
        self.captured = self.replayed = 0
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()
        self._last: torch.cuda.CUDAGraph | None = None

    def warm_up(self, run: Callable[[], Tensor]) -> Tensor:
        """Run on the stream that captures: what libraries set up for a stream, they set up now."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = run()
        current.wait_stream(self._stream)
        return result

    def capture(self, run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """A function that does again what `run` does, with the same tensors; its result is overwritten each time.

        `torch.cuda.graph` would wait for the device and give its free memory back, each time.

        Raises: RuntimeError: `run` does what no graph can, such as wait for the device.
        """
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self._stream):
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                result = run()
                graph.capture_end()
            except BaseException:
                self._give_up(graph)
                raise
        self._last = graph
        self.captured += 1

        def replay() -> Tensor:
            graph.replay()
            self.replayed += 1
            return result

        return replay

    def _give_up(self, graph: torch.cuda.CUDAGraph) -> None:
        """End a capture that failed, so that the process goes on as before it."""
        with suppress(RuntimeError):
            graph.capture_end()
        # Where that fails too, the allocator still waits for the end: it would not free memory when it is needed.
        with suppress(RuntimeError, AttributeError):  # it does not wait
            torch._C._cuda_endAllocateToPool(self._stream.device.index, self._pool)
            torch._C._cuda_releasePool(self._stream.device.index, self._pool)
        _FAILED.append(graph)


@dataclass(frozen=True)
class _Inputs:
    """What a step reads besides the weights, as long as the cache keeps its buffers.

    Attributes:
        token_R: int64.
        position_R: int64.
        column: (1,) int64, where keys and values are written.
        bias_R11T: 0 where a row has a token, else -inf.
        buffer: the first one of the cache; the others come and go with it.
    """

    token_R: Tensor
    position_R: Tensor
    column: Tensor
    bias_R11T: Tensor
    buffer: Tensor

    @staticmethod
    def of(mask_RT: Tensor, buffer: Tensor) -> _Inputs:
        rows, width = len(buffer), buffer.shape[2]
        aligned = -(-width // _ALIGNED) * _ALIGNED
        bias_R11T = buffer.new_full((rows, 1, 1, aligned), -torch.inf)[..., :width]
        bias_R11T[:, 0, 0, : mask_RT.shape[1]].masked_fill_(mask_RT != 0, 0.0)
        token_R, position_R = mask_RT.new_zeros(2, rows).unbind()
        return _Inputs(token_R, position_R, mask_RT.new_zeros(1), bias_R11T, buffer)

    def set(self, token_R: Tensor, position_R: Tensor, column: int) -> None:
        self.token_R.copy_(token_R)
        self.position_R.copy_(position_R)
        self.column.fill_(column)


class GraphStep:
    """`Decoder.step` through tensors that stay where they are.

    Args:
        decoder: whose weights are read; a step of other weights is another `GraphStep`.
        graphs: captures and replays; None: each step runs kernel by kernel.
    """

    def __init__(self, decoder: Decoder, graphs: Graphs | None = None) -> None:
        self._decoder, self._graphs = decoder, graphs
        self._inputs: _Inputs | None = None
        self._replay: Callable[[], Tensor] | None = None

    @torch.no_grad()
    def __call__(self, token_R: Tensor, position_R: Tensor, mask_RT: Tensor, cache: RowCache) -> Tensor:
        """(R, V) logits as `Decoder.step` gives them, valid until the next call."""
        cache.make_room(1)
        first: Any = cache.layers[0]
        inputs = self._inputs
        fresh = inputs is None or inputs.buffer is not first.key_buffer
        if inputs is None or fresh:
            self._replay = None
            self._inputs = inputs = _Inputs.of(mask_RT, first.key_buffer)
        inputs.set(token_R, position_R, first.keys.shape[-2])
        # Buffers are named here and not within: a graph knows those it was captured with, and tests do likewise.
        buffers = [(layer.key_buffer, layer.value_buffer) for layer in cache.layers]
        logit_RV = self._computed(partial(_step, self._decoder, inputs, buffers), fresh)
        cache.advance()
        return logit_RV

    def _computed(self, run: Callable[[], Tensor], fresh: bool) -> Tensor:
        if self._graphs is None or not self._graphs.works:
            return run()
        if fresh:
            return self._graphs.warm_up(run)
        if self._replay is None:
            try:
                self._replay = self._graphs.capture(run)
            except RuntimeError as error:
                self._graphs.works = False
                logger.warning(
                    "sampler: a decoding step could not be captured as a CUDA graph; its kernels are launched one by "
                    "one from now on, which is several times slower (%s)",
                    error,
                )
                return run()
        return self._replay()


def _step(decoder: Decoder, inputs: _Inputs, buffers: list[tuple[Tensor, Tensor]]) -> Tensor:
    """All that a graph holds: no number is read by the host, and nothing of it depends on one."""
    inputs.bias_R11T.index_fill_(-1, inputs.column, 0.0)

    def attend(i: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        keys, values = buffers[i]
        keys.index_copy_(2, inputs.column, key.unsqueeze(2))
        values.index_copy_(2, inputs.column, value.unsqueeze(2))
        # The query heads that read the same keys stand where a kernel expects queries: no key is copied for them.
        query = query.reshape(len(query), decoder.key_heads, decoder.queries, -1)
        scaling = decoder.layers[i].scaling
        return scaled_dot_product_attention(query, keys, values, attn_mask=inputs.bias_R11T, scale=scaling)

    with sdpa_kernel(_KERNELS):
        return decoder.logits(inputs.token_R, inputs.position_R, attend)
