"""What feedback and evaluation ask of a model, as structural types without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from accord.records import Conversation

__all__ = ["Generate", "Score"]


class Generate(Protocol):
    """Answers prompts."""

    def __call__(self, prompts: Sequence[Conversation], count: int) -> list[list[str]]:
        """Return `count` responses for each prompt, in the order of the prompts."""
        ...


class Score(Protocol):
    """A reward: any callable from finished conversations to one number each, higher is better."""

    def __call__(self, conversations: Sequence[Conversation]) -> Sequence[float]:
        """Return one number per conversation; the last message is the response that is judged."""
        ...
