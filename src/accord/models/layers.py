"""Which decoder layers are computed as one function (`accord.models.whole_layer`), and when."""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor, nn

from accord.models.attention import TreeLayout
from accord.models.flash import runs_on
from accord.models.gates import SILU
from accord.models.whole_layer import HALF, Sizes, Weights, whole_layer
from accord.trees import Branch, PromptTree, pack

__all__ = ["knows_layers", "whole_layers"]

_FAMILIES = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer")


def whole_layers(model: nn.Module) -> int:
    """Let the layers of known families be computed as one function where that can be; returns how many do.

    A layer is taken whose norms, gates and rotation are those of `accord.models.norms`, `gates` and `rotation`, and if
    both ways agree on some numbers. Whether a call goes this way is decided by what it is given: a pack of trees, under
    autocast in bfloat16, on a device with flash attention; and by what has become of the layer since: adapters,
    checkpointing and hooks are for the layer as it is.
    """
    layers = [layer for layer in model.modules() if _is_known(layer)]
    if not layers or not _agree(layers[0]):
        return 0
    for layer in layers:
        layer.forward = types.MethodType(_forward_with(_sizes(layer)), layer)
    return len(layers)


def knows_layers(model: nn.Module) -> bool:
    """Whether the layers of a model are of a kind that `whole_layers` takes."""
    layers = [module for module in model.modules() if type(module).__name__.endswith("DecoderLayer")]
    return bool(layers) and all(map(_is_of_its_kind, layers))


def _is_known(layer: Any) -> bool:
    """Whether its parts are those of `accord.models.norms`, `gates` and `rotation`, and it has no function yet."""
    if not _is_of_its_kind(layer) or "forward" in vars(layer):
        return False
    parts = (layer.self_attn, layer.mlp, layer.input_layernorm, layer.post_attention_layernorm)
    return all("forward" in vars(part) for part in parts)


def _is_of_its_kind(layer: Any) -> bool:
    """Whether this is a layer the function is written for: of a known family, biases at q, k and v or nowhere."""
    if type(layer).__name__ not in _FAMILIES or type(layer.mlp.act_fn).__name__ not in SILU:
        return False
    biased = [module.bias is not None for module in _linear(layer)]
    return not any(biased[3:]) and len(set(biased[:3])) == 1


def _sizes(layer: Any) -> Sizes:
    attention, width = layer.self_attn, layer.self_attn.head_dim
    return Sizes(
        hidden=attention.q_proj.in_features,
        heads=attention.q_proj.out_features // width,
        groups=attention.k_proj.out_features // width,
        width=width,
        inner=layer.mlp.gate_proj.out_features,
        bias=attention.q_proj.bias is not None,
        eps=(layer.input_layernorm.variance_epsilon, layer.post_attention_layernorm.variance_epsilon),
        scaling=attention.scaling,
    )


def _linear(layer: Any) -> tuple[Any, ...]:
    a, m = layer.self_attn, layer.mlp
    return (a.q_proj, a.k_proj, a.v_proj, a.o_proj, m.gate_proj, m.up_proj, m.down_proj)


@torch.no_grad()
def _agree(layer: Any) -> bool:
    """Whether a small tree comes out of the layer as it comes out of the function."""
    weight = layer.self_attn.q_proj.weight
    device, sizes = weight.device, _sizes(layer)
    if not runs_on(device, sizes.width):
        return False
    tree = PromptTree((1,) * 9, (Branch.response((2,) * 5), Branch.response((3,) * 4)))
    batch = pack([tree]).to(device)
    x = torch.linspace(-2, 3, 18 * sizes.hidden, device=device).sin().view(1, 18, sizes.hidden)
    angle = batch.position_T[None, :, None] * torch.linspace(1, 0.1, sizes.width // 2, device=device).repeat(2)
    angles, layout, training = (angle.cos(), angle.sin()), TreeLayout(batch), layer.training
    layer.eval()
    try:
        with torch.autocast(device.type, HALF):
            expected = type(layer).forward(layer, x, position_embeddings=angles, tree=layout)
            found = _called(layer, x, sizes, angles, layout)
    finally:
        layer.train(training)
    return bool((found - expected).norm() < 0.03 * (expected - x).norm())


def _forward_with(sizes: Sizes) -> Any:
    """The forward function of a layer of these sizes."""

    def forward(self: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not args and _takes(self, hidden_states, kwargs) and runs_on(hidden_states.device, sizes.width):
            return _called(self, hidden_states, sizes, kwargs["position_embeddings"], kwargs["tree"])
        plain: Tensor = type(self).forward(self, hidden_states, *args, **kwargs)
        return plain

    return forward


def _takes(layer: Any, x: Tensor, kwargs: dict[str, Any]) -> bool:
    """Whether this call is one of those the function is written for."""
    device = x.device.type
    if kwargs.get("tree") is None or kwargs.get("position_embeddings") is None or x.dtype != torch.float32:
        return False
    if not torch.is_autocast_enabled(device) or torch.get_autocast_dtype(device) != HALF:
        return False
    attention = layer.self_attn
    if getattr(attention, "sliding_window", None) is not None:
        return False
    if layer.training and (layer.gradient_checkpointing or attention.attention_dropout):
        return False
    linear = _linear(layer)
    inside = (*linear, attention, layer.mlp, layer.input_layernorm, layer.post_attention_layernorm)
    return all(type(module) is nn.Linear for module in linear) and not any(map(_is_hooked, inside))


def _is_hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _called(
    layer: Any, x: Tensor, sizes: Sizes, position_embeddings: tuple[Tensor, Tensor], tree: TreeLayout
) -> Tensor:
    """The function with what a layer and a call give it."""
    attention, mlp = layer.self_attn, layer.mlp
    weights = Weights(
        layer.input_layernorm.weight,
        attention.q_proj.weight,
        attention.k_proj.weight,
        attention.v_proj.weight,
        attention.o_proj.weight,
        layer.post_attention_layernorm.weight,
        mlp.gate_proj.weight,
        mlp.up_proj.weight,
        mlp.down_proj.weight,
        q_bias=attention.q_proj.bias,
        k_bias=attention.k_proj.bias,
        v_bias=attention.v_proj.bias,
    )
    half = sizes.width // 2
    cos, sin = (angle[0, :, None, :half] for angle in position_embeddings)
    return whole_layer(x[0], cos, sin, tree.runs, sizes, weights).unsqueeze(0)
