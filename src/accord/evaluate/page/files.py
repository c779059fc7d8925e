"""Read what a run folder holds. A file that is missing or damaged becomes a plain sentence, never an exception."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

__all__ = ["Curve", "Row", "RunFiles", "number", "pair", "read_run", "settings_of", "stage_of"]

Row = Mapping[str, Any]

STAGE_ORDER = ("sft", "reward", "ppo", "dpo")
LARGEST = 1e100  # differences and squares of it are still finite
NOT_METRICS = frozenset({"step", "epoch", "seconds"})


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One metric over a run: `Curve(name="loss", points=((1, 2.9), (2, 2.7)), lost=0)`."""

    name: str
    points: tuple[tuple[float, float], ...]  # (step, value), by rising step
    lost: int = 0  # values that were NaN or infinite


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """What one run folder holds; a part that is not there is empty."""

    name: str
    folder: Path
    config: str = ""  # config.yaml as it stands
    manifest: Row = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)
    seconds: float | None = None  # that training took, where metrics.jsonl says so
    samples: Sequence[Row] = ()
    summary: Row = field(default_factory=dict)
    findings: Row = field(default_factory=dict)  # sentences of a job that trains nothing
    evaluation: Sequence[Row] = ()
    frontier: Sequence[Row] = ()
    best_of_n: Row = field(default_factory=dict)  # of a job that only samples
    evaluations: Sequence[Row] = ()  # eval/*.json: what `accord eval` wrote, by name
    stages: Sequence[RunFiles] = ()  # the runs inside a quickstart, in the order they were trained
    notes: Sequence[str] = ()  # sentences about what could not be read

    @property
    def is_empty(self) -> bool:
        """Whether nothing in it can be shown: settings alone make no report."""
        shown = (
            self.manifest,
            self.curves,
            self.samples,
            self.summary,
            self.evaluation,
            self.frontier,
            self.evaluations,
        )
        return not any(shown) and all(stage.is_empty for stage in self.stages)


def read_run(folder: Path) -> RunFiles:
    """Read a run folder and the runs directly inside it.

    Raises:
        ValueError: the folder does not exist or holds nothing to report.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; expected a run folder, such as runs/quickstart")
    run = _read(folder, _inner_runs(folder))
    if run.is_empty:
        raise ValueError(
            f"{folder} holds nothing to report; expected one of metrics.jsonl, samples.jsonl, manifest.json, "
            "summary.json, evaluation.jsonl, frontier.json, eval/*.json, or folders with a metrics.jsonl; give the "
            "folder of a run"
        )
    return run


def number(value: object) -> float | None:
    """A number that can be drawn, or None for everything else: missing, text, true, NaN, beyond 1e100."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if -LARGEST <= value <= LARGEST else None


def pair(value: object) -> tuple[float, float] | None:
    """Both ends of an interval `[low, high]`, or None."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return None
    low, high = number(value[0]), number(value[1])
    return None if low is None or high is None else (low, high)


def stage_of(row: Row) -> str:
    """The stage a row of evaluation.jsonl belongs to."""
    return str(row.get("stage", "unnamed"))


def settings_of(run: RunFiles) -> Row:
    """The plain values of config.yaml; empty where it is no mapping."""
    try:
        value = yaml.safe_load(run.config)
    except yaml.YAMLError:
        return {}
    entries = value.items() if isinstance(value, dict) else ()
    return {str(name): entry for name, entry in entries if isinstance(entry, (str, int, float))}


def _inner_runs(folder: Path) -> list[RunFiles]:
    inner = [path for path in folder.iterdir() if path.is_dir() and (path / "metrics.jsonl").is_file()]
    rank = {name: position for position, name in enumerate(STAGE_ORDER)}
    return [_read(path, ()) for path in sorted(inner, key=lambda path: (rank.get(path.name, len(rank)), path.name))]


def _read(folder: Path, stages: Sequence[RunFiles]) -> RunFiles:
    notes: list[str] = []
    metrics = _rows(folder / "metrics.jsonl", notes)
    times = [seconds for row in metrics if (seconds := number(row.get("seconds"))) is not None]
    return RunFiles(
        name=folder.resolve().name,
        folder=folder,
        config=_text(folder / "config.yaml", notes) or "",
        manifest=_object(folder / "manifest.json", notes),
        curves=_curves(metrics),
        seconds=max(times, default=None),
        samples=_rows(folder / "samples.jsonl", notes),
        summary=_object(folder / "summary.json", notes),
        evaluation=_rows(folder / "evaluation.jsonl", notes) or _evaluated(folder, notes),
        findings=_object(folder / "findings.json", notes),
        frontier=_only_objects(_json(folder / "frontier.json", notes), folder / "frontier.json", notes),
        best_of_n=_object(folder / "best_of_n.json", notes),
        evaluations=[found for path in sorted(folder.glob("eval/*.json")) if (found := _object(path, notes))],
        stages=stages,
        notes=[*notes, *(f"In {stage.name}: {note}" for stage in stages for note in stage.notes)],
    )


def _evaluated(folder: Path, notes: list[str]) -> list[Row]:
    """Responses that `accord eval` sampled, where the run itself has none."""
    for path in sorted(folder.glob("eval/*.responses.jsonl")):
        if rows := _rows(path, notes):
            return rows
    return []


def _text(path: Path, notes: list[str]) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        notes.append(f"{path.name} could not be read ({error.strerror}).")
        return None


def _json(path: Path, notes: list[str]) -> object:
    text = _text(path, notes)
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        notes.append(f"{path.name} is not valid JSON and was left out.")
        return None


def _object(path: Path, notes: list[str]) -> Row:
    value = _json(path, notes)
    if value is not None and not isinstance(value, dict):
        notes.append(f"{path.name} is not a JSON object and was left out.")
    return value if isinstance(value, dict) else {}


def _rows(path: Path, notes: list[str]) -> list[Row]:
    """The objects of a JSONL file. A run that was killed may leave half a line at the end."""
    lines = (_text(path, notes) or "").split("\n")
    return _only_objects([_line(line) for line in lines if line.strip()], path, notes)


def _line(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _only_objects(values: object, path: Path, notes: list[str]) -> list[Row]:
    entries = values if isinstance(values, list) else [] if values is None else [values]
    rows: list[Row] = [entry for entry in entries if isinstance(entry, dict)]
    if lost := len(entries) - len(rows):
        notes.append(f"{lost} of {len(entries)} rows of {path.name} could not be read and were left out.")
    return rows


def _curves(rows: Iterable[Row]) -> dict[str, Curve]:
    """Metric by metric. A step written twice (a run that was killed and continued) counts once, as written last."""
    points: dict[str, dict[float, float]] = {}
    lost: dict[str, int] = {}
    for position, row in enumerate(rows, start=1):
        step = number(row.get("step"))
        for name in row.keys() - NOT_METRICS:
            value = number(row[name])
            if value is not None:
                points.setdefault(name, {})[position if step is None else step] = value
            elif isinstance(row[name], float):
                lost[name] = lost.get(name, 0) + 1
    return {
        name: Curve(name=name, points=tuple(sorted(values.items())), lost=lost.get(name, 0))
        for name, values in points.items()
    }
