"""Attention over packed prompt trees, through transformers' public attention registry: no model code is patched.

A pack is one flat row of T tokens. Linear layers, norms and the head run on it as it is; attention alone needs to know
who may see whom: a response token sees its prompt and its own past, never a sibling or another tree. On a CPU that is
computed block by block (`accord.models.blocks`), on a GPU in half precision by flash attention over runs of tokens
(`accord.models.flash`). Elsewhere (float32 on a GPU, sliding windows there, dropout in attention) torch's fused kernel
gets a mask, and the trees side by side as (B, S), padded to the longest tree of the pack.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from accord.models.blocks import BlockPlan, block_attention
from accord.models.flash import FlashPlan, flash_attention, takes
from accord.trees import PromptTree, TreeBatch

__all__ = ["NAME", "TreeLayout", "UnsupportedAttention"]

NAME = "accord_tree"


class UnsupportedAttention(ValueError):
    """The model's attention asks for something the tree attention does not do; score one row per response instead."""


class TreeLayout:
    """What each token of a pack may see, in the form each kernel wants; made when it is asked for."""

    def __init__(self, batch: TreeBatch) -> None:
        self._batch = batch

    @property
    def trees(self) -> tuple[PromptTree, ...]:
        """Of the pack."""
        return self._batch.trees

    @cached_property
    def blocks(self) -> BlockPlan:
        """The pack cut into blocks of queries, for a CPU."""
        return BlockPlan(self._batch)

    @cached_property
    def runs(self) -> FlashPlan:
        """The pack as runs of queries and of keys, for flash attention."""
        return FlashPlan.of(self._batch.trees, self._batch.token_T.device)

    @cached_property
    def padded(self) -> Padded:
        """The trees side by side, with masks."""
        return Padded(self._batch)


class Padded:
    """Where each token of a pack stands in the (B, S) attention layout, and what it may see there.

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

    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # (T, H, D)
    kind = query.device.type
    v = v.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else v
    if _in_blocks(kind, dropout):
        out = block_attention(q, k, v, tree.blocks, sliding_window, scaling)
    elif not dropout and takes(q, v, sliding_window):
        out = flash_attention(q, k, v, tree.runs, scaling)
    else:
        out = _masked(q, k, v, tree.padded, sliding_window, scaling, dropout)
    return out.unsqueeze(0), None


def _masked(
    q: Tensor, k: Tensor, v: Tensor, padded: Padded, window: int | None, scaling: float, dropout: float
) -> Tensor:
    """(T, H, D), by torch's kernel and a mask."""
    q, k, v = (_Lay.apply(x, padded).transpose(1, 2) for x in (q, k, v))  # type: ignore[no-untyped-call]  # (B, H, S, D)
    repeats = q.shape[1] // k.shape[1]
    if repeats > 1:
        k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    out = scaled_dot_product_attention(q, k, v, padded.mask(window), dropout, scale=scaling)
    flat: Tensor = _Unlay.apply(out.transpose(1, 2), padded)  # type: ignore[no-untyped-call]
    return flat


def _in_blocks(device: str, dropout: float) -> bool:
    """On a CPU torch's kernel with a mask takes up to five times as long; it alone has dropout."""
    return device == "cpu" and not dropout


class _Lay(torch.autograd.Function):
    """(T, H, D) -> (B, S, H, D), padding filled with row 0.

    Its gradient is a plain gather, because no real token reads padding: autograd would add up row by row instead.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, padded: Padded) -> Tensor:
        ctx.padded = padded
        return x[padded.gather_BS]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad.flatten(0, 1)[ctx.padded.scatter_T], None


class _Unlay(torch.autograd.Function):
    """(B, S, H, D) -> (T, H, D), padding dropped; its gradient is 0 there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, padded: Padded) -> Tensor:
        ctx.padded = padded
        return x.flatten(0, 1)[padded.scatter_T]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        padded = ctx.padded
        trees, width = padded.gather_BS.shape
        laid = grad.new_zeros((trees * width, *grad.shape[1:])).index_put((padded.scatter_T,), grad)
        return laid.view(trees, width, *grad.shape[1:]), None


AttentionInterface.register(NAME, tree_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
