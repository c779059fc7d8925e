"""A linear layer with a low-rank adapter as one function, in bfloat16.

    y = x @ weight.T + bias + s (x @ down.T) @ up.T        (Hu et al. 2021, LoRA)

PEFT's layer makes the adapter's part by operations of their own: the product, its multiple and the sum are each
written to memory, as wide as the result, and read again. Here the product that makes the part adds it to the result in
place, and so on the way back, where the gradient of x has two parts. Numbers are rounded less often; what is rounded is
rounded as autocast rounds it.

T tokens, R rank.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor, nn

from accord.models.linear import by_library, in_bfloat16, is_hooked, multiplied, multiplied_back, shaped

__all__ = ["own_adapters"]


def own_adapters(model: nn.Module) -> int:
    """Let the layers of a PEFT model that have a plain low-rank adapter compute it so; returns how many do."""
    from peft.tuners.lora import Linear

    count = 0
    for layer in model.modules():
        if type(layer) is Linear and type(layer.base_layer) is nn.Linear and "forward" not in vars(layer):
            layer.forward = types.MethodType(forward, layer)
            count += 1
    return count


def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # whose name a pickled layer looks for
    name = None if args or kwargs or by_library() else _plain(self)
    if name is None or not in_bfloat16(x, self.base_layer.weight):
        plain: Tensor = type(self).forward(self, x, *args, **kwargs)
        return plain
    base, down, up = self.base_layer, self.lora_A[name].weight, self.lora_B[name].weight
    device = x.device.type
    with torch.autocast(device, enabled=False):
        result: Tensor = _Adapted.apply(  # type: ignore[no-untyped-call]
            x.to(torch.bfloat16), base.weight, base.bias, down, up, float(self.scaling[name])
        )
    return result


def _plain(layer: Any) -> str | None:
    """The name of the one adapter that is switched on, if it is no more than two matrices."""
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    if layer.disable_adapters or layer.merged or len(names) != 1:
        return None
    (name,) = names
    dropout = layer.lora_dropout[name]
    drops = layer.training and not isinstance(dropout, nn.Identity)
    if drops or name in layer.lora_variant or layer.lora_bias[name] or layer.fan_in_fan_out:
        return None
    parts = layer.base_layer, layer.lora_A[name], layer.lora_B[name]
    return None if any(type(part) is not nn.Linear or is_hooked(part) for part in parts) else str(name)


class _Adapted(torch.autograd.Function):
    """Of x (..., features) in bfloat16, weight (outputs, features), down (R, features) and up (outputs, R)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scaling: float
    ) -> Tensor:
        rows = x.flatten(0, -2).contiguous()
        inner = rows @ down.to(x.dtype).T
        y = multiplied(rows, weight, bias)
        y.addmm_(inner, up.to(x.dtype).T, alpha=scaling)
        _, of_weight, _, of_down, of_up, _ = ctx.needs_input_grad
        # x as it came: of another tensor second derivatives would not know where it comes from.
        ctx.save_for_backward(x if of_weight or of_down or of_up else None, weight, down, up, inner)
        ctx.scaling = scaling
        return shaped(y, x.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, down, up, inner = ctx.saved_tensors
        of_x, of_weight, of_bias, of_down, of_up, _ = ctx.needs_input_grad
        found: list[Tensor | None] = [None] * 6
        with torch.autocast(grad.device.type, enabled=False):
            flat = grad.flatten(0, -2).contiguous()
            inner_grad = flat @ up.to(flat.dtype) * ctx.scaling
            low = down.to(flat.dtype)
            rows: Any = None if x is None else x.flatten(0, -2).contiguous()
            if of_x:
                if torch.is_grad_enabled():  # second derivatives need operations that have derivatives
                    x_grad = flat @ weight.to(flat.dtype) + inner_grad @ low
                else:
                    x_grad = multiplied_back(flat, weight).addmm_(inner_grad, low)
                found[0] = x_grad.view(*grad.shape[:-1], weight.shape[1])
            if of_weight:
                found[1] = (flat.T @ rows).to(weight.dtype)
            if of_bias:
                found[2] = flat.sum(0, dtype=torch.float32)
            if of_down:
                found[3] = (inner_grad.T @ rows).to(down.dtype)
            if of_up:
                again = rows @ low.T if torch.is_grad_enabled() else inner
                found[4] = (flat.T @ again).to(up.dtype) * ctx.scaling
        return tuple(found)
