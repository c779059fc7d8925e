"""Rewards of replies that are text, whoever said them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from accord.models.load import load_tokenizer
from accord.records import Conversation
from accord.text import Template
from accord.train.configs import JobConfig
from accord.train.rewards import Responses, load_reward

__all__ = ["text_rewards"]


def text_rewards(
    name: str, prompts: Sequence[Conversation], texts: Sequence[str], config: JobConfig, tokenizer: str
) -> list[float]:
    """One reward per reply.

    Args:
        name: folder of a reward model, or `module:function`.
        prompts: one per reply.
        texts: the replies, as finished ones.
        config: precision and token budget are read.
        tokenizer: a model whose tokenizer stands in where the reward is a function, and reads text itself.
    """
    template = Template(load_tokenizer(name if Path(name).exists() else tokenizer))
    reward = load_reward(name, template, config.precision, config.micro_tokens)
    responses = Responses(
        prompts=prompts,
        trees=[template.tree(prompt, [text]) for prompt, text in zip(prompts, texts, strict=True)],
        texts_BK=[[text] for text in texts],
        finished_BK=[[True] for _ in texts],
    )
    found: list[float] = reward(responses).tolist()
    return found
