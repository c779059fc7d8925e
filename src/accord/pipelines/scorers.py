"""Rewards for evaluation: a reward model, an ensemble of them, or a function, with failures that cost one item only.

A scorer takes prompts with K responses and gives a number per response, or None with the reason. What a function cannot
read, or a model has no room for, is unscored; it is never zero.

Dimensions: M members, K responses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from accord.pipelines.evaluation import Items, key_of, measured, model_facts
from accord.pipelines.judged import Judged
from accord.records import Conversation, Message
from accord.train.functions import load_function
from accord.train.progress import Display

__all__ = ["Scorer", "default_folder", "open_scorer", "score_sets"]


class Scorer(Protocol):
    """Scores responses.

    Attributes:
        identity: name and hash: what decides the numbers.
        facts: of its models, for results.
        length_unit: what `lengths` of a row count.
    """

    identity: str
    facts: list[dict[str, Any]]
    length_unit: str

    def __call__(self, sets: Sequence[Judged]) -> list[dict[str, Any]]:
        """Return a row per set.

        `scores` holds K numbers or null, `lengths` K; `members` M lists of K where it is an ensemble; `error` stands
        where something could not be scored.
        """
        ...


def open_scorer(source: str, role: str, precision: str, micro_tokens: int, max_length: int) -> Scorer:
    """A scorer by name: a reward-model folder, several joined by commas (an ensemble), or module:function.

    Raises: ValueError: there is no such folder or function.
    """
    names = [source] if Path(source).exists() else [name.strip() for name in source.split(",")]
    if not Path(names[0]).exists() and ":" in names[0] and len(names) == 1:
        return FunctionScorer(source, role)
    members = [ModelScorer(name, role, precision, micro_tokens, max_length) for name in names]
    return members[0] if len(members) == 1 else EnsembleScorer(members)


def default_folder(source: str, what: str) -> Path:
    """The run folder that results go to where no --out is given: that of the model, if it is a run.

    Raises: ValueError: it is no run folder.
    """
    folder = Path(source.split(",")[0].strip())
    if folder.is_dir() and any((folder / name).exists() for name in ("manifest.json", "metrics.jsonl", "done.json")):
        return folder
    raise ValueError(f"{what} {source!r} is no run folder, so the results have no place; give --out FOLDER")


def score_sets(
    scorer: Scorer, sets: Sequence[Judged], items: Items, display: Display, title: str
) -> tuple[list[str], list[dict[str, Any]]]:
    """Keys and rows of all sets; those that are not there yet are scored, and on disk batch by batch."""
    keys = [
        key_of(scorer.identity, [message.model_dump() for message in one.prompt], one.responses, one.finished)
        for one in sets
    ]
    return keys, measured(items, keys, lambda chosen: scorer([sets[at] for at in chosen]), display, title)


class ModelScorer:
    """A reward model: its raw score at the last token of each response.

    The oldest tokens of a prompt that is too long are cut, as in training; a response never is.
    """

    length_unit = "tokens"

    def __init__(self, name: str, role: str, precision: str, micro_tokens: int, max_length: int) -> None:
        from accord.models.load import load_tokenizer, resolve
        from accord.models.score import base_of
        from accord.text import Template
        from accord.train.rewards import ModelReward

        source = resolve(name)
        self.template = Template(load_tokenizer(name))
        self.reward = ModelReward(name, self.template, precision, micro_tokens)
        positions = getattr(base_of(self.reward.model).config.get_text_config(), "max_position_embeddings", None)  # type: ignore[operator, union-attr]
        self.limit = min(max_length, positions or max_length)
        self.identity = f"{source.fingerprint} {self.reward.precision.name} {self.limit}"
        self.facts = [model_facts(role, source.name, source.fingerprint)]
        self.micro_tokens = micro_tokens

    @property
    def moments(self) -> tuple[float, float] | None:
        """Mean and deviation of its scores on its training data, where they were measured."""
        return (self.reward.mean, self.reward.std) if self.reward.measured else None

    def __call__(self, sets: Sequence[Judged]) -> list[dict[str, Any]]:
        """A row per set."""
        from accord.data.batches import fit
        from accord.train.scoring import all_rewards

        whole = [self.template.tree(one.prompt, one.responses, one.finished) for one in sets]
        trees = [fit(tree, self.limit, self.template.bos_id) for tree in whole]
        kept = [tree for tree in trees if tree is not None]
        scores = all_rewards(self.reward.model, kept, self.reward.precision, self.micro_tokens).tolist() if kept else []
        rows: list[dict[str, Any]] = []
        for tree, fitted in zip(whole, trees, strict=True):
            count = len(tree.branches)
            row: dict[str, Any] = {"lengths": [len(branch.tokens) for branch in tree.branches]}
            if fitted is None:
                row |= {"scores": [None] * count, "error": f"{tree.longest} tokens, longer than {self.limit}"}
            else:
                row["scores"], scores = [_finite(score) for score in scores[:count]], scores[count:]
                if None in row["scores"]:
                    row["error"] = "the model gave no finite number"
            rows.append(row)
        return rows

    def alone(self, one: Judged) -> list[float]:
        """The scores of a set, each response packed with nothing else."""
        return [
            self([Judged(prompt=one.prompt, responses=(text,), ranks=(1,), finished=mark)])[0]["scores"][0]
            for text, mark in zip(
                one.responses, [(m,) for m in one.finished or [True] * len(one.responses)], strict=True
            )
        ]


class EnsembleScorer:
    """Several reward models: the mean of their scores, each in deviations of its own training scores."""

    length_unit = "tokens"

    def __init__(self, members: Sequence[ModelScorer]) -> None:
        for member in members:
            if member.moments is None:
                raise ValueError(
                    f"ensemble: {member.facts[0]['id']} has no accord_reward.json with the moments of its scores, so "
                    "its unit is not that of the others; train it with `accord train reward`"
                )
        self.members = list(members)
        self.identity = " + ".join(member.identity for member in members)
        self.facts = [fact for member in members for fact in member.facts]

    def __call__(self, sets: Sequence[Judged]) -> list[dict[str, Any]]:
        """A row per set, with the scores of each member."""
        by_member = [(member.moments or (0.0, 1.0), member(sets)) for member in self.members]
        rows = []
        for at in range(len(sets)):
            parts = [rows_N[at] for _, rows_N in by_member]
            normal = [
                [None if score is None else (score - mean) / (std or 1.0) for score in rows_N[at]["scores"]]
                for (mean, std), rows_N in by_member
            ]
            scores = [None if None in column else sum(column) / len(column) for column in zip(*normal, strict=True)]
            error = next((part["error"] for part in parts if "error" in part), None)
            row = {"scores": scores, "lengths": parts[0]["lengths"], "members": normal}
            rows.append(row | ({"error": error} if error else {}))
        return rows


class FunctionScorer:
    """Any callable from finished conversations to numbers; one that raises costs the conversation it raises for."""

    length_unit = "characters"

    def __init__(self, name: str, role: str) -> None:
        self.function, self.identity = load_function(name)
        self.facts = [model_facts(role, name, self.identity.partition("(")[2].rstrip(")") or None)]

    def __call__(self, sets: Sequence[Judged]) -> list[dict[str, Any]]:
        """A row per set."""
        talks = [[(*one.prompt, Message(role="assistant", content=text)) for text in one.responses] for one in sets]
        flat = safely(self.function, [talk for talks_K in talks for talk in talks_K])
        rows: list[dict[str, Any]] = []
        for one in sets:
            said, flat = flat[: len(one.responses)], flat[len(one.responses) :]
            row: dict[str, Any] = {
                "scores": [score for score, _ in said],
                "lengths": [len(text) for text in one.responses],
            }
            errors = [error for _, error in said if error]
            rows.append(row | ({"error": errors[0]} if errors else {}))
        return rows


Function = Callable[[Sequence[Conversation]], Sequence[Any]]


def safely(function: Function, talks: Sequence[Conversation]) -> list[tuple[float | None, str]]:
    """(score, "") or (None, reason) of each conversation: all at once, or one by one where that fails."""
    try:
        scores = list(function(talks))
        if len(scores) != len(talks):
            raise ValueError(f"{len(scores)} numbers for {len(talks)} conversations")
    except Exception as error:  # the user's code may raise anything
        if len(talks) <= 1:
            return [(None, f"{type(error).__name__}: {error}"[:200])] * len(talks)
        return [said for talk in talks for said in safely(function, [talk])]
    found = [_finite(score) for score in scores]
    return [
        (number, "" if number is not None else f"returned {score!r}"[:200])
        for number, score in zip(found, scores, strict=True)
    ]


def _finite(score: Any) -> float | None:
    try:
        number = float(score)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
