"""The linear layers of a decoding step, from a model's weights and the low-rank adapters that are switched on.

An adapter stays apart from the weight it belongs to: added to a weight in bfloat16 a small one would be rounded away,
and samples would be the reference's. On a CPU one product computes several layers and their adapters, whose inner
features stand behind the others. On a GPU, where a step is a graph and one kernel more costs little, weights that are
of the step's dtype already are read where they are: a copy of a large frozen model might not find room.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from accord.models.kernels.decoding import Linear
from accord.models.linear import is_hooked

__all__ = ["Apart", "Product", "in_float32", "product_of"]

_FEATURES = 32  # what the kernel of a step wants the width of a product to be a multiple of


@dataclass(frozen=True)
class Part:
    """x @ weight.T + bias + (x @ down.T) @ up.

    Attributes:
        weight: (outputs, features).
        bias: (outputs).
        down: (rank, features), of the adapter.
        up: (rank, outputs), of the adapter.
    """

    weight: Tensor
    bias: Tensor | None
    down: Tensor | None
    up: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """(R, outputs) of (R, features)."""
        y = nn.functional.linear(x, self.weight, self.bias)
        return y if self.up is None else y.addmm_(x @ self.down.T, self.up)  # type: ignore[union-attr]


@dataclass(frozen=True)
class Apart:
    """Layers that read the same x and keep their own weights."""

    parts: tuple[Part, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """(R, all outputs) of (R, features)."""
        found = [part(x) for part in self.parts]
        return found[0] if len(found) == 1 else torch.cat(found, -1)


Product = Linear | Apart


def product_of(modules: Sequence[nn.Module], dtype: torch.dtype, *, apart: bool = False) -> Product:
    """Several layers that read the same x as one.

    Args:
        modules: linear layers, PEFT-wrapped or not.
        dtype: of x.
        apart: no weight is copied, whatever its dtype; for `in_float32`.

    Raises: ValueError: a layer has an adapter of another kind than the low-rank one.
    """
    weights = [_base_layer(module).weight.detach() for module in modules]
    biases = [getattr(_base_layer(module), "bias", None) for module in modules]
    adapters = [_adapter(module, dtype) for module in modules]
    adapted = any(adapter is not None for adapter in adapters)
    if apart or (adapted and all(weight.dtype == dtype for weight in weights) and _in_place(weights[0].device)):
        parts = zip(weights, biases, adapters, strict=True)
        return Apart(tuple(Part(w, None if b is None else b.to(dtype), *(a or (None, None))) for w, b, a in parts))
    bias: Tensor | None = None
    if any(bias is not None for bias in biases):
        found = [w.new_zeros(len(w)) if b is None else b.detach() for w, b in zip(weights, biases, strict=True)]
        bias = torch.cat([part.to(dtype) for part in found])
    downs = [adapter[0] for adapter in adapters if adapter is not None]
    rank = -(-sum(map(len, downs)) // _FEATURES) * _FEATURES
    if len(weights) == 1 and not rank:
        return Linear(weights[0].to(dtype), bias)
    features = weights[0].shape[1]
    joined = weights[0].new_zeros(sum(map(len, weights)), features + rank, dtype=dtype)
    row, column = 0, features
    for weight, adapter in zip(weights, adapters, strict=True):
        rows = joined[row : row + len(weight)]
        rows[:, :features].copy_(weight)  # cast where it comes to lie
        if adapter is not None:
            inner = len(adapter[0])
            rows[:, column : column + inner].copy_(adapter[1].T)
            column += inner
        row += len(weight)
    if not rank:
        return Linear(joined, bias)
    down = joined.new_zeros(rank, features)
    torch.cat(downs, out=down[: column - features])
    return Linear(joined, bias, down)


def _in_place(device: torch.device) -> bool:
    return device.type != "cpu"


def _base_layer(module: Any) -> Any:
    return getattr(module, "base_layer", module)


def _adapter(module: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
    """(rank, features) and (rank, outputs), scaled, of all adapters of a layer that are switched on."""
    if not hasattr(module, "base_layer") or module.disable_adapters or module.merged:
        return None
    names = [name for name in module.active_adapters if name in module.lora_A]
    for name in names:
        if name in module.lora_variant or module.lora_bias[name] or getattr(module, "fan_in_fan_out", False):
            raise ValueError(f"the adapter {name!r} is of a kind that the written-out step does not know")
        if any(map(is_hooked, (module, _base_layer(module), module.lora_A[name], module.lora_B[name]))):
            raise ValueError(f"the adapter {name!r} has hooks, which the written-out step would not call")
    if not names:
        return None
    downs = [module.lora_A[name].weight.detach().to(dtype) for name in names]
    ups = [(module.lora_B[name].weight.detach().T * module.scaling[name]).to(dtype) for name in names]
    return torch.cat(downs), torch.cat(ups)


class in_float32(TorchFunctionMode):
    """While this lasts linear layers read what is of less precision than their float32 input in that of the input."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is nn.functional.linear and (args[0] if args else kwargs["input"]).dtype == torch.float32:
            args = [_wide(x) for x in args]
            kwargs = {name: _wide(x) for name, x in kwargs.items()}
        return func(*args, **kwargs)


def _wide(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) else x
