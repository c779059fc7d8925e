"""A step of decoding in one call: what `decoding.cpp` asks for, from a decoder's tensors."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import profiler
from torch.profiler import record_function

from accord.models.kernels.build import MARK, library, threads_for

__all__ = ["UNITS", "Layer", "Linear", "Steps", "best_unit"]

UNITS = ("vectors", "pairs", "tiles")
"""What multiplies bfloat16: float32 vectors, pairs of bfloat16, matrix units. Each has all before it."""
_NAMES = {torch.float32: "f32", torch.bfloat16: "bf16"}
_FEATURES, _OUTPUTS = 32, 16  # what widths are multiples of, fewest words of a vocabulary
_SIZES = ("layers", "rows", "hidden", "inner", "vocabulary", "H", "G", "D", "room", "column")


_PRODUCTS, _NORMS = ("heads", "output", "gate_up", "down"), ("norm", "norm_mlp", "norm_query", "norm_key")


class _Weights(ctypes.Structure):
    _fields_ = [
        ("weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("down", ctypes.c_void_p),
        ("rank", ctypes.c_int64),
    ]


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, _Weights) for name in _PRODUCTS),
        *((name, ctypes.c_void_p) for name in (*_NORMS, "keys", "values")),
    ]


class _Step(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in _SIZES),
        *((name, ctypes.c_float) for name in ("eps", "eps_heads", "scaling")),
        *((name, ctypes.c_int) for name in ("unit", "threads")),
    ]


@dataclass(frozen=True)
class Linear:
    """x @ weight.T + bias; with an adapter what it makes of x stands behind x, and is summed in the same product.

    Attributes:
        weight: (outputs, features + rank).
        bias: (outputs).
        down: (rank, features).
    """

    weight: Tensor
    bias: Tensor | None
    down: Tensor | None = None

    @property
    def rank(self) -> int:
        """How many features the adapter adds."""
        return 0 if self.down is None else len(self.down)

    def __call__(self, x: Tensor) -> Tensor:
        """(R, outputs) of (R, features)."""
        if self.down is not None:
            x = torch.cat([x, torch.nn.functional.linear(x, self.down)], -1)
        return torch.nn.functional.linear(x, self.weight, self.bias)


@dataclass(frozen=True)
class Layer:
    """Weights of a layer: queries, keys and values are one product, gate and up another; norms of heads may be None."""

    heads: Linear
    output: Linear
    gate_up: Linear
    down: Linear
    norm: Tensor
    norm_mlp: Tensor
    norm_query: Tensor | None
    norm_key: Tensor | None


class Steps:
    """Weights laid out for `decode`; they are read where they are, so the tensors stay alive with this object."""

    def __init__(self, kernel: Any, layers: Sequence[Layer], head: Linear, norm: Tensor, sizes: dict[str, Any]) -> None:
        self._kernel, self._sizes, self._kept = kernel, sizes, list[Tensor]()
        self._layers = (_Layer * len(layers))()
        for at, layer in zip(self._layers, layers, strict=True):
            for name in _PRODUCTS:
                product: Linear = getattr(layer, name)
                bias = self._keep(product.bias, torch.float32)
                setattr(at, name, _Weights(self._keep(product.weight), bias, self._keep(product.down), product.rank))
            for name in _NORMS:
                setattr(at, name, self._keep(getattr(layer, name), torch.float32))
        self._weights = sum(x.numel() for x in self._kept if x.dim() == 2) + head.weight.numel()
        self._head = self._keep(head.weight), self._keep(head.bias, torch.float32)
        self._norm = self._keep(norm, torch.float32)
        self._dtype = head.weight.dtype

    @classmethod
    def of(
        cls,
        layers: Sequence[Layer],
        head: Linear,
        norm: Tensor,
        *,
        key_heads: int,
        eps: float,
        eps_heads: float,
        scaling: float,
        unit: str | None = None,
    ) -> Steps | None:
        """None where there is no kernel for these types and widths, or no compiler.

        Args:
            layers: one after the other.
            head: of the vocabulary.
            norm: weight of the last norm, before the head.
            key_heads: of keys and values.
            eps: of all norms of states.
            eps_heads: of norms of queries and keys.
            scaling: of the products of queries and keys.
            unit: one of UNITS; None: the best there is.
        """
        first = layers[0]
        dtype, hidden, read, inner = head.weight.dtype, head.weight.shape[1], _width(first.output), _width(first.down)
        heads = (len(first.heads.weight) - read) // 2 // key_heads  # width of one
        linear = [x for layer in layers for x in (layer.heads, layer.output, layer.gate_up, layer.down)]
        shapes = [(read + 2 * key_heads * heads, hidden), (hidden, read), (2 * inner, hidden), (hidden, inner)]
        same = [(len(x.weight), _width(x)) for x in linear] == shapes * len(layers)
        same = same and all(x.down is None or tuple(x.down.shape) == (x.rank, _width(x)) for x in linear)
        weights = [x for part in (*linear, head) for x in (part.weight, part.down) if x is not None]
        same = same and all(x.dtype == dtype and x.device.type == "cpu" for x in weights)
        fits = all(x > 0 and x % _FEATURES == 0 for x in (hidden, inner, heads, read))
        fits = fits and head.rank == 0 and all(x.rank % _FEATURES == 0 for x in linear)
        fits = fits and read % (key_heads * heads) == 0 and len(head.weight) >= _OUTPUTS
        kernel = getattr(library(), f"decode_{_NAMES.get(dtype)}", None) if fits and same else None
        if kernel is None:
            return None
        best = best_unit() if dtype == torch.bfloat16 else 0
        found = best if unit is None else UNITS.index(unit)
        if found > best:
            return None
        sizes: dict[str, Any] = {
            "layers": len(layers),
            "hidden": hidden,
            "inner": inner,
            "vocabulary": len(head.weight),
        }
        sizes |= {"unit": found, "H": read // heads, "G": key_heads, "D": heads, "eps": eps, "eps_heads": eps_heads}
        return cls(kernel, layers, head, norm, sizes | {"scaling": scaling})

    def __call__(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        column: int,
        first_R: Tensor,
    ) -> Tensor | None:
        """(R, V) logits behind one token a row; its keys and values are written into the buffers. None: does not fit.

        Args:
            x: (R, D) float32 embedded tokens.
            cos: (R, half a head) float32 of their positions.
            sin: likewise.
            keys: a buffer (R, G, T, head size) for each layer, written at `column`.
            values: likewise.
            column: of these tokens; what is behind it is not read.
            first_R: int64, the first column each row has; all from there to `column` are its own.
        """
        rows, room = len(x), keys[0].shape[2]
        sizes = self._sizes
        shape = (rows, sizes["G"], room, sizes["D"])
        fits = all(b.shape == shape and b.dtype == self._dtype and b.is_contiguous() for b in (*keys, *values))
        angles = (rows, sizes["D"] // 2)
        fits = fits and x.shape == (rows, sizes["hidden"]) and cos.shape == sin.shape == angles
        fits = fits and all(y.dtype == torch.float32 and y.is_contiguous() for y in (x, cos, sin))
        first_R = first_R.contiguous()
        fits = (
            fits
            and rows > 0
            and len(keys) == len(values) == sizes["layers"]
            and 0 <= column < room
            and first_R.shape == (rows,)
        )
        if not (fits and first_R.dtype == torch.int64 and int(first_R.min()) >= 0 and int(first_R.max()) <= column):
            return None
        for at, key, value in zip(self._layers, keys, values, strict=True):
            at.keys, at.values = key.data_ptr(), value.data_ptr()
        out = x.new_empty(rows, sizes["vocabulary"], dtype=self._dtype)
        step = _Step(**sizes, rows=rows, room=room, column=column, threads=threads_for(self._weights))
        at = [ctypes.c_void_p(y.data_ptr()) for y in (x, cos, sin, first_R, out)]
        head, bias = map(ctypes.c_void_p, self._head)
        flop = 2.0 * rows * self._weights
        with record_function(f"{MARK}decode {flop}") if profiler._is_profiler_enabled else nullcontext():
            self._kernel(ctypes.byref(step), self._layers, head, bias, ctypes.c_void_p(self._norm), *at)
        return out

    def _keep(self, x: Tensor | None, dtype: torch.dtype | None = None) -> int | None:
        """Address of a tensor that stays."""
        if x is None:
            return None
        self._kept.append(x.detach().to(dtype or x.dtype).contiguous())
        return self._kept[-1].data_ptr()


def _width(part: Linear) -> int:
    """Features, without those an adapter adds."""
    return part.weight.shape[1] - part.rank


@functools.cache
def best_unit() -> int:
    """What multiplies bfloat16 here, as a place in UNITS; asks the system for matrix units."""
    found = library()
    return -1 if found is None else int(found.best_unit_of_bf16())
