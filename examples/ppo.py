"""Proximal policy optimisation in one file: a model tries, is given a reward, and does more of what went well.

    sample K responses to each prompt, score them, estimate for each token how much better it was than expected: A;
    then, a few times over, minimise the mean over their tokens of
    -min(ratio A, clip(ratio, 1 - clip, 1 + clip) A) + c1 / 2 (V - G)^2,   ratio = pi / pi of when it was sampled

as in InstructGPT (Schulman et al. 2017, arXiv:1707.06347; Ouyang et al. 2022, arXiv:2203.02155). V is a value function
on the policy's last states, G what it should have said. Each token also pays for its log-ratio to the model at its
start, which keeps the language. A line of the data is {"prompt": "What is gravity?"}; the reward is the function below,
for you to replace. `accord train ppo` comes to the same numbers by another way, and can do more.

    python examples/ppo.py --data recipes/data/prompts.jsonl --out runs/twin-ppo

Dimensions: K responses to a prompt, N to all, S tokens of a row, T = S - 1 with a token before, D states, V vocabulary.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

from accord.losses import advantages, kl, policy

Prompt = str | list[dict[str, str]]  # the list: [{"role": "user", "content": "What is gravity?"}]


def reward(prompt: Prompt, response: str) -> float:
    """Stands in for a reward model: 1 for a response that ends its sentence, less a little for each word."""
    return float(response.rstrip().endswith((".", "!", "?"))) - 0.02 * len(response.split())


@dataclass(frozen=True)
class Settings:
    """What a run depends on beside model, prompts and reward."""

    epochs: int = 1  # passes over the prompts
    steps: int | None = None  # optimiser steps at most
    batch_size: int = 16  # prompts per optimiser step
    minibatches: int = 2  # optimiser steps per pass over a rollout
    ppo_epochs: int = 2  # passes over a rollout
    samples: int = 4  # K
    max_new_tokens: int = 64  # of a response
    peak: float = 5e-6  # learning rate after its rise, 50 x for the value head, which is new
    clip: float = 0.2  # a ratio that is further from 1 is pushed no further
    kl_beta: float = 0.02  # reward units per nat of log-ratio to the reference
    lam: float = 0.95  # A from the rewards that came (1) or from the next value (0)
    value_coefficient: float = 0.1  # c1
    seed: int = 0


Sampler = Callable[[Any, list[int], int, Settings], list[list[int]]]  # `sample`, or another like it


def train(
    model: Any, value_head: nn.Linear, tokenizer: Any, prompts: list[Prompt], settings: Settings, sampler: Sampler
) -> list[float]:
    """Train model and value head in place; returns the loss of every step."""
    model.eval()  # no dropout: a ratio is to compare one function before and after a step
    reference = copy.deepcopy(model).requires_grad_(False)
    trunk = {"params": model.parameters(), "peak": settings.peak}
    head = {"params": value_head.parameters(), "peak": 50 * settings.peak}
    optimiser = torch.optim.AdamW([trunk, head], betas=(0.9, 0.95), weight_decay=0.0)
    rollouts = batches(len(prompts), settings.batch_size * settings.minibatches, settings.epochs, settings.seed)
    taken = [math.ceil(len(chosen) / settings.batch_size) * settings.ppo_epochs for chosen in rollouts]
    steps = min(settings.steps or sum(taken), sum(taken))
    losses = []

    for number, chosen in enumerate(rollouts[: sum(sum(taken[:n]) < steps for n in range(len(taken)))]):
        rows, scores = [], []
        for prompt in [prompts[i] for i in chosen]:
            ids = prompt_ids(tokenizer, prompt)
            for response in sampler(model, ids, tokenizer.eos_token_id, settings):
                rows.append((ids, response))
                scores.append(reward(prompt, tokenizer.decode(response, skip_special_tokens=True)))
        token_NS = padded([ids + response for ids, response in rows], model.device)
        present_NS = padded([[1] * len(ids + response) for ids, response in rows], model.device)
        sampled_NS = padded([[False] * len(ids) + [True] * len(response) for ids, response in rows], model.device)
        with torch.no_grad():
            old_NT, value_NT = per_token(model, token_NS, present_NS, value_head)
            reference_NT, _ = per_token(reference, token_NS, present_NS, value_head)
        score_N = torch.tensor(scores, device=model.device)
        advantage_NT, return_NT = estimate(score_N, old_NT, reference_NT, value_NT, sampled_NS[:, 1:], settings)

        first = sum(taken[:number])
        plan = batches(len(chosen), settings.batch_size, settings.ppo_epochs, settings.seed + number)
        for step, minibatch in enumerate(plan[: steps - first], start=first):
            n = [settings.samples * b + k for b in minibatch for k in range(settings.samples)]
            logprob_NT, value_NT = per_token(model, token_NS[n], present_NS[n], value_head)
            policy_NT = policy.ppo_clip(logprob_NT, old_NT[n], advantage_NT[n], clip=settings.clip)
            value_loss_NT = policy.value_loss(value_NT, return_NT[n])
            loss = policy.aggregate(policy_NT + settings.value_coefficient * value_loss_NT, sampled_NS[n, 1:])
            loss.backward()

            nn.utils.clip_grad_norm_([*model.parameters(), *value_head.parameters()], 1.0)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(step, steps, group["peak"])
            optimiser.step()
            optimiser.zero_grad()
            losses.append(loss.item())
            print(f"step {step + 1} of {steps}: loss {losses[-1]:.4f}, reward of the rollout {score_N.mean():.3f}")
    return losses


@torch.no_grad()
def sample(model: Any, prompt: list[int], end: int, settings: Settings) -> list[list[int]]:
    """K responses to a prompt, token by token, each up to its end token or cut off by length."""
    new_KT, cache = torch.tensor([prompt] * settings.samples, device=model.device), None
    columns: list[Tensor] = []
    for _ in range(settings.max_new_tokens):
        out = model(input_ids=new_KT, past_key_values=cache, use_cache=True)
        new_KT, cache = torch.multinomial(out.logits[:, -1].softmax(-1), 1), out.past_key_values
        columns.append(new_KT)
    rows = torch.cat(columns, dim=-1).tolist()
    return [row[: row.index(end) + 1] if end in row else row for row in rows]


def per_token(model: Any, token_NS: Tensor, present_NS: Tensor, value_head: nn.Linear) -> tuple[Tensor, Tensor]:
    """(N, T) log-probability of each token given all before it, nats, and (N, T) value of the state it was said in."""
    out = model(input_ids=token_NS, attention_mask=present_NS, output_hidden_states=True)
    # The logits at one token are about the next: those at the last have no token, the first token has no logits.
    logprob_NTV, state_NTD = out.logits[:, :-1].log_softmax(-1), out.hidden_states[-1][:, :-1]
    return logprob_NTV.gather(-1, token_NS[:, 1:, None]).squeeze(-1), value_head(state_NTD).squeeze(-1)


def estimate(
    score_N: Tensor, old_NT: Tensor, reference_NT: Tensor, value_NT: Tensor, sampled_NT: Tensor, settings: Settings
) -> tuple[Tensor, Tensor]:
    """(N, T) A, at mean 0 and deviation 1 over the rollout, and (N, T) G, reward units."""
    # The score lands on a response's last token; each token pays for moving away from the reference.
    kl_NT = kl.k1(old_NT, reference_NT)
    reward_NT = advantages.token_rewards(score_N, kl_NT, sampled_NT, kl_coefficient=settings.kl_beta)
    advantage_NT, return_NT = advantages.gae(reward_NT, value_NT, sampled_NT, gamma=1.0, lam=settings.lam)
    return advantages.whiten(advantage_NT, sampled_NT), return_NT


def prompt_ids(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Token ids of a prompt, up to where the assistant is to speak."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    asked = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer(asked, add_special_tokens=False).input_ids


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


def main() -> None:
    """Load a model, train it, save it."""
    parser = argparse.ArgumentParser(description="Proximal policy optimisation in one file.")
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct", help="hub id or folder")
    parser.add_argument("--data", required=True, type=Path, help='JSONL of {"prompt"}')
    parser.add_argument("--out", required=True, type=Path, help="folder for the trained model")
    for name in ("epochs", "steps", "batch_size", "minibatches", "samples", "max_new_tokens"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(Settings, name), help="a setting")
    flags = vars(parser.parse_args())
    name, data, out = flags.pop("model"), flags.pop("data"), flags.pop("out")
    prompts = [json.loads(line)["prompt"] for line in data.read_text(encoding="utf8").splitlines() if line.strip()]
    tokenizer = AutoTokenizer.from_pretrained(name)
    model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    value_head = nn.Linear(model.config.hidden_size, 1).to(model.device)
    for weight in value_head.parameters():
        nn.init.zeros_(weight)  # no opinion yet: the first advantages are the returns
    torch.manual_seed(Settings.seed)
    train(model, value_head, tokenizer, prompts, Settings(**flags), sample)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    main()
