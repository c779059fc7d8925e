"""How many rows are decoded at once where nobody says."""

from __future__ import annotations

from typing import Any

from accord.models.allocation import memory_available
from accord.rollouts import Sampling

__all__ = ["ROWS", "ROWS_GPU", "rows_that_fit", "rows_with_room"]

ROWS, ROWS_GPU = 64, 256


def rows_with_room(model: Any, longest: int, sampling: Sampling) -> int:
    """What one row more costs is time on a CPU, and memory on a GPU.

    Args:
        model: whose keys and values are kept.
        longest: tokens of the longest prompt.
        sampling: its responses are as long as they may be.
    """
    weight = next(model.parameters())
    if weight.device.type != "cuda":
        return ROWS
    columns = longest + sampling.max_new_tokens
    return rows_that_fit(model.config, columns, memory_available(weight.device), weight.element_size())


def rows_that_fit(config: Any, columns: int, free: int, size: int = 4) -> int:
    """Rows of so many tokens whose keys and values fit twice into a quarter of what is free: at least 1, at most 256.

    Twice, because where rows join, old and new buffers are there together.

    Args:
        config: the model's.
        columns: tokens of a row.
        free: bytes.
        size: bytes of a number of the weights; under autocast keys and values take half.
    """
    text = config.get_text_config()
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    groups = getattr(text, "num_key_value_heads", None) or heads
    row = 2 * text.num_hidden_layers * groups * width * columns * size
    return max(1, min(ROWS_GPU, free // 4 // (2 * row)))
