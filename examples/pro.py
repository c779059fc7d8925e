"""Preference ranking optimisation in one file: learning from whole rankings, without reward model or reference.

    loss = sum over places k of [logsumexp({p_k} and p_i of all that is worse) - p_k]  -  sft_weight * p_best
    p    = mean over the tokens of a response of log pi(token | all tokens before it)

The best response is to be the likeliest of all, the second of what is left, and so on; the last term keeps the best one
likely in itself (Song et al. 2023, arXiv:2306.17492). The mean over the prompts of a step is minimised. A line of the
data is a ranking, {"prompt": "2 + 2?", "responses": ["5", "4", "four"], "ranks": [3, 1, 2]}: 1 is best, equal numbers
tie, null has failed and is worse than all that has a rank. `accord train dpo --loss pro` comes to the same numbers by
another way, and can do more.

    python examples/pro.py --data recipes/data/rankings.jsonl --out runs/twin-pro

Dimensions: B prompts, K responses to one of them, N responses to all of them, S tokens of a row with its padding,
T = S - 1 of them that have a token before, V vocabulary.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

from accord.losses.listwise import ABSENT, FAILED, pro

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
    peak: float = 5e-6,
    sft_weight: float = 0.05,
    seed: int = 0,
) -> list[float]:
    """Train the model in place; returns the loss of every step, nats per prompt."""
    rows_of_line = [[encode(tokenizer, line["prompt"], text) for text in line["responses"]] for line in lines]
    ranks_of_line = [torch.tensor([FAILED if rank is None else rank for rank in line["ranks"]]) for line in lines]
    plan = batches(len(lines), batch_size, epochs, seed)[:steps]
    optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.0)
    losses = []

    model.eval()  # no dropout: the responses are to be compared on the same terms
    for step, chosen in enumerate(plan):
        score_N = mean_logprob(model, [row for i in chosen for row in rows_of_line[i]])
        # From a list of all responses to a row per prompt; where a prompt has fewer than others the rank says so.
        score_BK = pad_sequence(score_N.split([len(rows_of_line[i]) for i in chosen]), batch_first=True)
        rank_BK = pad_sequence([ranks_of_line[i] for i in chosen], batch_first=True, padding_value=ABSENT)
        rank_BK = rank_BK.to(model.device)
        best_BK = rank_BK == rank_BK.where(rank_BK > FAILED, rank_BK.max() + 1).amin(-1, keepdim=True)
        nll_B = -score_BK.where(best_BK, 0).sum(-1) / best_BK.sum(-1).clamp(min=1)  # 0 where all have failed
        loss = pro(score_BK, rank_BK, sft_nll_B=nll_B, sft_weight=sft_weight).mean()
        loss.backward()

        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, len(plan), peak)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
        print(f"step {step + 1} of {len(plan)}: loss {losses[-1]:.4f}")
    return losses


def mean_logprob(model: Any, rows: list[Row]) -> Tensor:
    """(N,) mean over the tokens of each response of their log-probability, nats per token."""
    logprob_NT, response_NT = logprobs(model, rows)
    return logprob_NT.where(response_NT, 0).sum(-1) / response_NT.sum(-1)


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
    parser = argparse.ArgumentParser(description="Preference ranking optimisation in one file.")
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct", help="hub id or folder")
    parser.add_argument("--data", required=True, type=Path, help='JSONL of {"prompt", "responses", "ranks"}')
    parser.add_argument("--out", required=True, type=Path, help="folder for the trained model")
    parser.add_argument("--epochs", type=int, default=1, help="passes over the data")
    parser.add_argument("--steps", type=int, help="optimiser steps at most")
    parser.add_argument("--batch-size", type=int, default=16, help="prompts per step")
    parser.add_argument("--peak", type=float, default=5e-6, help="learning rate after its rise")
    parser.add_argument("--sft-weight", type=float, default=0.05, help="weight of the best response's likelihood")
    flags = vars(parser.parse_args())

    name, data, out = flags.pop("model"), flags.pop("data"), flags.pop("out")
    # `scores` may stand beside the ranks. They would sharpen the sum by their gaps; only their order counts here.
    lines = read(data, {"prompt", "responses", "ranks"}, {"prompt", "responses", "ranks", "scores"})
    tokenizer = AutoTokenizer.from_pretrained(name)
    model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
    train(model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer, lines, **flags)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    main()
