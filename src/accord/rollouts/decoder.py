"""Decoding of Llama-like models, written out: what it costs beside its matrix products is small.

A step of a small model through transformers spends most of its time outside the matrix products (docs/log.md). Here
query, key and value are one product, gate and up another. On a CPU a step is one kernel (`accord.models.kernels`;
without it some twenty operations a layer), and prompts go through the same weights, one behind the other without
padding. On a GPU a step is a graph (`graphs.py`), and prompts go through the model's own forward pass.

Numbers are those of the model's own forward pass under the same autocast, within
rounding: norms and residual sums in float32, products in its dtype.

R rows, P prompts, T columns of rows or tokens of all prompts, D hidden size, V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from accord.models import kernels
from accord.models.blocks import BlockPlan, block_attention
from accord.models.gates import SILU
from accord.models.kernels import decoding
from accord.models.kernels.decoding import Linear, Steps
from accord.models.rotation import turn
from accord.models.score import base_of
from accord.rollouts.cache import RowCache
from accord.rollouts.graphs import GraphStep
from accord.rollouts.products import Product, in_float32, product_of
from accord.trees import Branch, PromptTree, pack

__all__ = ["Decoder", "attends_with_bias", "decoder_of", "knows_family"]

logger = logging.getLogger("accord")

_BLOCKS = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer")
_WORST_GAP = 1e-3  # nats; float32 rounding gives about 1e-5


@dataclass(frozen=True)
class _Layer:
    """A block's weights."""

    query_key_value: Product
    output: Product
    gate_up: Product
    down: Product
    before_attention: Any
    before_mlp: Any
    query_norm: Any
    key_norm: Any
    scaling: float
    activation: Any


class Decoder:
    """A model's weights as one step wants them; stale once they change.

    Args:
        model: of a family in the table, PEFT-wrapped or not; low-rank adapters that are switched on are read
            beside the weights.
        dtype: of the matrix products, keys and values.
        apart: see `product_of`.
    """

    def __init__(self, model: Any, dtype: torch.dtype, *, apart: bool = False) -> None:
        base: Any = base_of(model)
        config = base.config.get_text_config()
        self.dtype = dtype
        self.key_heads = config.num_key_value_heads
        self.queries = config.num_attention_heads // config.num_key_value_heads
        trunk = base.model
        if hasattr(trunk.embed_tokens, "base_layer"):
            raise ValueError("the embedding has an adapter, which the written-out step does not know")
        self.embedding: Tensor = trunk.embed_tokens.weight
        self.device = self.embedding.device
        self.wide = torch.promote_types(self.embedding.dtype, torch.float32)
        self.rotary: Any = trunk.rotary_emb
        self.norm: Any = trunk.norm
        of = partial(product_of, dtype=dtype, apart=apart)
        self.layers = [_layer(block, of) for block in trunk.layers]
        self.head = of([base.get_output_embeddings()])
        self._steps = _steps(self)

    @torch.no_grad()
    def step(self, token_R: Tensor, position_R: Tensor, mask_RT: Tensor, cache: RowCache) -> Tensor:
        """(R, V) logits behind the given tokens; their keys and values are added to the cache.

        Args:
            token_R: int64, the last token of each row.
            position_R: int64, its position.
            mask_RT: 1 where a row has a token, the given one included, 0 at padding.
            cache: of all tokens before.
        """
        width = cache.make_room(1)
        found = self._at_once(token_R, position_R, mask_RT, cache)
        if found is not None:
            return found
        bias = self._bias(mask_RT, width)

        def attend(i: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            kept: Any = cache.layers[i]
            kept.append(key.unsqueeze(2), value.unsqueeze(2))
            query = query.reshape(len(query), self.key_heads, self.queries, -1)
            score = (query @ kept.key_buffer.transpose(-1, -2)).to(self.wide).mul_(self.layers[i].scaling).add_(bias)
            return score.softmax(-1).to(self.dtype) @ kept.value_buffer

        return self.logits(token_R, position_R, attend)

    def _at_once(self, token_R: Tensor, position_R: Tensor, mask_RT: Tensor, cache: RowCache) -> Tensor | None:
        """What `step` computes, in one kernel, where there is one."""
        if self._steps is None:
            return None
        x_RD, angles = self._embedded(token_R, position_R)
        layers: Any = cache.layers
        keys, values = [layer.key_buffer for layer in layers], [layer.value_buffer for layer in layers]
        first_R = mask_RT.argmax(-1)  # padding is on the left, and all rows end in the same column
        found = self._steps(x_RD, *angles, keys, values, mask_RT.shape[1] - 1, first_R)
        if found is not None:
            cache.advance()
        return found

    @torch.no_grad()
    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, RowCache]:
        """Compute prompts of two tokens or more, without padding; on a CPU.

        Returns: (P, V) logits behind each; (P, T) int64 mask and the cache of rows that end in the same column.
        """
        # A prompt is a tree here: the last token is its response, so the pack knows who sees whom.
        batch = pack([PromptTree(tuple(p[:-1]), (Branch.response(p[-1:]),)) for p in prompts])
        plan, cache = BlockPlan(batch), RowCache()
        width = max(map(len, prompts))
        mask_PT = torch.arange(width) >= width - torch.tensor([[len(prompt)] for prompt in prompts])
        place_T = mask_PT.flatten().nonzero().squeeze(-1)

        def rows(states_THD: Tensor) -> Tensor:
            """(P, H, T, D), padded on the left."""
            laid = states_THD.new_zeros(mask_PT.numel(), *states_THD.shape[1:])
            return laid.index_copy_(0, place_T, states_THD).view(*mask_PT.shape, *states_THD.shape[1:]).transpose(1, 2)

        def attend(i: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            cache.update(rows(key).contiguous(), rows(value).contiguous(), i)
            return block_attention(query, key, value, plan, None, self.layers[i].scaling)

        with torch.autocast("cpu", enabled=False):
            states_TD = self._states(batch.token_T, batch.position_T, attend)
            return self.head(states_TD[batch.end_N]), mask_PT.long(), cache

    def logits(
        self, token_R: Tensor, position_R: Tensor, attend: Callable[[int, Tensor, Tensor, Tensor], Tensor]
    ) -> Tensor:
        """(R, V) logits behind these tokens; for the arguments see `_states`."""
        with torch.autocast(self.device.type, enabled=False):
            return self.head(self._states(token_R, position_R, attend))

    def _states(
        self, token_R: Tensor, position_R: Tensor, attend: Callable[[int, Tensor, Tensor, Tensor], Tensor]
    ) -> Tensor:
        """(R, D) normed states behind the last layer, as the head reads them.

        Args:
            token_R: one token each.
            position_R: of each.
            attend: from the number of a layer, its queries (R, heads, head size), keys and values (R, key heads, head
                size) to what is read, (R, heads x head size) in any shape.
        """
        x_RD, angles = self._embedded(token_R, position_R)
        norms = [*(layer.before_attention for layer in self.layers[1:]), self.norm]
        y_RD = _norm(self.layers[0].before_attention, x_RD, self.dtype)
        for i, (layer, norm) in enumerate(zip(self.layers, norms, strict=True)):
            read = attend(i, *self._heads(layer, y_RD, angles))
            x_RD, y_RD = _add_norm(layer.before_mlp, x_RD, layer.output(read.reshape(len(x_RD), -1)))
            more_RD = layer.down(_gated(layer.activation, *layer.gate_up(y_RD).chunk(2, -1)))
            x_RD, y_RD = _add_norm(norm, x_RD, more_RD)
        return y_RD

    def _embedded(self, token_R: Tensor, position_R: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(R, D) states before the first layer; cosine and sine of the positions, (R, half a head)."""
        x_RD = self.embedding[token_R].to(self.wide)
        cos, sin = self.rotary(x_RD.unsqueeze(1), position_R.unsqueeze(1))
        half = cos.shape[-1] // 2  # the other half is the same
        return x_RD, (cos[:, 0, :half].to(self.wide).contiguous(), sin[:, 0, :half].to(self.wide).contiguous())

    def _bias(self, mask_RT: Tensor, width: int) -> Tensor:
        """(R, 1, 1, width) 0 where a row has a token, else -inf: at padding, and in columns not used yet.

        Attention reads the buffers with their spare columns: a slice of them is not contiguous, and copying it for the
        batched products takes as long as they do.
        """
        bias_RT = torch.full((len(mask_RT), width), -torch.inf, dtype=self.wide)
        return bias_RT.masked_fill_(nn.functional.pad(mask_RT, (0, width - mask_RT.shape[1])) != 0, 0)[:, None, None]

    def _heads(self, layer: _Layer, x_RD: Tensor, angles: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (R, their heads, head size)."""
        groups, queries = self.key_heads, self.key_heads * self.queries
        heads = layer.query_key_value(x_RD).view(len(x_RD), queries + 2 * groups, -1)
        query_key, value = heads[:, : queries + groups], heads[:, queries + groups :]
        if layer.query_norm is not None:
            query_key = torch.cat([layer.query_norm(query_key[:, :queries]), layer.key_norm(query_key[:, queries:])], 1)
        cos, sin = (angle.unsqueeze(1) for angle in angles)  # the same for all heads
        return *_turned(query_key[:, :queries], query_key[:, queries:], cos, sin, self.dtype), value


def decoder_of(model: Any, dtype: torch.dtype, *, tried: bool = False) -> Decoder | None:
    """A decoder for a model, or None if its family is not known or the decoder would not say what the model says.

    Tried on two rows, one of them padded, in the precision of the weights: with float32 rounding hides nothing. Of
    adapters only plain low-rank ones are taken, so that new numbers in them need no new trial.

    Args:
        model: PEFT-wrapped or not.
        dtype: of the matrix products, keys and values.
        tried: whether this was done before with this model.
    """
    base = base_of(model)
    weight = next(base.parameters())
    on_gpu = weight.device.type == "cuda"
    if weight.device.type not in ("cpu", "cuda") or not knows_family(base):
        return None
    if dtype == torch.bfloat16 and attends_with_bias(base) and not on_gpu:
        # Biases of queries and keys make scores large, and their differences would be rounded away; the kernel of a GPU
        # keeps scores in float32.
        return None
    try:
        frozen = any(x.dtype != weight.dtype for x in base.parameters())  # in bfloat16, under adapters
        with in_float32() if frozen else nullcontext():
            gap = 0.0 if tried else _gap(model, Decoder(model, weight.dtype, apart=frozen))
        if gap < _WORST_GAP:
            return Decoder(model, dtype)
        why = f"its log-probabilities differ by {gap:.2g} nats"
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:  # a block or an adapter with its own parts
        why = str(error)
    if on_gpu:  # where it makes much of a difference
        logger.warning(
            "sampler: decoding by the model's own forward pass, which is slow; the written-out step: %s", why
        )
    return None


def knows_family(base: Any) -> bool:
    """Whether the table has the blocks of a model, all of them with full attention."""
    config = base.config.get_text_config()
    layers = getattr(getattr(base, "model", None), "layers", ())
    full = all(kind == "full_attention" for kind in getattr(config, "layer_types", None) or ())
    return (
        len(layers) > 0
        and all(type(layer).__name__ in _BLOCKS for layer in layers)
        and full
        and (getattr(config, "sliding_window", None) is None or getattr(config, "use_sliding_window", None) is False)
        and base.get_output_embeddings() is not None
    )


def attends_with_bias(base: Any) -> bool:
    """Whether the keys of a model of a known family have a bias."""
    return any(getattr(layer.self_attn.k_proj, "bias", None) is not None for layer in base.model.layers)


@torch.no_grad()
def _gap(model: Any, decoder: Decoder) -> float:
    """Largest difference of log-probabilities between decoder and model, of prompts and a step, without autocast.

    On a GPU the prompts are the model's own work, and the step alone is compared.
    """
    vocabulary, device = len(decoder.embedding), decoder.device
    token_RT = torch.tensor([[5, 8, 2, 11, 3, 7], [0, 0, 9, 4, 6, 1]], device=device) % vocabulary
    mask_RT = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]], device=device)
    position_RT = (mask_RT.cumsum(-1) - 1).clamp(min=0)
    theirs: list[Tensor] = []
    cache = copy = RowCache()
    with torch.autocast(device.type, enabled=False):
        for columns in (slice(0, 5), slice(5, 6)):
            out = model(
                input_ids=token_RT[:, columns],
                attention_mask=mask_RT[:, : columns.stop],
                position_ids=position_RT[:, columns],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            theirs.append(out.logits[:, -1])
            copy = cache.repeated(torch.arange(2, device=device)) if len(theirs) == 1 else copy
    last = token_RT[:, 5], position_RT[:, 5], mask_RT
    if device.type == "cpu":
        prompts = [row[keep].tolist() for row, keep in zip(token_RT[:, :5], mask_RT[:, :5].bool(), strict=True)]
        first, _, cache = decoder.prefill(prompts)
        ours = first, decoder.step(*last, cache)
    else:
        ours = theirs[0], GraphStep(decoder)(*last, copy)
    pairs = zip(ours, theirs, strict=True)
    return max(float((a.float().log_softmax(-1) - b.float().log_softmax(-1)).abs().max()) for a, b in pairs)


def _layer(block: Any, of: Callable[[Sequence[nn.Module]], Product]) -> _Layer:
    attention, mlp = block.self_attn, block.mlp
    return _Layer(
        query_key_value=of([attention.q_proj, attention.k_proj, attention.v_proj]),
        output=of([attention.o_proj]),
        gate_up=of([mlp.gate_proj, mlp.up_proj]),
        down=of([mlp.down_proj]),
        before_attention=block.input_layernorm,
        before_mlp=block.post_attention_layernorm,
        query_norm=getattr(attention, "q_norm", None),
        key_norm=getattr(attention, "k_norm", None),
        scaling=attention.scaling,
        activation=mlp.act_fn,
    )


def _steps(decoder: Decoder, unit: str | None = None) -> Steps | None:
    """The kernel of a step, on a CPU, if all layers are of one kind and it knows that; `unit` as for `Steps.of`."""
    first = decoder.layers[0]
    of_states = [norm for layer in decoder.layers for norm in (layer.before_attention, layer.before_mlp)]
    of_heads = [norm for layer in decoder.layers for norm in (layer.query_norm, layer.key_norm) if norm is not None]
    eps = {norm.variance_epsilon for norm in (*of_states, decoder.norm)}
    eps_heads = {norm.variance_epsilon for norm in of_heads} or {0.0}
    scalings = {layer.scaling for layer in decoder.layers}
    gates = {type(layer.activation).__name__ in SILU for layer in decoder.layers}
    if decoder.device.type != "cpu" or gates != {True} or not len(eps) == len(eps_heads) == len(scalings) == 1:
        return None
    if not isinstance(decoder.head, Linear):
        return None
    layers = []
    for layer in decoder.layers:
        linear: Any = (layer.query_key_value, layer.output, layer.gate_up, layer.down)
        if not all(isinstance(x, Linear) for x in linear):
            return None
        norms = layer.before_attention, layer.before_mlp, layer.query_norm, layer.key_norm
        layers.append(decoding.Layer(*linear, *(None if norm is None else norm.weight for norm in norms)))
    return Steps.of(
        layers,
        decoder.head,
        decoder.norm.weight,
        key_heads=decoder.key_heads,
        eps=eps.pop(),
        eps_heads=eps_heads.pop(),
        scaling=first.scaling,
        unit=unit,
    )


def _add_norm(norm: Any, x: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
    """The residual sum x + more, which may be written into x, and its norm in the dtype of `more`."""
    if x.device.type == "cpu" and (y := kernels.add_norm(x, more, norm.weight, norm.variance_epsilon)) is not None:
        return x, y
    x = x + more
    return x, _norm(norm, x, more.dtype)


def _norm(norm: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
    weight = norm.weight.to(x.dtype)  # of another dtype it would go past the kernel of a GPU, with a warning
    return torch.rms_norm(x, x.shape[-1:], weight, norm.variance_epsilon).to(dtype)


def _gated(activation: Any, gate: Tensor, up: Tensor) -> Tensor:
    is_silu = gate.device.type == "cpu" and type(activation).__name__ in SILU
    product = kernels.gate(gate, up) if is_silu else None
    return activation(gate) * up if product is None else product


def _turned(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Rotary embedding of (rows, heads, head size)."""
    found = kernels.turn(q, k, cos, sin, dtype) if q.device.type == "cpu" else None
    return found or (turn(q, cos, sin).to(dtype), turn(k, cos, sin).to(dtype))
