"""How much memory a training job needs at most, from its settings, the model's shape and its largest pack.

    peak = process + 1.08 (weights + gradients + moments + casts + frozen models + the larger of update and sampling)

with P parameters of which P' are trained, M numbers in matrices of linear layers, V x D of the vocabulary head:

    weights     4 P; with adapters under bf16 2 M less: frozen matrices are kept in it
    gradients   4 P'
    moments     8 P', AdamW's two
    casts       2 (M' + V D) under bf16: what autocast keeps of trained matrices until the end of a step, without those
                that `accord.models.linear` reads as they are; where layers are one function (`accord.models.layers`)
                V D and the matrices of two layers
    update      activations of the largest pack + vocabulary head
    sampling    weights laid out for decoding + keys and values + logits of the rows decoded at once
    8%          what the allocator holds in free pieces: it keeps freed memory (accord.models.allocation)

Activations are those that autograd keeps (tests count them), per layer and token of the pack, w bytes of a number:

    norms       4 D each, 8 D each in float32 or where a family's norms do not round once
    linear      2 w D + w Q (inputs of the products; Q width of all query heads, K of all key heads); w Q of a layer
                that is one function
    attention   w (Q + 2 K), and the scores of one block of queries, made again in the backward pass; on an accelerator
                flash attention keeps 4 H more (H heads) and no scores, and lays keys out once for each response,
                one layer at a time: w (4 K + 2 Q) + 4 K for each and 8 K for a token; where it cannot run (float32,
                sliding windows)
                the kernel with a mask keeps 4 w Q + w S for each place of the layout, S tokens of the longest tree
    feed-forward  4 w I, I its inner width; 2 w I where `accord.models.gates` keeps less, or where it has no gate and
                the kernel of its activation is one

docs/memory.md has a table by job; an estimate is to be right within 15% or 0.35 GB, which tests measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from accord.models.blocks import SCORES, SIZE
from accord.models.gates import keeps_two
from accord.models.head import GROUP_BYTES, GROUP_BYTES_GPU, PART_BYTES, PART_BYTES_GPU
from accord.models.layers import knows_layers
from accord.models.linear import fits
from accord.models.norms import rounds_once
from accord.rollouts.cache import ROOM
from accord.rollouts.decoder import attends_with_bias, knows_family
from accord.trees import PromptTree

__all__ = [
    "Pack",
    "Part",
    "Shape",
    "activation_bytes",
    "head_bytes",
    "laid_bytes",
    "sampling_bytes",
    "shape_of",
    "state_parts",
]

WIDE = 4  # bytes of float32
HALF = 2  # and of bfloat16
SCATTERED = 0.02  # of all tensors: a process has as much in free pieces
THREADS = 4  # each works on a part of the head's logits; the estimate does not depend on how many there are


@dataclass(frozen=True)
class Part:
    """A part of the memory: its name, bytes, and what it consists of."""

    name: str
    bytes: int
    meaning: str


@dataclass(frozen=True)
class Shape:
    """What of a model decides its memory.

    Attributes:
        parameters: all of a causal model, tied ones once.
        matrices: in linear layers, the vocabulary head left out.
        read: of these, what `accord.models.linear` takes, where it can.
        adapter_width: sum over these layers of inputs and outputs: numbers of a LoRA adapter of rank 1.
        vocabulary: entries of the head.
        hidden: width of the states.
        layers: blocks.
        query: width of all query heads.
        key: width of all key heads.
        heads: query heads.
        inner: width of the feed-forward layer.
        inner_copies: tensors of that width autograd keeps: 4 of a gated layer, 2 of those of `accord.models.gates` and
            around a kernel of its own.
        norms: sum over the norms of a block of the numbers each normalises.
        rounds_once: the norms of this family are `accord.models.norms`'.
        decodes: the sampler lays the weights of this family out.
        key_bias: keys have a bias: in bfloat16 it then does not.
        tied: the vocabulary head is the embedding.
        windows: some layers see a sliding window.
        whole: layers of this family are one function on an accelerator: in bfloat16, without adapters, checkpointing.
    """

    parameters: int
    matrices: int
    read: int
    adapter_width: int
    vocabulary: int
    hidden: int
    layers: int
    query: int
    key: int
    heads: int
    inner: int
    inner_copies: int
    norms: int
    rounds_once: bool
    decodes: bool
    key_bias: bool
    tied: bool
    windows: bool
    whole: bool

    @property
    def head(self) -> int:
        """Numbers of the vocabulary head."""
        return self.vocabulary * self.hidden


@dataclass(frozen=True)
class Pack:
    """The largest pack of a job.

    Attributes:
        tokens: of all its trees.
        scored: of them those the head runs on.
        padded: trees times the longest one: places of the layout of the fused kernel.
        longest: tokens of the longest tree.
        keys: tokens of all responses, each with its prompt.
    """

    tokens: int
    scored: int
    padded: int
    longest: int
    keys: int


def shape_of(model: Any) -> Shape:
    """Read off a causal model, which may stand on the meta device: no weight is looked at."""
    config, trunk = model.config.get_text_config(), model.base_model
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    linear = [m for m in trunk.modules() if isinstance(m, (nn.Linear, Conv1D))]
    windows = bool(getattr(config, "sliding_window", None)) and getattr(config, "use_sliding_window", True)
    norms = sum(
        _normalised(name, module, heads, key_heads)
        for name, module in trunk.named_modules()
        if type(module).__name__.endswith("Norm") and ".0." in f".{name}."
    )
    return Shape(
        parameters=sum(p.numel() for p in model.parameters()),
        matrices=sum(m.weight.numel() for m in linear),
        read=sum(m.weight.numel() for m in linear if type(m) is nn.Linear and fits(m.weight)),
        adapter_width=sum(sum(m.weight.shape) for m in linear),
        vocabulary=config.vocab_size,
        hidden=config.hidden_size,
        layers=config.num_hidden_layers,
        query=heads * width,
        key=key_heads * width,
        heads=heads,
        inner=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        inner_copies=2 if keeps_two(model) or getattr(config, "hidden_act", "") == "gelu" else 4,
        norms=norms,
        rounds_once=rounds_once(model),
        decodes=knows_family(model),
        key_bias=knows_family(model) and attends_with_bias(model),
        tied=model.get_output_embeddings().weight is model.get_input_embeddings().weight,
        windows=windows,
        whole=knows_layers(model) and not windows,
    )


def _normalised(name: str, module: nn.Module, heads: int, key_heads: int) -> int:
    """Numbers a norm works on per token: that of a head is applied to each of them."""
    weight: Any = next(module.parameters())
    times = heads if name.endswith("q_norm") else key_heads if name.endswith("k_norm") else 1
    # An RMS norm written in PyTorch keeps its input and the normalised numbers, the kernel of a layer norm its input.
    return int(weight.numel()) * times // (2 if isinstance(module, nn.LayerNorm) else 1)


def state_parts(
    shape: Shape, lora_rank: int, half: bool, *, head: bool, reads: bool = False, whole: bool = False
) -> list[Part]:
    """What a trained model holds from its second step on: weights, gradients, moments, cast copies.

    Args:
        shape: of the model.
        lora_rank: 0 trains all weights.
        half: whether forward passes run in bfloat16.
        head: whether there is a vocabulary head (a reward model and a critic have none; a tied one is an embedding).
        reads: whether products read float32 matrices as they are: on a CPU with matrix units.
        whole: whether layers are one function.
    """
    adapters = lora_rank * shape.adapter_width
    trained = adapters or shape.parameters
    weights = WIDE * (shape.parameters + adapters)
    if lora_rank and half:
        weights -= (WIDE - HALF) * shape.matrices
    cast = adapters if lora_rank else shape.matrices - (shape.read if reads else 0)
    cast = 2 * shape.matrices // shape.layers if whole else cast  # forward and backward passes have a thread each
    cast += shape.head if head and not (reads and shape.vocabulary % 32 == shape.hidden % 32 == 0) else 0
    how = f"LoRA of rank {lora_rank}" if lora_rank else "all of them trained"
    frozen = ", frozen matrices in bf16" if lora_rank and half else ""
    parts = [
        Part("weights", weights, f"{shape.parameters:,} parameters, {how}{frozen}"),
        Part("gradients", WIDE * trained, f"{trained:,} float32 numbers"),
        Part("moments", 2 * WIDE * trained, "AdamW's two, float32"),
    ]
    return parts + ([Part("casts", HALF * cast, "bf16 copies of weights while a step lasts")] if half and cast else [])


def frozen_bytes(shape: Shape, half: bool) -> int:
    """A constant model: a reference, a reward model."""
    return WIDE * shape.parameters - ((WIDE - HALF) * shape.matrices if half else 0)


def activation_bytes(
    shape: Shape, pack: Pack, half: bool, checkpointing: bool = False, *, fused: bool = False, whole: bool = False
) -> int:
    """What autograd keeps of a forward pass over a pack, the vocabulary head left out.

    `fused`: on an accelerator; `whole`: layers are one function there.
    """
    w = HALF if half else WIDE
    norms = shape.norms * (WIDE if shape.rounds_once and half else 2 * WIDE)
    inputs = shape.query + (0 if whole else 2 * shape.hidden)
    per_token = norms + w * inputs + shape.inner_copies * w * shape.inner
    if fused and (shape.windows or not half):
        layer = pack.tokens * per_token + pack.padded * (4 * w * shape.query + w * pack.longest + WIDE * shape.heads)
    else:
        layer = pack.tokens * (per_token + w * (shape.query + 2 * shape.key) + (WIDE * shape.heads if fused else 0))
    if checkpointing:  # the input of each block, and one block made again
        return layer + WIDE * shape.hidden * pack.tokens * (shape.layers + 2)
    return shape.layers * layer + 2 * WIDE * shape.hidden * pack.tokens


def laid_bytes(shape: Shape, pack: Pack, half: bool) -> int:
    """Keys and values of one layer laid out for flash attention, and their gradients: by head, by group, summed.

    Where every prompt has one response they are not laid out, and where there is a mask they are not either.
    """
    if shape.windows or not half or pack.keys == pack.tokens:
        return 0
    for_each_key = HALF * (4 * shape.key + 2 * shape.query) + WIDE * shape.key
    return pack.keys * for_each_key + 2 * WIDE * shape.key * pack.tokens


def score_bytes(shape: Shape, pack: Pack) -> int:
    """What the backward pass makes again of one block's attention: scores, shares and their gradients, float32.

    And, for all layers and blocks, which of the keys are seen. On a CPU; the fused kernel of an accelerator holds none.
    """
    block = max(SIZE * pack.longest, min(SCORES, pack.tokens * pack.longest))
    return WIDE * (3 * block * shape.heads + pack.tokens * pack.longest)


def head_bytes(shape: Shape, pack: Pack, half: bool, trained: bool, *, fused: bool = False) -> int:
    """The vocabulary head's backward pass: a group of logits, and the gradient of its matrix with a product of it."""
    w = HALF if half else WIDE
    group = min(GROUP_BYTES_GPU if fused else GROUP_BYTES, w * shape.vocabulary * pack.scored)
    matrix = (WIDE + (0 if fused and half else w)) * shape.head if trained else 0
    parts = 4 * (PART_BYTES_GPU if fused else THREADS * PART_BYTES)
    return group + min(parts, 4 * WIDE * shape.vocabulary * pack.scored) + w * shape.hidden * pack.scored + matrix


def sampling_bytes(
    shape: Shape, rows: int, columns: int, half: bool, adapters: bool = False, *, fused: bool = False
) -> int:
    """The sampler: weights laid out for decoding, keys and values of all rows, logits of a step.

    Args:
        shape: of the model.
        rows: decoded at once.
        columns: tokens of the longest prompt with its response.
        half: whether it runs in bfloat16.
        adapters: whether the model has any: on an accelerator frozen matrices in bfloat16 are then read as they are.
        fused: on an accelerator, where keys with a bias are no hindrance in bfloat16. Its room is no wider than the
            responses, so what is wider there than `ROOM` is what they fill.
    """
    w = HALF if half else WIDE
    decodes = shape.decodes and (fused or not (half and shape.key_bias))
    in_place = fused and half and adapters
    laid_out = w * (shape.head + (0 if in_place else shape.matrices)) if decodes else 0
    cache = 2 * w * shape.layers * shape.key * rows * (columns + ROOM)
    return laid_out + 2 * cache + 3 * WIDE * rows * shape.vocabulary  # the buffer is copied when it is full


def largest(packs: Sequence[Sequence[PromptTree]]) -> Pack:
    """A pack whose every figure is the largest of any pack."""
    found = [_pack(trees) for trees in packs]
    return Pack(**{f.name: max(getattr(pack, f.name) for pack in found) for f in fields(Pack)})


def _pack(trees: Sequence[PromptTree]) -> Pack:
    lengths = [tree.length for tree in trees]
    scored = sum(sum(branch.scored) for tree in trees for branch in tree.branches)
    keys = sum(len(tree.prompt) + len(branch.tokens) for tree in trees for branch in tree.branches)
    padded = len(lengths) * max(lengths)
    return Pack(tokens=sum(lengths), scored=scored, padded=padded, longest=max(lengths), keys=keys)
