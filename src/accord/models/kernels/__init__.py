"""Kernels for a CPU: what a step does between its products in one pass over memory, attention, and products.

PyTorch runs such work operation by operation, each of which reads and writes all tokens. On a processor with units for
matrices in bfloat16 that is more than half of a training step (docs/log.md). The C++ beside this file is compiled once
for the machine at hand, in some seconds, by the compiler that is there (`CXX`, else c++, g++, clang++), and kept in
Accord's cache. Where there is none, where compiling fails, and with ACCORD_KERNELS=0, every caller goes on in PyTorch's
operations: slower, the same numbers up to rounding.

Each function returns None for what it does not take (other types, odd widths): the caller then does it itself. None of
them has a gradient: they are called within autograd functions, or where there are no gradients.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import profiler
from torch.profiler import record_function

from accord.models.kernels.build import MARK, library, threads_for
from accord.models.kernels.decoding import UNITS, best_unit

__all__ = [
    "MARK",
    "add_norm",
    "attend",
    "attend_back",
    "draw",
    "gate",
    "gate_back",
    "has_tiles",
    "linear",
    "linear_back",
    "logprob",
    "logprob_back",
    "norm",
    "norm_back",
    "turn",
    "weight_gradient",
]

_NAMES = {torch.float32: "f32", torch.bfloat16: "bf16"}
_STEP = 16  # floats of the widest register: widths are multiples of it


class _Shape(ctypes.Structure):
    _sizes_ = ("H", "G", "D", "W", "window")
    _fields_ = [*((name, ctypes.c_int64) for name in _sizes_), ("scaling", ctypes.c_float), ("threads", ctypes.c_int)]


def norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
    """Of (T, D) float32: bfloat16 w x r, and r = 1 / sqrt(mean(x^2) + eps), (T, 1)."""
    kernel = _kernel("norm", dtype, x, weight) if dtype == torch.bfloat16 else None
    if kernel is None or not _float32(x, weight) or weight.shape != x.shape[1:]:
        return None
    y, r = torch.empty_like(x, dtype=dtype), x.new_empty(len(x), 1)
    kernel(*_at(x, weight, y, r), *_longs(*x.shape), ctypes.c_float(eps), _threads(x))
    return y, r


def add_norm(x: Tensor, more: Tensor, weight: Tensor, eps: float) -> Tensor | None:
    """Add bfloat16 (R, D) to float32 x in place; bfloat16 w x / sqrt(mean(x^2) + eps) of the sum."""
    kernel = _kernel("add_norm", more.dtype, more, x, weight) if more.dtype == torch.bfloat16 else None
    if kernel is None or not _float32(x, weight) or more.shape != x.shape or weight.shape != x.shape[1:]:
        return None
    y = torch.empty_like(more)
    kernel(*_at(x, more, weight, y), *_longs(*x.shape), ctypes.c_float(eps), _threads(x))
    return y


def norm_back(
    grad: Tensor, x: Tensor, weight: Tensor, r: Tensor, of_weight: bool
) -> tuple[Tensor, Tensor | None] | None:
    """Gradients of x and of the weight (or None) from that of the result of `norm`."""
    kernel = _kernel("norm_back", grad.dtype, grad, x, weight) if grad.dtype == torch.bfloat16 else None
    fits = grad.shape == x.shape and weight.shape == x.shape[1:] and r.numel() == len(x) and r.is_contiguous()
    if kernel is None or not _float32(x, weight, r) or not fits:
        return None
    x_grad, weight_grad = torch.empty_like(x), torch.empty_like(weight) if of_weight else None
    kernel(*_at(grad, x, weight, r, x_grad, weight_grad), *_longs(*x.shape), _threads(x))
    return x_grad, weight_grad


def gate(gate: Tensor, up: Tensor) -> Tensor | None:
    """silu(gate) * up of (T, D), rounded twice as PyTorch's two operations do; both may be columns of one tensor."""
    same = gate.dim() == 2 and gate.shape == up.shape and gate.stride() == up.stride()
    kernel = _kernel("gate", gate.dtype, _rows(gate), _rows(up)) if same else None
    if kernel is None or up.dtype != gate.dtype:
        return None
    y = gate.new_empty(gate.shape)
    kernel(*_at(gate, up, y), *_longs(*gate.shape, gate.stride(0)), _threads(gate))
    return y


def gate_back(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor] | None:
    """Gradients of both."""
    kernel = _kernel("gate_back", gate.dtype, grad, gate, up)
    if kernel is None or not grad.dtype == gate.dtype == up.dtype or not grad.shape == gate.shape == up.shape:
        return None
    found = torch.empty_like(gate), torch.empty_like(up)
    kernel(*_at(grad, gate, up, *found), *_longs(gate.numel()), _threads(gate))
    return found


def turn(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
    """Heads (T, H, D) and (T, G, D), which may be columns of one tensor, turned by angles (T, 1, D / 2)."""
    cos, sin = cos.contiguous(), sin.contiguous()  # halves of what a family gives, and small
    kernel = _kernel("turn", dtype, _rows(q), _rows(k), cos, sin)
    width = cos.shape[-1]
    fits = cos.shape == sin.shape == (len(q), 1, width) and q.shape[-1] == k.shape[-1] == 2 * width and len(k) == len(q)
    if kernel is None or not q.dtype == k.dtype == dtype or not _float32(cos, sin) or not fits:
        return None
    turned = q.new_empty(q.shape), k.new_empty(k.shape)
    for x, y in zip((q, k), turned, strict=True):
        kernel(*_at(x, cos, sin, y), *_longs(len(x), x.shape[1], width, x.stride(0)), _threads(x))
    return turned


def attend(
    q: Tensor, k: Tensor, v: Tensor, segments: Tensor, trees: Tensor, window: int | None, scaling: float
) -> Tensor | None:
    """(T, H, W): attention over the prompt trees of a pack.

    Args:
        q: (T, H, D) queries.
        k: (T, G, D) keys, each of whose heads H / G query heads read.
        v: (T, G, W) values.
        segments: (S, 4) int64: first token and length of the prompt that is read (length 0: none), and of the tokens
            themselves, which also read their own past; of a tree first the prompt, then what reads it, none empty.
        trees: (B, 4) int64: first token, length, first segment and the one behind the last.
        window: in tokens, or None.
        scaling: of the products.
    """
    if library() is None:
        return None
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    kernel = _kernel(_of_heads("attend", q, v), q.dtype, q, k, v)
    if kernel is None or not q.dtype == k.dtype == v.dtype or not _fit(q, k, v, trees):
        return None
    out = v.new_empty(*q.shape[:2], v.shape[-1])
    kernel(*_at(q, k, v, out, segments, trees), *_longs(len(trees)), _shape(q, v, window, scaling))
    return out


def attend_back(
    q: Tensor, k: Tensor, v: Tensor, grad: Tensor, segments: Tensor, trees: Tensor, window: int | None, scaling: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Gradients of q, k and v from that of the result of `attend`."""
    if library() is None:
        return None
    q, k, v, grad = q.contiguous(), k.contiguous(), v.contiguous(), grad.contiguous()
    kernel = _kernel(_of_heads("attend_back", q, v), q.dtype, q, k, v, grad)
    if kernel is None or not q.dtype == k.dtype == v.dtype == grad.dtype or not _fit(q, k, v, trees):
        return None
    found = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    kernel(*_at(q, k, v, grad, *found, segments, trees), *_longs(len(trees)), _shape(q, v, window, scaling))
    return found


def logprob(
    raw_CV: Tensor, token_C: Tensor, scale: float, softcap: float | None, temperature: float, entropy: bool
) -> tuple[Tensor, Tensor | None] | None:
    """(C,) log-probability of each token under logits scale x raw / temperature, and (C,) entropy or None."""
    kernel = _kernel("logprob", raw_CV.dtype, raw_CV) if softcap is None else None
    if kernel is None or not _within(token_C, raw_CV):
        return None
    token_C, found = token_C.contiguous(), raw_CV.new_empty(len(raw_CV), dtype=torch.float32)
    entropy_C = torch.empty_like(found) if entropy else None
    times = ctypes.c_float(scale / temperature)
    kernel(*_at(raw_CV, token_C, found, entropy_C), *_longs(*raw_CV.shape), times, _threads(raw_CV))
    return found, entropy_C


def logprob_back(
    raw_CV: Tensor,
    token_C: Tensor,
    grad_logprob_C: Tensor,
    grad_entropy_C: Tensor | None,
    scale: float,
    softcap: float | None,
    temperature: float,
    bias: bool,
) -> Tensor | None:
    """Put the gradient of raw logits in their place, and return a tensor of nothing: a bias is left to PyTorch."""
    kernel = _kernel("logprob_back", raw_CV.dtype, raw_CV) if softcap is None and not bias else None
    given = [x for x in (grad_logprob_C, grad_entropy_C) if x is not None]
    if kernel is None or not _within(token_C, raw_CV) or any(x.shape != token_C.shape for x in given):
        return None
    token_C = token_C.contiguous()  # kept here, as what follows, until the kernel is done
    grads = [None if x is None else x.to(torch.float32).contiguous() for x in (grad_logprob_C, grad_entropy_C)]
    times = ctypes.c_float(scale / temperature)
    kernel(*_at(raw_CV, token_C, *grads), *_longs(*raw_CV.shape), times, _threads(raw_CV))
    return grad_logprob_C.new_empty(0)


def draw(logit_RV: Tensor, uniform_R: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor] | None:
    """(R,) a token drawn from each row at a temperature; its log-probability at temperature 1, and there.

    A token of -1: logits are not finite. `uniform_R`: float64 in [0, 1).
    """
    kernel = _kernel("draw", logit_RV.dtype, logit_RV) if logit_RV.dim() == 2 else None
    fits = uniform_R.dtype == torch.float64 and uniform_R.shape == logit_RV.shape[:1]
    if kernel is None or not fits or not temperature > 1e-38:  # one over it is to be a float32
        return None
    token_R, uniform_R = torch.empty_like(uniform_R, dtype=torch.int64), uniform_R.contiguous()
    logprob_R, drawn_R = torch.empty_like(uniform_R), torch.empty_like(uniform_R)
    times = ctypes.c_float(1 / temperature)
    kernel(*_at(logit_RV, uniform_R, token_R, logprob_R, drawn_R), *_longs(*logit_RV.shape), times, _threads(logit_RV))
    return token_R, logprob_R, drawn_R


def has_tiles() -> bool:
    """Whether there are matrix units, for the products of linear layers and for attention."""
    return best_unit() == UNITS.index("tiles")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    """(T, N) bfloat16 x @ weight.T + bias, of bfloat16 (T, K), and (N, K) and (N,) in bfloat16 or float32.

    Weight and bias are rounded to bfloat16 where they are read. None also where the processor has no matrix units.
    """
    kernel, threads = _of_weight("linear", x, weight, 1)
    if kernel is None or (bias is not None and (bias.device.type != "cpu" or bias.shape != weight.shape[:1])):
        return None
    if bias is not None:
        bias = bias.detach().to(torch.bfloat16).to(torch.float32)
    y = x.new_empty(x.shape[0], weight.shape[0])
    kernel(*_at(x, weight, bias, y), *_longs(x.shape[0], *weight.shape), threads)
    return y


def linear_back(grad: Tensor, weight: Tensor) -> Tensor | None:
    """(T, K) grad @ weight of bfloat16 (T, N): the gradient of what `linear` was given."""
    kernel, threads = _of_weight("linear_back", grad, weight, 0)
    if kernel is None:
        return None
    x_grad = grad.new_empty(grad.shape[0], weight.shape[1])
    kernel(*_at(grad, weight, x_grad), *_longs(grad.shape[0], *weight.shape), threads)
    return x_grad


def _of_weight(name: str, x: Tensor, weight: Tensor, axis: int) -> tuple[Any, Any]:
    """A product of rows with a weight along one of its axes, and the threads for it."""
    on_cpu = x.device.type == weight.device.type == "cpu"
    fits = on_cpu and x.dtype == torch.bfloat16 and x.dim() == weight.dim() == 2 and x.shape[1] == weight.shape[axis]
    if not (fits and weight.shape[0] % 32 == weight.shape[1] % 32 == 0 and has_tiles()):
        return None, None
    flop = 2 * weight.numel() * x.shape[0]
    return _kernel(name, weight.dtype, x, weight, flop=flop), _threads(weight, max(1, x.shape[0] // 32))


def weight_gradient(grad: Tensor, x: Tensor, add_to: Tensor | None = None) -> Tensor | None:
    """(N, K) float32 grad.T @ x of bfloat16 (T, N) and (T, K): a linear layer's gradient of its weight, not rounded.

    `add_to`: what it is added to, in place. None also where the processor has no matrix units.
    """
    (tokens, outputs), features = grad.shape, x.shape[-1]
    if not (x.dtype == grad.dtype == torch.bfloat16 and x.shape == (tokens, features) and has_tiles()):
        return None
    if outputs % 32 or features % 32:
        return None
    out = x.new_empty(outputs, features, dtype=torch.float32) if add_to is None else add_to
    kernel = _kernel("weight_gradient", x.dtype, x, grad, out, flop=2 * out.numel() * tokens)
    if kernel is None or not _float32(out) or out.shape != (outputs, features):
        return None
    how = ctypes.c_bool(add_to is not None), _threads(out, max(1, tokens // 32))
    kernel(*_at(grad, x, out), *_longs(tokens, outputs, features), *how)
    return out


def _kernel(name: str, dtype: torch.dtype, *args: Tensor, flop: int = 0) -> Any:
    """The function for a type, if these tensors are as it reads them; `flop`: of its products."""
    fits = all(x.device.type == "cpu" and x.is_contiguous() and x.shape[-1] % _STEP == 0 for x in args)
    if not (fits and dtype in _NAMES and args[0].numel()):
        return None
    found = getattr(library(), f"{name}_{_NAMES[dtype]}", None)
    profiled = found is not None and profiler._is_profiler_enabled  # which knows of PyTorch's operations alone
    return functools.partial(_recorded, f"{name} {flop or ''}".strip(), found) if profiled else found


def _recorded(name: str, kernel: Any, *args: Any) -> None:
    with record_function(MARK + name):
        kernel(*args)


def _rows(x: Tensor) -> Tensor:
    """One row of a tensor whose rows may stand apart: what has to be contiguous."""
    return x[:1]


def _at(*args: Tensor | None) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(None if x is None else x.data_ptr()) for x in args]


def _longs(*numbers: int) -> list[ctypes.c_int64]:
    return [ctypes.c_int64(x) for x in numbers]


def _float32(*args: Tensor) -> bool:
    return all(x.dtype == torch.float32 for x in args)


def _within(token_C: Tensor, raw_CV: Tensor) -> bool:
    """Whether each row of logits has a token, and one that it has a logit for."""
    fits = token_C.dtype == torch.int64 and token_C.shape == raw_CV.shape[:1]
    return fits and int(token_C.min()) >= 0 and int(token_C.max()) < raw_CV.shape[1]


def _fit(q: Tensor, k: Tensor, v: Tensor, trees: Tensor) -> bool:
    """Whether queries, keys and values are those of a pack of these trees."""
    one_pack = len(q) == len(k) == len(v) == int(trees[-1, 0] + trees[-1, 1])
    return one_pack and k.shape[1] == v.shape[1] and q.shape[1] % k.shape[1] == 0 and q.shape[2] == k.shape[2]


def _threads(x: Tensor, times: int = 1) -> ctypes.c_int:
    return ctypes.c_int(threads_for(x.numel() * times))


def _of_heads(name: str, q: Tensor, v: Tensor) -> str:
    """By matrix units where there are some and heads fit them."""
    fits = q.dtype == torch.bfloat16 and q.shape[-1] % 32 == v.shape[-1] % 32 == 0
    return name + "_tiles" if fits and has_tiles() else name


def _shape(q: Tensor, v: Tensor, window: int | None, scaling: float) -> Any:
    sizes: Sequence[int] = (q.shape[1], v.shape[1], q.shape[2], v.shape[2], max(window, 1) if window is not None else 0)
    return ctypes.byref(_Shape(*sizes, scaling, _threads(q, 16).value))  # it reads some keys at least
