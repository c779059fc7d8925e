"""Tasks of lm-evaluation-harness, where it is installed, put to any model that Accord opens.

The harness asks its questions; log-probabilities and answers come from `accord.protocols`, so a run, a folder and a
server are measured alike, and by the same code as everything else here. Its per-sample log becomes items of ours.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from accord.evaluate.task_items import Item
from accord.pipelines.settings import SettingsError
from accord.protocols import LanguageModel, Sampling

__all__ = ["harness_rows", "item_of_sample"]

METRICS = ("acc", "exact_match", "em", "f1", "bleu", "rougeL", "mc2", "mcc")
"""Which of a sample's metrics is its score: the first of these, else the first there is."""
NEW_TOKENS = 256  # of a generated answer where the task does not say


def harness_rows(
    model: LanguageModel,
    task: str,
    *,
    folder: Path | None,
    limit: int | None,
    batch: int,
    advance: Callable[[int, int], None],
) -> list[dict[str, Any]]:
    """Run a task, or a group of tasks, of the harness: one row per sample, {"task", "source", "metric", "score"}.

    Args:
        model: what is measured.
        task: name in the harness.
        folder: further task files of the harness, YAML.
        limit: documents of a task at most, the first ones.
        batch: requests asked together.
        advance: hears how many requests are done, and of how many; 0 of them first.

    Raises:
        SettingsError: the harness is not installed, or has no such task.
    """
    evaluator, tasks = _modules()
    manager = tasks.TaskManager(include_path=None if folder is None else str(folder))
    if task not in manager.all_tasks:
        raise SettingsError(f'lm_eval "{task}": the harness knows no such task; `lm_eval ls tasks` lists them')
    lost: set[tuple[str, str]] = set()
    found = evaluator.simple_evaluate(
        model=_adapter(model, batch, advance, lost), tasks=[task], limit=limit, bootstrap_iters=0, task_manager=manager,
        log_samples=True,
    )  # fmt: skip
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for name, samples in found["samples"].items():
        for sample in samples:
            metric = next((one for one in METRICS if one in sample["metrics"]), sample["metrics"][0])
            value = sample[metric]
            number = isinstance(value, (int, float)) and math.isfinite(value)
            score = float(value) if number and (name, str(sample["doc_id"])) not in lost else None
            row = {"task": name, "source": str(sample["doc_id"]), "metric": metric, "score": score}
            rows.setdefault((name, row["source"]), row)  # of several filters the first
    return list(rows.values())


def item_of_sample(row: dict[str, Any]) -> Item:
    """A row of the harness as an item of the cluster lm-eval; its score is known."""
    return Item(
        task=row["task"], clusters=("lm-eval",), template="", source=row["source"], prompt="", options=(), answer=None,
        references=(), metric=row["metric"],
    )  # fmt: skip


def _modules() -> tuple[Any, Any]:
    try:
        return importlib.import_module("lm_eval.evaluator"), importlib.import_module("lm_eval.tasks")
    except ImportError as error:
        raise SettingsError(
            f"lm_eval: lm-evaluation-harness cannot be imported ({error}); pip install lm-eval, or leave --lm-eval out"
        ) from None


def _adapter(model: LanguageModel, batch: int, advance: Callable[[int, int], None], lost: set[tuple[str, str]]) -> Any:
    """The model as the harness wants one; `lost` gets task and document of every request without an answer."""
    base: Any = importlib.import_module("lm_eval.api.model").LM

    class Adapter(base):
        """Requests to `Score` and `Generate`; what could not be had is -inf or empty, as the harness has no word."""

        def loglikelihood(self, requests: Any) -> list[tuple[float, bool]]:
            answers: list[tuple[float, bool]] = []
            advance(0, len(requests))
            for some in _batches(requests, batch):
                contexts, continuations = zip(*(request.args for request in some), strict=True)
                said = model.score(list(contexts), [[text] for text in continuations])
                for request, (value,) in zip(some, said, strict=True):
                    if value is None:
                        lost.add((request.task_name, str(request.doc_id)))
                    answers.append((-math.inf if value is None else value, False))
                advance(len(answers), len(requests))
            return answers

        def loglikelihood_rolling(self, requests: Any) -> list[float]:
            raise SettingsError("this task of the harness measures perplexity, which is not supported; leave it out")

        def generate_until(self, requests: Any) -> list[str]:
            answers: list[str] = []
            advance(0, len(requests))
            for some in _batches(requests, batch):
                for request in some:
                    context, settings = request.args
                    until = settings.get("until") or ()
                    sampling = Sampling(
                        temperature=0.0,
                        max_new_tokens=int(settings.get("max_gen_toks", NEW_TOKENS)),
                        stop=(until,) if isinstance(until, str) else tuple(until),
                    )
                    ((reply,),) = model.generate([context], 1, sampling)
                    if reply.finish == "error":
                        lost.add((request.task_name, str(request.doc_id)))
                    answers.append(reply.text)
                advance(len(answers), len(requests))
            return answers

    return Adapter()


def _batches(requests: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [requests[start : start + size] for start in range(0, len(requests), size)]
