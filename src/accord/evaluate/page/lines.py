"""Learning curves: one small line chart a metric, with its points beside it for the pointer and the keyboard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from accord.evaluate.page.svg import Scale, chart, format_number, marker, padded, tag, x_axis, y_axis

__all__ = ["LineChart", "Series", "line_chart", "running_mean", "thinned"]

Point = tuple[float, float]

SIZE = (340, 206)
LEFT, RIGHT, TOP, BOTTOM = 48, 330, 30, 164
SMOOTH_FROM = 30  # points from which a curve is drawn twice: as it is, faint, and its running mean
MOST_POINTS = 240  # drawn per curve


@dataclass(frozen=True, kw_only=True)
class Series:
    """One curve: `Series(name="training", points=((1, 2.9), (2, 2.7)), css="c-0")`."""

    name: str
    points: Sequence[Point]
    css: str
    held_out: bool = False  # few points, drawn dashed with markers


@dataclass(frozen=True)
class LineChart:
    """A drawing, and what its tooltip needs: plain numbers and names, to be embedded as JSON."""

    svg: Markup
    data: dict[str, Any]
    smoothed: bool


def line_chart(identity: str, title: str, unit: str, series: Sequence[Series]) -> LineChart:
    """Draw curves over optimiser steps; each of them needs at least one point."""
    steps = [step for curve in series for step, _ in curve.points]
    values = [value for curve in series for _, value in curve.points]
    x_range = (min(steps), max(steps)) if min(steps) < max(steps) else padded(steps)
    x, y = Scale(*x_range, LEFT, RIGHT), Scale(*padded(values), BOTTOM, TOP)
    smoothed = any(_is_noisy(curve) for curve in series)
    svg = chart(
        identity,
        title,
        _in_words(series, unit),
        SIZE,
        y_axis(y, LEFT, RIGHT, unit),
        x_axis(x, BOTTOM, BOTTOM, "optimiser step", 4),
        *(_curve(curve, x, y) for curve in series),
        tag("g", class_="cursor"),
        class_="line-chart",
        tabindex="0",
    )
    data = {
        "box": [LEFT, RIGHT, TOP, BOTTOM],
        "x": [x.low, x.high],
        "y": [y.low, y.high],
        "unit": unit,
        "series": [
            {"name": curve.name, "css": curve.css, "points": [_short(point) for point in thinned(curve.points)]}
            for curve in series
        ],
    }
    return LineChart(svg, data, smoothed)


def running_mean(points: Sequence[Point]) -> list[Point]:
    """The mean of a tenth of the curve around each point (at its ends, of what there is), where it is drawn."""
    half, stride = max(1, len(points) // 20), -(-len(points) // MOST_POINTS)
    means = []
    for i in sorted({*range(0, len(points), stride), len(points) - 1}):
        window = points[max(0, i - half) : i + half + 1]
        means.append((points[i][0], sum(value for _, value in window) / len(window)))
    return means


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most `most` points: of each stretch its lowest and its highest, so that no spike is lost."""
    if len(points) <= most:
        return list(points)
    buckets = most // 2
    edges = [round(i * len(points) / buckets) for i in range(buckets + 1)]
    kept = []
    for start, end in pairwise(edges):
        stretch = points[start:end]
        extremes = {min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])}
        kept.extend(sorted(extremes))
    return kept


def _is_noisy(curve: Series) -> bool:
    """Whether a running mean helps the eye; a schedule, say, is smooth and would only be blurred at its corners."""
    if len(curve.points) < SMOOTH_FROM or curve.held_out:
        return False
    values = [value for _, value in curve.points]
    turns = sum((b - a) * (c - b) < 0 for a, b, c in zip(values, values[1:], values[2:], strict=False))
    return turns > len(values) / 10


def _curve(curve: Series, x: Scale, y: Scale) -> Markup:
    if curve.held_out or len(curve.points) == 1:
        dots = (marker("circle", x(step), y(value), 3.2) for step, value in curve.points)
        return tag("g", _polyline(curve.points, x, y, "held-out"), *dots, class_=curve.css)
    if not _is_noisy(curve):
        return tag("g", _polyline(thinned(curve.points), x, y, "curve"), class_=curve.css)
    faint = _polyline(thinned(curve.points), x, y, "faint")
    return tag("g", faint, _polyline(running_mean(curve.points), x, y, "curve"), class_=curve.css)


def _polyline(points: Sequence[Point], x: Scale, y: Scale, css: str) -> Markup:
    path = " ".join(f"{x(step)},{y(value)}" for step, value in points)
    return tag("polyline", points=path, class_=css)


def _short(point: Point) -> list[float]:
    return [float(f"{point[0]:.10g}"), float(f"{point[1]:.5g}")]


def _in_words(series: Sequence[Series], unit: str) -> str:
    """What a screen reader says instead of the drawing."""
    return " ".join(
        f"{curve.name}: from {format_number(curve.points[0][1])} to {format_number(curve.points[-1][1])} {unit} "
        f"over {len(curve.points)} points."
        for curve in series
    )
