"""Charts of one quantity over another: points with intervals, joined or not, and lines that they are held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from accord.evaluate.page.svg import (
    LETTER,
    Scale,
    StageStyle,
    chart,
    fixed,
    format_number,
    marker,
    padded,
    tag,
    text,
    x_axis,
    y_axis,
)

__all__ = ["Axes", "Line", "xy_chart"]

LEFT, TOP, BOTTOM = 52, 32, 46  # px around the plot
FURTHEST = 60  # px that a name moves away from its point at most
LINE_HEIGHT = 14  # px that names at the ends of lines keep from each other


@dataclass(frozen=True, kw_only=True)
class Line:
    """Points (x, y, interval of y or None, words) in the order they are joined.

    Attributes:
        name: stands at its last point; "" for none.
        style: colour and shape.
        points: as above.
        look: css class of the line: "trail" solid, "held-out" dashed, "" no line.
        marks: draw the points themselves.
    """

    name: str
    style: StageStyle
    points: Sequence[tuple[float, float, tuple[float, float] | None, str]]
    look: str = "trail"
    marks: bool = True


@dataclass(frozen=True, kw_only=True)
class Axes:
    """What the axes count; `diagonal` draws y = x, what a perfect forecast would give."""

    x: str
    y: str
    diagonal: bool = False


def xy_chart(identity: str, title: str, axes: Axes, lines: Sequence[Line], width: int) -> Markup:
    """Draw lines; each needs a point."""
    points = [point for line in lines for point in line.points]
    xs = [x for x, _, _, _ in points]
    ys = [end for _, y, ci, _ in points for end in (y, *(ci or ()))]
    if axes.diagonal:
        xs, ys = xs + ys, ys + xs
    height = 360 if width > 400 else 310
    low, high = (0.0, max(xs)) if 0 <= min(xs) < 0.5 * max(xs) else (min(xs), max(xs))
    reach = high - low or abs(high) or 1.0
    x = Scale(low - 0.02 * reach, high + 0.06 * reach, LEFT, width - 8)
    y = Scale(*padded(ys, 0.08), height - BOTTOM, TOP)
    parts = [y_axis(y, x.start, x.end, axes.y, 5), x_axis(x, y.end, y.start, axes.x, 6 if width > 400 else 4)]
    if axes.diagonal:
        ends = max(x.low, y.low), min(x.high, y.high)
        parts.append(tag("line", x1=x(ends[0]), y1=y(ends[0]), x2=x(ends[1]), y2=y(ends[1]), class_="reference"))
    parts += [_line(line, x, y) for line in lines]
    parts += _names(lines, x, y)
    return chart(identity, title, _in_words(lines), (width, height), *parts)


def _line(line: Line, x: Scale, y: Scale) -> Markup:
    parts = []
    if line.look and len(line.points) > 1:
        path = " ".join(f"{x(at)},{y(value)}" for at, value, _, _ in line.points)
        parts.append(tag("polyline", points=path, class_=line.look))
    for at, value, ci, words in line.points if line.marks else ():
        if ci:
            parts.append(tag("line", x1=x(at), x2=x(at), y1=y(ci[0]), y2=y(ci[1]), class_="whisker thin"))
        parts.append(marker(line.style.shape, x(at), y(value), 5, class_="mark", data_tip=words))
    return tag("g", *parts, class_=line.style.css)


def _names(lines: Sequence[Line], x: Scale, y: Scale) -> list[Markup]:
    """The names at the last points, moved apart where they would lie on each other or on a point of another line."""
    placed: list[tuple[float, float, float]] = []  # left end, right end, baseline
    marks = [(x(at), y(value)) for line in lines if line.marks for at, value, _, _ in line.points]
    parts = []
    for line in sorted((line for line in lines if line.name), key=lambda line: y(line.points[-1][1])):
        at, value, _, _ = line.points[-1]
        left = x(at) > (x.start + x.end) / 2
        ends = (
            (x(at) - 9 - LETTER * len(line.name), x(at) - 9)
            if left
            else (x(at) + 9, x(at) + 9 + LETTER * len(line.name))
        )
        wanted = _free(max(y(value) - 9, y.end + 4), ends, placed, marks)
        placed.append((*ends, wanted))
        name = text(line.name, x(at) + (-9 if left else 9), wanted, "end" if left else "start", "name halo")
        parts.append(tag("g", name, class_=line.style.css))
    return parts


def _free(
    wanted: float,
    ends: tuple[float, float],
    placed: Sequence[tuple[float, float, float]],
    marks: Sequence[tuple[float, float]],
) -> float:
    """The baseline nearest to the wanted one where a name covers no other, and no point if there is such a place."""

    def is_apart(at: float) -> bool:
        return not any(
            abs(at - other) < LINE_HEIGHT and ends[0] < end and start < ends[1] for start, end, other in placed
        )

    def is_clear(at: float) -> bool:
        return not any(ends[0] - 5 < px < ends[1] + 5 and at - 16 < py < at + 6 for px, py in marks)

    steps = sorted(range(-FURTHEST, FURTHEST + 1, 2), key=lambda step: (abs(step), -step))
    apart = [wanted + step for step in steps if is_apart(wanted + step)]
    return next((at for at in apart if is_clear(at)), apart[0] if apart else wanted)


def _in_words(lines: Sequence[Line]) -> str:
    return " ".join(
        f"{line.name or 'A line'}: {len(line.points)} points, ending at {format_number(line.points[-1][0])}, "
        f"{fixed(line.points[-1][1])}."
        for line in lines
    )
