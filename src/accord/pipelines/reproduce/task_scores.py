"""Models on converted tasks, item by item: what changed between two of them is known over seeds and over items."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from accord.evaluate.task_items import EVERY, Item, by_cluster
from accord.pipelines.evaluation import Items, Outcome
from accord.pipelines.evaluation_configs import TasksConfig
from accord.pipelines.reproduce.evidence import Difference, difference
from accord.pipelines.reproduce.lab import Lab, write_rows

__all__ = ["TaskScores"]

DRAWS = 500  # of items, behind an interval


class TaskScores:
    """Items of some tasks, the same for every model; a score of each item for each model, in the lab's folder.

    Args:
        lab: its folder and arithmetic.
        files: of `accord data convert`.
        per_task: items of a task at most.
    """

    def __init__(self, lab: Lab, files: Sequence[Path], per_task: int) -> None:
        self.lab, self.files, self.per_task = lab, tuple(sorted(files)), per_task
        self._questions: list[Item] | None = None

    def _settings(self, model: str, chat: bool) -> TasksConfig:
        return TasksConfig(
            models=(model,), data=self.files, per_task=self.per_task, chat=chat, replicates=0, batch_size=8,
            precision=self.lab.precision,
        )  # fmt: skip

    @property
    def questions(self) -> list[Item]:
        """The items."""
        from accord.pipelines.tasks import read_questions

        if self._questions is None:
            self._questions = read_questions(self._settings("any", False), Outcome())
        return self._questions

    def measure(self, name: str, model: str, chat: bool, opened: Any = None) -> float:
        """Put every item to a model, or go on with that; `opened` is it where it is in memory. Seconds it took."""
        from accord.pipelines.language_models import open_language_model
        from accord.pipelines.tasks import answers_of, scores_of

        path = self.lab.path("evaluated", f"tasks-{name}.scores.jsonl")
        if path.exists():
            return 0.0
        began = time.monotonic()
        rows = Items(self.lab.path("evaluated", f"tasks-{name}.jsonl"))
        opened = opened or open_language_model(model, precision=self.lab.precision)
        said, _ = answers_of(self._settings(model, chat), rows, self.lab.display, opened, self.questions, "tasks")
        scores = scores_of(self.questions, said)
        write_rows(path, [
            {"task": item.task, "source": item.source, "score": None if math.isnan(score) else score}
            for item, score in zip(self.questions, scores, strict=True)
        ])  # fmt: skip
        return time.monotonic() - began

    def scores(self, name: str) -> Any:
        """(N,) what `measure` kept, NaN unscored."""
        text = self.lab.path("evaluated", f"tasks-{name}.scores.jsonl").read_text(encoding="utf8")
        found = [json.loads(line)["score"] for line in text.splitlines()]
        return np.array([math.nan if score is None else score for score in found])

    def score(self, name: str) -> float:
        """Mean over clusters of means over tasks, of one model."""
        return float(self._headline(self.scores(name), None, 0).value)

    def less(self, names: Sequence[str], others: Sequence[str]) -> Difference:
        """What models score above others on the same items, one of each a seed; over items by the bootstrap."""
        pairs = [(self.scores(one), self.scores(other)) for one, other in zip(names, others, strict=True)]
        several = [self._headline(after, before, 0).value for after, before in pairs]
        gap_N = np.mean([after - before for after, before in pairs], axis=0)
        return difference(several, prompts=self._headline(gap_N, np.zeros_like(gap_N), DRAWS).ci or (None, None))

    def _headline(self, score_N: Any, before_N: Any, replicates: int) -> Any:
        found = by_cluster(self.questions, score_N, before_N, replicates)
        return found.get(EVERY) or next(iter(found.values()))  # a single cluster is all there is
