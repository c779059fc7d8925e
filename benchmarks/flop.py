"""The useful arithmetic of an optimiser step, and the rate at which each side does it.

It is counted once, from the rows and the model's configuration, the same for both sides, as `accord.train.work` counts:

    linear layers   6 P T: P numbers in the matrices of the trunk, T tokens
    vocabulary      6 D V for each token that is scored
    attention       12 D for each pair of tokens of which one sees the other, in every layer; D the width of all heads

In `trees` a prompt counts once for all its responses: no way of computing the step can do with less. In `rows` it
counts with each response, as it is computed where every response is a row. Padding and what is computed twice never
count.
"""

from __future__ import annotations

import statistics
from typing import Any

__all__ = ["lengths", "model_numbers", "rates", "step_flop"]


def lengths(spec: dict[str, Any]) -> list[tuple[int, list[int]]]:
    """Tokens of each prompt, and of each of its responses with its end token."""
    from accord.models.load import load_tokenizer
    from accord.records import Message
    from accord.text import Template

    template = Template(load_tokenizer(spec["model"]))
    return [
        (
            len(template.prompt((Message(role="user", content=row["prompt"]),))),
            [len(template.response(response)) for response in row["responses"]],
        )
        for row in spec["texts"]
    ]


def model_numbers(folder: str) -> dict[str, int]:
    """Sizes that the arithmetic depends on, of a model that need not be loaded for it.

    Returns: `linear`, numbers in the trunk's matrices; `head`, in the vocabulary's; `attention`, width of all query
        heads times layers.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    linear = sum(m.weight.numel() for m in model.base_model.modules() if isinstance(m, torch.nn.Linear))
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return {
        "linear": linear,
        "head": config.hidden_size * config.vocab_size,
        "attention": config.num_attention_heads * head_dim * config.num_hidden_layers,
    }


def step_flop(rows: list[tuple[int, list[int]]], sizes: dict[str, int], *, scored: bool) -> dict[str, float]:
    """FLOP of forward and backward passes over some rows, in `trees` and in `rows`.

    Args:
        rows: as `lengths` gives them.
        sizes: as `model_numbers` gives them.
        scored: whether the vocabulary's head runs on the responses; a reward model has none.
    """
    answered = sum(sum(responses) for _, responses in rows)
    head = 6.0 * sizes["head"] * answered if scored else 0.0
    tokens = {"trees": answered, "rows": answered}
    pairs = {"trees": 0.0, "rows": 0.0}
    for prompt, responses in rows:
        own, seen = _triangle(prompt), sum(_triangle(response) + prompt * response for response in responses)
        for kind, times in (("trees", 1), ("rows", len(responses))):
            tokens[kind] += times * prompt
            pairs[kind] += times * own + seen
    return {
        kind: 6.0 * sizes["linear"] * tokens[kind] + head + 12.0 * sizes["attention"] * pairs[kind] for kind in tokens
    }


def _triangle(count: int) -> float:
    return count * (count + 1) / 2


def rates(spec: dict[str, Any], runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Useful FLOP of each step, and each side's FLOP/s: the median over all its steps but the first of each run."""
    rows, sizes, size = lengths(spec), model_numbers(spec["model"]), spec["size"]["batch_size"]
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    steps = [step_flop(batch, sizes, scored=spec["job"] != "reward") for batch in batches]
    found: dict[str, Any] = {"flop": steps, "sizes": sizes, "rate": {}}
    for side, all_runs in runs.items():
        found["rate"][side] = {
            kind: statistics.median(
                step[kind] / seconds
                for run in all_runs
                for step, seconds in list(zip(steps, run["step_seconds"], strict=True))[1:]
            )
            for kind in ("trees", "rows")
        }
    return found
