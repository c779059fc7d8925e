"""The arithmetic that a training step has to do, whatever way it is done: what is useful of what a machine computes.

    linear layers   2 P T forward, 2 P T for the gradient of the states, 2 P' T for that of the weights
    vocabulary      the same with the head's D V numbers, on the tokens that are scored only
    attention       4 D S forward for the S pairs of tokens of which one sees the other, times 3 with gradients

T tokens of the packs (a prompt counts once for all its responses), P numbers in the matrices of linear layers, P' of
them trained, D the width of all query heads. With all weights trained this is the usual 6 P T. What is computed a
second time (logits of a large pack in the head's backward pass, activations under checkpointing) or thrown away (masked
pairs, padding) does not count. The vocabulary's part is counted by `accord.train.profile_events`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.profiler import record_function
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from accord.trees import PromptTree

__all__ = ["MARK", "Work", "counting_work"]

MARK = "accord.work "


@dataclass
class Work:
    """FLOP of forward and backward passes, counted as they run.

    Attributes:
        linear: of linear layers.
        attention: of attention, one matrix product of queries and keys, one of shares and values.
        tokens: that went through a model in a pass with gradients.
    """

    linear: float = 0.0
    attention: float = 0.0
    tokens: int = 0

    def add_trunk(self, trunk: nn.Module, tokens: int, pairs: float, gradients: bool) -> None:
        """A forward pass of a transformer, and the backward pass that follows it if it carries gradients."""
        weights = [module.weight for module in trunk.modules() if isinstance(module, (nn.Linear, Conv1D))]
        whole = sum(weight.numel() for weight in weights)
        trained = sum(weight.numel() for weight in weights if weight.requires_grad)
        self.linear += 2.0 * tokens * (2 * whole + trained if gradients else whole)
        self.attention += pairs * (3 if gradients else 1)
        self.tokens += tokens if gradients else 0

    def add(self, mark: str) -> None:
        """Add the work that a mark in a profile tells of."""
        linear, attention, tokens = mark.removeprefix(MARK).split()
        self.linear, self.attention = self.linear + float(linear), self.attention + float(attention)
        self.tokens += int(tokens)


@contextmanager
def counting_work() -> Iterator[None]:
    """Leave a mark in the profile for each pass of a model, sampling with a cache left out: so it has its phase."""

    def passed(module: nn.Module, _: Any, kwargs: dict[str, Any], __: Any) -> None:
        token = kwargs.get("input_ids")
        is_trunk = isinstance(module, PreTrainedModel) and module.base_model is module
        if token is None or not is_trunk or kwargs.get("past_key_values") is not None:
            return
        work = Work()
        work.add_trunk(module, token.numel(), _attention(module, kwargs), torch.is_grad_enabled())
        with record_function(f"{MARK}{work.linear:.0f} {work.attention:.0f} {work.tokens}"):
            pass

    handle = register_module_forward_hook(passed, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _attention(trunk: Any, kwargs: dict[str, Any]) -> float:
    """FLOP of attention forward: over all layers 4 D for each pair of tokens of which one sees the other."""
    config = trunk.config.get_text_config()
    width = config.num_attention_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    tree, mask = kwargs.get("tree"), kwargs.get("attention_mask")
    layers = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    window = getattr(config, "sliding_window", None)
    pairs = 0.0
    for kind in set(layers):
        seen = window if kind == "sliding_attention" else None
        pairs += layers.count(kind) * (_row_pairs(mask, seen) if tree is None else _tree_pairs(tree.trees, seen))
    return 4.0 * width * pairs


def _tree_pairs(trees: Sequence[PromptTree], window: int | None) -> float:
    """Pairs of packed trees."""
    total = 0
    for tree in trees:
        prompt = _sequence_pairs(len(tree.prompt), window)
        ends = (len(tree.prompt) + len(branch.tokens) for branch in tree.branches)
        total += prompt + sum(_sequence_pairs(end, window) - prompt for end in ends)
    return float(total)


def _row_pairs(mask_NS: Any, window: int | None) -> float:
    """Pairs of rows of plain text."""
    return float(sum(_sequence_pairs(length, window) for length in mask_NS.sum(-1).tolist()))


def _sequence_pairs(length: int, window: int | None) -> int:
    """A token sees itself and what stands before it, a window of w tokens at most."""
    seen = min(length, window or length)
    return seen * (seen + 1) // 2 + (length - seen) * seen
