"""How many rows are decoded at once where nobody says."""

from __future__ import annotations

from typing import Any

import torch

from accord.rollouts import Sampling

__all__ = ["CACHES", "ROWS", "ROWS_GPU", "rows_with_room"]

ROWS, ROWS_GPU = 64, 256
CACHES = 4  # a quarter of a GPU's free memory is for keys and values


def rows_with_room(model: Any, longest: int, sampling: Sampling) -> int:
    """Rows to decode at once where nobody says: what one does costs time on a CPU, and memory on a GPU.

    Args:
        model: whose keys and values are kept; counted in the precision of its weights, under autocast they take half.
        longest: tokens of the longest prompt.
        sampling: its responses are as long as they may be.
    """
    weight = next(model.parameters())
    if weight.device.type != "cuda":
        return ROWS
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    numbers = 2 * config.num_hidden_layers * groups * width * (longest + sampling.max_new_tokens)
    free = torch.cuda.mem_get_info(weight.device)[0]
    free += torch.cuda.memory_reserved(weight.device) - torch.cuda.memory_allocated(weight.device)
    # Twice: where rows join, old and new buffers are there together.
    return max(1, min(ROWS_GPU, free // CACHES // (2 * numbers * weight.element_size())))
