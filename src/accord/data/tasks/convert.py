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
import hashlib
import heapq
import json
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

import accord
from accord.data import files
from accord.data.draws import draw, share
from accord.data.files import Broken, DataError
from accord.data.lines import Lines, write_json
from accord.data.progress import Tell, silent
from accord.data.tasks.render import Example, Renderer, Row
from accord.data.tasks.task import Task

__all__ = ["ConvertConfig", "TaskReport", "convert", "examples_of"]

_EXEMPLARS = 256  # train rows kept per task to draw exemplars from
_EVERY = 500


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, (str, int)) else value


Words = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]


class ConvertConfig(BaseModel):
    """Conversion of tasks to instructions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: Words = Field(
        description="task files (.yaml), folders of them, names of tasks of the package, or all", min_length=1
    )
    root: Path = Field(Path(), description="folder that the paths in task files start from")
    out: Path = Field(description="folder of the instructions; finished tasks in it are not done again")
    hold_out: Words = Field((), description="clusters kept out of training, with those that must leave with them")
    templates_per_row: int = Field(1, ge=1, description="different templates drawn for a row, at most")
    options_share: float = Field(1.0, ge=0, le=1, description="share of rows whose prompts list the options")
    shots: Words = Field(
        ("0",),
        description="exemplars before a row, each 0 to 5, with shares: 0:0.5 2:0.3 5:0.2; equal if none are said",
    )
    reasoning_share: float = Field(
        0.5, ge=0, le=1, description="share of rows with a rationale whose response begins with it"
    )
    max_characters: int = Field(8000, ge=100, description="longest prompt with exemplars, the oldest of them go first")
    workers: int = Field(1, ge=1, description="tasks converted at the same time; the result does not depend on it")
    seed: int = Field(0, ge=0, description="every random choice is a function of it")
    skip_bad_rows: bool = Field(False, description="set bad rows aside instead of stopping at the first")

    @model_validator(mode="after")
    def _check(self) -> ConvertConfig:
        self.shot_shares  # noqa: B018  (raises)
        return self

    @property
    def shot_shares(self) -> dict[int, float]:
        """Number of exemplars -> share of the rows, adding up to 1."""
        shares: dict[int, float] = {}
        for word in self.shots:
            count, _, part = word.partition(":")
            try:
                shares[int(count)] = float(part or 1)
            except ValueError:
                raise ValueError(f'shots "{word}"; expected a number and perhaps a share, such as 2:0.25') from None
        if not shares or not set(shares) <= set(range(6)) or min(shares.values()) <= 0:
            raise ValueError(f"shots {' '.join(self.shots)}; expected numbers from 0 to 5 with shares above 0")
        return {count: part / sum(shares.values()) for count, part in shares.items()}


class TaskReport(NamedTuple):
    """What became of a task.

    Attributes:
        task: its name.
        clusters: of the task.
        role: "train", "held-out", or "left out" because a cluster is held out that it must leave with.
        read: rows of the source that belong to the task.
        written: rows by split.
        templates: rows by template.
        bad: rows set aside.
        unsplit: rows that no split takes.
        outputs: file under OUT -> rows and hash.
        seconds: it took; 0 if it was found finished.
    """

    task: str
    clusters: tuple[str, ...]
    role: str
    read: int = 0
    written: Mapping[str, int] = {}
    templates: Mapping[str, int] = {}
    bad: int = 0
    unsplit: int = 0
    outputs: Mapping[str, Any] = {}
    seconds: float = 0.0


def convert(tasks: Sequence[Task], config: ConvertConfig, tell: Tell = silent) -> list[TaskReport]:
    """Convert tasks; a task that is finished in the folder, with the same files and settings, is not done again.

    Raises:
        DataError: a source is missing or damaged, an unknown cluster is held out, or a row is bad.
    """
    roles = _roles(tasks, config.hold_out)
    for task in tasks:
        if roles[task.task] != "left out":
            for path in _paths(task, config.root).values():
                _check_path(path, task, config)
            Renderer(task)
    manifest = _Manifest(config)
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


# -- rows of a task ----------------------------------------------------------------------------------------------------


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
    for fixed, path in _paths(task, config.root).items():
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
                    key = f"{_name(path, config.root)}:{number}" + (f".{part}" if parts is not None else "")
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


def _paths(task: Task, root: Path) -> dict[str, Path]:
    """Split -> file; the split is empty where it is to be found out row by row."""
    path = task.source.path
    return {"": root / path} if isinstance(path, str) else {split: root / name for split, name in path.items()}


def _name(path: Path, root: Path) -> str:
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


# -- what is finished --------------------------------------------------------------------------------------------------


class _Manifest:
    """OUT/manifest.json: what was made of what, and so what need not be made again."""

    def __init__(self, config: ConvertConfig) -> None:
        self._config, self._path = config, config.out / "manifest.json"
        self._entries: dict[str, Any] = {}
        if self._path.exists():
            try:
                self._entries = json.loads(self._path.read_text(encoding="utf-8"))["tasks"]
            except (ValueError, KeyError, TypeError):
                raise DataError(f"{self._path}: no manifest of a conversion; choose another --out") from None

    def finished(self, task: Task, role: str) -> TaskReport | None:
        """The report of a task that was made of the same things and is still there."""
        entry = self._entries.get(task.task)
        if entry is None or entry["role"] != role or entry["made_of"] != self._made_of(task, role):
            return None
        if not all((self._config.out / name).exists() for name in entry["outputs"]):
            return None
        values = {name: entry[name] for name in TaskReport._fields if name in entry}
        return TaskReport(**{**values, "clusters": tuple(entry["clusters"]), "seconds": 0.0})

    def _made_of(self, task: Task, role: str) -> dict[str, Any]:
        """All that the result depends on."""
        leave = {"tasks", "root", "out", "workers", "hold_out"}
        settings = self._config.model_dump(mode="json", exclude=leave)
        text = json.dumps([task.model_dump(mode="json"), settings], sort_keys=True)
        sources = {} if role == "left out" else _paths(task, self._config.root)
        return {
            "accord": accord.__version__,
            "settings": hashlib.sha256(text.encode()).hexdigest(),
            "sources": {_name(path, self._config.root): files.sha256(path) for path in sources.values()},
        }

    def add(self, task: Task, report: TaskReport) -> None:
        """Note a task and remove files of it that an earlier conversion left."""
        old = self._entries.get(task.task, {"outputs": {}})
        for name in set(old["outputs"]) - set(report.outputs):
            (self._config.out / name).unlink(missing_ok=True)
        made_of = {"licence": task.licence, "made_of": self._made_of(task, report.role)}
        self._entries[task.task] = report._asdict() | made_of
        self._write()

    def check(self, held: Collection[str], names: Collection[str]) -> None:
        """Refuse training rows that an earlier conversion left in the folder and that are to be held out now."""
        for name, entry in self._entries.items():
            if name not in names and entry["role"] == "train" and set(entry["clusters"]) & set(held):
                raise DataError(
                    f"{self._config.out}: holds training rows of {name} ({', '.join(entry['clusters'])}) from an "
                    "earlier conversion, which are held out now; convert that task again too, or choose another --out"
                )

    def _write(self) -> None:
        settings = self._config.model_dump(mode="json")
        write_json({"accord": accord.__version__, "settings": settings, "tasks": self._entries}, self._path)
