"""Items of tasks with known answers, how one is scored, and their averages over templates, tasks and clusters.

Suffix: N items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from accord.evaluate._arrays import NAN
from accord.evaluate.intervals import bootstrap, mean_result, paired_difference
from accord.evaluate.result import Result, of_amounts
from accord.evaluate.tasks import choice_score, cluster_average, exact_match, token_f1
from accord.overlap import rouge_l

__all__ = ["EVERY", "Item", "by_cluster", "by_task", "item_of", "mark"]

EVERY = "all clusters"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DRAWS = 300  # bootstrap draws of nested averages at most: they are loops, not array arithmetic


@dataclass(frozen=True, kw_only=True)
class Item:
    """A question of a task, as one template asks it.

    Attributes:
        task, clusters, template: where it belongs.
        source: names the row it was made of: templates of one row are one observation.
        prompt: what is asked.
        options: the answers to choose from; none: the answer is written.
        answer: index of the right option, or None.
        references: right answers of a written one.
        metric: "accuracy" of options; of written answers "exact_match", "f1" or "rouge_l".
        inverted: the template gives the answer and asks for the input: training data, not a test.
    """

    task: str
    clusters: tuple[str, ...]
    template: str
    source: str
    prompt: str
    options: tuple[str, ...]
    answer: int | None
    references: tuple[str, ...]
    metric: str
    inverted: bool = False


def item_of(row: Any) -> Item:
    """An item from a row of `accord data convert`.

    Raises:
        ValueError: no prompt, response or `meta` with task and cluster, or a right answer that is none of the options.
    """
    meta = row.get("meta") if isinstance(row, Mapping) else None
    if not isinstance(meta, Mapping) or not {"task", "cluster"} <= meta.keys():
        raise ValueError('expected "prompt", "response" and "meta" with "task" and "cluster" (accord data convert)')
    prompt, response = row.get("prompt"), row.get("response")
    if not isinstance(prompt, str) or not isinstance(response, str) or not prompt.strip():
        raise ValueError('"prompt" and "response" must be texts')
    options = tuple(map(str, meta.get("options") or ()))
    if response not in options:
        options = tuple(f"({LETTERS[i]}) {option}" for i, option in enumerate(options))  # listed with letters
    if options and response not in options:
        raise ValueError(f'"response" is {response[:40]!r}, which is none of the {len(options)} options of "meta"')
    clusters = meta["cluster"]
    written = {"f1": "f1", "rouge": "rouge_l", "rouge_l": "rouge_l"}.get(str(meta.get("metric")), "exact_match")
    return Item(
        task=str(meta["task"]),
        clusters=(clusters,) if isinstance(clusters, str) else tuple(clusters),
        template=str(meta.get("template", "")),
        source=str(meta.get("source", prompt)),
        prompt=prompt,
        options=options,
        answer=options.index(response) if options else None,
        references=tuple(meta.get("references") or (response,)),
        metric="accuracy" if options else written,
        inverted=bool(meta.get("inverted")),
    )


def mark(item: Item, row: Mapping[str, Any]) -> dict[str, float]:
    """Scores of an item: {"score"}, and of options also {"normalised", "brier"}; NaN where it could not be scored.

    Args:
        item: what was asked.
        row: {"logprobs": nats of each option} or {"answer": what was written}.
    """
    if item.options:
        assert item.answer is not None
        known = row.get("logprobs") or [None] * len(item.options)
        logprobs = [NAN if value is None else value for value in known]
        found = choice_score(logprobs, [max(1, len(option)) for option in item.options], item.answer)
        return {"score": found.accuracy, "normalised": found.accuracy_normalised, "brier": found.brier}
    answer = row.get("answer")
    if answer is None:
        return {"score": NAN}
    if item.metric == "f1":
        return {"score": token_f1(answer, item.references)}
    if item.metric == "rouge_l":
        return {"score": max(rouge_l(answer, reference).f1 for reference in item.references)}
    return {"score": exact_match(answer, item.references)}


def by_task(
    items: Sequence[Item], score_N: Sequence[float], before_N: Sequence[float] | None = None, **settings: Any
) -> dict[str, Result]:
    """Mean score of each task; with `before_N` the mean difference, both clustered by source row.

    Args:
        items: N of them.
        score_N: one score each, NaN unscored.
        before_N: scores of another model on the same items.
        settings: replicates, level, seed.
    """
    found = {}
    for task in dict.fromkeys(item.task for item in items):
        at = [n for n, item in enumerate(items) if item.task == task]
        rows, clusters = [score_N[n] for n in at], [items[n].source for n in at]
        if before_N is None:
            found[task] = mean_result(rows, clusters, **settings)
        else:
            change = paired_difference(rows, [before_N[n] for n in at], clusters, **settings)
            found[task] = of_amounts(change)
    return found


def by_cluster(
    items: Sequence[Item],
    score_N: Sequence[float],
    before_N: Sequence[float] | None = None,
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Result]:
    """Mean over templates, then tasks, of each cluster, and over clusters ("all clusters"), with intervals over rows.

    With `before_N` everything is the difference. A large cluster weighs no more than a small one. The detail of "all
    clusters" has best_template, the mean with the best template of each task: an upper bound.
    """
    score = np.array(score_N, dtype=float)
    change = (
        score if before_N is None else score - np.array(before_N, dtype=float)
    )  # means are linear: of differences too
    kept_N = ~np.isnan(change)
    sources = [(item.task, item.source) for item in items]

    def value_of(name: str, rows: Any) -> float:
        average = cluster_average(_nested(items, change, rows))
        return average.mean if name == EVERY else average.by_cluster.get(name, NAN)

    names = list(dict.fromkeys(cluster for item in items for cluster in item.clusters))
    found = {}
    for name in [EVERY, *names] if len(names) > 1 else names:
        among_N = np.array([name == EVERY or name in item.clusters for item in items], dtype=bool)
        rows = np.flatnonzero(among_N & kept_N)
        clusters = [sources[n] for n in rows]
        ci = None
        if replicates and len(rows):

            def drawn(some: Any, name: str = name, rows: Any = rows) -> float:
                return value_of(name, rows[some])

            ends = bootstrap(drawn, clusters, min(replicates, DRAWS), level, seed)
            ci = (ends.low, ends.high)
        detail = {}
        if name == EVERY and before_N is None:
            detail = {"best_template": cluster_average(_nested(items, score, rows)).best_template}
        found[name] = Result(
            value=value_of(name, rows), n=len(rows), n_unscored=int((among_N & ~kept_N).sum()), ci=ci, level=level,
            method="bootstrap" if ci else "none", clusters=len(set(clusters)), seed=seed if ci else None, detail=detail,
        )  # fmt: skip
    return found


def _nested(items: Sequence[Item], score_N: Any, rows: Any) -> dict[str, dict[str, dict[str, float]]]:
    """Cluster -> task -> template -> mean score, over the rows that are given, with repetition."""
    sums: dict[tuple[str, str, str], list[float]] = {}
    for n in rows:
        item = items[n]
        for cluster in item.clusters:
            both = sums.setdefault((cluster, item.task, item.template), [0.0, 0.0])
            both[0] += float(score_N[n])
            both[1] += 1
    nested: dict[str, dict[str, dict[str, float]]] = {}
    for (cluster, task, template), (total, count) in sums.items():
        nested.setdefault(cluster, {}).setdefault(task, {})[template] = total / count
    return nested
