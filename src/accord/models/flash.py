"""Attention over packed prompt trees by flash attention (Dao 2023, arXiv:2307.08691), without a mask and padding.

What a token sees is one or two runs of keys, and the kernel knows runs:

    own     every tree's prompt with its first response is one causal sequence, every further response another
    prompt  the further responses of a tree see all of its prompt

Two results over separate keys merge exactly by their log-sum-exp:  o = o1 exp(l1 - l) + o2 exp(l2 - l),
l = log(exp l1 + exp l2). Backward, each call gets the merged o and l: its weights exp(s - l) are then the final ones,
and gradients add up (as in ring attention; Liu et al. 2023, arXiv:2310.01889).

Dimensions: T tokens of the pack, L of its later responses, P of the prompts of these, H query heads, G key heads, D
width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from accord.trees import PromptTree

__all__ = ["FlashPlan", "flash_attention", "takes"]

HALVES = (torch.bfloat16, torch.float16)


class Runs(NamedTuple):
    """Queries and keys of one call: the places where runs begin, int32, and the longest ones."""

    query_start: Tensor
    key_start: Tensor
    longest_query: int
    longest_key: int


@dataclass(frozen=True)
class FlashPlan:
    """The calls of a pack.

    Attributes:
        own: causal, of all T tokens.
        prompt: of the L tokens that see the P, or None where no tree has a second response.
        later_L: int64 index into T, the tokens of later responses.
        prompt_P: int64 index into T, the prompts they see.
    """

    own: Runs
    prompt: Runs | None
    later_L: Tensor
    prompt_P: Tensor

    @classmethod
    def of(cls, trees: Sequence[PromptTree], device: torch.device) -> FlashPlan:
        """Laid out from lengths alone, so nothing waits for the device."""
        own, later, prompts = list[int](), list[int](), list[int]()
        later_at, prompt_at = list[int](), list[int]()
        at = 0
        for tree in trees:
            lengths = [len(branch.tokens) for branch in tree.branches]
            own += [len(tree.prompt) + lengths[0], *lengths[1:]]
            if len(lengths) > 1:
                later.append(sum(lengths[1:]))
                prompts.append(len(tree.prompt))
                later_at += range(at + len(tree.prompt) + lengths[0], at + tree.length)
                prompt_at += range(at, at + len(tree.prompt))
            at += tree.length

        def on_device(values: Sequence[int], dtype: torch.dtype) -> Tensor:
            return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)

        def starts(lengths: Sequence[int]) -> Tensor:
            return on_device([0, *accumulate(lengths)], torch.int32)

        own_start = starts(own)
        return cls(
            own=Runs(own_start, own_start, max(own), max(own)),
            prompt=Runs(starts(later), starts(prompts), max(later), max(prompts)) if later else None,
            later_L=on_device(later_at, torch.int64),
            prompt_P=on_device(prompt_at, torch.int64),
        )


def takes(query: Tensor, value: Tensor, window: int | None) -> bool:
    """Whether the kernel takes these: half precision, an NVIDIA GPU of compute capability 8.0 or more, no window.

    `torch.nn.attention.sdpa_kernel` without FLASH_ATTENTION switches it off: it has no second derivatives (TRPO).
    """
    width = query.shape[-1]
    return (
        value.device.type == "cuda"
        and torch.version.hip is None  # another kernel under the same name, not tried
        and window is None
        and value.dtype in HALVES
        and width == value.shape[-1]
        and width % 8 == 0
        and width <= 256
        and bool(torch.backends.cuda.flash_sdp_enabled())  # type: ignore[no-untyped-call]
        and torch.cuda.get_device_capability(value.device) >= (8, 0)
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
    """Both calls, merged."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: FlashPlan, scaling: float) -> Tensor:
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        out, lse = _forward(q, k, v, plan.own, True, scaling)
        if plan.prompt is not None:
            later, prompt = plan.later_L, plan.prompt_P
            other, other_lse = _forward(q[later], k[prompt], v[prompt], plan.prompt, False, scaling)
            merged, merged_lse = _merged(out[later], lse[:, later], other, other_lse)
            out[later], lse[:, later] = merged, merged_lse
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.plan, ctx.scaling = plan, scaling
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        q, k, v, out, lse = ctx.saved_tensors
        plan, grad = ctx.plan, grad.contiguous()
        grads = _backward(grad, q, k, v, out, lse, plan.own, True, ctx.scaling)
        if plan.prompt is not None:
            later, prompt = plan.later_L, plan.prompt_P
            parts = _backward(
                *(grad[later], q[later], k[prompt], v[prompt], out[later], lse[:, later].contiguous()),
                *(plan.prompt, False, ctx.scaling),
            )
            for whole, index, part in zip(grads, (later, prompt, prompt), parts, strict=True):
                whole.index_add_(0, index, part)  # no index twice
        return (*grads, None, None)


def _merged(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> tuple[Tensor, Tensor]:
    """(L, H, D) and (H, L) of attention over both sets of keys."""
    total = torch.logaddexp(lse, other_lse)
    share, other_share = ((x - total).exp().T.unsqueeze(-1) for x in (lse, other_lse))
    return (out * share + other * other_share).to(out.dtype), total


def _forward(q: Tensor, k: Tensor, v: Tensor, runs: Runs, causal: bool, scaling: float) -> tuple[Tensor, Tensor]:
    """(T, H, D) result and (H, T) float32 log-sum-exp of scores, of one call."""
    out, lse, *_ = torch.ops.aten._flash_attention_forward(q, k, v, *runs, 0.0, causal, False, scale=scaling)
    assert lse.shape == (q.shape[1], len(q)), f"torch {torch.__version__} lays log-sum-exps out as {tuple(lse.shape)}"
    return out, lse


def _backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    runs: Runs,
    causal: bool,
    scaling: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v of one call."""
    state = torch.zeros(2, dtype=torch.uint64, device=q.device)  # of dropout, of which there is none
    unused = torch.empty(0, device=q.device)
    gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.aten._flash_attention_backward(
        grad, q, k, v, out, lse, *runs, 0.0, causal, state, unused, scale=scaling
    )
    return gradients
