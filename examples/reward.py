"""A reward model in one file: one number per response, higher for the response that people prefer.

    loss = -log sigma(r(x, chosen) - r(x, rejected)),   mean over the comparisons of a step

so that sigma of the difference becomes the probability that people prefer the one to the other (Bradley & Terry 1952).
A line of the data is a comparison, {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}. The model is a language model
with a single row in place of its vocabulary head, read at the last token of the response, where all has been said.
`accord train reward` comes to the same numbers by another way, and can do more.

    python examples/reward.py --data recipes/data/comparisons.jsonl --out runs/twin-reward

Dimensions: B comparisons, N responses, S tokens of a row with its padding.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from accord.losses.reward import bradley_terry

Messages = list[dict[str, str]]  # [{"role": "user", "content": "What is gravity?"}]
Row = tuple[list[int], list[int]]  # token ids of a prompt, and of a response to it


def train(
    model: Any,
    tokenizer: Any,
    lines: list[dict[str, Any]],
    *,
    epochs: int = 1,
    steps: int | None = None,
    batch_size: int = 32,
    peak: float = 1e-5,
    seed: int = 0,
) -> list[float]:
    """Train the model in place; returns the loss of every step, nats per comparison."""
    chosen_rows = [encode(tokenizer, line["prompt"], line["chosen"]) for line in lines]
    rejected_rows = [encode(tokenizer, line["prompt"], line["rejected"]) for line in lines]
    plan = batches(len(lines), batch_size, epochs, seed)[:steps]
    # The fresh head has a longer way to go than the pretrained rest.
    trunk = {"params": model.base_model.parameters(), "peak": peak}
    head = {"params": model.score.parameters(), "peak": 10 * peak}
    optimiser = torch.optim.AdamW([trunk, head], betas=(0.9, 0.95), weight_decay=0.0)
    losses = []

    model.train()
    for step, chosen in enumerate(plan):
        chosen_B = rewards(model, [chosen_rows[i] for i in chosen])
        rejected_B = rewards(model, [rejected_rows[i] for i in chosen])
        loss = bradley_terry(chosen_B, rejected_B).mean()
        loss.backward()

        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, len(plan), group["peak"])
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
        right = (chosen_B > rejected_B).float().mean()
        print(f"step {step + 1} of {len(plan)}: loss {losses[-1]:.4f}, {right:.0%} in the right order")
    return losses


def load(name: str) -> tuple[Any, Any]:
    """A language model with a score head in place of its vocabulary head, and its tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(name)
    model = AutoModelForSequenceClassification.from_pretrained(name, num_labels=1, dtype=torch.float32)
    nn.init.zeros_(model.score.weight)  # no opinion yet: every score is 0 and the first loss log 2
    # transformers reads the score at the last token that is no padding. Many tokenizers pad with the end token; the
    # score would then be read before it, so padding gets another token.
    candidates = [tokenizer.pad_token_id, tokenizer.unk_token_id, *tokenizer.all_special_ids]
    tokenizer.pad_token_id = next(i for i in candidates if i not in (None, tokenizer.eos_token_id))
    model.config.pad_token_id = tokenizer.pad_token_id
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer


def rewards(model: Any, rows: list[Row]) -> Tensor:
    """(N,) the score of each response, reward units."""
    ids = [torch.tensor(prompt + response) for prompt, response in rows]
    token_NS = pad_sequence(ids, batch_first=True, padding_value=model.config.pad_token_id).to(model.device)
    present_NS = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True).to(model.device)
    return model(input_ids=token_NS, attention_mask=present_NS).logits.squeeze(-1)


def encode(tokenizer: Any, prompt: str | Messages, response: str) -> Row:
    """Token ids of a prompt, up to where the assistant is to speak, and of a response with its end token."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    asked = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    prompt_ids = tokenizer(asked, add_special_tokens=False).input_ids
    # A special token spelled out in a response stays text. The end token counts like any other: a model that is never
    # shown it does not learn to stop.
    response_ids = tokenizer(response, add_special_tokens=False, split_special_tokens=True).input_ids
    return prompt_ids, [*response_ids, tokenizer.eos_token_id]


def batches(count: int, size: int, epochs: int, seed: int) -> list[list[int]]:
    """Indices of the lines of every step: each epoch a shuffle of its own, its last batch as short as it comes."""
    plan = []
    for epoch in range(epochs):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch)).tolist()
        plan += [order[start : start + size] for start in range(0, count, size)]
    return plan


def learning_rate(step: int, steps: int, peak: float) -> float:
    """A linear rise over the first twentieth of the steps, then a linear fall to a tenth of the peak."""
    rise = max(1, round(0.05 * steps))
    if step < rise:
        return peak * (step + 1) / rise
    return peak * (1 - 0.9 * (step - rise) / max(1, steps - rise))


def read(path: Path, *kinds: set[str]) -> list[dict[str, Any]]:
    """Lines of a JSONL file. A field that this program does not read is an error: it may have been meant."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf8").splitlines() if line.strip()]
    for number, line in enumerate(lines, start=1):
        if set(line) not in kinds:
            wanted = " or ".join(str(sorted(kind)) for kind in kinds)
            raise ValueError(f"{path}, row {number}: the fields are {sorted(line)}; write {wanted}")
    return lines


def main() -> None:
    """Load a model, train it, save it."""
    parser = argparse.ArgumentParser(description="A reward model in one file.")
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct", help="hub id or folder")
    parser.add_argument("--data", required=True, type=Path, help='JSONL of {"prompt", "chosen", "rejected"}')
    parser.add_argument("--out", required=True, type=Path, help="folder for the trained model")
    parser.add_argument(
        "--epochs", type=int, default=1, help="passes over the data; reward models overfit in the second"
    )
    parser.add_argument("--steps", type=int, help="optimiser steps at most")
    parser.add_argument("--batch-size", type=int, default=32, help="comparisons per step")
    parser.add_argument("--peak", type=float, default=1e-5, help="learning rate after its rise, 10 x for the head")
    flags = vars(parser.parse_args())

    name, data, out = flags.pop("model"), flags.pop("data"), flags.pop("out")
    lines = read(data, {"prompt", "chosen", "rejected"})
    model, tokenizer = load(name)
    train(model, tokenizer, lines, **flags)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    main()
