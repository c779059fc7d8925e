"""Rows that are decoded side by side: they finish and leave, and others take their places.

R rows, T columns, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from accord.rollouts import Rollout, Sampling
from accord.rollouts.cache import RowCache
from accord.rollouts.draw import row_uniforms

__all__ = ["Batch", "Row", "Waiting", "new_row"]


@dataclass(kw_only=True, eq=False)
class Row:
    """A response being sampled; `length` counts prompt tokens, `uniforms` has a number for each of its own."""

    length: int
    uniforms: list[float]
    tokens: list[int] = field(default_factory=list)
    logprob: list[float] = field(default_factory=list)
    sampling_logprob: list[float] = field(default_factory=list)
    finish: Literal["stop", "length"] | None = None

    def rollout(self) -> Rollout:
        """What was sampled, once it has finished."""
        assert self.finish is not None
        return Rollout(
            tokens=tuple(self.tokens),
            logprob=tuple(self.logprob),
            sampling_logprob=tuple(self.sampling_logprob),
            finish=self.finish,
        )


@dataclass(kw_only=True)
class Batch:
    """Rows being decoded side by side: the logits of their next token and the cache behind them."""

    rows: list[Row]
    logit_RV: Tensor
    mask_RT: Tensor
    cache: RowCache

    def repeated(self, index: Sequence[int], rows: list[Row]) -> Batch:
        """Return `rows` behind these rows of `self`, each of which may be named more than once."""
        index_R = torch.tensor(index, device=self.mask_RT.device)
        return Batch(
            rows=rows,
            logit_RV=self.logit_RV[index_R],
            mask_RT=self.mask_RT[index_R],
            cache=self.cache.repeated(index_R),
        )

    def retire(self, *, seldom: bool = False) -> None:
        """Drop finished rows: the last unfinished ones move into their places, so little is copied.

        Kernels are made for a number of rows, and making them takes as long as computing some idle rows: of 17 to 20
        rows that go on, 20 are kept. `seldom` waits until half of the rows are idle: where a step is a graph, making
        it anew costs more than they do.
        """
        alive = sum(row.finish is None for row in self.rows)
        if seldom and 2 * alive > len(self.rows):
            return
        step = 2 ** max(0, alive.bit_length() - 3)
        count = -(-alive // step) * step
        if count >= len(self.rows):
            return
        holes = [i for i, row in enumerate(self.rows[:count]) if row.finish is not None]
        movers = [i for i, row in enumerate(self.rows) if i >= count and row.finish is None]
        holes = holes[: len(movers)]  # what finished and is not replaced stays, idle
        for hole, mover in zip(holes, movers, strict=True):
            self.rows[hole] = self.rows[mover]
        device = self.mask_RT.device
        holes_H, movers_H = torch.tensor(holes, device=device).long(), torch.tensor(movers, device=device).long()
        self.rows = self.rows[:count]
        self.mask_RT[holes_H] = self.mask_RT[movers_H]
        self.mask_RT = self.mask_RT[:count]
        self.cache.retire(holes_H, movers_H, count)

    def join(self, other: Batch) -> None:
        """Drop finished rows, and put the rows of `other`, whose next tokens are to be drawn too, below the others.

        Columns that are padding in all rows are dropped: the cache is as wide as the longest row, however many rows
        have come and gone.
        """
        device = self.mask_RT.device
        alive = torch.tensor([i for i, row in enumerate(self.rows) if row.finish is None], device=device).long()
        mask_AT = self.mask_RT[alive]
        first = int((mask_AT != 0).any(0).long().argmax()) if len(alive) else mask_AT.shape[1]
        width = max(mask_AT.shape[1] - first, other.mask_RT.shape[1])
        masks = (mask_AT[:, first:], other.mask_RT)
        self.mask_RT = torch.cat([torch.nn.functional.pad(m, (width - m.shape[1], 0)) for m in masks])
        self.logit_RV = torch.cat([self.logit_RV[alive], other.logit_RV])
        self.rows = [*(row for row in self.rows if row.finish is None), *other.rows]
        self.cache.join(alive, first, other.cache)


@dataclass(kw_only=True)
class Waiting:
    """Prompts that are computed and rows of theirs that have no place yet.

    Attributes:
        prompts: a row of it for each prompt.
        rows: (row of `prompts`, the row to be decoded behind it), first come.
    """

    prompts: Batch
    rows: list[tuple[int, Row]]

    def take(self, count: int) -> Batch:
        """The next rows with a cache of their own."""
        taken, self.rows = self.rows[:count], self.rows[count:]
        return self.prompts.repeated([p for p, _ in taken], [row for _, row in taken])


def new_row(stream: int, sample: int, length: int, sampling: Sampling) -> Row:
    """A row before its first token; `stream` and `sample` decide its random numbers."""
    uniforms = row_uniforms(sampling.seed, stream, sample, sampling.max_new_tokens)
    return Row(length=length, uniforms=uniforms)
