"""A model in this process as feedback and evaluation ask for one: messages or text in, replies and scores out.

Sampling goes through the native sampler, scoring through prompt trees: the continuations of a prompt are its branches,
and the prompt is computed once. A reply depends on seed, prompt and settings, not on what else is in the batch (up to
the rounding of the arithmetic, which no batch changes by more than its last bits).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from accord import rollouts
from accord.labels import bare, shortest, spellings, total
from accord.losses.likelihood import segment_sum
from accord.models.load import load_policy, resolve
from accord.models.score import prepare, response_scores
from accord.protocols import LanguageModel, Prompt, Reply, Sampling, Usage
from accord.records import Message
from accord.rollouts import Rollout
from accord.rollouts.native import NativeSampler
from accord.text import Template
from accord.trees import Branch, PromptTree, budget_packs, pack

__all__ = ["LocalModel"]

Forward = Callable[[], AbstractContextManager[Any]]


class LocalModel(LanguageModel):
    """A causal language model in this process.

    Example: `LocalModel.load("smollm2-135m")([(Message(role="user", content="2+2="),)], 1, Sampling(temperature=0))`.
    """

    def __init__(
        self,
        model: nn.Module,
        template: Template,
        *,
        name: str,
        forward: Forward = nullcontext,
        max_rows: int = 32,
        micro_tokens: int = 4096,
        max_length: int | None = None,
    ) -> None:
        """Keep the model, switched to tree attention where its family can do that.

        Args:
            model: a transformers causal language model, PEFT-wrapped or not.
            template: of its tokenizer.
            name: id and revision, as rows and reports shall say it.
            forward: entered around forward passes, such as autocast.
            max_rows: replies decoded at once at most.
            micro_tokens: token budget of one scoring pass; memory, never the result.
            max_length: tokens of a prompt with what follows it; none: as many as the model has positions.
        """
        self._model: Any = model
        self._template, self._name, self._micro_tokens = template, name, micro_tokens
        self._usage, self._max_length, self._arithmetic = Usage(), max_length, ""
        prepare(model)
        self._sampler = NativeSampler(
            model, end_ids=template.end_ids, tokenizer=template.tokenizer, max_rows=max_rows, autocast=forward
        )
        self._special = sorted(set(template.tokenizer.all_special_tokens), key=len, reverse=True)

    @classmethod
    def load(cls, spec: str, **options: Any) -> LocalModel:
        """Load by any name a model has: run folder, folder, hub id, GGUF file or wheel; options as for the class.

        Raises: ValueError: no such model.
        """
        source = resolve(spec)
        model, tokenizer = load_policy(spec)
        return cls(model, Template(tokenizer), name=f"{spec} @ {source.fingerprint[:12]}", **options)

    @property
    def name(self) -> str:
        """Model as it was named, and the start of its weights' fingerprint."""
        return self._name

    @property
    def usage(self) -> Usage:
        """Prompts and tokens so far."""
        return self._usage

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self._model.parameters()).device

    def compute_under(self, forward: Forward, arithmetic: str = "") -> None:
        """Enter this around all forward passes from now on, such as autocast; `arithmetic` is what it is called."""
        self._sampler.autocast, self._arithmetic = forward, arithmetic

    def rendered(self, prompt: Prompt) -> Any:
        """Token ids, which the template decides too, and the arithmetic."""
        return [self._arithmetic, self._ids(prompt)]

    @property
    def room(self) -> int | None:
        """Tokens of a prompt with what follows it; None: no limit is known."""
        positions: int | None = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        return min((limit for limit in (positions, self._max_length) if limit is not None), default=None)

    def generate(self, prompts: Sequence[Prompt], count: int, sampling: Sampling) -> list[list[Reply]]:
        """Answer prompts; one that leaves no room for `max_new_tokens` gets replies that are errors."""
        ids = [self._ids(prompt) for prompt in prompts]
        fits = [index for index, row in enumerate(ids) if self._fits(len(row) + sampling.max_new_tokens)]
        wanted = _wanted(count, sampling)
        started = time.perf_counter()
        chosen = [ids[index] for index in fits]
        for row in chosen:
            self._usage.add(len(row), 0)
        sampled = self._sampler.sample(chosen, wanted, [_stream(row) for row in chosen]) if chosen else []
        seconds = (time.perf_counter() - started) / max(1, len(chosen) * count)
        replies = {
            index: [self._reply(prompts[index], len(ids[index]), one, sampling.stop, seconds) for one in of_prompt]
            for index, of_prompt in zip(fits, sampled, strict=True)
        }
        return [
            replies.get(index) or [self._too_long(len(row), sampling.max_new_tokens)] * count
            for index, row in enumerate(ids)
        ]

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Reply]:
        """Yield a reply token by token; closing the iterator ends the sampling."""
        ids = self._ids(prompt)
        if not self._fits(len(ids) + sampling.max_new_tokens):
            yield self._too_long(len(ids), sampling.max_new_tokens)
            return
        self._usage.add(len(ids), 0)
        started, tokens = time.perf_counter(), list[int]()
        for token in self._sampler.stream(ids, _wanted(1, sampling)):
            tokens.append(token)
            self._usage.new_tokens += 1
            text = self._text(prompt, tokens)
            whole = _before(text, sampling.stop)
            ended = token in self._template.end_ids or whole != text
            yield Reply(
                text=whole.removesuffix("\ufffd"),  # half a character: the rest comes with the next token
                finish="stop" if ended else "length",
                prompt_tokens=len(ids),
                new_tokens=len(tokens),
                seconds=time.perf_counter() - started,
            )
            if ended:
                return

    def score(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """Score continuations, without an end token; None for those of a prompt that is too long for the model."""
        asked = zip(prompts, continuations, strict=True)
        return self._scored([PromptTree(self._ids(prompt), self._branches(prompt, texts)) for prompt, texts in asked])

    def score_labels(self, prompts: Sequence[Prompt], labels: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """Score answers over their spellings: all of a prompt's are branches of its tree."""
        spelled = [
            [shortest(self._spelled(prompt, label)) for label in of_prompt]
            for prompt, of_prompt in zip(prompts, labels, strict=True)
        ]
        trees = [
            PromptTree(self._ids(prompt), tuple(Branch.response(ids) for label in of_prompt for ids in label))
            for prompt, of_prompt in zip(prompts, spelled, strict=True)
        ]
        return [_totals(*both) for both in zip(spelled, self._scored(trees), strict=True)]

    @torch.no_grad()
    def _scored(self, trees: Sequence[PromptTree]) -> list[list[float | None]]:
        """Log-probability of each branch; None for those of a tree that is too long for the model."""
        fits = [index for index, tree in enumerate(trees) if tree.branches and self._fits(tree.longest)]
        scores: list[list[float | None]] = [[None] * len(tree.branches) for tree in trees]
        self._model.eval()
        for group in budget_packs([trees[index].length for index in fits], self._micro_tokens):
            chosen = [fits[place] for place in group]
            batch = pack([trees[index] for index in chosen]).to(self.device)
            with self._sampler.autocast():
                found = response_scores(self._model, batch)
            logprob_N = iter(segment_sum(found.logprob_T.float(), found.response_T, batch.count).tolist())
            for index in chosen:
                self._usage.add(trees[index].length, 0)
                scores[index] = [next(logprob_N) for _ in trees[index].branches]
        return scores

    # -- inside --------------------------------------------------------------------------------------------------------

    def _ids(self, prompt: Prompt) -> tuple[int, ...]:
        if isinstance(prompt, str):
            begin = self._template.text_begin_id
            return (*(() if begin is None else (begin,)), *self._template.text(prompt))
        messages = (Message(role=message.role, content=self._inert(message.content)) for message in prompt)
        return self._template.prompt(tuple(messages))

    def _inert(self, text: str) -> str:
        """The text with special tokens spelled apart: what is quoted in a prompt must not end a turn or open one."""
        for token in self._special:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def _said(self, prompt: Prompt, text: str) -> tuple[int, ...]:
        template = self._template
        return template.text(text) if isinstance(prompt, str) else template.response(text, finished=False)

    def _spelled(self, prompt: Prompt, label: str) -> Iterator[tuple[int, ...]]:
        for spelling in spellings(label):
            yield self._said(prompt, spelling)
        for letter in bare(label):
            yield (*self._said(prompt, letter), self._template.end_id)

    def _branches(self, prompt: Prompt, texts: Sequence[str]) -> tuple[Branch, ...]:
        return tuple(Branch.response(self._said(prompt, text)) for text in texts)

    def _fits(self, tokens: int) -> bool:
        return self.room is None or tokens <= self.room

    def _too_long(self, prompt: int, new: int) -> Reply:
        error = f"the prompt has {prompt} tokens; with {new} new ones that is more than the model's {self.room}"
        return Reply(text="", finish="error", prompt_tokens=prompt, new_tokens=0, seconds=0.0, error=error)

    def _text(self, prompt: Prompt, tokens: Sequence[int]) -> str:
        if not isinstance(prompt, str):
            return self._template.decode(tokens)
        tokenizer = self._template.tokenizer
        return str(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _reply(self, prompt: Prompt, length: int, rollout: Rollout, stop: tuple[str, ...], seconds: float) -> Reply:
        self._usage.new_tokens += len(rollout.tokens)
        return Reply(
            text=_before(self._text(prompt, rollout.tokens), stop),
            finish=rollout.finish,
            prompt_tokens=length,
            new_tokens=len(rollout.tokens),
            seconds=seconds,
        )


def _totals(spelled: list[list[tuple[int, ...]]], row: list[float | None]) -> list[float | None]:
    """Of the spellings of each label and their log-probabilities in order, the labels' own."""
    known = [value for value in row if value is not None]
    if len(known) < len(row):
        return [None] * len(spelled)
    values = iter(known)
    return [*total([{ids: next(values) for ids in label} for label in spelled])]


def _before(text: str, stop: Sequence[str]) -> str:
    """A text up to the first of its stop strings."""
    places = [place for string in stop if (place := text.find(string)) >= 0]
    return text[: min(places)] if places else text


def _wanted(count: int, sampling: Sampling) -> rollouts.Sampling:
    return rollouts.Sampling(
        samples=count,
        max_new_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        stop=sampling.stop,
        presence_penalty=sampling.presence_penalty,
        seed=sampling.seed,
    )


def _stream(ids: Sequence[int]) -> int:
    """Random numbers that belong to a prompt, wherever it stands among others."""
    return int.from_bytes(hashlib.sha256(repr(tuple(ids)).encode()).digest()[:8], "big")
