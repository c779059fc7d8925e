"""Attention over packed prompt trees by flash attention (Dao 2023, arXiv:2307.08691), without a mask and padding.

What a token sees is one run of keys: its prompt, then its own past within its response. Of the first response of a tree
that run lies in the pack as it is; for each further one the keys and values of the prompt are laid before its own, by
one gather, and the kernel is causal with its last query at its last key. A prompt's gradients are then sums over
responses, taken in float32.

Dimensions: T tokens of the pack, S keys as they are laid out for the kernel, H query heads, G key heads, D width of a
head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from accord.trees import PromptTree

__all__ = ["FlashPlan", "attend", "attend_back", "flash_attention", "runs_on", "takes"]

HALVES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class FlashPlan:
    """The runs of a pack.

    Attributes:
        query_start: int32, where each run of queries begins in the pack, and T.
        key_start: int32, where its keys begin in the S, and S.
        longest_query: tokens of the longest run of queries.
        longest_key: and of keys.
        key_S: int64 index into T of each key, or None where they are the T in their order.
    """

    query_start: Tensor
    key_start: Tensor
    longest_query: int
    longest_key: int
    key_S: Tensor | None

    @classmethod
    def of(cls, trees: Sequence[PromptTree], device: torch.device) -> FlashPlan:
        """Laid out from lengths alone, so nothing waits for the device."""
        queries, keys, index = list[int](), list[int](), list[int]()
        at = 0
        for tree in trees:
            prompt = range(at, at + len(tree.prompt))
            at = prompt.stop
            for number, branch in enumerate(tree.branches):
                own = range(at, at + len(branch.tokens))
                keys.append(len(prompt) + len(own))
                queries.append(len(own) if number else keys[-1])
                index += prompt
                index += own
                at = own.stop

        def on_device(values: Sequence[int], dtype: torch.dtype) -> Tensor:
            return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)

        query_start = on_device([0, *accumulate(queries)], torch.int32)
        if len(index) == at:  # one response to each prompt
            return cls(query_start, query_start, max(queries), max(queries), None)
        key_start = on_device([0, *accumulate(keys)], torch.int32)
        return cls(query_start, key_start, max(queries), max(keys), on_device(index, torch.int64))


def takes(query: Tensor, value: Tensor, window: int | None) -> bool:
    """Whether the kernel takes these: half precision, a device of `runs_on`, no window."""
    width = query.shape[-1]
    return value.dtype in HALVES and width == value.shape[-1] and window is None and runs_on(value.device, width)


def runs_on(device: torch.device, width: int) -> bool:
    """Whether the kernel runs with heads of a width: on an NVIDIA GPU of compute capability 8.0 or more.

    `torch.nn.attention.sdpa_kernel` without FLASH_ATTENTION switches it off: it has no second derivatives (TRPO).
    """
    return (
        device.type == "cuda"
        and torch.version.hip is None  # another kernel under the same name, not tried
        and width % 8 == 0
        and width <= 256
        and bool(torch.backends.cuda.flash_sdp_enabled())  # type: ignore[no-untyped-call]
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


def flash_attention(q: Tensor, k: Tensor, v: Tensor, plan: FlashPlan, scaling: float) -> Tensor:
    """softmax(q k * scaling) v over the keys each query sees.

    Args:
        q: (T, H, D) queries.
        k: (T, G, D) keys, each of their heads read by H / G query heads.
        v: (T, G, D) values; all three are computed with in their dtype, scores and sums in float32.
        plan: of the pack.
        scaling: 1 / sqrt(D), mostly.
    Returns: (T, H, D).
    """
    result: Tensor = _Flash.apply(q.to(v.dtype), k.to(v.dtype), v, plan, scaling)  # type: ignore[no-untyped-call]
    return result


class _Flash(torch.autograd.Function):
    """`attend`, for autograd."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: FlashPlan, scaling: float) -> Tensor:
        kv = torch.cat([k, v], 1)
        out, lse = attend(q, kv, plan, scaling)
        ctx.save_for_backward(q, kv, out, lse)
        ctx.plan, ctx.scaling = plan, scaling
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        q, kv, out, lse = ctx.saved_tensors
        q_grad, k_grad, v_grad = attend_back(grad.contiguous(), q, kv, out, lse, ctx.plan, ctx.scaling)
        return q_grad, k_grad.to(kv.dtype), v_grad.to(kv.dtype), None, None


def attend(q: Tensor, kv: Tensor, plan: FlashPlan, scaling: float) -> tuple[Tensor, Tensor]:
    """(T, H, D) result and (H, T) float32 log-sum-exp of scores, of queries (T, H, D), and keys and values (T, 2 G, D).

    Without a graph.
    """
    out, lse, *_ = torch.ops.aten._flash_attention_forward(
        q, *_laid(kv, plan), *_runs(plan), 0.0, True, False, scale=scaling
    )
    assert lse.shape == (q.shape[1], len(q)), f"torch {torch.__version__} lays log-sum-exps out as {tuple(lse.shape)}"
    return out, lse


def attend_back(
    grad: Tensor, q: Tensor, kv: Tensor, out: Tensor, lse: Tensor, plan: FlashPlan, scaling: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values; those of keys and values float32 where they are sums over responses."""
    state = torch.empty(2, dtype=torch.uint64, device=q.device)  # of dropout, of which there is none: not read
    unused = torch.empty(0, device=q.device)
    q_grad, *grads = torch.ops.aten._flash_attention_backward(
        grad, q, *_laid(kv, plan), out, lse, *_runs(plan), 0.0, True, state, unused, scale=scaling
    )
    if plan.key_S is None:
        return (q_grad, *grads)
    wide = torch.promote_types(kv.dtype, torch.float32)
    sums = torch.zeros(kv.shape, dtype=wide, device=kv.device)
    halves = sums.chunk(2, 1)
    for half, part in zip(halves, grads, strict=True):
        half.index_add_(0, plan.key_S, part.to(wide))
    return (q_grad, *halves)


def _laid(kv: Tensor, plan: FlashPlan) -> tuple[Tensor, ...]:
    """(S, G, D) keys, and values."""
    return (kv if plan.key_S is None else kv.index_select(0, plan.key_S)).chunk(2, 1)


def _runs(plan: FlashPlan) -> tuple[Tensor, Tensor, int, int]:
    return plan.query_start, plan.key_start, plan.longest_query, plan.longest_key
