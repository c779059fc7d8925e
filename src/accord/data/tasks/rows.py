"""The rows of a task's source, one at a time: which belong to it, their side of a split, their exemplars."""

from __future__ import annotations

import contextlib
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from accord.data import files
from accord.data.draws import draw, share
from accord.data.files import Broken, DataError
from accord.data.lines import Lines
from accord.data.tasks.config import ConvertConfig
from accord.data.tasks.render import Example, Renderer, Row
from accord.data.tasks.task import Task

__all__ = ["examples_of", "paths_of", "relative_name"]

_EXEMPLARS = 256  # train rows kept per task to draw exemplars from


def examples_of(
    task: Task, config: ConvertConfig, counts: Counter[str], bad: Lines | None = None
) -> Iterator[tuple[str, Row, Example]]:
    """Yield split, row and example; bad rows go to `bad`, or raise where it is None.

    Args:
        task: what to convert.
        config: how.
        counts: is counted up: "read", "bad", "unsplit".
        bad: where bad rows go.
    """
    renderer = Renderer(
        task,
        seed=config.seed,
        options_share=config.options_share,
        reasoning_share=config.reasoning_share,
        max_characters=config.max_characters,
    )
    pool = (
        _Pool(renderer, _rows(task, renderer, config, Counter(), _Aside(None, quiet=True))) if _shown(config) else None
    )
    aside = _Aside(bad)
    for split, place, raw, row in _rows(task, renderer, config, counts, aside):
        try:
            fitting = renderer.fitting(row)
            drawn = draw(config.seed, "templates", task.task, row.key).sample(
                fitting, min(config.templates_per_row, len(fitting))
            )
            made = [
                renderer.example(template, row, pool.exemplars(template.id, row, config) if pool else ())
                for template in drawn
            ]
        except ValueError as error:
            aside(place, raw, str(error))
            counts["bad"] += 1
            continue
        for example in made:
            yield split, row, example


def _shown(config: ConvertConfig) -> bool:
    return max(config.shot_shares) > 0


class _Aside:
    """Takes a bad row: into a file, or as the error that ends the job."""

    def __init__(self, lines: Lines | None, *, quiet: bool = False) -> None:
        self._lines, self._quiet = lines, quiet

    def __call__(self, place: str, raw: Any, message: str) -> None:
        if self._quiet:
            return
        if self._lines is None:
            raise DataError(f"{place}: {message} (or set such rows aside: --skip-bad-rows)")
        self._lines.add({"place": place, "message": message, "raw": raw})


def _rows(
    task: Task, renderer: Renderer, config: ConvertConfig, counts: Counter[str], aside: _Aside
) -> Iterator[tuple[str, str, Any, Row]]:
    """Yield split, place for people, raw row and row, of every row that belongs to the task."""
    source = task.source
    for fixed, path in paths_of(task, config.root).items():
        for number, raw in files.rows(path):
            place = f"{path}, row {number}"
            try:
                if isinstance(raw, Broken):
                    raise ValueError(raw.message)
                if not isinstance(raw, Mapping):
                    raise ValueError(f"found {type(raw).__name__}; expected an object")
                if source.where is not None and not renderer.evaluate("source.where", source.where, raw):
                    continue
                parts = renderer.evaluate("source.each", source.each, raw) if source.each else None
                for part, item in enumerate([None] if parts is None else parts, 1):
                    counts["read"] += 1
                    values = raw if parts is None else {**raw, "item": item}
                    key = f"{relative_name(path, config.root)}:{number}" + (f".{part}" if parts is not None else "")
                    split = fixed or _split(renderer, values, key, config.seed)
                    if not split:
                        counts["unsplit"] += 1
                        continue
                    yield split, place, raw, renderer.row(values, key)
            except ValueError as error:
                if isinstance(error, DataError):
                    raise
                aside(place, raw.text if isinstance(raw, Broken) else raw, str(error))
                counts["bad"] += 1


def _split(renderer: Renderer, values: Mapping[str, Any], key: str, seed: int) -> str:
    """The first split whose expression holds; shares are drawn by the hash of the group, the rest is train."""
    source = renderer.task.source
    if not source.split:
        return "train"
    group = key if source.group is None else str(renderer.evaluate("source.group", source.group, values))
    drawn, below, shares = share(seed, "split", renderer.task.task, group), 0.0, False
    for name, rule in source.split.items():
        if isinstance(rule, str):
            if renderer.evaluate(f"source.split.{name}", rule, values):
                return name
        else:
            shares, below = True, below + rule
            if drawn < below:
                return name
    return "train" if shares else ""


def paths_of(task: Task, root: Path) -> dict[str, Path]:
    """Split -> file; the split is empty where it is to be found out row by row."""
    path = task.source.path
    return {"": root / path} if isinstance(path, str) else {split: root / name for split, name in path.items()}


def relative_name(path: Path, root: Path) -> str:
    """What a file is called in rows and manifests, wherever the root is."""
    return str(path.relative_to(root))


class _Pool:
    """Train rows to draw exemplars from: those with the smallest hashes, whatever the order of the file."""

    def __init__(self, renderer: Renderer, rows: Iterable[tuple[str, str, Any, Row]]) -> None:
        task, seed = renderer.task, renderer.seed
        train = ((share(seed, "pool", task.task, row.key), row) for split, _, _, row in rows if split == "train")
        self._rows = [row for _, row in heapq.nsmallest(_EXEMPLARS, train, key=lambda pair: pair[0])]
        self._task = task.task
        self._fitting = {row.key: {template.id for template in _fitting(renderer, row)} for row in self._rows}

    def exemplars(self, template: str, row: Row, config: ConvertConfig) -> list[Row]:
        """As many as are drawn for the row, never itself, never one the template does not fit."""
        generator = draw(config.seed, "shots", self._task, row.key)
        shares = config.shot_shares
        count = generator.choices(list(shares), list(shares.values()))[0]
        order = generator.sample(self._rows, len(self._rows)) if count else []
        fits = (other for other in order if other.key != row.key and template in self._fitting[other.key])
        return [other for other, _ in zip(fits, range(count), strict=False)]


def _fitting(renderer: Renderer, row: Row) -> Iterator[Any]:
    """The templates that fit and can be rendered: a bad row is no exemplar."""
    try:
        for template in renderer.fitting(row):
            with contextlib.suppress(ValueError):
                renderer.example(template, row)
                yield template
    except ValueError:
        return
