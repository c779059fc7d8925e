"""Charts of a campaign's report: rows of a label, a mark on a common scale, and the figure in words beside it.

The template draws each mark as SVG in the colours of the page; the words say the same to a screen reader.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from accord.evaluate.result import Result
from accord.feedback.analysis.agreement import Agreement
from accord.feedback.analysis.report import CampaignReport
from accord.feedback.analysis.tables import with_interval

__all__ = ["Chart", "Mark", "charts"]

MOST_ROWS = 25


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A row. Places are in per cent of the scale; a bar has no interval.

    Example: `Mark(label="2026-W30", said="0.52 [0.40, 0.64]", at=52.0, low=40.0, high=64.0)`.
    """

    label: str
    said: str
    at: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A heading, how to read it, and the rows. `bars` grow from 0; else marks stand at `at`, `middle` is a line."""

    identity: str
    title: str
    sees: str
    marks: tuple[Mark, ...]
    bars: bool = False
    middle: float | None = None


def charts(report: CampaignReport) -> list[Chart]:
    """The charts that have something to show."""
    found = [_over_time(report), _per_annotator(report), _bias(report)]
    return [one for one in found if one.marks]


def _over_time(report: CampaignReport) -> Chart:
    weeks = report.slices.get("week", {})
    marks = _marks(((week, _main_figure(one)) for week, one in weeks.items()), lowest=-1.0)
    return Chart(
        identity="time",
        title="Agreement by week",
        sees="From -1 to 1; 0, the line, is what chance gives. The line through a mark is its 95 % interval.",
        marks=marks[-MOST_ROWS:],
        middle=50.0,
    )


def _main_figure(one: Agreement) -> Result:
    return one.kappa if one.kappa is not None else one.alpha


def _per_annotator(report: CampaignReport) -> Chart:
    lines = sorted(report.annotators, key=lambda line: (-line.judgments, line.annotator))[:MOST_ROWS]
    most = max((line.judgments for line in lines), default=0) or 1
    marks = tuple(
        Mark(label=line.annotator, said=f"{line.judgments:,}", at=100 * line.judgments / most) for line in lines
    )
    left = len(report.annotators) - len(lines)
    return Chart(
        identity="people",
        title="Judgments by annotator",
        sees=f"Most first; {left} more are not shown." if left else "Most first.",
        marks=marks,
        bars=True,
    )


def _bias(report: CampaignReport) -> Chart:
    bias = report.bias
    rows: list[tuple[str, Result | None]] = [("shown first", bias.first), ("longer", bias.longer)]
    rows += [(f"{ratio} times as long", result) for ratio, result in bias.by_ratio.items()]
    return Chart(
        identity="bias",
        title="Preferred by place and length",
        sees="Share of strict choices; the line is one half. Being longer can be a merit: compare with a reward model.",
        marks=_marks(rows, lowest=0.0),
        middle=50.0,
    )


def _marks(rows: Iterable[tuple[str, Result | None]], *, lowest: float) -> tuple[Mark, ...]:
    """Marks on a scale from `lowest` to 1; what is not known is left out."""

    def place(value: float) -> float:
        return round(100 * (min(max(value, lowest), 1.0) - lowest) / (1.0 - lowest), 2)

    marks = []
    for label, result in rows:
        if result is None or math.isnan(result.value):
            continue
        ends: Sequence[float | None] = (None, None)
        if result.ci is not None and not any(map(math.isnan, result.ci)):
            ends = [place(end) for end in result.ci]
        marks.append(Mark(label=label, said=with_interval(result), at=place(result.value), low=ends[0], high=ends[1]))
    return tuple(marks)
