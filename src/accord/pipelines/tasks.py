"""`accord eval tasks`: tasks with known answers, by one model or by two, BEFORE and AFTER, for the alignment tax.

RUN/eval/tasks.jsonl   what each model said of each item: log-probabilities of options, or its answer
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from accord.evaluate.result import Result
from accord.evaluate.task_items import EVERY, Item, by_cluster, by_task, item_of, mark
from accord.pipelines.evaluation import Items, Outcome, key_of, measured
from accord.pipelines.evaluation_configs import TasksConfig
from accord.pipelines.harness import harness_rows, item_of_sample
from accord.pipelines.language_evaluation import NO_LOGPROB, choice_of, errors_of, open_model, read_items, the_model
from accord.protocols import LanguageModel, Prompt, Sampling
from accord.records import Message
from accord.train.progress import Display

__all__ = ["answers_of", "run", "scores_of"]

UNITS = {"accuracy": "accuracy", "exact_match": "exact match", "f1": "F1 of words", "rouge_l": "ROUGE-L"}


def run(config: TasksConfig, items: Items, display: Display, models: Sequence[LanguageModel] | None = None) -> Outcome:
    """Put every item to each model, and average.

    Args:
        config: the settings.
        items: rows that are on disk.
        display: shows how far it is.
        models: in place of those that `config.models` names.
    """
    outcome = Outcome()
    questions = read_questions(config, outcome)
    keys: list[str] = []
    scores: list[list[float]] = []
    of_harness: list[Item] = []
    for number, spec in enumerate(config.models):
        model = models[number] if models else open_model(spec, config.precision)
        role = ("before", "after")[number] if len(config.models) > 1 else "evaluated"
        outcome.models.append(the_model(role, spec, model))
        rows, of_model = answers_of(config, items, display, model, questions, f"{role} {spec}")
        of_harness, sampled, harness_keys = harness_of(config, items, display, model)
        keys += [*of_model, *harness_keys]
        scores.append([*scores_of(questions, rows), *sampled])
        del model  # one model in memory at a time
    items.settle(keys)
    report(config, [*questions, *of_harness], scores, outcome)
    return outcome


def read_questions(config: TasksConfig, outcome: Outcome) -> list[Item]:
    """The items of all files, at most `per_task` of each task; without inverted ones, which are no tests."""
    found: list[Item] = []
    for path in config.data:
        some, bad, facts = read_items(path, item_of, config.skip_bad_rows)
        asked = [item for item in some if not item.inverted]
        outcome.data.append(facts | {"bad_rows": bad, "inverted_rows": len(some) - len(asked)})
        found += asked
    kept: list[Item] = []
    for task in dict.fromkeys(item.task for item in found):
        of_task = [item for item in found if item.task == task]
        # A task of choices is measured where the choices are known: a sentence of its own for "yes" is matched by luck.
        of_task = [item for item in of_task if item.options] or of_task
        kept += choice_of(of_task, config.per_task, random.Random(f"{config.seed} {task}").randrange(2**31))
    return choice_of(kept, config.limit, config.seed)


def answers_of(
    config: TasksConfig, items: Items, display: Display, model: LanguageModel, questions: Sequence[Item], title: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """What a model says of each item, from disk where it is there, and the keys of the rows."""
    sampling = Sampling(temperature=0.0, max_new_tokens=config.max_new_tokens, stop=("\n\n",), seed=config.seed)
    about = (model.name, model.method, config.precision, config.chat)
    keys = [key_of(*about, q.prompt, q.options or vars(sampling)) for q in questions]

    def asked(item: Item) -> Prompt:
        return (Message(role="user", content=item.prompt),) if config.chat else item.prompt + "\n"

    def work(chosen: Sequence[int]) -> list[dict[str, Any]]:
        rows: dict[int, dict[str, Any]] = {}
        choices = [i for i in chosen if questions[i].options]
        if choices:
            found = model.score([asked(questions[i]) for i in choices], [questions[i].options for i in choices])
            for i, values in zip(choices, found, strict=True):
                rows[i] = {"logprobs": list(values), **errors_of(values, NO_LOGPROB)}
        written = [i for i in chosen if not questions[i].options]
        if written:
            replies = model.generate([asked(questions[i]) for i in written], 1, sampling)
            for i, (reply,) in zip(written, replies, strict=True):
                lost = reply.finish == "error"
                rows[i] = {"error": reply.error or "no answer"} if lost else {"answer": reply.text.strip()}
        return [{"task": questions[i].task, **rows[i]} for i in chosen]

    return measured(items, keys, work, display, title, config.batch_size), keys


def harness_of(
    config: TasksConfig, items: Items, display: Display, model: LanguageModel
) -> tuple[list[Item], list[float], list[str]]:
    """Items of the harness, the model's scores, and the keys of the rows: one a task, from disk where it is there."""
    keys = [
        key_of("lm-eval", model.name, model.method, config.precision, task, config.per_task) for task in config.lm_eval
    ]
    for task, key in zip(config.lm_eval, keys, strict=True):
        if key not in items.known:

            def advance(done: int, total: int, task: str = task) -> None:
                if not done:
                    display.begin(f"lm-eval {task}", total)
                display.update(done, {})

            rows = harness_rows(
                model, task, folder=config.lm_eval_path, limit=config.per_task, batch=config.batch_size,
                advance=advance,
            )  # fmt: skip
            errors = errors_of([row["score"] for row in rows], "a sample without a score")
            items.add([{"key": key, "task": task, "samples": rows, **errors}])
    samples = [sample for key in keys for sample in items.known[key]["samples"]]
    scores = [math.nan if sample["score"] is None else float(sample["score"]) for sample in samples]
    return [item_of_sample(sample) for sample in samples], scores, keys


def scores_of(questions: Sequence[Item], rows: Sequence[dict[str, Any]]) -> list[float]:
    """One score per item, NaN where there is none."""
    return [mark(item, row)["score"] for item, row in zip(questions, rows, strict=True)]


def report(config: TasksConfig, questions: Sequence[Item], scores: Sequence[Sequence[float]], outcome: Outcome) -> None:
    """A row per cluster, then per task; of two models the difference AFTER less BEFORE, and both."""
    settings: dict[str, Any] = {"replicates": config.replicates, "level": config.level, "seed": config.seed}
    metric = {item.task: UNITS.get(item.metric, item.metric) for item in questions}
    columns: list[tuple[str, Sequence[float], Sequence[float] | None]] = [("score", scores[0], None)]
    if len(scores) > 1:
        before, after = scores
        columns = [("after less before", after, before), ("before", before, None), ("after", after, None)]
    found: dict[str, dict[str, Result]] = {}
    for column, score_N, before_N in columns:
        for name, result in by_cluster(questions, score_N, before_N, **settings).items():
            found.setdefault(name if name == EVERY else f"cluster {name}", {})[column] = result
        for task, result in by_task(questions, score_N, before_N, **settings).items():
            found.setdefault(f"task {task}, {metric[task]}", {})[column] = result
    for subject, by_column in found.items():
        for column, result in by_column.items():
            outcome.add(column, "0 to 1", result, of=subject)
    outcome.notes.append("Clusters are means over templates, then tasks; all clusters the mean of these.")
    if len(scores) > 1:
        outcome.notes.append("A negative difference of all clusters is an alignment tax.")
