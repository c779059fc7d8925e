"""Task data -> instructions: rows in, rows out, in constant memory; a killed job goes on with the next task.

OUT/train/rte.jsonl       Demonstrations with `meta`: task, cluster, template, row of the source, ...
OUT/test/rte.jsonl        likewise for each other split
OUT/held-out/snli.jsonl   all splits of tasks whose cluster is held out
OUT/bad-rows/rte.jsonl    rows that could not be used, each with the reason (--skip-bad-rows)
OUT/manifest.json         settings, hashes, counts

accord data convert rte snli my-task.yaml --root data --out instructions --hold-out nli
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from accord.data import files
from accord.data.files import DataError
from accord.data.lines import Lines
from accord.data.progress import Tell, silent
from accord.data.tasks.config import ConvertConfig, TaskReport
from accord.data.tasks.manifest import Manifest
from accord.data.tasks.render import Example, Renderer, Row
from accord.data.tasks.rows import examples_of, paths_of
from accord.data.tasks.task import Task

__all__ = ["convert", "convert_task"]

_EVERY = 500


def convert(tasks: Sequence[Task], config: ConvertConfig, tell: Tell = silent) -> list[TaskReport]:
    """Convert tasks; a task that is finished in the folder, with the same files and settings, is not done again.

    Raises:
        DataError: a source is missing or damaged, an unknown cluster is held out, or a row is bad.
    """
    roles = _roles(tasks, config.hold_out)
    for task in tasks:
        if roles[task.task] != "left out":
            for path in paths_of(task, config.root).values():
                _check_path(path, task, config)
            Renderer(task)
    manifest = Manifest(config)
    manifest.check({*config.hold_out, *_leaving(tasks, config.hold_out)}, list(roles))
    reports: dict[str, TaskReport] = {}
    todo = []
    for task in tasks:
        done = manifest.finished(task, roles[task.task])
        if done is not None:
            reports[task.task] = done
        else:
            todo.append(task)
    tell("tasks", len(reports), len(tasks))
    for task, report in _run(todo, roles, config, tell):
        reports[report.task] = report
        manifest.add(task, report)
        tell("tasks", len(reports), len(tasks), report.task)
    return [reports[task.task] for task in tasks]


def _check_path(path: Path, task: Task, config: ConvertConfig) -> None:
    try:
        files.check_path(path)
    except DataError as error:
        raise DataError(f"task {task.task}: {error} (paths in task files begin at --root {config.root})") from None


def _roles(tasks: Sequence[Task], hold_out: Sequence[str]) -> dict[str, str]:
    known = sorted({cluster for task in tasks for cluster in task.cluster})
    for name in hold_out:
        if name not in known:
            raise DataError(f'no task is of the cluster "{name}" to hold out; the clusters are {", ".join(known)}')
    leave = _leaving(tasks, hold_out)
    return {
        task.task: "held-out"
        if set(task.cluster) & set(hold_out)
        else "left out"
        if set(task.cluster) & leave
        else "train"
        for task in tasks
    }


def _leaving(tasks: Sequence[Task], hold_out: Sequence[str]) -> set[str]:
    """Clusters too close to those held out to be trained on."""
    return {name for task in tasks if set(task.cluster) & set(hold_out) for name in task.exclude_with}


def _run(
    tasks: Sequence[Task], roles: Mapping[str, str], config: ConvertConfig, tell: Tell
) -> Iterator[tuple[Task, TaskReport]]:
    if config.workers == 1 or len(tasks) < 2:
        for task in tasks:
            yield task, convert_task(task, roles[task.task], config, tell)
        return
    with ProcessPoolExecutor(config.workers, mp_context=get_context("spawn")) as pool:
        results = [pool.submit(convert_task, task, roles[task.task], config) for task in tasks]
        try:
            for task, result in zip(tasks, results, strict=True):
                yield task, result.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def convert_task(task: Task, role: str, config: ConvertConfig, tell: Tell = silent) -> TaskReport:
    """Convert one task and report.

    Raises:
        DataError: a row is bad, unless such rows are set aside.
    """
    began = time.perf_counter()
    if role == "left out":
        return TaskReport(task.task, task.cluster, role)
    counts: dict[str, Counter[str]] = {"written": Counter(), "templates": Counter(), "rows": Counter()}
    outputs: dict[str, Lines] = {}
    with contextlib.ExitStack() as open_files:
        bad = open_files.enter_context(Lines(config.out / "bad-rows" / f"{task.task}.jsonl", keep_empty=False))
        for split, row, example in examples_of(task, config, counts["rows"], bad if config.skip_bad_rows else None):
            folder = "held-out" if role == "held-out" else split
            if folder not in outputs:
                outputs[folder] = open_files.enter_context(Lines(config.out / folder / f"{task.task}.jsonl"))
            outputs[folder].add(_written(task, split, row, example))
            counts["written"][split] += 1
            counts["templates"][example.template.id] += 1
            if outputs[folder].rows % _EVERY == 0:
                tell(task.task, counts["written"].total())
    if not outputs:
        raise DataError(f"task {task.task}: none of {counts['rows']['read']} rows became an example; check its source")
    return TaskReport(
        task.task,
        task.cluster,
        role,
        read=counts["rows"]["read"],
        written=dict(counts["written"]),
        templates=dict(counts["templates"]),
        bad=counts["rows"]["bad"],
        unsplit=counts["rows"]["unsplit"],
        outputs={
            str(lines.path.relative_to(config.out)): {"rows": lines.rows, "sha256": lines.sha256}
            for lines in outputs.values()
        },
        seconds=time.perf_counter() - began,
    )


def _written(task: Task, split: str, row: Row, example: Example) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "task": task.task,
        "cluster": list(task.cluster),
        "template": example.template.id,
        "split": split,
        "source": row.key,
    }
    optional = {
        "inverted": example.template.inverted,
        "shots": example.shots,
        "reasoned": example.reasoned,
        "options": list(example.options),
        "references": [] if example.template.inverted else list(row.references),
        "metric": None if example.template.inverted else task.metric,
    }
    meta |= {name: value for name, value in optional.items() if value}
    return {"prompt": example.prompt, "response": example.response, "meta": meta}
