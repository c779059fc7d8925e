"""Tree attention on a CPU, block by block of queries: what nobody sees is not computed, and scores stay in the cache.

A block is a run of tokens of one tree (several branches, a part of a long prompt or response), or some small trees side
by side. Keys of the first are the prompt, and all tokens from the start of the segment it begins in to its own end: no
padding, no siblings in other blocks, none of the future behind it. Which of both a tree goes into depends on the tree
alone, and trees side by side are padded to a multiple of 16, below which kernels round otherwise: packs differ between
passes over the same rows, and DPO's first loss is to be log 2.

Dimensions: T tokens of the pack, H query heads, G key heads, R = H / G, D width of a head; of a block: B trees side by
side (1 of a run), n queries and K keys of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from accord.models import kernels
from accord.trees import PromptTree, TreeBatch

__all__ = ["BlockPlan", "Run", "SideBySide", "block_attention", "blocks_of"]

SIZE = 160
"""Most queries of a run. Fewer: calls cost more than products. More: scores leave the cache, and more are masked."""
SMALL, SCORES, ALIKE = 128, 2**17, 0.7
"""Trees side by side: most tokens of one, most scores of all for a head, and the part of the longest one's tokens that
the shortest has at least."""


class Run:
    """Tokens start..stop of the pack, all of one tree, which read a prompt (unless own has it) and own..stop."""

    def __init__(self, start: int, stop: int, own: int, prompt: slice | None = None) -> None:
        self.start, self.stop, self.own, self.prompt = start, stop, own, prompt

    @property
    def keys(self) -> tuple[slice, ...]:
        """One or two runs of tokens of the pack."""
        own = slice(self.own, self.stop)
        return (own,) if self.prompt is None else (self.prompt, own)

    def seen(self, batch: TreeBatch, window: int | None) -> Tensor:
        """(1, n, K) bool: which keys each query sees."""
        order = torch.arange(self.stop)
        key = torch.cat([order[run] for run in self.keys])
        return _seen(batch, order[self.start :].unsqueeze(0), key.unsqueeze(0), window)

    def rows(self, x_GTRD: Tensor) -> Tensor:
        """(G, n R, D) of its queries."""
        return x_GTRD[:, self.start : self.stop].flatten(1, 2)

    def columns(self, x_GTD: Tensor) -> Tensor:
        """(G, K, D) of its keys."""
        runs = [x_GTD[:, run] for run in self.keys]
        return runs[0] if len(runs) == 1 else torch.cat(runs, 1)

    def back(self, rows: Tensor, x_GTRD: Tensor) -> Tensor:
        """(G, n, R, width of rows): the reverse of `rows`, for an x of these groups and heads."""
        return rows.view(x_GTRD.shape[0], -1, x_GTRD.shape[2], rows.shape[-1])

    def add(self, sum_GTD: Tensor, part: Tensor) -> None:
        """Add (G, K, D), what its keys got."""
        at = 0
        for run in self.keys:
            size = run.stop - run.start
            sum_GTD[:, run] += part[:, at : at + size]
            at += size


class SideBySide:
    """Whole trees of these lengths, one behind the other from `start`, padded to the longest; same methods as `Run`."""

    def __init__(self, start: int, lengths: Sequence[int]) -> None:
        self.start, self.lengths = start, tuple(lengths)
        self.stop, width = start + sum(lengths), -(-max(lengths) // 16) * 16
        length_B = torch.tensor(self.lengths)
        place = torch.arange(width)
        self._real_Bn = place < length_B.unsqueeze(-1)
        first_B1 = (start + length_B.cumsum(0) - length_B).unsqueeze(-1)
        self._index_Bn = torch.where(self._real_Bn, first_B1 + place, start)
        self._real = self._real_Bn.flatten().nonzero().squeeze(-1)  # places of the B n that hold tokens, in their order

    def seen(self, batch: TreeBatch, window: int | None) -> Tensor:
        """(B, n, n) bool; padding sees itself, and nobody sees it."""
        seen = _seen(batch, self._index_Bn, self._index_Bn, window)
        itself = torch.eye(self._real_Bn.shape[1], dtype=torch.bool)
        return torch.where(self._real_Bn.unsqueeze(-1) & self._real_Bn.unsqueeze(-2), seen, itself)

    def rows(self, x_GTRD: Tensor) -> Tensor:
        """(G B, n R, D) of its queries."""
        return self._laid(x_GTRD).flatten(1, 2)

    def columns(self, x_GTD: Tensor) -> Tensor:
        """(G B, n, D) of its keys."""
        return self._laid(x_GTD)

    def _laid(self, x: Tensor) -> Tensor:
        """(G, T, ...) -> (G B, n, ...)."""
        laid = x.index_select(1, self._index_Bn.flatten())
        return laid.view(-1, self._index_Bn.shape[1], *x.shape[2:])

    def back(self, rows: Tensor, x_GTRD: Tensor) -> Tensor:
        """(G, tokens, R, width of rows): the reverse of `rows`, for an x of these groups and heads."""
        return rows.view(x_GTRD.shape[0], -1, x_GTRD.shape[2], rows.shape[-1]).index_select(1, self._real)

    def add(self, sum_GTD: Tensor, part: Tensor) -> None:
        """Add (G B, n, D), what its keys got."""
        sum_GTD[:, self.start : self.stop] += part.view(sum_GTD.shape[0], -1, part.shape[-1]).index_select(
            1, self._real
        )


def _seen(batch: TreeBatch, query_Bn: Tensor, key_BK: Tensor, window: int | None) -> Tensor:
    """(B, n, K) bool, True where a token of a tree sees another of the same tree.

    A sliding window of w tokens sees distances 0..w-1, counted in positions, so it spans prompt and response.
    """
    query, key = query_Bn.unsqueeze(-1), key_BK.unsqueeze(-2)
    branch = batch.branch_T[key]
    # The order within a tree is prompt, branch 0, branch 1, ...
    seen = (key <= query) & ((branch == -1) | (branch == batch.branch_T[query]))
    if window is not None:
        seen &= batch.position_T[query] - batch.position_T[key] < max(window, 1)
    return seen


def blocks_of(trees: Sequence[PromptTree]) -> list[Run | SideBySide]:
    """Cut a pack of trees into blocks, in order and without gaps."""
    found: list[Run | SideBySide] = []
    start, small = 0, list[int]()  # small: lengths of the trees from start on that go side by side
    at = 0
    for tree in trees:
        if small and not _fits(small, tree.length):
            found.append(SideBySide(start, small))
            small = []
        if tree.length <= SMALL:
            start = start if small else at
            small.append(tree.length)
        else:
            found += _runs(tree, at)
        at += tree.length
    return [*found, SideBySide(start, small)] if small else found


def _fits(small: Sequence[int], length: int) -> bool:
    """Whether one more tree, of that length, may stand beside some."""
    if length > SMALL or len(small) * small[0] ** 2 > SCORES:  # the second alone bounds how many are looked at
        return False
    longest, shortest = max(*small, length), min(*small, length)
    return (len(small) + 1) * longest**2 <= SCORES and shortest >= ALIKE * longest


def _runs(tree: PromptTree, at: int) -> list[Run | SideBySide]:
    """The blocks of a tree whose first token is `at`."""
    found: list[Run] = []
    prompt = slice(at, at + len(tree.prompt))
    for length in (len(tree.prompt), *(len(branch.tokens) for branch in tree.branches)):
        parts = -(-length // SIZE)
        for part in range(parts):
            start, stop = at + length * part // parts, at + length * (part + 1) // parts
            if found and stop - found[-1].start <= SIZE:
                found[-1].stop = stop
            elif at > prompt.stop:
                found.append(Run(start, stop, at, prompt))
            else:  # the prompt, or the first branch, behind it without a gap
                found.append(Run(start, stop, prompt.start))
        at += length
    return [*found]


class BlockPlan:
    """The blocks of a pack, and which of its keys each query sees."""

    def __init__(self, batch: TreeBatch) -> None:
        self._batch = batch
        self._biases: dict[tuple[int | None, torch.dtype], list[Tensor]] = {}

    @cached_property
    def blocks(self) -> list[Run | SideBySide]:
        """In order and without gaps."""
        return blocks_of(self._batch.trees)

    @cached_property
    def tables(self) -> tuple[Tensor, Tensor]:
        """Segments and trees, as `accord.models.kernels.attend` reads them."""
        segments, trees = list[tuple[int, ...]](), list[tuple[int, ...]]()
        at = 0
        for tree in self._batch.trees:
            start, first, prompt = at, len(segments), len(tree.prompt)
            segments.append((start, 0, start, prompt))
            at += prompt
            for branch in tree.branches:
                segments.append((start, prompt, at, len(branch.tokens)))
                at += len(branch.tokens)
            trees.append((start, at - start, first, len(segments)))
        return torch.tensor(segments), torch.tensor(trees)

    def biases(self, window: int | None, dtype: torch.dtype) -> list[Tensor]:
        """(B, n, 1, K) of each block, 0 where the query sees the key, else -inf; made once for all layers."""
        if (window, dtype) not in self._biases:
            seen = [block.seen(self._batch, window) for block in self.blocks]
            self._biases[window, dtype] = [
                torch.zeros(x.shape, dtype=dtype).masked_fill_(~x, -torch.inf).unsqueeze(2) for x in seen
            ]
        return self._biases[window, dtype]


def block_attention(q: Tensor, k: Tensor, v: Tensor, plan: BlockPlan, window: int | None, scaling: float) -> Tensor:
    """softmax(q k * scaling) v over the keys each query sees.

    Args:
        q: (T, H, D) queries.
        k: (T, G, D) keys, each of their heads read by H / G query heads.
        v: (T, G, width) values. Products run in their dtype, scores and their softmax in float32 at least.
        plan: of the pack.
        window: sliding window in tokens, or None.
        scaling: 1 / sqrt(D), mostly.
    Returns: (T, H, width).
    """
    # Rounded here and not within, so that what is kept for the backward pass are the inputs, which have a graph (TRPO).
    result: Tensor = _Blocks.apply(q.to(v.dtype), k.to(v.dtype), v, plan, window, scaling)  # type: ignore[no-untyped-call]
    return result


class _Blocks(torch.autograd.Function):
    """Scores are made again in the backward pass instead of kept: of long trees they would be the largest thing."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: BlockPlan, window: int | None, scaling: float
    ) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.plan, ctx.window, ctx.scaling = plan, window, scaling
        if (found := kernels.attend(q, k, v, *plan.tables, window, scaling)) is not None:
            return found
        with torch.autocast(q.device.type, enabled=False):
            return _attend(q, k, v, plan, window, scaling)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        q, k, v = ctx.saved_tensors  # once: under gradient checkpointing they can be had no second time
        with torch.autocast(q.device.type, enabled=False):
            if not torch.is_grad_enabled():
                segments, trees = ctx.plan.tables
                gradients = kernels.attend_back(q, k, v, grad.to(v.dtype), segments, trees, ctx.window, ctx.scaling)
                if gradients is None:
                    gradients = _gradients(q, k, v, grad, ctx.plan, ctx.window, ctx.scaling)
                return (*gradients, None, None, None)
            # Second derivatives are wanted (TRPO): by autograd, from the plain operations.
            out = _attend(q, k, v, ctx.plan, ctx.window, ctx.scaling)
            needed = [x for x, need in zip((q, k, v), ctx.needs_input_grad, strict=False) if need]
            found = iter(torch.autograd.grad(out, needed, grad, create_graph=True))
            return (*(next(found) if need else None for need in ctx.needs_input_grad[:3]), None, None, None)


def _attend(q: Tensor, k: Tensor, v: Tensor, plan: BlockPlan, window: int | None, scaling: float) -> Tensor:
    queries, keys, values = _laid(q, k, v, scaling)
    outs = []
    for block, bias in zip(plan.blocks, plan.biases(window, keys.dtype), strict=True):
        share = _share(block.rows(queries), block.columns(keys), bias)
        outs.append(block.back(torch.bmm(share.to(v.dtype), block.columns(values)), queries))
    return _by_head(torch.cat(outs, 1))


def _gradients(
    q: Tensor, k: Tensor, v: Tensor, grad: Tensor, plan: BlockPlan, window: int | None, scaling: float
) -> tuple[Tensor, Tensor, Tensor]:
    groups = k.shape[1]
    queries, keys, values = _laid(q, k, v, scaling)
    plain_q, plain_k, grad = _by_group(q, groups), k.transpose(0, 1), _by_group(grad.to(v.dtype), groups)
    query_grads = []
    # A key is read by several blocks: in bfloat16 their sum would stop growing.
    key_grad, value_grad = (torch.zeros_like(x, dtype=keys.dtype) for x in (keys, values))
    for block, bias in zip(plan.blocks, plan.biases(window, keys.dtype), strict=True):
        rows, grad_rows = block.rows(plain_q), block.rows(grad)
        share = _share(block.rows(queries), block.columns(keys), bias)
        block.add(value_grad, torch.bmm(share.to(v.dtype).transpose(1, 2), grad_rows))
        share_grad = torch.bmm(grad_rows, block.columns(values).transpose(1, 2)).to(share.dtype)
        score_grad = torch._softmax_backward_data(share_grad, share, -1, share.dtype).to(v.dtype)
        query_grads.append(block.back(torch.bmm(score_grad, block.columns(plain_k)), queries))
        block.add(key_grad, torch.bmm(score_grad.transpose(1, 2), rows))
    query_grad = _by_head(torch.cat(query_grads, 1)).mul_(scaling)
    return query_grad, key_grad.mul_(scaling).transpose(0, 1).to(k.dtype), value_grad.transpose(0, 1).to(v.dtype)


def _laid(q: Tensor, k: Tensor, v: Tensor, scaling: float) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (G, T, R, D) times scaling, keys and values (G, T, D); all but the values in float32 at least."""
    # A product of bfloat16 matrices is rounded to bfloat16, and the differences of large scores would be lost.
    wide = torch.promote_types(v.dtype, torch.float32)
    queries, keys = _by_group(q, k.shape[1]).to(wide) * scaling, k.to(wide).transpose(0, 1).contiguous()
    return queries, keys, v.transpose(0, 1).contiguous()


def _by_group(x_THD: Tensor, groups: int) -> Tensor:
    """(G, T, R, D): queries that share a key head stand below each other, so keys and values are not repeated."""
    tokens, _, width = x_THD.shape
    return x_THD.reshape(tokens, groups, -1, width).transpose(0, 1).contiguous()


def _by_head(x_GTRD: Tensor) -> Tensor:
    """(T, H, D), the reverse."""
    return x_GTRD.transpose(0, 1).flatten(1, 2)


def _share(rows: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
    """(G B, n R, K) weights of each query's keys."""
    score = torch.bmm(rows, keys.transpose(1, 2))
    trees, queries, _, columns = bias.shape
    score.view(-1, trees, queries, score.shape[1] // queries, columns).add_(bias)
    return score.softmax(-1)
