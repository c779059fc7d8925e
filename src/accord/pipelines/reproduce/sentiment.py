"""Controlled sentiment with IMDb reviews: the world of four experiments, after Rafailov et al. 2023 (arXiv:2305.18290).

A prompt asks to continue the first words of a film review. The gold reward is P(positive) of beginning and continuation
together, from a linear classifier trained on the reviews of the training file and on film-review sentences; it ranks
what the reference model says, and judges every policy. Models learn from its preferences, and only where an experiment
says so (PPO-GT) from its number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from accord.evaluate.intervals import mean_result
from accord.pipelines.language_evaluation import read_items
from accord.pipelines.linear_text import LinearText
from accord.pipelines.reproduce.configs import SentimentConfig
from accord.pipelines.reproduce.evidence import over_seeds, with_interval
from accord.pipelines.reproduce.lab import Lab, Measured, Step, write_rows
from accord.records import Conversation, Message

__all__ = ["World", "cells"]

ASK = "Continue this film review in one or two sentences, in the same voice:\n"
WORDS = (4, 8)  # of a review's beginning
SENTENCE = re.compile(r"(?<=[.!?])\s+")
LONGEST = 40  # words of a continuation the reference is fine-tuned on


class World:
    """Prompts, gold reward and reference model of an experiment in its folder."""

    def __init__(self, lab: Lab, config: SentimentConfig) -> None:
        self.lab, self.config = lab, config
        self._gold: LinearText | None = None

    # -- steps ---------------------------------------------------------------------------------------------------------

    def steps(self) -> list[Step]:
        """What every experiment of this world starts with."""
        return [
            Step("gold", "train the gold reward: a sentiment classifier of film reviews", self.train_gold),
            Step("reference", "fine-tune the reference model on continuations of reviews", self.train_reference),
        ]

    def train_gold(self) -> None:
        """The classifier, its accuracy on reviews and sentences it has not seen, prompts and demonstrations."""
        reviews, data = self._reviews("train")
        held_out, _ = self._reviews("test")
        sentences, sentence_data = self._sentences()
        kept = [s for i, s in enumerate(sentences) if i % 8]
        unseen = [s for i, s in enumerate(sentences) if not i % 8]
        rows = [*reviews[: self.config.gold_reviews], *kept[: self.config.gold_reviews]]
        gold = LinearText.fit([text for text, _ in rows], [label for _, label in rows], "logistic", 0.5)
        gold.card |= {"data": [data, *sentence_data]}
        gold.card |= {
            f"accuracy_{name}": float(np.mean([(p >= 0.5) == y for p, (_, y) in zip(said, some, strict=True)]))
            for name, some in (("reviews", held_out[:1000]), ("sentences", unseen))
            for said in [gold([text for text, _ in some])]
        }
        gold.save(self.lab.path("gold"), "gold")
        write_rows(self.lab.path("prompts.jsonl"), self._prompts(reviews, self.config.train_prompts))
        write_rows(self.lab.path("held-out.jsonl"), self._prompts(held_out, self.config.held_out_prompts))
        # Behind those of the prompts: the reference has not read the reviews it is asked to continue.
        spare = reviews[self.config.train_prompts :]
        write_rows(self.lab.path("demonstrations.jsonl"), self._demonstrations(spare, self.config.sft_rows))

    def train_reference(self) -> float:
        """The policy everything starts from and is held to."""
        return self.lab.train(
            "sft", "reference", model=self.config.model, data=(self.lab.path("demonstrations.jsonl"),),
            learning_rate=self.config.sft_rate, batch_size=self.config.batch_size,
        )  # fmt: skip

    def rank(self, seed: int) -> None:
        """K responses of the reference to each training prompt, ranked by the gold reward: `rankings(seed)`."""
        self.lab.train(
            "sample", f"sampled-{seed}", model=self.reference, data=(self.lab.path("prompts.jsonl"),), seed=seed,
            samples=self.config.samples, max_new_tokens=self.config.max_new_tokens, reward_object=self.gold_reward(),
        )  # fmt: skip

    # -- what they left ------------------------------------------------------------------------------------------------

    @property
    def reference(self) -> str:
        """Folder of the reference model."""
        return str(self.lab.path("reference"))

    def rankings(self, seed: int) -> Path:
        """Rankings by the gold reward."""
        return self.lab.path(f"sampled-{seed}") / "rankings.jsonl"

    def best(self, seed: int) -> Path:
        """The best response to each prompt by the gold reward."""
        return self.lab.path(f"sampled-{seed}") / "best.jsonl"

    @property
    def gold(self) -> LinearText:
        """The gold reward's classifier."""
        if self._gold is None:
            self._gold = LinearText.load(self.lab.path("gold"), "gold")
        return self._gold

    def gold_of(self, prompts: Sequence[Conversation], texts_BK: Sequence[Sequence[str]]) -> list[float]:
        """P(positive) of each response behind its beginning, all of the first prompt, then of the second, ..."""
        joined = [
            _join(beginning_of(prompt), text) for prompt, texts in zip(prompts, texts_BK, strict=True) for text in texts
        ]
        return self.gold(joined)

    def gold_reward(self, shape: Callable[[Sequence[Any], list[float]], list[float]] | None = None) -> Any:
        """The gold reward as trainers and samplers take it; `shape` may change the numbers, given the conversations."""
        from accord.train.rewards import FunctionReward

        def function(conversations: Sequence[Conversation]) -> list[float]:
            values = self.gold([_join(beginning_of(c[:-1]), c[-1].content) for c in conversations])
            return shape(conversations, values) if shape else values

        return FunctionReward(f"gold ({self.gold.hash})", function)

    def answers(self, **more: Any) -> Step:
        """The reference on the held-out prompts, as a step: `lab.measured("reference")`."""
        work = partial(self.measure, "reference", self.reference, 0, **more)
        return Step("measured reference", "the reference answers held-out prompts", work)

    def held_out(self) -> list[Conversation]:
        """Prompts that nothing is trained on."""
        lines = self.lab.path("held-out.jsonl").read_text(encoding="utf8").splitlines()
        return [tuple(Message(**message) for message in json.loads(line)["prompt"]) for line in lines]

    def measure(self, name: str, model: str, seed: int, **more: Any) -> float:
        """A policy on the held-out prompts; seconds it took."""
        return self.lab.measure(
            name, model, reference=self.reference, prompts=self.held_out(), gold=self.gold_of, seed=seed,
            max_new_tokens=self.config.max_new_tokens,
            **{"samples": self.config.held_out_samples, **more},
        )  # fmt: skip

    def words(self) -> str:
        """How the world was made, for the page."""
        card = self.gold.card
        return (
            f"Prompts are the first {WORDS[0]} to {WORDS[1]} words of IMDb reviews ({self.config.train_prompts} to "
            f"train on, {self.config.held_out_prompts} held out), responses at most {self.config.max_new_tokens} "
            "tokens. The gold reward is P(positive) of a linear classifier (accuracy "
            f"{card['accuracy_reviews']:.2f} on unseen reviews, {card['accuracy_sentences']:.2f} on unseen sentences). "
            f"The reference is {self.config.model} fine-tuned on {self.config.sft_rows} continuations; KL is to it, in "
            "nats per response."
        )

    def data(self) -> list[dict[str, Any]]:
        """Facts of the data files."""
        return list(self.gold.card["data"])

    # -- data ----------------------------------------------------------------------------------------------------------

    def _reviews(self, split: str) -> tuple[list[tuple[str, float]], dict[str, Any]]:
        path = self.config.data / "imdb" / f"{split}.jsonl.gz"
        rows, _, facts = read_items(path, _labelled, False)
        return [(" ".join(text.replace("<br />", " ").split()), label) for text, label in rows], facts

    def _sentences(self) -> tuple[list[tuple[str, float]], list[dict[str, Any]]]:
        path = self.config.data / "sentence_classification" / "sst2.csv"
        if not path.exists():
            return self._reviews("test")[0][1000:], []
        rows, _, facts = read_items(path, _labelled, False)
        return rows, [facts]

    def _prompts(self, reviews: Sequence[tuple[str, float]], count: int) -> list[dict[str, Any]]:
        return [
            {"prompt": [{"role": "user", "content": ASK + _beginning(text, i)}]}
            for i, (text, _) in _first(reviews, count)
        ]

    def _demonstrations(self, reviews: Sequence[tuple[str, float]], count: int) -> list[dict[str, Any]]:
        """The review goes on for one or two sentences: responses get an end of their own, and lengths that differ."""
        rows = []
        for i, (text, _) in enumerate(reviews):
            start = _beginning(text, i)
            rest = SENTENCE.split(text[len(start) :].strip())
            said = " ".join(rest[: 1 + i % 2]).strip()
            if said and len(said.split()) <= LONGEST:
                rows.append({"prompt": [{"role": "user", "content": ASK + start}], "response": said})
            if len(rows) == count:
                break
        return rows


def cells(several: Sequence[Measured]) -> list[str]:
    """What a policy of every seed did, for a table: gold reward over seeds (one seed: over prompts), KL, tokens."""
    gold = over_seeds([float(one.gold_PS.mean()) for one in several])
    if len(several) == 1:
        result = mean_result(several[0].gold_P)
        gold = (result.value, *(result.ci or (None, None)))
    kl, tokens = (np.mean([values.mean() for values in column]) for column in (
        [one.kl_PS for one in several], [one.length_PS for one in several]
    ))  # fmt: skip
    return [with_interval(*gold), f"{kl:.2f}", f"{tokens:.1f}"]


def beginning_of(prompt: Sequence[Message]) -> str:
    """The words a prompt asks to continue."""
    return prompt[-1].content.removeprefix(ASK)


def _beginning(text: str, number: int) -> str:
    words = text.split()
    return " ".join(words[: WORDS[0] + number % (WORDS[1] - WORDS[0] + 1)])


def _first(reviews: Sequence[tuple[str, float]], count: int) -> list[tuple[int, tuple[str, float]]]:
    if len(reviews) < count:
        raise ValueError(f"{len(reviews)} reviews for {count} prompts; give more data, or ask for fewer prompts")
    return list(enumerate(reviews[:count]))


def _join(beginning: str, text: str) -> str:
    return f"{beginning} {text.strip()}"


def _labelled(row: Any) -> tuple[str, float]:
    label = str(row["label"])
    if label not in ("pos", "neg", "0", "1"):
        raise ValueError(f'"label" is {label!r}; expected pos, neg, 1 or 0')
    return str(row["text"]), float(label in ("pos", "1"))
