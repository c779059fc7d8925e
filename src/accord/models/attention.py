"""Attention over packed prompt trees, through transformers' public attention registry: no model code is patched.

A pack is one flat row of T tokens. Linear layers, norms and the head run on it as it is; attention alone needs to know
who may see whom: a response token sees its prompt and its own past, never a sibling or another tree. For attention the
trees are laid side by side as (B, S), padded to the longest tree of the pack (packs hold trees of like length).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from accord.trees import TreeBatch

__all__ = ["NAME", "TreeLayout", "UnsupportedAttention"]

NAME = "accord_tree"
SHORT = 320
"""Tokens of a pack's longest tree up to which a CPU writes the scores out: torch's fused kernel with a mask then takes
1.2 to 5 times as long, most of it in its backward pass (docs/log.md). Both give the same within rounding."""


class UnsupportedAttention(ValueError):
    """The model's attention asks for something the tree attention does not do; score one row per response instead."""


class TreeLayout:
    """Where each token of a pack stands in the (B, S) attention layout, and what it may see.

    Attributes:
        gather_BS: int64 index into T; 0 at padding.
        scatter_T: int64 index into the flattened (B * S).
    """

    def __init__(self, batch: TreeBatch) -> None:
        lengths_B = torch.bincount(batch.tree_T, minlength=len(batch.trees))
        start_B = lengths_B.cumsum(0) - lengths_B
        width = int(lengths_B.max())
        offset_T = torch.arange(batch.token_T.numel(), device=batch.token_T.device) - start_B[batch.tree_T]
        self.scatter_T = batch.tree_T * width + offset_T
        shape = (len(batch.trees), width)
        self.gather_BS = self._lay(torch.arange(offset_T.numel(), device=offset_T.device), 0, shape)
        self._branch_BS = self._lay(batch.branch_T, -2, shape)  # -2: padding, seen by itself only
        self._position_BS = self._lay(batch.position_T, 0, shape)
        self._masks: dict[int | None, Tensor] = {}
        self._biases: dict[tuple[int | None, torch.dtype], Tensor] = {}

    def _lay(self, value_T: Tensor, fill: int, shape: tuple[int, int]) -> Tensor:
        flat = value_T.new_full((shape[0] * shape[1],), fill)
        return flat.index_put((self.scatter_T,), value_T).view(shape)

    def mask(self, window: int | None) -> Tensor:
        """(B, 1, S, S) bool, True where the query (third axis) sees the key; made once per window size.

        A sliding window of w tokens sees distances 0..w-1, counted in positions, so it spans prompt and response.
        """
        if window not in self._masks:
            query, key = self._branch_BS.unsqueeze(-1), self._branch_BS.unsqueeze(-2)
            order = torch.arange(query.shape[1], device=query.device)
            past = order.unsqueeze(-1) >= order  # within a tree the flat order is prompt, branch 0, branch 1, ...
            seen = past & ((key == -1) | (key == query)) & (query != -2)
            if window is not None:
                distance = self._position_BS.unsqueeze(-1) - self._position_BS.unsqueeze(-2)
                seen = seen & (distance < window)
            # A query that sees nothing would be 0/0; padding looks at itself and is never read.
            self._masks[window] = (seen | torch.eye(order.numel(), dtype=torch.bool, device=order.device)).unsqueeze(1)
        return self._masks[window]

    def bias(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """(B, 1, S, S) the mask as what is added to scores: 0 or -inf."""
        if (window, dtype) not in self._biases:
            mask = self.mask(window)
            self._biases[window, dtype] = torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, -torch.inf)
        return self._biases[window, dtype]


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    tree: TreeLayout | None = None,
    **extra: Any,
) -> tuple[Tensor, None]:
    """Attention of transformers' interface: (1, H, T, D) in, (1, T, H, D) out.

    Without `tree` (sampling with a cache, rows with padding) it is transformers' own scaled dot product attention.
    """
    if tree is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, sliding_window=sliding_window, **extra
        )
    unknown = [name for name in ("softcap", "s_aux") if extra.get(name) is not None]
    if unknown:
        raise UnsupportedAttention(f"{type(module).__name__} uses {', '.join(unknown)}")

    def lay(x: Tensor) -> Tensor:
        rows: Tensor = _Lay.apply(x[0].transpose(0, 1), tree)  # type: ignore[no-untyped-call]
        return rows.transpose(1, 2)  # (B, H, S, D)

    repeats = query.shape[1] // key.shape[1]
    q, k, v = lay(query), lay(key), lay(value)
    if q.device.type == "cpu" and q.shape[2] <= SHORT and not dropout:
        if torch.is_autocast_enabled("cpu"):
            v = v.to(torch.get_autocast_dtype("cpu"))
        bias = tree.bias(sliding_window, torch.promote_types(v.dtype, torch.float32))
        scaling = q.shape[-1] ** -0.5 if scaling is None else scaling
        out: Tensor = _WrittenOut.apply(q, k, v, bias, scaling)  # type: ignore[no-untyped-call]
    else:
        if repeats > 1:
            k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
        out = scaled_dot_product_attention(q, k, v, tree.mask(sliding_window), dropout, scale=scaling)
    flat: Tensor = _Unlay.apply(out.transpose(1, 2), tree)  # type: ignore[no-untyped-call]
    return flat.unsqueeze(0), None


class _Lay(torch.autograd.Function):
    """(T, H, D) -> (B, S, H, D), padding filled with row 0.

    Its gradient is a plain gather, because no real token reads padding: autograd would add up row by row instead.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, tree: TreeLayout) -> Tensor:
        ctx.tree = tree
        return x[tree.gather_BS]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad.flatten(0, 1)[ctx.tree.scatter_T], None


class _Unlay(torch.autograd.Function):
    """(B, S, H, D) -> (T, H, D), padding dropped; its gradient is 0 there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tree: TreeLayout) -> Tensor:
        ctx.tree = tree
        return x.flatten(0, 1)[tree.scatter_T]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        tree = ctx.tree
        trees, width = tree.gather_BS.shape
        laid = grad.new_zeros((trees * width, *grad.shape[1:])).index_put((tree.scatter_T,), grad)
        return laid.view(trees, width, *grad.shape[1:]), None


class _WrittenOut(torch.autograd.Function):
    """softmax(q k / sqrt(D) + bias) v with all scores in memory, float32 at least; (B, H, S, D) in and out.

    Queries that share a key head stand below each other, so keys and values are not repeated. Scores are made again in
    the backward pass instead of kept: at 512 tokens a tree they would be the largest thing a layer keeps.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scaling: float) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.bias, ctx.scaling = bias, scaling
        with torch.autocast(q.device.type, enabled=False):
            rows, keys, values = _grouped(q, k, v)
            share = _share(rows, keys, bias, scaling)
            return torch.bmm(share.to(values.dtype), values).view(q.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        q, k, v = ctx.saved_tensors
        if torch.is_grad_enabled():  # second derivatives are wanted (TRPO): by autograd, from the plain operations
            with torch.autocast(q.device.type, enabled=False):
                rows, keys, values = _grouped(q, k, v)
                out = torch.bmm(_share(rows, keys, ctx.bias, ctx.scaling).to(values.dtype), values).view(q.shape)
                needed = [x for x, need in zip((q, k, v), ctx.needs_input_grad, strict=False) if need]
                found = iter(torch.autograd.grad(out, needed, grad, create_graph=True))
                return (*(next(found) if need else None for need in ctx.needs_input_grad[:3]), None, None)
        with torch.autocast(q.device.type, enabled=False):
            rows, keys, values = _grouped(q, k, v)
            share = _share(rows, keys, ctx.bias, ctx.scaling)
            grad_rows = grad.to(values.dtype).reshape(rows.shape)
            value_grad = torch.bmm(share.to(values.dtype).transpose(1, 2), grad_rows)
            share_grad = torch.bmm(grad_rows, values.transpose(1, 2)).to(share.dtype)
            score_grad = torch._softmax_backward_data(share_grad, share, -1, share.dtype)
            score_grad = score_grad.mul_(ctx.scaling).to(values.dtype)
            query_grad = torch.bmm(score_grad, keys).view(q.shape).to(q.dtype)
            key_grad = torch.bmm(score_grad.transpose(1, 2), rows).view(k.shape).to(k.dtype)
        return query_grad, key_grad, value_grad.view(v.shape).to(v.dtype), None, None


def _grouped(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (B G, H/G S, D), keys and values (B G, S, D), G key heads, all in the values' precision."""
    trees, groups, size, width = k.shape
    rows = q.to(v.dtype).reshape(trees * groups, -1, width)
    return rows, k.to(v.dtype).reshape(trees * groups, size, width), v.reshape(trees * groups, size, width)


def _share(rows: Tensor, keys: Tensor, bias: Tensor, scaling: float) -> Tensor:
    """(B G, H/G S, S) weights of each query's keys."""
    trees, size = bias.shape[0], bias.shape[-1]
    # In float32: a product of bfloat16 matrices is rounded to bfloat16, and the differences of large scores are lost.
    score = torch.bmm(rows.to(bias.dtype), keys.to(bias.dtype).transpose(1, 2)).mul_(scaling)
    return (score.view(trees, -1, size, size) + bias).softmax(-1).view(score.shape)


AttentionInterface.register(NAME, tree_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
