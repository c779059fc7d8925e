"""What every evaluation shares: settings, rows that survive a kill, and results as records in the run folder.

    RUN/eval/NAME.jsonl   one row per item, on disk as soon as it is measured; the same command goes on from there
    RUN/eval/NAME.json    the results, each with its interval, numbers of items, seed, versions, models, data, command

An evaluation is a function `run(config, display) -> Outcome`; `write` puts the outcome into the run folder.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from accord.evaluate.result import Result, of_amounts
from accord.train.files import take, versions, write_text
from accord.train.progress import Display

__all__ = [
    "EvalConfig",
    "Items",
    "Job",
    "Named",
    "Outcome",
    "data_facts",
    "key_of",
    "mean_amount",
    "measured",
    "model_facts",
    "perform",
    "write",
]

Config = TypeVar("Config", bound="EvalConfig")
UNSCORED_WARNED = 0.05  # share of unscored items from which on the first sentence is about them
REASONS = 3  # reasons that are told


class EvalConfig(BaseModel):
    """What every evaluation takes."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
    shared_by: ClassVar[str] = "evaluation"

    out: Path | None = Field(
        None, description="run folder that gets the results, in its eval/; none: that of the model evaluated"
    )
    name: str | None = Field(
        None, min_length=1, pattern=r"^[\w.-]+$", description="results are eval/NAME.json; none: name of the command"
    )
    replicates: int = Field(2000, ge=0, description="draws of the bootstrap behind an interval; 0: no intervals")
    level: float = Field(0.95, gt=0, lt=1, description="coverage of the intervals")
    seed: int = Field(0, ge=0, description="every random choice is a function of it")
    skip_bad_rows: bool = Field(False, description="leave bad rows out, counted, instead of stopping at the first")


class Named(NamedTuple):
    """What was measured, the result, and of what: `Named("accuracy", "share, ties half", Result(...), "split a")`."""

    name: str
    unit: str
    result: Result
    of: str = ""  # a part of the data, a checkpoint, a model; "": of the whole


@dataclass
class Outcome:
    """What an evaluation found.

    Attributes:
        results: the first is the headline.
        models: facts of the models, see `model_facts`.
        data: facts of the data files, see `data_facts`.
        figures: what charts are drawn from (bins, curves, points), JSON by name.
        responses: rows of eval/NAME.responses.jsonl, what the report's browser shows (stage, prompt, response, ...).
        notes: sentences a reader must see: what is suspect, what could not be measured.
        items: values of the single items behind a result, by its name, NaN unscored: two models that were asked the
            same items can be compared item by item.
    """

    results: list[Named] = field(default_factory=list)
    models: list[dict[str, Any]] = field(default_factory=list)
    data: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    responses: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    items: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, unit: str, result: Result, of: str = "") -> Result:
        """Append a result; results of equal names and several `of` become a table."""
        self.results.append(Named(name, unit, result, of))
        return result

    def rows(self) -> list[dict[str, Any]]:
        """The results as JSON objects."""
        return [{"name": one.name, "of": one.of, "unit": one.unit, **asdict(one.result)} for one in self.results]

    @property
    def unscored(self) -> tuple[float, str]:
        """Share of observations that were lost, and of what: of the headline, or of all results where that is more.

        Baselines and lengths need no scorer; counted together with a headline that lost most, they would hide it.
        """
        headline, everything = _lost_share(self.results[:1]), _lost_share(self.results)
        return (headline, self.results[0].name) if headline > everything else (everything, "")

    @property
    def exit_code(self) -> int:
        """3 when more than half of the headline, or of all, could not be scored; bad results are a result, 0."""
        return 3 if self.unscored[0] > 0.5 else 0


def _lost_share(results: Sequence[Named]) -> float:
    lost = sum(one.result.n_unscored for one in results)
    return lost / max(1, lost + sum(one.result.n for one in results))


# -- rows --------------------------------------------------------------------------------------------------------------


def key_of(*parts: Any) -> str:
    """Content hash of what decides a row: model, data row, prompt text, settings."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:32]


class Items:
    """The rows of an evaluation on disk.

    Args:
        path: eval/NAME.jsonl.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known = {row["key"]: row for row in _rows(path) if "error" not in row}

    def borrow(self, path: Path) -> None:
        """Use the rows of another evaluation as well, where their keys are asked for."""
        self.known = {row["key"]: row for row in _rows(path) if "error" not in row} | self.known

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Put rows onto the disk. A row with an `error` is unscored, and tried again by the next command."""
        with self.path.open("ab") as file:
            file.write(b"".join(_line(row) for row in rows))
            file.flush()
            os.fsync(file.fileno())
        self.known |= {row["key"]: dict(row) for row in rows}

    def errors(self) -> Counter[str]:
        """Why rows of this call are unscored, and how many."""
        return Counter(str(row["error"]) for row in self.known.values() if "error" in row)

    def settle(self, keys: Sequence[str]) -> None:
        """Rewrite the file: the rows of these keys in this order, each once, whatever was interrupted before."""
        kept = b"".join(_line(self.known[key]) for key in dict.fromkeys(keys))
        write_text(self.path, kept.decode())


def measured(
    items: Items,
    keys: Sequence[str],
    work: Callable[[Sequence[int]], Sequence[Mapping[str, Any]]],
    display: Display,
    title: str,
    batch: int = 16,
) -> list[dict[str, Any]]:
    """The row of each key; those that are not there yet are made a batch at a time and put on disk.

    Args:
        items: the rows that are there.
        keys: of the items, in order; equal keys are measured once.
        work: positions of `keys` -> a row for each, without its key. A row with an `error` is unscored.
        display: shows how far it is.
        title: of the bar.
        batch: items between two writes.
    """
    todo = [
        at for at in {key: at for at, key in reversed(list(enumerate(keys)))}.values() if keys[at] not in items.known
    ]
    todo.sort()
    done = len(keys) - len(todo)
    display.begin(title, len(keys), done)
    for first in range(0, len(todo), batch):
        chosen = todo[first : first + batch]
        rows = work(chosen)
        items.add([{"key": keys[at], **row} for at, row in zip(chosen, rows, strict=True)])
        display.update(done + first + len(chosen), {})
    return [items.known[key] for key in keys]


def _line(row: Mapping[str, Any]) -> bytes:
    text = json.dumps(_plain(row), ensure_ascii=False) + "\n"
    return text.encode(errors="backslashreplace")


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Whole rows of a file that a kill may have cut."""
    if not path.exists():
        return
    for line in path.read_bytes().split(b"\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "key" in row:
            yield row


Job: TypeAlias = Callable[[Config, Items, Display], Outcome]


# -- results -----------------------------------------------------------------------------------------------------------


def perform(kind: str, config: Config, out: Path, job: Job[Config], display: Display) -> Outcome:
    """Run an evaluation, or continue it, and write eval/NAME.json.

    Args:
        kind: name of the command; of the results too unless the settings name them.
        config: its settings.
        out: run folder that gets the results.
        job: `(config, items, display) -> Outcome`; `items` are the rows that are there, in eval/NAME.jsonl.
        display: shows how far it is.

    Raises: ValueError: what the job cannot do, or the folder is in use.
    """
    try:
        with eval_folder(out) as folder:
            items = Items(folder / f"{config.name or kind}.jsonl")
            outcome = job(config, items, display)
            write(folder, kind, config, outcome, items.errors())
            return outcome
    finally:
        display.end()


@contextmanager
def eval_folder(out: Path) -> Iterator[Path]:
    """RUN/eval, for this process alone.

    Raises: ValueError: another process is evaluating into it.
    """
    folder = out / "eval"
    folder.mkdir(parents=True, exist_ok=True)
    with take(folder):
        yield folder


def mean_amount(values_N: Any, clusters_N: Any, config: EvalConfig) -> Result:
    """`mean_result` of amounts such as rewards and lengths, by the settings: see `of_amounts`."""
    from accord.evaluate.intervals import mean_result  # numpy, which `accord --help` does not need

    return of_amounts(mean_result(values_N, clusters_N, config.replicates, config.level, config.seed))


def model_facts(role: str, name: str, fingerprint: str | None) -> dict[str, Any]:
    """A model in a result: its part in the evaluation, id, revision and hash."""
    revision = None if fingerprint is None else fingerprint[:12]
    return {"role": role, "id": name, "revision": revision, "hash": fingerprint}


def data_facts(path: Path | str, rows: int, sha256: str) -> dict[str, Any]:
    """A data file in a result."""
    return {"path": str(path), "rows": rows, "hash": sha256}


def write(
    folder: Path, kind: str, config: EvalConfig, outcome: Outcome, errors: Mapping[str, int] | None = None
) -> Path:
    """Write eval/NAME.json; returns its path. Every result in it can be understood alone."""
    about = {
        "command": " ".join(sys.argv),
        "models": outcome.models,
        "data": outcome.data,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"python": platform.python_version(), **versions()},
    }
    notes = [*_of_the_unscored(outcome, errors or {}), *outcome.notes]
    content = {
        "evaluation": kind,
        "name": config.name or kind,
        "seed": config.seed,
        "notes": notes,
        "settings": config.model_dump(mode="json"),
        **about,
        "results": [row | about for row in outcome.rows()],
        "figures": outcome.figures,
    }
    path = folder / f"{config.name or kind}.json"
    write_text(path, json.dumps(_plain(content), indent=1, ensure_ascii=False))
    if outcome.responses:
        text = b"".join(_line(row) for row in outcome.responses).decode()
        write_text(path.with_name(f"{path.stem}.responses.jsonl"), text)
    outcome.notes = notes
    return path


def _of_the_unscored(outcome: Outcome, errors: Mapping[str, int]) -> list[str]:
    """How much was lost, where it is more than a little, and the commonest reasons."""
    share, name = outcome.unscored
    of_what = f'the observations behind "{name}"' if name else "all observations"
    lost = f"{share:.0%} of {of_what} could not be scored; no figure counts them as zero."
    notes = [lost] if share > UNSCORED_WARNED else []
    if errors:
        commonest = sorted(errors.items(), key=lambda pair: -pair[1])[:REASONS]
        told = "; ".join(f"{reason} ({count} rows)" for reason, count in commonest)
        notes.append(f"Why rows could not be scored: {told}. The same command asks for them again.")
    return notes


def _plain(value: Any) -> Any:
    """JSON as it can be written: NaN and infinities as null, numpy's numbers as Python's."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
