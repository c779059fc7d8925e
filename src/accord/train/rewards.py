"""Where a reward comes from: a reward model's folder, or any Python function from conversations to numbers."""

from __future__ import annotations

import json
import math
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from accord.models.load import load_reward_model, resolve
from accord.models.score import prepare
from accord.records import Conversation, Message
from accord.text import Template
from accord.train.functions import load_function
from accord.train.loop import Precision, device_of
from accord.train.scoring import all_rewards
from accord.trees import PromptTree

__all__ = ["FunctionReward", "ModelReward", "Responses", "Reward", "load_reward"]


@dataclass(frozen=True, kw_only=True)
class Responses:
    """Sampled responses to be judged: B prompts with K responses each.

    Attributes:
        prompts: B conversations.
        trees: B trees of the policy's own tokens, K branches each.
        texts_BK: the responses as text.
        finished_BK: False where a response was cut off by length.
    """

    prompts: Sequence[Conversation]
    trees: Sequence[PromptTree]
    texts_BK: Sequence[Sequence[str]]
    finished_BK: Sequence[Sequence[bool]]


class Reward(Protocol):
    """Judges responses.

    Attributes:
        name: for manifests and reports.
        mean: subtracted from a score, and
        std: divided by, before a policy is trained on it.
    """

    name: str
    mean: float
    std: float

    def __call__(self, responses: Responses) -> Tensor:
        """(N,) float32 scores, all responses of the first prompt, then of the second, ..."""
        ...


class ModelReward:
    """A reward model: its score at the last token of each response."""

    def __init__(self, folder: str, template: Template, wanted_precision: str, micro_tokens: int) -> None:
        source = resolve(folder)
        self.name = f"{source.name} ({source.fingerprint[:12]})"
        self.model, tokenizer = load_reward_model(folder)
        prepare(self.model)
        self.precision = Precision(wanted_precision, device_of(self.model))
        self.precision.freeze(self.model)
        self.micro_tokens = micro_tokens
        # The same tokens are scored as sampled; another vocabulary or chat template has to read the text.
        own, policys = Template(tokenizer).tokenizer, template.tokenizer
        same = own.get_vocab() == policys.get_vocab() and own.chat_template == policys.chat_template
        self.template = None if same else Template(tokenizer)
        moments = Path(source.path) / "accord_reward.json"
        self.measured = moments.exists()
        facts: dict[str, Any] = json.loads(moments.read_text(encoding="utf8")) if moments.exists() else {}
        self.mean, self.std = float(facts.get("mean", 0.0)), float(facts.get("std", 1.0))

    def __call__(self, responses: Responses) -> Tensor:
        """(N,) scores as the model gives them."""
        trees = list(responses.trees) if self.template is None else self._retokenised(self.template, responses)
        return all_rewards(self.model, trees, self.precision, self.micro_tokens)

    @staticmethod
    def _retokenised(template: Template, responses: Responses) -> list[PromptTree]:
        return [
            template.tree(prompt, texts, marks)
            for prompt, texts, marks in zip(responses.prompts, responses.texts_BK, responses.finished_BK, strict=True)
        ]


class FunctionReward:
    """Any callable from finished conversations to numbers; its scores are used as they are."""

    mean, std = 0.0, 1.0

    def __init__(self, name: str, function: Callable[[Sequence[Conversation]], Sequence[float]]) -> None:
        self.name, self.function = name, function

    def __call__(self, responses: Responses) -> Tensor:
        """(N,) what the function said.

        Raises: ValueError: it returned the wrong number of values, or one that is not a finite number.
        """
        conversations = [
            (*prompt, Message(role="assistant", content=text))
            for prompt, texts in zip(responses.prompts, responses.texts_BK, strict=True)
            for text in texts
        ]
        scores = self._scores(conversations)
        if len(scores) != len(conversations):
            raise ValueError(
                f"reward {self.name} returned {len(scores)} numbers for {len(conversations)} conversations; "
                "it must return one per conversation, in their order"
            )
        for score, conversation in zip(scores, conversations, strict=True):
            if not _finite(score):
                raise ValueError(
                    f"reward {self.name} returned {score!r} for the response {conversation[-1].content[:80]!r}; "
                    "it must be a finite number"
                )
        return torch.tensor([float(score) for score in scores], dtype=torch.float32)

    def _scores(self, conversations: Sequence[Conversation]) -> list[Any]:
        try:
            return list(self.function(conversations))
        except Exception as error:  # it is the user's code: whatever it raises, they need the line
            frame = traceback.extract_tb(error.__traceback__)[-1]
            raise ValueError(
                f"reward {self.name} failed for {len(conversations)} conversations: {type(error).__name__}: {error} "
                f"({frame.filename}, line {frame.lineno}); it takes a list of conversations and must return one number "
                "for each"
            ) from error


def load_reward(name: str, template: Template, precision: str, micro_tokens: int) -> Reward:
    """A reward by name: a folder (of a run or a model), or `module:function`.

    Raises: ValueError: there is neither such a folder nor such a function.
    """
    if Path(name).exists():
        return ModelReward(name, template, precision, micro_tokens)
    if ":" not in name or name.startswith("wheel:"):
        raise ValueError(
            f"reward {name!r} is no folder here; give the folder of a finished reward-model run, or module:function"
        )
    function, label = load_function(name)
    return FunctionReward(label, function)


def _finite(score: Any) -> bool:
    try:
        return math.isfinite(float(score))
    except (TypeError, ValueError):
        return False
