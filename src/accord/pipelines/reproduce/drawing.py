"""Figures of experiments as SVG files that stand alone, in light and dark: a marker shape and a colour per series."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from accord.evaluate.page.svg import Scale, chart, marker, padded, tag, text, x_axis, y_axis
from accord.pipelines.reproduce.evidence import Figure, Point, Series

__all__ = ["draw"]

WIDTH, HEIGHT = 720, 380
LEFT, TOP, BOTTOM, KEYS = 64, 44, 320, 230  # px; KEYS: room for the names at the right
SHAPES = ("circle", "diamond", "triangle", "square", "cross")
HUES = 8
STYLE = """
svg{font:13px system-ui,sans-serif;background:#fff;color:#222}
.grid{stroke:#ddd}.tick{fill:#666;font-size:12px}.axis{fill:#444;font-size:12px}.title{font-weight:600;fill:#222}
.name{fill:#222;font-size:12px}.line{fill:none;stroke-width:2}.whisker{stroke-width:1.2;opacity:.6}
.h0{fill:#1868b7;stroke:#1868b7}.h1{fill:#c2410c;stroke:#c2410c}.h2{fill:#15803d;stroke:#15803d}
.h3{fill:#7e22ce;stroke:#7e22ce}.h4{fill:#a16207;stroke:#a16207}.h5{fill:#0e7490;stroke:#0e7490}
.h6{fill:#be185d;stroke:#be185d}.h7{fill:#57534e;stroke:#57534e}
.line.h0,.line.h1,.line.h2,.line.h3,.line.h4,.line.h5,.line.h6,.line.h7{fill:none}
@media (prefers-color-scheme:dark){svg{background:#16181c;color:#eee}.grid{stroke:#3a3d44}.tick,.axis{fill:#aaa}
.title,.name{fill:#eee}.h0{fill:#6cb2f5;stroke:#6cb2f5}.h1{fill:#fb923c;stroke:#fb923c}.h2{fill:#6ee7a0;stroke:#6ee7a0}
.h3{fill:#c99bff;stroke:#c99bff}.h4{fill:#eac54f;stroke:#eac54f}.h5{fill:#67d5e8;stroke:#67d5e8}
.h6{fill:#f78bc0;stroke:#f78bc0}.h7{fill:#b8b2ac;stroke:#b8b2ac}}
"""


def draw(figure: Figure) -> str:
    """One figure as an SVG document; a figure without a point is a sentence that says so."""
    points = [point for series in figure.series for point in series.points if _finite(point)]
    if not points:
        nothing = text("no finite point to draw", LEFT, TOP + 40, "start", "name")
        return _document(figure, Markup("").join([nothing]))
    ends = [end for p in points for end in (p.y, p.low, p.high) if end is not None]
    x = Scale(*padded([p.x for p in points]), LEFT, WIDTH - KEYS)
    y = Scale(*padded(ends), BOTTOM, TOP)
    parts = [x_axis(x, TOP, BOTTOM, figure.x), y_axis(y, LEFT, WIDTH - KEYS, figure.y)]
    names = list(dict.fromkeys(_family(series.name) for series in figure.series))
    for series in figure.series:
        known = [point for point in series.points if _finite(point)]
        parts.append(_series(series, known, names.index(_family(series.name)), x, y))
    shown = {_family(one.name): one for one in reversed(figure.series) if not one.name.startswith("hull of ")}
    for row, name in enumerate(name for name in names if name in shown):
        parts.append(_key(shown[name], name, names.index(name), row))
    return _document(figure, Markup("").join(parts), max(HEIGHT, TOP + 20 * len(shown) + 20))


def _family(name: str) -> str:
    """What shares a colour: a method and its hull, the seeds of one run."""
    return name.removeprefix("hull of ").partition(", seed")[0]


def _series(series: Series, points: Sequence[Point], number: int, x: Scale, y: Scale) -> Markup:
    css, shape = f"h{number % HUES}", SHAPES[number % len(SHAPES)]
    parts = []
    if series.line and len(points) > 1:
        places = " ".join(f"{x(p.x)},{y(p.y)}" for p in points)
        parts.append(tag("polyline", points=places, class_=f"line {css}"))
    for point in points if series.marks else ():
        at = x(point.x)
        if point.low is not None and point.high is not None:
            parts.append(tag("line", x1=at, x2=at, y1=y(point.low), y2=y(point.high), class_=f"whisker {css}"))
        tip = tag("title", f"{series.name}{', ' + point.label if point.label else ''}: {point.x:.3g}, {point.y:.3g}")
        parts.append(tag("g", tip, marker(shape, at, y(point.y), 4.5), class_=css))
    return Markup("").join(parts)


def _key(series: Series, name: str, number: int, row: int) -> Markup:
    left, top = WIDTH - KEYS + 22, TOP + 6 + 20 * row
    sample = marker(SHAPES[number % len(SHAPES)], left, top, 4.5, class_=f"h{number % HUES}")
    if not series.marks:
        sample = tag("line", x1=left - 7, x2=left + 7, y1=top, y2=top, class_=f"line h{number % HUES}")
    return sample + text(name, left + 14, top + 4, "start", "name")


def _document(figure: Figure, content: Markup, height: int = HEIGHT) -> str:
    title = text(figure.title, 0, 16, "start", "title")
    words = f"{figure.y} against {figure.x}: " + "; ".join(series.name for series in figure.series)
    style = tag("style", Markup(STYLE))
    body = chart(
        figure.name, figure.title, words, (WIDTH, height), style, title, content, xmlns="http://www.w3.org/2000/svg"
    )
    return str(body) + "\n"


def _finite(point: Point) -> bool:
    return all(value is not None and abs(value) < float("inf") for value in (point.x, point.y))
