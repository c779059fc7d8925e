"""The rows that Accord and a peer both train on: real words, lengths as the job says, the same for everybody.

No tensors and no imports beyond the standard library: a peer's process reads the same JSON files.
"""

from __future__ import annotations

import json
import random
from importlib.resources import files
from pathlib import Path
from typing import Any

__all__ = ["GPU_JOBS", "JOBS", "prompt_rows", "ranking_rows", "text_rows", "write_rows"]

_SMALL_PPO: dict[str, Any] = {"rows": 16, "prompt_words": 48, "new_tokens": 48}
_SMALL_PPO |= {"samples": 1, "epochs": 2, "minibatches": 4}
_LORA: dict[str, Any] = {"lora_rank": 16, "learning_rate": 1e-4}
JOBS: dict[str, dict[str, Any]] = {
    "sft": {"rows": 48, "prompt_words": 64, "response_words": 64, "batch_size": 8, "learning_rate": 2e-5},
    "reward": {"rows": 32, "prompt_words": 64, "response_words": 48, "batch_size": 8, "learning_rate": 1e-5},
    "dpo": {"rows": 32, "prompt_words": 64, "response_words": 48, "batch_size": 8, "learning_rate": 5e-6},
    "listwise-4": {"rows": 12, "responses": 4, "prompt_words": 96, "response_words": 32, "batch_size": 4},
    "listwise-8": {"rows": 8, "responses": 8, "prompt_words": 96, "response_words": 32, "batch_size": 4},
    "ppo": _SMALL_PPO,
    "ppo-shared": _SMALL_PPO,
    "ppo-lora": {**_SMALL_PPO, "lora_rank": 16},
    "rloo": {"rows": 8, "prompt_words": 48, "new_tokens": 48, "samples": 4},
    "grpo": {"rows": 8, "prompt_words": 48, "new_tokens": 48, "samples": 4},
    "sft-lora": {"rows": 48, "prompt_words": 64, "response_words": 64, "batch_size": 8, **_LORA},
    "dpo-lora": {"rows": 32, "prompt_words": 64, "response_words": 48, "batch_size": 8, **_LORA},
    "sampling": {"rows": (8, 32, 64), "prompt_words": 24, "new_tokens": 64, "samples": 1},
    "sampling-4": {"rows": (32, 64), "prompt_words": 24, "new_tokens": 64, "samples": 4},
}
"""Sizes of each job. Lengths are drawn uniformly between a quarter of the number given and the number itself. Rows of
sampling are decoded side by side; `samples` of them have one prompt."""

_TEXTS: dict[str, Any] = {"prompt_words": 192, "response_words": 160, "micro_tokens": 16384}
_ROLLOUT: dict[str, Any] = {"prompt_words": 96, "new_tokens": 128, "micro_tokens": 16384}
_PPO: dict[str, Any] = {"rows": 64, **_ROLLOUT, "samples": 1, "epochs": 2, "minibatches": 4, "peer_batch": 64}
GPU_JOBS: dict[str, dict[str, Any]] = {
    "sft": {"rows": 256, **_TEXTS, "batch_size": 64, "peer_batch": 32, "learning_rate": 2e-5},
    "reward": {"rows": 128, **_TEXTS, "batch_size": 32, "peer_batch": 16, "learning_rate": 1e-5},
    "dpo": {"rows": 512, **_TEXTS, "batch_size": 128, "peer_batch": 16, "learning_rate": 5e-6},
    "ppo": _PPO,
    "ppo-shared": _PPO,
    "grpo": {"rows": 16, **_ROLLOUT, "samples": 8, "peer_batch": 32},
    "sampling": {"rows": (64, 128), "prompt_words": 96, "new_tokens": 128, "samples": 1},
}
"""Sizes on a GPU. `micro_tokens` is Accord's budget of one forward pass; `peer_batch` what the peer puts through its
model at once (rows; pairs for dpo and reward), about as many tokens: the rest of a step is accumulated. For ppo it is
that of the passes behind a rollout, whose mini-batches TRL cannot split."""


def words() -> list[str]:
    """Words of the shipped film-review prompts, in a fixed order."""
    text = files("accord.pipelines").joinpath("quickstart_prompts.jsonl").read_text(encoding="utf-8")
    prompts = [json.loads(line)["prompt"] for line in text.splitlines()]
    flat = [p if isinstance(p, str) else " ".join(message["content"] for message in p) for p in prompts]
    return sorted({word for prompt in flat for word in prompt.split()})


def sentence(generator: random.Random, vocabulary: list[str], longest: int) -> str:
    """Words drawn at random, between a quarter of `longest` and `longest` of them."""
    return " ".join(generator.choice(vocabulary) for _ in range(generator.randint(max(1, longest // 4), longest)))


def ranking_rows(job: str, seed: int = 0, size: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Prompts with K responses, best first; K = 1 for sft, 2 for pairs."""
    size, generator, vocabulary = size or JOBS[job], random.Random(seed), words()
    count = size.get("responses", 1 if job.startswith("sft") else 2)
    return [
        {
            "prompt": sentence(generator, vocabulary, size["prompt_words"]),
            "responses": [sentence(generator, vocabulary, size["response_words"]) for _ in range(count)],
        }
        for _ in range(size["rows"])
    ]


def prompt_rows(count: int, longest: int, seed: int = 0) -> list[str]:
    """Prompts to sample from."""
    generator, vocabulary = random.Random(seed), words()
    return [sentence(generator, vocabulary, longest) for _ in range(count)]


def text_rows(job: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows as Accord's records."""
    if job == "sft":
        return [{"prompt": row["prompt"], "response": row["responses"][0]} for row in rows]
    if job.startswith("listwise"):
        return [row | {"ranks": list(range(1, len(row["responses"]) + 1))} for row in rows]
    return [{"prompt": row["prompt"], "chosen": row["responses"][0], "rejected": row["responses"][1]} for row in rows]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
