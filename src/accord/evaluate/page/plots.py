"""Charts that compare stages: intervals, win bars, histograms, bars, and reward against KL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from accord.evaluate.page.svg import (
    Scale,
    StageStyle,
    chart,
    fixed,
    format_number,
    is_spread,
    marker,
    name_text,
    names_width,
    padded,
    tag,
    text,
    ticks,
    x_axis,
    y_axis,
)

__all__ = ["Bar", "Dot", "Frontier", "Histogram", "Outcome", "bars", "frontier", "histograms", "intervals", "outcomes"]

Floats = NDArray[np.float64]

ROW = 38  # px per stage in a chart with a row for each


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A value with its interval, one row of `intervals`."""

    name: str
    style: StageStyle
    value: float
    ci: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Wins, ties and losses against base, one row of `outcomes`."""

    name: str
    style: StageStyle
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """The values of one stage, one row of `histograms`."""

    name: str
    style: StageStyle
    values: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A length, one row of `bars`."""

    name: str
    value: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """Checkpoints of one run, by rising step: (step, KL in nats, reward, interval of the reward)."""

    name: str
    style: StageStyle
    points: Sequence[tuple[float | None, float, float, tuple[float, float] | None]]


def intervals(
    identity: str, title: str, unit: str, dots: Sequence[Dot], width: int, reference: tuple[float, str] | None = None
) -> Markup:
    """A row per stage: the value as a marker, its 95% interval as a line, both in figures at the right."""
    ends = [end for dot in dots for end in (dot.value, *(dot.ci or ()))] + ([reference[0]] if reference else [])
    top, bottom = 26 if reference else 8, (26 if reference else 8) + ROW * len(dots)
    names = names_width([dot.name for dot in dots], width)
    x = Scale(*padded(ends, 0.08), names, width - 118)
    rows = [x_axis(x, top, bottom, unit, 5 if width > 400 else 3)]
    if reference:
        at = x(reference[0])
        rows.append(tag("line", x1=at, x2=at, y1=top, y2=bottom, class_="reference"))
        rows.append(text(reference[1], at, top - 8, "middle", "tick"))
    for position, dot in enumerate(dots):
        y = top + ROW * (position + 0.5)
        rows.append(_dot_row(dot, x, y, width))
    return chart(identity, title, _intervals_in_words(dots), (width, bottom + 42), *rows)


def _dot_row(dot: Dot, x: Scale, y: float, width: int) -> Markup:
    low, high = dot.ci or (dot.value, dot.value)
    figures = _with_interval(dot.value, dot.ci)
    return tag(
        "g",
        name_text(dot.name, y + 4, x.start),
        tag("line", x1=x(low), x2=x(high), y1=y, y2=y, class_="whisker"),
        *(tag("line", x1=x(end), x2=x(end), y1=y - 5, y2=y + 5, class_="whisker") for end in (low, high) if dot.ci),
        marker(dot.style.shape, x(dot.value), y, 6, class_="mark"),
        text(figures, width, y + 4, "end", "figure"),
        class_=dot.style.css,
        data_tip=f"{dot.name}: {figures}",
    )


def outcomes(identity: str, title: str, rows: Sequence[Outcome], width: int) -> Markup:
    """A bar per stage, cut into wins, ties and losses; the half is marked."""
    x = Scale(0, 1, names_width([row.name for row in rows], width), width - 2)
    top, bottom = 26, 26 + ROW * len(rows)
    half = x(0.5)
    parts = [_outcome_row(row, x, top + ROW * position + 7, ROW - 14) for position, row in enumerate(rows)] + [
        tag("line", x1=half, x2=half, y1=top - 4, y2=bottom, class_="reference"),
        text("half", half, top - 10, "middle", "tick"),
    ]
    words = " ".join(f"{row.name}: {row.wins} wins, {row.ties} ties, {row.losses} losses." for row in rows)
    return chart(identity, title, words, (width, bottom + 4), *parts)


def _outcome_row(row: Outcome, x: Scale, y: float, height: float) -> Markup:
    total = row.wins + row.ties + row.losses
    parts, done = [name_text(row.name, y + height / 2 + 4, x.start)], 0
    for count, css, word in ((row.wins, "win", "wins"), (row.ties, "tie", "ties"), (row.losses, "loss", "losses")):
        start, end = x(done / total), x((done + count) / total)
        done += count
        if not count:
            continue
        parts.append(
            tag(
                "rect",
                x=start,
                y=y,
                width=round(end - start, 1),
                height=height,
                class_=css,
                data_tip=f"{row.name}: {count} {word}",
            )
        )
        if end - start > 22:
            words = f"{count} {word}" if end - start > 74 else count
            parts.append(text(words, start + 8, y + height / 2 + 4, "start", f"on-{css}"))
    return tag("g", *parts, class_=row.style.css)


def histograms(identity: str, title: str, unit: str, rows: Sequence[Histogram], width: int) -> Markup:
    """A histogram per stage, one below the other on shared axes, with its mean as a line."""
    height, top = 62, 14
    values = [value for row in rows for value in row.values]
    edges = _edges(min(values), max(values))
    counts = [np.histogram(np.clip(row.values, edges[0], edges[-1]), bins=edges)[0] for row in rows]
    shares = [count / max(1, len(row.values)) for count, row in zip(counts, rows, strict=True)]
    tallest = max(share.max() for share in shares)
    x = Scale(edges[0], edges[-1], names_width([row.name for row in rows], width), width - 46)
    bottom = top + height * len(rows)
    parts = [x_axis(x, top, bottom, unit, 5 if width > 400 else 4)]
    for position, row in enumerate(rows):
        baseline = top + height * (position + 1)
        y = Scale(0, float(tallest), baseline, baseline - height + 12)
        parts.append(_histogram_row(row, counts[position], shares[position], edges, x, y))
    words = " ".join(
        f"{row.name}: mean {format_number(float(np.mean(row.values)))}, {len(row.values)} responses." for row in rows
    )
    return chart(identity, title, words, (width, bottom + 42), *parts)


def _histogram_row(
    row: Histogram, counts: NDArray[np.intp], shares: Floats, edges: Sequence[float], x: Scale, y: Scale
) -> Markup:
    mean = float(np.mean(row.values))
    bars_ = [
        tag(
            "rect",
            x=x(low) + 0.5,
            width=max(round(x(high) - x(low) - 1, 1), 0.5),
            y=y(float(share)),
            height=round(y.start - y(float(share)), 1),
            class_="bar",
            data_tip=f"{row.name}: {count} of {len(row.values)} between {format_number(low)} and {format_number(high)}",
        )
        for low, high, count, share in zip(edges, edges[1:], counts, shares, strict=False)
        if count
    ]
    return tag(
        "g",
        tag("line", x1=x.start, x2=x.end, y1=y.start, y2=y.start, class_="baseline"),
        *bars_,
        tag("line", x1=x(mean), x2=x(mean), y1=y.start, y2=y.end - 4, class_="mean"),
        name_text(row.name, y.start - 6, x.start),
        text(fixed(mean), x.end + 44, y.start - 6, "end", "figure"),
        class_=row.style.css,
    )


def _edges(low: float, high: float, bins: int = 22) -> list[float]:
    """Round bin edges that cover the data."""
    if not is_spread(low, high):
        low, high = padded([low])
    inner = ticks(low, high, bins)
    step = inner[1] - inner[0]
    first = inner[0] - step if inner[0] > low else inner[0]
    count = int(np.ceil((high - first) / step - 1e-9))
    return [float(f"{first + i * step:.12g}") for i in range(count + 1)]


def bars(identity: str, title: str, rows: Sequence[Bar], width: int) -> Markup:
    """Plain horizontal bars from zero, each with its figure."""
    names = names_width([row.name for row in rows], width)
    x = Scale(0, max(row.value for row in rows) or 1, names, width - 72)
    height = 26
    parts = []
    for position, row in enumerate(rows):
        y = height * position + 4
        parts.append(name_text(row.name, y + 13, names))
        parts.append(tag("rect", x=names, y=y, width=max(x(row.value) - names, 1), height=height - 8, class_="plain"))
        parts.append(text(row.label, x(row.value) + 8, y + 13, "start", "figure"))
    words = " ".join(f"{row.name}: {row.label}." for row in rows)
    return chart(identity, title, words, (width, height * len(rows) + 4), *parts)


def frontier(identity: str, title: str, unit: str, runs: Sequence[Frontier], width: int) -> Markup:
    """Reward over KL: a marker per checkpoint, joined in the order of training, larger at the last."""
    kls = [kl for run in runs for _, kl, _, _ in run.points]
    rewards = [end for run in runs for _, _, value, ci in run.points for end in (value, *(ci or ()))]
    height = 400 if width > 400 else 330
    reach = max(*kls, 0.0) - min(*kls, 0.0) or 1.0
    x = Scale(min(*kls, 0.0) - 0.02 * reach, max(*kls, 0.0) + 0.06 * reach, 48, width - 8)
    y = Scale(*padded(rewards, 0.08), height - 46, 32)
    parts = [y_axis(y, x.start, x.end, unit, 5), x_axis(x, y.end, y.start, "KL to the SFT model, nats per response", 6)]
    parts += [_trail(run, x, y) for run in runs]
    words = " ".join(
        f"{run.name} ends at a KL of {format_number(run.points[-1][1])} nats and {fixed(run.points[-1][2])} reward."
        for run in runs
    )
    return chart(identity, title, words, (width, height), *parts)


def _trail(run: Frontier, x: Scale, y: Scale) -> Markup:
    last = len(run.points) - 1
    line = " ".join(f"{x(kl)},{y(value)}" for _, kl, value, _ in run.points)
    parts = [tag("polyline", points=line, class_="trail")] if last else []
    for position, (step, kl, value, ci) in enumerate(run.points):
        where = run.name + (f", step {step:g}" if step is not None else "")
        if ci:
            parts.append(tag("line", x1=x(kl), x2=x(kl), y1=y(ci[0]), y2=y(ci[1]), class_="whisker thin"))
        tip = f"{where}: reward {_with_interval(value, ci)} at {format_number(kl)} nats"
        parts.append(
            marker(run.style.shape, x(kl), y(value), 6.5 if position == last else 4.5, class_="mark", data_tip=tip)
        )
    _, kl, value, _ = run.points[-1]
    left, lift = x(kl) > (x.start + x.end) / 2, -9 if last else 19
    parts.append(
        text(run.name, x(kl) + (-11 if left else 11), y(value) + lift, "end" if left else "start", "name halo")
    )
    return tag("g", *parts, class_=run.style.css)


def _with_interval(value: float, ci: tuple[float, float] | None) -> str:
    return fixed(value) + (f" [{fixed(ci[0])}, {fixed(ci[1])}]" if ci else "")


def _intervals_in_words(dots: Sequence[Dot]) -> str:
    return " ".join(f"{dot.name}: {_with_interval(dot.value, dot.ci)}." for dot in dots)
