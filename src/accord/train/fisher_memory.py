"""How much memory TRPO's natural-gradient step needs, told before the first one and not by the system's killing it.

A product with the Fisher matrix keeps the graph of a second derivative: what a forward pass keeps, several times over,
logits of vocabulary width included. The multiples below were measured as the growth of a process over one product, on
models in which one term dominates; an estimate from them is to be right within a quarter, and rather too high.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from accord.models.allocation import memory_available
from accord.models.score import base_of
from accord.train import loop
from accord.train.configs import PpoConfig
from accord.trees import Branch, PromptTree, budget_packs

__all__ = ["memory_needed", "require_memory"]

BYTES = 4  # float32, which TRPO requires
VECTORS = (
    13  # of all trained parameters: start, gradient, those of conjugate gradients, both derivatives and their sums
)
LOGITS, HIDDEN, INNER, ATTENTION = 10, 32, 18, 7  # copies of each kind of activation in the graph of one product


def require_memory(policy: nn.Module, prompt_lengths: Sequence[int], config: PpoConfig) -> None:
    """Compare what the largest step of a run can need with what is free.

    Raises: ValueError: it is too little; says how much is needed and what to change.
    """
    needed, free = memory_needed(policy, prompt_lengths, config), memory_available(loop.device_of(policy))
    if needed > free:
        raise ValueError(
            f"a trpo step needs about {needed / 1e9:.1f} GB for {len(loop.trainable(policy))} trained tensors and the "
            f"graph of a second derivative over one pack; {free / 1e9:.1f} GB are available; train adapters "
            f"(--lora-rank 8) if all weights are trained now, or lower --micro-tokens {config.micro_tokens}, "
            f"--max-new-tokens {config.max_new_tokens} or --fisher-share {config.fisher_share}"
        )


def memory_needed(policy: nn.Module, prompt_lengths: Sequence[int], config: PpoConfig) -> int:
    """Bytes of the largest step: the longest prompts of the data, all responses as long as they may be."""
    assert config.fisher_share is not None
    response = Branch.response((0,) * config.max_new_tokens)
    longest = sorted(prompt_lengths, reverse=True)[: config.batch_size]
    trees = [PromptTree((0,) * length, (response,) * config.samples) for length in longest]
    share = trees[: math.ceil(config.fisher_share * len(trees))]
    packs = budget_packs([tree.length for tree in share], config.micro_tokens)
    graph = max(_graph(policy, [share[i] for i in group]) for group in packs)
    trained = sum(p.numel() for p in loop.trainable(policy))
    settings: Any = base_of(policy).config.get_text_config()  # type: ignore[operator, union-attr]
    states = len(trees) * config.samples * config.max_new_tokens * settings.hidden_size  # the old distributions
    return BYTES * (VECTORS * trained + states) + graph


def _graph(policy: nn.Module, trees: Sequence[PromptTree]) -> int:
    """Bytes of the second derivative's graph over one pack."""
    settings: Any = base_of(policy).config.get_text_config()  # type: ignore[operator, union-attr]
    inner = getattr(settings, "intermediate_size", None) or 4 * settings.hidden_size
    tokens = sum(tree.length for tree in trees)
    scored = sum(len(branch.tokens) for tree in trees for branch in tree.branches)
    layer = tokens * (HIDDEN * settings.hidden_size + INNER * inner)
    layer += ATTENTION * settings.num_attention_heads * len(trees) * max(tree.length for tree in trees) ** 2
    return BYTES * (LOGITS * scored * settings.vocab_size + settings.num_hidden_layers * layer)
