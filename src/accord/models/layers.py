"""Which decoder layers are computed as one function (`accord.models.whole_layer`), and when."""

from __future__ import annotations

import logging
import types
from typing import Any

import torch
from torch import Tensor, nn

from accord.models.attention import TreeLayout
from accord.models.flash import runs_on
from accord.models.gates import SILU, is_kept_two
from accord.models.linear import is_hooked
from accord.models.norms import is_rounded_once
from accord.models.rotation import is_rotated_once
from accord.models.whole_layer import HALF, Sizes, Weights, whole_layer
from accord.trees import Branch, PromptTree, pack

__all__ = ["knows_layers", "whole_layers"]

logger = logging.getLogger("accord")

_FAMILIES = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer")


def whole_layers(model: nn.Module) -> int:
    """Let the layers of known families be computed as one function where that can be; returns how many may be.

    A layer is taken whose norms, gates and rotation are those of `accord.models.norms`, `gates` and `rotation`, on a
    device with flash attention. Whether a call goes this way is decided by what it is given: a pack of trees, under
    autocast in bfloat16; and by what has become of the layer since: adapters, other modules or functions in it, hooks
    of its modules and checkpointing are for the layer as it is. Before the first one both ways are tried on numbers.
    """
    layers = [layer for layer in model.modules() if _is_known(layer)]
    agreement = _Agreement()
    for layer in layers:
        layer.forward = types.MethodType(_forward_with(_sizes(layer), agreement), layer)
    return len(layers)


def knows_layers(model: nn.Module) -> bool:
    """Whether the layers of a model are of a kind that `whole_layers` takes."""
    layers = [module for module in model.modules() if type(module).__name__.endswith("DecoderLayer")]
    return bool(layers) and all(map(_is_of_its_kind, layers))


def _is_known(layer: Any) -> bool:
    if not _is_of_its_kind(layer) or "forward" in vars(layer) or not _is_ours(layer):
        return False
    return runs_on(layer.self_attn.q_proj.weight.device, layer.self_attn.head_dim)


def _is_of_its_kind(layer: Any) -> bool:
    """Whether this is a layer the function is written for: of a known family, biases at q, k and v or nowhere."""
    if type(layer).__name__ not in _FAMILIES or type(layer.mlp.act_fn).__name__ not in SILU:
        return False
    biased = [module.bias is not None for module in _linear(layer)]
    return not any(biased[3:]) and len(set(biased[:3])) == 1


def _is_ours(layer: Any) -> bool:
    """Whether its parts compute what the function does."""
    norms = layer.input_layernorm, layer.post_attention_layernorm
    return all(map(is_rounded_once, norms)) and is_kept_two(layer.mlp) and is_rotated_once(layer.self_attn)


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


class _Agreement:
    """Whether both ways agree, for the layers of a model; tried when the first one is about to be taken."""

    def __init__(self) -> None:
        self._found: bool | None = None

    def __deepcopy__(self, _: Any) -> _Agreement:
        return _Agreement()

    def of(self, layer: Any, sizes: Sizes) -> bool:
        """Try it with a layer, if none was tried; say so if they do not agree."""
        if self._found is None:
            self._found = _agree(layer, sizes)
            if not self._found:
                name = type(layer).__name__
                logger.warning("%s as one function gives other states than the layer; going on without: slower", name)
        return self._found


@torch.no_grad()
def _agree(layer: Any, sizes: Sizes) -> bool:
    """Whether a small tree comes out of the layer as it comes out of the function."""
    device = layer.self_attn.q_proj.weight.device
    tree = PromptTree((1,) * 9, (Branch.response((2,) * 5), Branch.response((3,) * 4)))
    batch = pack([tree]).to(device)
    x = torch.linspace(-2, 3, 18 * sizes.hidden, device=device).sin().view(1, 18, sizes.hidden)
    angle = batch.position_T[None, :, None] * torch.linspace(1, 0.1, sizes.width // 2, device=device).repeat(2)
    angles, layout = (angle.cos(), angle.sin()), TreeLayout(batch)
    with torch.autocast(device.type, HALF, cache_enabled=False):  # copies made without a graph must not be found later
        expected = type(layer).forward(layer, x, position_embeddings=angles, tree=layout)
    found = _called(layer, x, sizes, angles, layout)
    return bool((found - expected).norm() < 0.03 * (expected - x).norm())


def _forward_with(sizes: Sizes, agreement: _Agreement) -> Any:
    """The forward function of a layer of these sizes."""

    def forward(self: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        taken = not args and _takes(self, hidden_states, kwargs) and runs_on(hidden_states.device, sizes.width)
        if taken and agreement.of(self, sizes):
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
    if _window(layer.self_attn) is not None:
        return False
    if layer.training and (layer.gradient_checkpointing or layer.self_attn.attention_dropout):
        return False
    linear = _linear(layer)
    inside = (*linear, layer.self_attn, layer.mlp, layer.input_layernorm, layer.post_attention_layernorm)
    return all(type(module) is nn.Linear for module in linear) and _is_ours(layer) and not any(map(is_hooked, inside))


def _window(attention: Any) -> int | None:
    """Of a layer: some families say it of each, others of all in their configuration."""
    of_all = getattr(attention.config, "sliding_window", None)
    return getattr(attention, "sliding_window", of_all)


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
    return whole_layer(x.squeeze(0), cos, sin, tree.runs, sizes, weights).unsqueeze(0)
