"""Learning curves of a run, of the runs inside a quickstart, and of other runs drawn over them (metrics.jsonl)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from accord.evaluate.page.files import Curve, Row, RunFiles, number
from accord.evaluate.page.lines import Series, line_chart
from accord.evaluate.page.metric_names import describe, is_main, sort_key
from accord.evaluate.page.parts import Table, stage_name
from accord.evaluate.page.results import duration
from accord.evaluate.page.svg import DASH, format_number, stage_style, stage_styles

__all__ = ["CurveGroup", "Panel", "compare_runs", "curve_groups", "not_drawn", "training_verdict"]

HELD_OUT = "eval/"
MOST_RUNS = 5  # drawn over each other; beside its colour each has dashes of its own
FEWEST_PANELS = 3  # shown at once, where there are as many
MOST_COLUMNS = 6  # of the table that compares runs


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One metric: its chart, its name in metrics.jsonl, and where it ended."""

    identity: str
    title: str
    metric: str
    end: str
    drawing: Markup
    data: Mapping[str, Any]
    smoothed: bool
    note: str


@dataclass(frozen=True, kw_only=True)
class CurveGroup:
    """The panels of one training run, with a legend of (css classes, name, held out)."""

    title: str
    legend: Sequence[tuple[str, str, bool]]
    panels: Sequence[Panel]  # at once
    more: Sequence[Panel]  # behind a click

    @property
    def smoothed(self) -> bool:
        """Whether a curve is drawn with its running mean."""
        return any(panel.smoothed for panel in (*self.panels, *self.more))


@dataclass(frozen=True)
class DrawnRun:
    """A run of a group: its name, files and css classes."""

    name: str
    files: RunFiles
    css: str


def curve_groups(run: RunFiles, others: Sequence[RunFiles] = ()) -> list[CurveGroup]:
    """A group for the run itself and one for each run inside it; the same stages of other runs are drawn over them.

    At most four others are drawn: more lines than that cannot be told apart.
    """
    what = "Sampling" if run.best_of_n else "Feedback" if run.findings else "Training"
    own = [("", what, run)] if run.curves else []
    stages = own + [(stage.name, stage_name(stage.name), stage) for stage in run.stages if stage.curves]
    groups = []
    for position, (stage, title, files) in enumerate(stages):
        same = [(other.name, other if not stage else _inner(other, stage)) for other in others]
        found = [(run.name, files), *((name, inner) for name, inner in same if inner is not None and inner.curves)]
        looks = stage_styles([name for name, _ in found])
        styles = [f"{looks[name].css} run-{number}" for number, (name, _) in enumerate(found[:MOST_RUNS])]
        styles = styles if len(found) > 1 else [stage_style(stage or "sft").css]
        drawn = [DrawnRun(name, inner, css) for (name, inner), css in zip(found, styles, strict=False)]
        groups.append(_group(f"curves-{position}", title, drawn))
    return groups


def not_drawn(run: RunFiles, others: Sequence[RunFiles]) -> list[str]:
    """A sentence for each other run of which less is shown than was asked for."""
    stages = {stage.name for stage in run.stages if stage.curves}

    def shares_something(other: RunFiles) -> bool:
        own = {str(row.get("name")) for row in run.evaluations}
        evaluated = bool(own & {str(row.get("name")) for row in other.evaluations})
        shared = (
            evaluated,
            run.curves and other.curves,
            run.summary and other.summary,
            stages & {s.name for s in other.stages},
        )
        return any(shared)

    alone = [other.name for other in others if not shares_something(other)]
    sentences = [f"{name} is a run of another kind: nothing of it could be drawn beside {run.name}." for name in alone]
    most = MOST_RUNS - 1
    return sentences + (
        [f"Curves are drawn for the first {most} of {len(others)} other runs."] if len(others) > most else []
    )


def _inner(run: RunFiles, stage: str) -> RunFiles | None:
    return next((inner for inner in run.stages if inner.name == stage), None)


def _group(identity: str, title: str, runs: Sequence[DrawnRun]) -> CurveGroup:
    logged = {name for run in runs for name in run.files.curves}
    names = sorted({name.removeprefix(HELD_OUT) for name in logged}, key=sort_key)
    panels = {name: _panel(f"{identity}-{i}", name, runs) for i, name in enumerate(names)}
    main = [name for name in names if is_main(name)]
    main += [name for name in names if name not in main][: max(0, FEWEST_PANELS - len(main))]
    legend = [(run.css, run.name if len(runs) > 1 else "training", False) for run in runs]
    if any(name.startswith(HELD_OUT) for name in logged):
        legend.append((runs[0].css if len(runs) == 1 else "c-ink", "held-out data", True))
    return CurveGroup(
        title=title,
        legend=legend,
        panels=[panels[name] for name in main],
        more=[panels[name] for name in names if name not in main],
    )


def _panel(identity: str, metric: str, runs: Sequence[DrawnRun]) -> Panel:
    series, lost = [], 0
    for run in runs:
        prefix = f"{run.name}, " if len(runs) > 1 else ""
        for name, words, held_out in ((metric, "training", False), (HELD_OUT + metric, "held-out", True)):
            if curve := run.files.curves.get(name):
                lost += curve.lost
                series.append(Series(name=prefix + words, points=curve.points, css=run.css, held_out=held_out))
    known = describe(metric)
    drawn = line_chart(identity, known.title, known.unit, series)
    return Panel(
        identity=identity,
        title=known.title,
        metric=metric,
        end=_end(series) if len(runs) == 1 else "",
        drawing=drawn.svg,
        data=drawn.data,
        smoothed=drawn.smoothed,
        note=f"Left out: {lost} {'value' if lost == 1 else 'values'} that were infinite or not a number."
        if lost
        else "",
    )


def _end(series: Sequence[Series]) -> str:
    """Where training ended, over its last tenth, and the last value on held-out data."""
    return ", ".join(
        f"held-out {format_number(curve.points[-1][1])}" if curve.held_out else format_number(_mean(curve, last=True))
        for curve in series
    )


def training_verdict(run: RunFiles) -> list[str]:
    """The first sentence for a single training run: how long, and what became of its first metric."""
    if run.best_of_n:
        return sampling_verdict(run.best_of_n)
    if run.findings:
        return [str(sentence) for sentence in run.findings.get("sentences", ())]
    if not run.curves:
        return []
    curve = run.curves[min(run.curves, key=_column_key)]
    steps = max(found.points[-1][0] for found in run.curves.values())
    time = f" in {duration(run.seconds)}" if run.seconds else ""
    change = f"{format_number(_mean(curve, last=False))} to {format_number(_mean(curve, last=True))}"
    title = describe(curve.name.removeprefix(HELD_OUT)).title
    return [f"{steps:g} steps{time}. {title}: from {change}, means of the first and the last tenth of the steps."]


def sampling_verdict(found: Row) -> list[str]:
    """A sentence for each n of a best-of-n table."""
    return [
        f"Best of {row.get('n')}: reward {format_number(number(row.get('reward')))}"
        + (f" (95% interval {format_number(low)} to {format_number(high)})" if low is not None else "")
        + f", at most {format_number(number(row.get('kl_bound')))} nats of KL to the model sampled from."
        for row in found.get("rows", ())
        for low, high in [(number(row.get("lo")), number(row.get("hi")))]
    ]


def compare_runs(runs: Sequence[RunFiles]) -> Table | None:
    """Runs side by side: where their first metrics ended, as the mean of the last tenth of the steps."""
    names = sorted({name for run in runs for name in run.curves}, key=_column_key)
    runs = [run for run in runs if run.curves]
    if len(runs) < 2:
        return None
    rows = [(run.name, *(_ending(run, name) for name in names[:MOST_COLUMNS])) for run in runs]
    return Table(header=("Run", *names[:MOST_COLUMNS]), rows=rows)


def _column_key(name: str) -> tuple[tuple[int, str], bool]:
    """In the order of the charts, held-out data after training."""
    return sort_key(name.removeprefix(HELD_OUT)), name.startswith(HELD_OUT)


def _ending(run: RunFiles, name: str) -> str:
    return format_number(_mean(run.curves[name], last=True)) if name in run.curves else DASH


def _mean(curve: Curve | Series, *, last: bool) -> float:
    tenth = max(1, len(curve.points) // 10)
    points = curve.points[-tenth:] if last else curve.points[:tenth]
    return sum(value for _, value in points) / tenth
