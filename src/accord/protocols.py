"""What feedback and evaluation ask of a model, as structural types without torch.

A model that answers, scores or embeds is an argument of whoever needs it. `LanguageModel` is what the two
implementations share: `accord.rollouts.local.LocalModel` in this process, `accord.servers.ServerModel` by HTTP.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, overload

from accord.records import Conversation

__all__ = ["Embed", "Generate", "LanguageModel", "Prompt", "Reply", "Sampling", "Score", "Unavailable", "Usage"]

Prompt: TypeAlias = Conversation | str
"""Chat messages, which the model's own template renders, or a plain string that is continued as it stands."""


class Unavailable(ConnectionError):
    """A model cannot be reached for the time being. Work done is kept; the same command continues later."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How replies are sampled.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest token.
        top_p: smallest set of tokens whose probability reaches this (1: all).
        max_new_tokens: tokens of a reply at most.
        stop: strings that end a reply; the reply ends before them.
        presence_penalty: subtracted from the logits of tokens that the reply has already, nats; 0: none.
        seed: same seed, prompt and settings give the same replies, where the model can be seeded.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 512
    stop: tuple[str, ...] = ()
    presence_penalty: float = 0.0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One reply. Example: `Reply(text="4", finish="stop", prompt_tokens=12, new_tokens=2, seconds=0.3)`.

    Attributes:
        text: what was said, without the stop string.
        finish: "stop": it ended; "length": it was cut off; "error": there is no reply, and `error` says why.
        prompt_tokens: of the prompt; 0 where nobody counted.
        new_tokens: of the reply; 0 where nobody counted.
        seconds: it took; of a batch, its share.
        error: what went wrong, one line.
    """

    text: str
    finish: Literal["stop", "length", "error"]
    prompt_tokens: int
    new_tokens: int
    seconds: float
    error: str | None = None


@dataclass
class Usage:
    """What a model was asked since it was opened; it counts on. Tokens are 0 where a server does not tell."""

    requests: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0

    def add(self, prompt_tokens: int, new_tokens: int) -> None:
        """Count one more request."""
        self.requests += 1
        self.prompt_tokens += prompt_tokens
        self.new_tokens += new_tokens


class Generate(Protocol):
    """Answers prompts."""

    @property
    def name(self) -> str:
        """Model id and revision; goes into every row."""
        ...

    def __call__(self, prompts: Sequence[Prompt], count: int, sampling: Sampling) -> list[list[Reply]]:
        """Return `count` replies for each prompt, in the order of the prompts."""
        ...


class Score(Protocol):
    """Says how likely a model finds given continuations."""

    @property
    def name(self) -> str:
        """Model id and revision; goes into every row."""
        ...

    def __call__(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """Return the summed log-probability (nats) of each continuation after its prompt; None: could not be had."""
        ...


class Embed(Protocol):
    """Places texts in a space where like ones are near."""

    @property
    def name(self) -> str:
        """Model id and revision."""
        ...

    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        """Return one vector per text."""
        ...


class LanguageModel(ABC):
    """A model that generates and scores: pass it wherever a `Generate` or a `Score` is asked for."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Model id and revision; goes into every row."""

    @property
    def method(self) -> str:
        """How log-probabilities are had: "exact" from the model itself, or a server's "echo", "top" or "votes"."""
        return "exact"

    @property
    @abstractmethod
    def usage(self) -> Usage:
        """What it was asked so far."""

    def method_of(self, prompt: Prompt) -> str:
        """How the log-probabilities of a prompt that was scored last were had, where not all were had one way."""
        return self.method

    def unread(self, prompt: Prompt) -> str | None:
        """What was said to a prompt whose scores could not be read; None: nothing is known of it."""
        return None

    def rendered(self, prompt: Prompt) -> Any:
        """What decides an answer beside the name and what is asked, as JSON: a prompt as the model gets it."""
        return prompt if isinstance(prompt, str) else [[message.role, message.content] for message in prompt]

    @abstractmethod
    def generate(self, prompts: Sequence[Prompt], count: int, sampling: Sampling) -> list[list[Reply]]:
        """Answer prompts, see `Generate`."""

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Reply]:
        """Yield one reply as it grows, each time all of it so far; the last one is whole.

        What is yielded before has `finish` "length": who stops reading there has cut it off, and a model that can
        computes no further. One that cannot yields the whole reply at once.
        """
        yield self.generate([prompt], 1, sampling)[0][0]

    @abstractmethod
    def score(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """Score continuations, see `Score`."""

    def score_labels(self, prompts: Sequence[Prompt], labels: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """Score answers such as (A) and (B) over all their spellings, see `accord.labels`; here: as they stand."""
        return self.score(prompts, labels)

    @overload
    def __call__(self, prompts: Sequence[Prompt], count: int, sampling: Sampling) -> list[list[Reply]]: ...

    @overload
    def __call__(
        self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[str]]
    ) -> list[list[float | None]]: ...

    def __call__(self, prompts: Sequence[Prompt], *asked: Any, **named: Any) -> Any:
        """Generate if sampling is given, else score."""
        generates = len(asked) == 2 or "sampling" in named
        return (self.generate if generates else self.score)(prompts, *asked, **named)
