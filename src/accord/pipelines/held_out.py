"""What a policy does on prompts it was not trained on: responses, and what several models say of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from accord.records import Conversation

__all__ = ["Responder", "gold_rewards"]


def gold_rewards(texts: Sequence[str]) -> list[float]:
    """VADER compound sentiment of each text, -1 (negative) to 1 (positive) (Hutto & Gilbert 2014).

    It plays the person whose taste is to be learned: it ranks the training responses and judges the held-out ones, and
    no model is ever trained on its number.
    """
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyser = SentimentIntensityAnalyzer()
    return [float(analyser.polarity_scores(text)["compound"]) for text in texts]


@dataclass(frozen=True, kw_only=True)
class Responder:
    """Samples responses to fixed prompts, the same random numbers whichever model answers.

    Attributes:
        prompts: conversations that end with the user.
        samples: responses per prompt.
        max_new_tokens: tokens of a response at most.
        seed: of the sampling.
    """

    prompts: Sequence[Conversation]
    samples: int
    max_new_tokens: int
    seed: int

    def __call__(
        self, model: Any, template: Any, precision: Any, progress: Callable[[int, int], None] | None = None
    ) -> Any:
        """The responses as `accord.train.rewards.Responses`."""
        from accord.rollouts import Sampling
        from accord.rollouts.native import NativeSampler
        from accord.train.experience import as_responses

        ids = [template.prompt(prompt) for prompt in self.prompts]
        sampler = NativeSampler(
            model, end_ids=template.end_ids, autocast=precision.forward, progress=progress, max_rows=64
        )
        sampling = Sampling(samples=self.samples, max_new_tokens=self.max_new_tokens, seed=self.seed)
        return as_responses(self.prompts, ids, sampler.sample(ids, sampling), template)
