"""What an experiment leaves: figures with intervals, what was published, whether its shape was seen, and the cost.

RUN/evidence.json   all of it; docs/evidence/ keeps these files, and docs/evidence.md is made of them
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

__all__ = [
    "Difference",
    "Ends",
    "Evidence",
    "Figure",
    "Finding",
    "Point",
    "Seen",
    "Series",
    "Table",
    "best_elsewhere",
    "difference",
    "over_prompts",
    "over_seeds",
    "read",
    "sign_of",
    "with_interval",
]

Seen = Literal["yes", "no", "unclear"]
Ends = tuple[float | None, float | None]


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point of a figure, with an interval of y where there is one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points of one method. `line` joins them in their order; `marks` shows each."""

    name: str
    points: Sequence[Point]
    line: bool = True
    marks: bool = True


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure: axes with their units, and series."""

    name: str
    title: str
    x: str
    y: str
    series: Sequence[Series]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of cells as they are printed."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A claim of the literature, and whether its shape was seen here.

    Attributes:
        claim: what was published, with its source.
        seen: "yes" and "no" only where an interval says so; else "unclear".
        words: the figures behind it.
    """

    claim: str
    seen: Seen
    words: str


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One experiment.

    Attributes:
        experiment: its name.
        title: a few words.
        question: what it asks, one sentence.
        setting: how it was done, a paragraph.
        findings, tables, figures: what came out.
        caveats: what a reader must know before believing it.
        provenance: model, data, seeds, settings, seconds, versions, command, time.
    """

    experiment: str
    title: str
    question: str
    setting: str
    findings: Sequence[Finding]
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    caveats: Sequence[str] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write it as JSON; what is undefined becomes null."""
        from accord.train.files import write_text

        write_text(path, json.dumps(_plain(asdict(self)), indent=1, ensure_ascii=False) + "\n")


def read(path: Path) -> Evidence:
    """Read what `write` wrote.

    Raises: ValueError: the file is something else.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf8"))
        figures = [
            Figure(**{**f, "series": [Series(**{**s, "points": _points(s["points"])}) for s in f["series"]]})
            for f in raw["figures"]
        ]
        tables, findings = [Table(**t) for t in raw["tables"]], [Finding(**f) for f in raw["findings"]]
        return Evidence(**{**raw, "figures": figures, "tables": tables, "findings": findings})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not the evidence of an experiment ({error}); run the experiment again") from error


def over_seeds(values: Sequence[float], level: float = 0.95) -> tuple[float, float | None, float | None]:
    """Mean over seeds and its t interval; no interval for fewer than two seeds. NaN values are left out."""
    from scipy.stats import t

    known = np.array([value for value in values if value == value], dtype=float)
    if not len(known):
        return math.nan, None, None
    mean = float(known.mean())
    if len(known) < 2:
        return mean, None, None
    half = float(t.ppf((1 + level) / 2, len(known) - 1) * known.std(ddof=1) / math.sqrt(len(known)))
    return mean, mean - half, mean + half


def with_interval(value: float, low: float | None, high: float | None, digits: int = 2) -> str:
    """`0.61 [0.52, 0.70]`, or the value alone, or a dash where there is none."""
    if not math.isfinite(value):
        return "-"
    return " ".join(filter(None, [_shown(value, digits), _ends((low, high), digits)]))


def _shown(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}"  # no -0.00


def _ends(ends: Ends, digits: int) -> str:
    """`[0.52, 0.70]`, or nothing where an end is unknown."""
    known = [end for end in ends if end is not None and math.isfinite(end)]
    return f"[{_shown(known[0], digits)}, {_shown(known[1], digits)}]" if len(known) == 2 else ""


def sign_of(low: float | None, high: float | None, bound: float = 0.0) -> Seen:
    """Whether an interval says that what it is of is above a bound ("yes"), below it ("no"), or neither."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return "unclear"
    return "yes" if low > bound else "no" if high < bound else "unclear"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A mean difference with an interval for each source of chance; the two are never pooled.

    Attributes:
        value: mean over seeds and prompts.
        seeds: ends of the t interval over seeds; None for fewer than two.
        count: seeds behind it.
        prompts: ends of the bootstrap interval over prompts, of their means over seeds; None: not known by prompt.
    """

    value: float
    seeds: Ends
    count: int
    prompts: Ends | None = None

    def above(self, bound: float = 0.0) -> Seen:
        """Whether every interval lies above the bound ("yes"), every one below it ("no"), or neither."""
        said = {sign_of(*ends, bound) for ends in (self.seeds, self.prompts) if ends is not None}
        return said.pop() if len(said) == 1 else "unclear"

    def words(self, digits: int = 3) -> str:
        """The value, and both intervals by name."""
        named = ((f"over {self.count} seeds", self.seeds), ("over prompts", self.prompts or (None, None)))
        known = [f"{_ends(ends, digits)} {name}" for name, ends in named if _ends(ends, digits)]
        return f"{with_interval(self.value, None, None, digits)} {', '.join(known)}".strip()


def difference(gaps: ArrayLike, prompts: Ends | None = None) -> Difference:
    """A difference from one value a seed, or from a row of prompts a seed.

    Args:
        gaps: (S,), or (S, P) with the same prompts for every seed. A seed without a value is left out, and so is a
            prompt that was not scored for one of the others.
        prompts: an interval over prompts that is known otherwise.
    """
    gap = np.asarray(gaps, dtype=float)
    gap_SP = gap.reshape(len(gap), -1)
    gap_SP = gap_SP[~np.isnan(gap_SP).all(axis=1)]
    gap_SP = gap_SP[:, ~np.isnan(gap_SP).any(axis=0)]
    if gap.ndim == 2 and gap_SP.size:
        prompts = over_prompts(gap_SP.mean(axis=0))[1:]
    mean_S = gap_SP.mean(axis=1).tolist() if gap_SP.size else []
    mean, low, high = over_seeds(mean_S)
    return Difference(value=mean, seeds=(low, high), count=len(mean_S), prompts=prompts)


def over_prompts(values_P: ArrayLike) -> tuple[float, float | None, float | None]:
    """Mean over prompts and its bootstrap interval, for amounts of any unit; NaN values are left out."""
    from accord.evaluate.intervals import bootstrap_mean

    known = np.asarray(values_P, dtype=float)
    known = known[~np.isnan(known)]
    if not len(known):
        return math.nan, None, None
    ends = bootstrap_mean(known)
    return float(known.mean()), ends.low, ends.high


def best_elsewhere(values_OS: ArrayLike) -> list[int]:
    """For each seed the option that is best by the mean of the other seeds.

    The best of several noisy values is above the truth by chance; chosen by other seeds, what it is worth on this one
    is not. One seed alone has to choose for itself.
    """
    values = np.asarray(values_OS, dtype=float)
    seeds = values.shape[1]
    if seeds == 1:
        return [int(values[:, 0].argmax())]
    return [int(np.delete(values, seed, axis=1).mean(axis=1).argmax()) for seed in range(seeds)]


def _points(rows: Sequence[Any]) -> list[Point]:
    return [Point(**row) for row in rows]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
