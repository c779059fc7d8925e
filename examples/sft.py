"""Supervised fine-tuning in one file: the model learns to give the responses that people wrote.

    loss = -sum over response tokens of log pi(token | all tokens before it) / number of response tokens

The first step of aligning a model (Ouyang et al. 2022, arXiv:2203.02155). A line of the data is a demonstration,
{"prompt": "What is gravity?", "response": "The pull between things that have mass."}, or a whole conversation,
{"messages": [...]}. Everything here is as plain as can be: one padded row per response, the model's own forward pass,
one batch per step. `accord train sft` comes to the same numbers by another way, and can do more.

    python examples/sft.py --data recipes/data/demonstrations.jsonl --out runs/twin-sft

Dimensions: N responses, S tokens of a row with its padding, T = S - 1 of them that have a token before, V vocabulary.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

from accord.losses.likelihood import nll

Messages = list[dict[str, str]]  # [{"role": "user", "content": "What is gravity?"}]
Row = tuple[list[int], list[int]]  # token ids of a prompt, and of a response to it


def train(
    model: Any,
    tokenizer: Any,
    lines: list[dict[str, Any]],
    *,
    epochs: int = 1,
    steps: int | None = None,
    batch_size: int = 16,
    peak: float = 2e-5,
    seed: int = 0,
) -> list[float]:
    """Train the model in place; returns the loss of every step, nats per token."""
    rows_of_line = [[encode(tokenizer, *turn) for turn in assistant_turns(line)] for line in lines]
    plan = batches(len(lines), batch_size, epochs, seed)[:steps]
    optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.0)
    losses = []

    model.train()
    for step, chosen in enumerate(plan):
        logprob_NT, response_NT = logprobs(model, [row for i in chosen for row in rows_of_line[i]])
        # The mean is over the response tokens of the whole step: every token weighs the same.
        loss = nll(logprob_NT, response_NT, token_count=int(response_NT.sum()))
        loss.backward()

        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, len(plan), peak)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
        print(f"step {step + 1} of {len(plan)}: loss {losses[-1]:.4f}")
    return losses


def assistant_turns(line: dict[str, Any]) -> Iterator[tuple[str | Messages, str]]:
    """What the assistant was asked and what it said, once for each of its turns."""
    if "response" in line:
        yield line["prompt"], line["response"]
    for place, message in enumerate(line.get("messages", [])):
        if message["role"] == "assistant":
            yield line["messages"][:place], message["content"]


def encode(tokenizer: Any, prompt: str | Messages, response: str) -> Row:
    """Token ids of a prompt, up to where the assistant is to speak, and of a response with its end token."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    asked = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    prompt_ids = tokenizer(asked, add_special_tokens=False).input_ids
    # A special token spelled out in a response stays text. The end token counts like any other: a model that is never
    # shown it does not learn to stop.
    response_ids = tokenizer(response, add_special_tokens=False, split_special_tokens=True).input_ids
    return prompt_ids, [*response_ids, tokenizer.eos_token_id]


def logprobs(model: Any, rows: list[Row]) -> tuple[Tensor, Tensor]:
    """(N, T) log-probability of each token given all before it, nats, and (N, T) True where it is a response's."""
    token_NS = padded([prompt + response for prompt, response in rows], model.device)
    present_NS = padded([[1] * len(prompt + response) for prompt, response in rows], model.device)
    response_NS = padded([[False] * len(prompt) + [True] * len(response) for prompt, response in rows], model.device)
    logits_NSV = model(input_ids=token_NS, attention_mask=present_NS).logits
    # The logits at one token are about the next: those at the last have no token, the first token has no logits.
    logprob_NTV = logits_NSV[:, :-1].log_softmax(-1)
    logprob_NT = logprob_NTV.gather(-1, token_NS[:, 1:, None]).squeeze(-1)
    return logprob_NT, response_NS[:, 1:].bool()


def padded(ids: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """(N, S) rows of unequal length with zeros on their right."""
    return pad_sequence([torch.tensor(row) for row in ids], batch_first=True).to(device)


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
    parser = argparse.ArgumentParser(description="Supervised fine-tuning in one file.")
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct", help="hub id or folder")
    parser.add_argument("--data", required=True, type=Path, help='JSONL of {"prompt", "response"} or {"messages"}')
    parser.add_argument("--out", required=True, type=Path, help="folder for the trained model")
    parser.add_argument("--epochs", type=int, default=1, help="passes over the data")
    parser.add_argument("--steps", type=int, help="optimiser steps at most")
    parser.add_argument("--batch-size", type=int, default=16, help="lines per step")
    parser.add_argument("--peak", type=float, default=2e-5, help="learning rate after its rise")
    flags = vars(parser.parse_args())

    name, data, out = flags.pop("model"), flags.pop("data"), flags.pop("out")
    lines = read(data, {"prompt", "response"}, {"messages"})
    tokenizer = AutoTokenizer.from_pretrained(name)
    model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
    train(model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer, lines, **flags)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    main()
