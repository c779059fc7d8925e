"""Sampling responses: what a sampler is asked for, what it returns, and the native implementation in `native`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = ["Rollout", "Sampler", "Sampling"]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to sample. Temperature 0 is greedy.

    Top-k is applied before top-p, and top-p counts the probability that top-k left. Tokens tied with the last one
    kept are kept too.

    Attributes:
        samples: K, responses per prompt.
        max_new_tokens: tokens of a response at most, the end token included.
        min_new_tokens: end tokens are forbidden before this many tokens; a stop string still ends the response.
        temperature: divides the logits; 0 takes the largest.
        top_p: smallest set of tokens whose probability reaches this (1: all).
        top_k: the k most probable tokens (0: all).
        presence_penalty: subtracted from the logits of tokens that the response holds already, before temperature,
            nats; 0: none. `logprob` does not know of it.
        stop: strings that end a response; the tokens up to the one that completes the string are kept.
        seed: same seed, prompts and settings give the same responses, whatever the batch they run in.
    """

    samples: int = 1
    max_new_tokens: int = 64
    min_new_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    presence_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing, naming the setting."""
        rules = {
            "samples": (self.samples >= 1, "write 1 or more"),
            "max_new_tokens": (self.max_new_tokens >= 1, "write 1 or more"),
            "min_new_tokens": (0 <= self.min_new_tokens <= self.max_new_tokens, "write 0 to max_new_tokens"),
            "temperature": (0 <= self.temperature < float("inf"), "write 0 for greedy, else a positive number"),
            "top_p": (0 < self.top_p <= 1, "write a probability above 0, 1 for all tokens"),
            "top_k": (self.top_k >= 0, "write 0 for all tokens, else the number to keep"),
            "presence_penalty": (abs(self.presence_penalty) < float("inf"), "write a number, 0 for none"),
            "stop": (not isinstance(self.stop, str) and all(self.stop), "write a tuple of strings that are not empty"),
            "seed": (self.seed >= 0, "write 0 or more"),
        }
        for name, (holds, advice) in rules.items():
            if not holds:
                raise ValueError(f"sampling: `{name}` is {getattr(self, name)!r}; {advice}")


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One sampled response to one prompt.

    Example: the prompt "2+2=" answered "4" and stopped: tokens [24, 2], logprob [-0.1, -0.02], finish "stop".

    Attributes:
        tokens: vocabulary ids, the end token included when it was sampled.
        logprob: nats, of each token under the distribution at temperature 1, nothing cut off.
        sampling_logprob: nats, of each token under the distribution it was drawn from (temperature, top-p, top-k,
            penalty, end tokens forbidden); 0 for greedy.
        finish: "stop" if an end token or stop string ended it, "length" if it was cut off.
    """

    tokens: tuple[int, ...]
    logprob: tuple[float, ...]
    sampling_logprob: tuple[float, ...]
    finish: Literal["stop", "length"]


class Sampler(Protocol):
    """Samples responses to tokenised prompts."""

    def sample(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Rollout]]:
        """Return `sampling.samples` rollouts for each prompt, in the order of the prompts."""
        ...
