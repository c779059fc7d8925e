"""A decoder layer of the Llama kind as one function whose backward pass is written out: on a GPU, in bfloat16.

    n = norm(x) w1           [q k v] = n Wqkv' + b       a = attention(turn q, turn k, v)      m = x + a Wo'
    l = norm(m) w2           [g u] = l Wgu'              h = silu(g) u                         y = m + h Wd'

A GPU computes a pack of a few thousand tokens faster than autograd, autocast and modules can ask for it: some 120
kernels a layer, both ways. Written out there are some 40. Queries, keys and values come of one product, gate and up of
another; a sum of the residual stream and the norm behind it are one pass; gradients of weights are written in float32
by the product that sums them, not rounded first. Kept for the backward pass are x, m, [q k v] turned, a, and [g u];
norms and h are made again from these. Matrices are rounded to bfloat16 layer by layer, into a room that the next layer
takes over: no copy of all of them is kept. What that buys: docs/decisions/0049-whole-layers.md.

Dimensions: T tokens of the pack, M width of the states, H query heads, G key heads, N = H + 2 G, D width of a head, I
inner width of the gates.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from accord.models.flash import FlashPlan, attend, attend_back
from accord.models.fused import fused
from accord.models.in_place import product, there
from accord.models.norms import normal
from accord.models.rotation import turn

__all__ = ["HALF", "Sizes", "Weights", "whole_layer"]

HALF = torch.bfloat16
"""What is computed in; the states between layers are float32."""

Gradients: TypeAlias = list[Tensor | None]


class Sizes(NamedTuple):
    """What is constant of a layer, and alike for all layers of most models."""

    hidden: int
    heads: int
    groups: int
    width: int
    inner: int
    bias: bool
    eps: tuple[float, float]
    scaling: float


class Weights(NamedTuple):
    """Parameters of a layer, in the order in which they get their gradients."""

    norm: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    o: Tensor
    next_norm: Tensor
    gate: Tensor
    up: Tensor
    down: Tensor
    q_bias: Tensor | None = None
    k_bias: Tensor | None = None
    v_bias: Tensor | None = None

    @property
    def biases(self) -> list[Tensor]:
        """Those of q, k and v, or none."""
        return [bias for bias in (self.q_bias, self.k_bias, self.v_bias) if bias is not None]


class Matrices(NamedTuple):
    """Those of a layer in bfloat16: (N D, M), (M, H D), (2 I, M), (M, I) and (N D) or None."""

    qkv: Tensor
    o: Tensor
    gate_up: Tensor
    down: Tensor
    bias: Tensor | None


class Kept(NamedTuple):
    """What the backward pass needs, but for the parameters: names as in the head of this file, r inverse sizes."""

    x: Tensor
    r: Tensor
    cos: Tensor
    sin: Tensor
    qkv: Tensor
    a: Tensor
    lse: Tensor
    m: Tensor
    next_r: Tensor
    gate_up: Tensor


def whole_layer(x: Tensor, cos: Tensor, sin: Tensor, plan: FlashPlan, sizes: Sizes, weights: Weights) -> Tensor:
    """A layer over a pack.

    Args:
        x: (T, M) float32.
        cos: (T, 1, D / 2) float32, of the angles by which each place turns.
        sin: likewise.
        plan: which keys each token sees.
        sizes: of the layer.
        weights: its parameters, float32, or bfloat16 where they are constant.
    Returns: (T, M) float32.
    """
    y: Tensor = _Layer.apply(x, cos, sin, sizes, plan, *weights)  # type: ignore[no-untyped-call]
    return y


class _Layer(torch.autograd.Function):
    """x (T, M) float32, and angles (T, 1, D / 2), to y (T, M) float32."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, sizes: Sizes, plan: FlashPlan, *parameters: Tensor
    ) -> Tensor:
        weights = Weights(*parameters)
        with torch.autocast(x.device.type, enabled=False):
            matrices = _rooms.filled(weights, sizes)
            n, r = normal(x, weights.norm, sizes.eps[0], HALF)
            qkv = nn.functional.linear(n, matrices.qkv, matrices.bias).view(len(x), -1, sizes.width)
            qkv = _turned(qkv, cos, sin, sizes.heads + sizes.groups)
            a, lse = attend(qkv[:, : sizes.heads], qkv[:, sizes.heads :], plan, sizes.scaling)
            m, n, next_r = _sum_normal(x, a.flatten(1) @ matrices.o.T, weights.next_norm, sizes.eps[1], HALF)
            gate_up = n @ matrices.gate_up.T
            y = m + _gated(gate_up) @ matrices.down.T
        ctx.save_for_backward(*Kept(x, r, cos, sin, qkv, a, lse, m, next_r, gate_up), *parameters)
        ctx.sizes, ctx.plan = sizes, plan
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        count, saved = len(Kept._fields), ctx.saved_tensors
        kept, weights, of = Kept(*saved[:count]), Weights(*saved[count:]), Weights(*ctx.needs_input_grad[5:])
        with torch.autocast(grad.device.type, enabled=False):
            matrices = _rooms.filled(weights, ctx.sizes)
            m_grad, rounded, later = _back_to_m(grad, kept, weights, matrices, ctx.sizes, of)
            x_grad, earlier, biases = _back_to_x(m_grad, rounded, kept, weights, matrices, ctx.sizes, of, ctx.plan)
        return x_grad, None, None, None, None, *earlier, *later, *biases


def _back_to_m(
    grad: Tensor, kept: Kept, weights: Weights, matrices: Matrices, sizes: Sizes, of: Weights
) -> tuple[Tensor, Tensor, Gradients]:
    """Gradient of m, in float32 and rounded; of the second norm, gate, up and down, where `of` says so."""
    rounded = grad.to(HALF)
    of_norm = kept.m, weights.next_norm, kept.next_r, HALF
    h, gate_up_grad, n = _gated_back(rounded @ matrices.down, kept.gate_up, *of_norm)
    down = _weight_gradient(rounded, h, weights.down) if of.down else None
    del h
    gate, up = _parts(gate_up_grad, n, (weights.gate, weights.up), (of.gate, of.up))
    del n
    n_grad = gate_up_grad @ matrices.gate_up
    m_grad, rounded, norm = _normal_back(n_grad, kept.m, weights.next_norm, kept.next_r, grad, bool(of.next_norm), HALF)
    return m_grad, rounded, [norm, gate, up, down]


def _back_to_x(
    m_grad: Tensor,
    rounded: Tensor,
    kept: Kept,
    weights: Weights,
    matrices: Matrices,
    sizes: Sizes,
    of: Weights,
    plan: FlashPlan,
) -> tuple[Tensor, Gradients, Gradients]:
    """Gradient of x; of the first norm, q, k, v and o; of biases."""
    o = _weight_gradient(rounded, kept.a.flatten(1), weights.o) if of.o else None
    a_grad = (rounded @ matrices.o).view(kept.a.shape)
    query, keys = kept.qkv[:, : sizes.heads], kept.qkv[:, sizes.heads :]
    parts = attend_back(a_grad, query, keys, kept.a, kept.lse, plan, sizes.scaling)
    qkv_grad, n = _turned_back(*parts, kept.cos, kept.sin, kept.x, weights.norm, kept.r, HALF)
    qkv_grad, rows = qkv_grad.flatten(1), [count * sizes.width for count in (sizes.heads, sizes.groups, sizes.groups)]
    q, k, v = _parts(qkv_grad, n, (weights.q, weights.k, weights.v), (of.q, of.k, of.v))
    biases: Gradients = [None, None, None]
    if of.q_bias or of.k_bias or of.v_bias:
        biases = [*torch.split(qkv_grad.sum(0, dtype=torch.float32), rows)]
    n_grad = qkv_grad @ matrices.qkv
    x_grad, _, norm = _normal_back(n_grad, kept.x, weights.norm, kept.r, m_grad, bool(of.norm), HALF)
    return x_grad, [norm, q, k, v, o], biases


def _parts(grad: Tensor, n: Tensor, weights: tuple[Tensor, ...], needed: tuple[Any, ...]) -> Gradients:
    """Gradients of weights that stand below each other in one product, where they are needed."""
    rows = [len(weight) for weight in weights]
    if not any(needed):
        return [None for _ in rows]
    if not all(needed) or any(there(weight) is not None for weight in weights):
        parts = zip(torch.split(grad, rows, 1), weights, needed, strict=True)
        return [_weight_gradient(part, n, weight) if need else None for part, weight, need in parts]
    return [*torch.split(product(grad.T, n), rows)]


def _weight_gradient(grad: Tensor, n: Tensor, weight: Tensor) -> Tensor | None:
    """(rows of the weight, its columns) grad.T @ n, or None if it was added to what is there."""
    total = there(weight)
    if total is None:
        return product(grad.T, n)
    product(grad.T, n, total)
    return None


class _Rooms(threading.local):
    """Where the matrices of a layer are laid out.

    A thread has one room, which stays when the model is gone; its passes come one after the other, on one stream.
    """

    def __init__(self) -> None:
        self._key: Any = None
        self._matrices: Matrices
        self._slots: list[Tensor] = []

    def filled(self, weights: Weights, sizes: Sizes) -> Matrices:
        """The matrices of this layer, until those of another one are asked for."""
        # What is made in inference mode can be written in no other.
        key = weights.q.device, HALF, sizes, torch.is_inference_mode_enabled()
        if key != self._key:
            self._matrices = _empty(sizes, weights.q.device)
            self._slots, self._key = _slots(self._matrices, sizes), key
        given = [weights.q, weights.k, weights.v, weights.o, weights.gate, weights.up, weights.down, *weights.biases]
        torch._foreach_copy_(self._slots, given)
        return self._matrices


_rooms = _Rooms()


def _empty(sizes: Sizes, device: torch.device) -> Matrices:
    def matrix(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=HALF, device=device)

    rows = (sizes.heads + 2 * sizes.groups) * sizes.width
    return Matrices(
        qkv=matrix(rows, sizes.hidden),
        o=matrix(sizes.hidden, sizes.heads * sizes.width),
        gate_up=matrix(2 * sizes.inner, sizes.hidden),
        down=matrix(sizes.hidden, sizes.inner),
        bias=matrix(rows) if sizes.bias else None,
    )


def _slots(matrices: Matrices, sizes: Sizes) -> list[Tensor]:
    """The places of q, k, v, o, gate, up, down, and of the biases."""
    rows = [count * sizes.width for count in (sizes.heads, sizes.groups, sizes.groups)]
    q_k_v, gate_up = torch.split(matrices.qkv, rows), torch.split(matrices.gate_up, sizes.inner)
    biases = () if matrices.bias is None else torch.split(matrices.bias, rows)
    return [*q_k_v, matrices.o, *gate_up, matrices.down, *biases]


# -- what stands between the products: one kernel each -----------------------------------------------------------------


@fused(tokens=0)
def _turned(qkv: Tensor, cos: Tensor, sin: Tensor, heads: int) -> Tensor:
    """(T, N, D): the first heads, queries and keys, turned by their angles."""
    return torch.cat([turn(qkv[:, :heads], cos, sin).to(qkv.dtype), qkv[:, heads:]], 1)


@fused(tokens=0)
def _turned_back(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos: Tensor,
    sin: Tensor,
    x: Tensor,
    weight: Tensor,
    r: Tensor,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """(T, N, D) gradient of what `_turned` was given, and the norm of x before it again."""
    grad = torch.cat([turn(q, cos, -sin).to(dtype), turn(k, cos, -sin).to(dtype), v.to(dtype)], 1)
    return grad, (x * r * weight).to(dtype)


@fused(tokens=0)
def _sum_normal(
    x: Tensor, part: Tensor, weight: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum, its norm rounded, and the inverse size of the sum."""
    total = x + part
    r = torch.rsqrt(total.pow(2).mean(-1, keepdim=True) + eps)
    return total, (total * r * weight).to(dtype), r


@fused(tokens=0)
def _normal_back(
    grad: Tensor, x: Tensor, weight: Tensor, r: Tensor, plus: Tensor, of_weight: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradient of x by its norm and `plus`, in float32 and rounded, and that of the weight (accord.models.norms)."""
    wide, n = grad.float(), x * r
    scaled = wide * weight
    total = (scaled - n * (scaled * n).mean(-1, keepdim=True)) * r + plus
    return total, total.to(dtype), (wide * n).sum(0) if of_weight else None


@fused(tokens=0)
def _gated(gate_up: Tensor) -> Tensor:
    """silu(g) u."""
    gate, up = gate_up.chunk(2, -1)
    return nn.functional.silu(gate) * up


@fused(tokens=0)
def _gated_back(
    grad: Tensor, gate_up: Tensor, m: Tensor, weight: Tensor, r: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """silu(g) u, the gradient of [g u], and the norm of m before it again."""
    gate, up = gate_up.chunk(2, -1)
    activated = nn.functional.silu(gate)
    of_gate = torch.ops.aten.silu_backward(grad * up, gate)
    return activated * up, torch.cat([of_gate, grad * activated], -1), (m * r * weight).to(dtype)
