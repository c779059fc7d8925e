"""Gated feed-forward layers that keep two tensors of their inner width for the backward pass instead of four.

y = down(silu(gate) * up): autograd keeps gate, up, silu(gate) and their product, half of all that a small model keeps.
The last two are made again from the first two when the backward pass asks for them: a quarter less memory for two
passes over the inner width, and the same numbers, bit for bit (docs/log.md).
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from accord.models import kernels
from accord.models.fused import fused

__all__ = ["SILU", "is_kept_two", "keep_two", "keeps_two"]

_GATED = ("LlamaMLP", "MistralMLP", "Qwen2MLP", "Qwen3MLP")
"""Layers that compute down_proj(act_fn(gate_proj(x)) * up_proj(x)), by their class."""
SILU = ("SiLU", "SiLUActivation")


def keeps_two(model: nn.Module) -> bool:
    """Whether `keep_two` changes the feed-forward layers of a model."""
    return any(_gated(layer) for layer in model.modules())


def keep_two(model: nn.Module) -> int:
    """Let the gated layers of known families keep less for the backward pass; returns how many do."""
    count = 0
    for block in model.modules():
        for layer in block.children():
            if _gated(layer) and "forward" not in vars(layer):
                vars(layer)["block"] = block  # beside the registered modules: a block is no part of its layer
                layer.forward = types.MethodType(_forward, layer)
                count += 1
    return count


def is_kept_two(layer: nn.Module) -> bool:
    """Whether a layer is as `keep_two` left it."""
    return getattr(vars(layer).get("forward"), "__func__", None) is _forward


def _gated(layer: nn.Module) -> bool:
    return type(layer).__name__ in _GATED and type(getattr(layer, "act_fn", None)).__name__ in SILU


def _forward(self: Any, x: Tensor) -> Tensor:
    # A block that is computed again in the backward pass keeps nothing but its input, and hooks within it would.
    again = getattr(self.block, "gradient_checkpointing", False) and self.block.training
    if again or not torch.is_grad_enabled():
        # The same product as below: compiled, it rounds once, and a reference has to round where the policy does.
        plain: Tensor = self.down_proj(_Product.apply(self.gate_proj(x), self.up_proj(x)))  # type: ignore[no-untyped-call]
        return plain
    gate, up = self.gate_proj(x), self.up_proj(x)
    product: Tensor = _Product.apply(gate, up)  # type: ignore[no-untyped-call]
    with torch.autograd.graph.saved_tensors_hooks(*_instead_of(product, gate.detach(), up.detach())):
        result: Tensor = self.down_proj(product)
    return result


class _Product(torch.autograd.Function):
    """silu(gate) * up; its backward pass makes silu(gate) again."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return _product(gate.flatten(0, -2), up.flatten(0, -2)).view(gate.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        if torch.is_grad_enabled():  # second derivatives are wanted (TRPO), and the kernel has none
            share = gate.sigmoid()
            return grad * up * share * (1 + gate * (1 - share)), grad * nn.functional.silu(gate)
        found = _gradients(*(x.flatten(0, -2) for x in (grad, gate, up)))
        return found[0].view(gate.shape), found[1].view(gate.shape)


@fused(tokens=0, on_cpu=kernels.gate)
def _product(gate: Tensor, up: Tensor) -> Tensor:
    return nn.functional.silu(gate) * up


@fused(tokens=0, on_cpu=kernels.gate_back)
def _gradients(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of both."""
    return torch.ops.aten.silu_backward(grad * up, gate), grad * nn.functional.silu(gate)


def _instead_of(product: Tensor, gate: Tensor, up: Tensor) -> tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]:
    """Hooks by which whatever keeps the product keeps a recipe instead."""
    place, size = product.data_ptr(), product.numel()

    def pack(kept: Tensor) -> Any:
        same = kept.data_ptr() == place and kept.numel() == size and kept.dtype == gate.dtype and kept.is_contiguous()
        return (gate, up, kept.shape) if same else kept

    def unpack(kept: Any) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        gate, up, shape = kept
        return _product(gate.flatten(0, -2), up.flatten(0, -2)).view(shape)

    return pack, unpack
