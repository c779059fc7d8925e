"""What came out: first sentences, main table and its figures (summary.json, frontier.json)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from accord.evaluate.intervals import wilson
from accord.evaluate.page.files import Row, RunFiles, number, pair
from accord.evaluate.page.parts import NAMES, Figure, Table, listed, stage_name, stages_in_order
from accord.evaluate.page.plots import Bar, Dot, Frontier, bars, frontier, intervals
from accord.evaluate.page.svg import DASH, NARROW, WIDE, StageStyle, fixed, responsive, stage_style, stage_styles

__all__ = [
    "ResultRow",
    "accuracy_figure",
    "duration",
    "frontier_figure",
    "result_figure",
    "result_rows",
    "seconds_by_stage",
    "time_figure",
    "verdict",
]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of the main table."""

    key: str
    title: str
    unit: str
    write: Callable[[float], str]


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """A stage in the main table: its look, and (title, unit, figure, interval) for each column."""

    name: str
    style: StageStyle
    cells: Sequence[tuple[str, str, str, str]]


def _signed(pattern: str) -> Callable[[float], str]:
    return lambda value: pattern.format(value).replace("-", "\u2212")


COLUMNS = (
    Column(key="gold_reward", title="Gold reward", unit="mean, 95% interval", write=_signed("{:.2f}")),
    Column(key="win_rate_vs_base", title="Wins against base", unit="share, ties half", write=_signed("{:.0%}")),
    Column(key="reward_model_score", title="Reward model", unit="mean score", write=_signed("{:.2f}")),
    Column(key="kl", title="KL to SFT", unit="nats per response", write=_signed("{:.1f}")),
    Column(key="mean_length", title="Length", unit="tokens, mean", write=_signed("{:.1f}")),
    Column(key="base_perplexity", title="Perplexity", unit="of the base model", write=_signed("{:.1f}")),
    Column(key="n", title="Responses", unit="n", write=_signed("{:,.0f}")),
)


def stage_rows(summary: Row) -> dict[str, Row]:
    """The stages of summary.json that are objects, in the order of the page."""
    stages = summary.get("stages")
    if not isinstance(stages, dict):
        return {}
    return {stage: stages[stage] for stage in stages_in_order(stages) if isinstance(stages[stage], dict)}


def result_rows(summary: Row) -> list[ResultRow]:
    """The main table; a figure that is missing is a dash, a column nobody has is left out."""
    stages = stage_rows(summary)
    styles = stage_styles(list(stages))
    shown = [column for column in COLUMNS if any(number(row.get(column.key)) is not None for row in stages.values())]
    return [
        ResultRow(
            name=stage_name(stage),
            style=styles[stage],
            cells=[(column.title, column.unit, *_cell(row, column)) for column in shown],
        )
        for stage, row in stages.items()
    ]


def _cell(row: Row, column: Column) -> tuple[str, str]:
    value, ci = number(row.get(column.key)), pair(row.get(f"{column.key}_ci"))
    figure = DASH if value is None else column.write(value)
    return figure, "" if ci is None else f"[{column.write(ci[0])}, {column.write(ci[1])}]"


def gold_dots(summary: Row) -> dict[str, Dot]:
    """The gold reward of each stage that has one."""
    dots = {}
    stages = stage_rows(summary)
    styles = stage_styles(list(stages))
    for stage, row in stages.items():
        value = number(row.get("gold_reward"))
        if value is not None:
            dots[stage] = Dot(
                name=stage_name(stage), style=styles[stage], value=value, ci=pair(row.get("gold_reward_ci"))
            )
    return dots


def verdict(summary: Row) -> list[str]:
    """The result in plain sentences, with what speaks against it."""
    dots = gold_dots(summary)
    if not dots:
        return []
    levels = listed([f"{_written(dot.value)} {_when(stage)}" for stage, dot in dots.items()])
    sentences = [f"Mean gold reward on held-out prompts: {levels}."]
    return [*sentences, *_against_base(dots), *_fluency(summary)]


def _when(stage: str) -> str:
    return "for the base model" if stage == "base" else f"after {stage_name(stage)}"


def _written(value: float) -> str:
    return f"{value:.2f}".replace("-", "\u2212")


def _against_base(dots: Mapping[str, Dot]) -> list[str]:
    base = dots.get("base")
    if base is None or base.ci is None:
        return []
    groups: dict[str, list[str]] = {"above": [], "below": [], "overlap": []}
    for stage, dot in dots.items():
        if stage != "base" and dot.ci is not None:
            place = "above" if dot.ci[0] > base.ci[1] else "below" if dot.ci[1] < base.ci[0] else "overlap"
            groups[place].append(dot.name)
    words = {
        "above": "The 95% interval of {} lies above that of the base model.",
        "below": "The 95% interval of {} lies below that of the base model.",
        "overlap": "The 95% interval of {} overlaps that of the base model: by itself no proof of a difference.",
    }
    several = {
        "above": "The 95% intervals of {} lie above that of the base model.",
        "below": "The 95% intervals of {} lie below that of the base model.",
        "overlap": "The 95% intervals of {} overlap that of the base model: by themselves no proof of a difference.",
    }
    return [
        (words if len(names) == 1 else several)[place].format(listed(names)) for place, names in groups.items() if names
    ]


def _fluency(summary: Row) -> list[str]:
    values = {stage: number(row.get("base_perplexity")) for stage, row in stage_rows(summary).items()}
    base = values.pop("base", None)
    after = [f"{value:.1f} {_when(stage)}" for stage, value in values.items() if value is not None]
    if base is None or not after:
        return []
    words = "Fluency, as the base model's perplexity on the responses (lower reads more usual to it)"
    return [f"{words}: {base:.1f} on its own, {listed(after)}."]


def result_figure(run: RunFiles, others: Sequence[RunFiles] = ()) -> Figure | None:
    """Gold reward by stage, and of the same stages of the other runs."""
    dots = list(gold_dots(run.summary).values())
    for other in others:
        dots += [
            Dot(name=f"{other.name}: {dot.name}", style=dot.style, value=dot.value, ci=dot.ci)
            for dot in gold_dots(other.summary).values()
        ]
    if not dots:
        return None
    title, unit = "Gold reward by stage", "gold reward, mean"
    return Figure(
        identity="gold",
        title=title,
        sees="Each marker is the mean of a score nobody trained on; the line is its 95% interval over prompts. "
        "Stages whose lines do not overlap differ by more than chance explains.",
        drawing=responsive(
            intervals("gold-wide", title, unit, dots, WIDE), intervals("gold-narrow", title, unit, dots, NARROW)
        ),
    )


def accuracy_figure(summary: Row) -> Figure | None:
    """The reward model's accuracy beside preferring the longer response, both with Wilson's interval."""
    row = summary.get("reward_model")
    if not isinstance(row, dict) or number(row.get("accuracy")) is None:
        return None
    pairs = max(0, int(number(row.get("n")) or 0))
    dots = []
    for name, key, stage in (("Reward model", "accuracy", "reward"), ("Longer wins", "longer_wins_accuracy", "base")):
        value = number(row.get(key))
        if value is not None and 0 <= value <= 1:
            ci = pair(row.get(f"{key}_ci")) or (wilson(value * pairs, pairs) if pairs else None)
            dots.append(Dot(name=name, style=stage_style(stage), value=value, ci=ci))
    if not dots:
        return None
    title, unit = "Reward model accuracy", "share of pairs ranked right, ties half"
    coin = (0.5, "coin flip")
    return Figure(
        identity="accuracy",
        title=title,
        sees=f"How often the reward model ranks two held-out responses as the gold reward does"
        f"{f', over {pairs:,} pairs' if pairs else ''}, beside the rule that the longer one wins. "
        "A reward model that is no better than that rule has learned length.",
        drawing=responsive(
            intervals("accuracy-wide", title, unit, dots, WIDE, coin),
            intervals("accuracy-narrow", title, unit, dots, NARROW, coin),
        ),
    )


def seconds_by_stage(summary: Row) -> dict[str, float]:
    """The time of each stage; a total is left to be added up."""
    seconds = summary.get("seconds")
    entries = seconds.items() if isinstance(seconds, dict) else ()
    return {
        str(name): value
        for name, entry in entries
        if name != "total" and (value := number(entry)) is not None and value >= 0
    }


def time_figure(summary: Row) -> Figure | None:
    """Seconds by stage; the memory peak in the sentence."""
    spent = seconds_by_stage(summary)
    if not spent:
        return None
    memory = number(summary.get("peak_memory_gb"))
    rows = [
        Bar(name=stage_name(name) if name in NAMES else name.capitalize(), value=value, label=duration(value))
        for name, value in spent.items()
    ]
    return Figure(
        identity="time",
        title="Time by stage",
        sees=f"{duration(sum(spent.values()))} in all"
        + (f", {memory:.1f} GB of memory at the peak." if memory else "."),
        drawing=responsive(
            bars("time-wide", "Time by stage", rows, WIDE), bars("time-narrow", "Time by stage", rows, NARROW)
        ),
    )


def duration(seconds: float) -> str:
    """`41 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def frontier_figure(runs: Sequence[RunFiles]) -> Figure | None:
    """Reward against KL: every checkpoint of frontier.json, and the stages of summary.json that are not in it."""
    trails = [
        trail for position, run in enumerate(runs) for trail in _trails(run, "" if not position else f"{run.name}: ")
    ]
    if not trails:
        return None
    title, unit = "Reward against KL", "gold reward, mean"
    rows = [
        (trail.name, "final" if step is None else f"{step:g}", fixed(kl), fixed(value),
         DASH if ci is None else f"{fixed(ci[0])} to {fixed(ci[1])}")
        for trail in trails for step, kl, value, ci in trail.points
    ]  # fmt: skip
    return Figure(
        identity="frontier",
        title=title,
        sees="Every marker is a checkpoint: how far it has moved from the SFT model (right) and the gold reward that "
        "bought (up). Of two at one height the one further left paid less; a line that bends down has overshot.",
        drawing=responsive(
            frontier("frontier-wide", title, unit, trails, 760),
            frontier("frontier-narrow", title, unit, trails, NARROW),
        ),
        table=Table(header=("Run", "Step", "KL, nats", "Gold reward", "95% interval"), rows=rows),
        is_wide=True,
    )


def _trails(run: RunFiles, prefix: str) -> list[Frontier]:
    points: dict[str, list[tuple[float | None, float, float, tuple[float, float] | None]]] = {}
    for row in run.frontier:
        kl, value = number(row.get("kl")), number(row.get("gold_reward"))
        if kl is not None and value is not None:
            points.setdefault(str(row.get("run", "run")), []).append(
                (number(row.get("step")), kl, value, pair(row.get("gold_reward_ci")))
            )
    for stage, row in stage_rows(run.summary).items():
        kl, value = number(row.get("kl")), number(row.get("gold_reward"))
        if stage not in points and kl is not None and value is not None:
            points[stage] = [(None, kl, value, pair(row.get("gold_reward_ci")))]
    styles = stage_styles(list(points))
    return [
        Frontier(
            name=prefix + stage_name(stage),
            style=styles[stage],
            points=sorted(points[stage], key=lambda point: math.inf if point[0] is None else point[0]),
        )
        for stage in stages_in_order(points)
    ]
