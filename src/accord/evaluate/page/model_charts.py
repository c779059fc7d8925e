"""Charts of what `accord eval` found in a model: truth, toxicity, tasks, and how reward goes with length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from accord.evaluate.page.curves_xy import Axes, Line, xy_chart
from accord.evaluate.page.files import Row, number, pair
from accord.evaluate.page.found import Named, both, dots_of, figures_of, rows_of, style_at
from accord.evaluate.page.parts import Figure
from accord.evaluate.page.plots import intervals
from accord.evaluate.page.svg import fixed, format_number, stage_styles

__all__ = ["TRUTHS", "reward_and_length", "scorer", "shares", "tax"]

TRUTHS = ("MC0", "MC1", "MC2", "MC3", "truthful", "informative", "truthful and informative")


def shares(
    title: str, unit: str, of: Sequence[str] | None, names: Sequence[str]
) -> Callable[[str, Named], Figure | None]:
    """A chart of results with their intervals, a row each: of these names, and of these subjects (None: all)."""

    def make(identity: str, found: Named) -> Figure | None:
        dots = dots_of(
            found,
            lambda one: str(one.get("name")) in names and (of is None or str(one.get("of") or "") in of),
        )
        if len(dots) < 2:
            return None
        key = f"{identity}-shares"
        return Figure(
            identity=key,
            title=title,
            sees="Each line is the interval of the mean over what was asked; where two overlap, the difference may be "
            "chance.",
            drawing=both(key, lambda name, width: intervals(name, title, unit, dots, width)),
        )

    return make


def reward_and_length(identity: str, found: Named) -> Figure | None:
    """Proxy reward of every checkpoint over its mean length."""
    lines: list[Line] = []
    for folder, row in found:
        values: dict[str, dict[str, Row]] = {}
        for one in rows_of(row.get("results")):
            if one.get("name") in ("proxy reward", "length") and number(one.get("value")) is not None:
                values.setdefault(str(one.get("of")), {})[str(one.get("name"))] = one
        trails: dict[str, list[tuple[float, float, tuple[float, float] | None, str]]] = {}
        for label, ends in values.items():
            if len(ends) == 2:
                length, reward = (number(ends[name].get("value")) or 0.0 for name in ("length", "proxy reward"))
                words = f"{label}: reward {fixed(reward)} at {format_number(length)} tokens"
                point = (length, reward, pair(ends["proxy reward"].get("ci")), words)
                trails.setdefault(label.rpartition(" step ")[0] or label, []).append(point)
        styles = stage_styles(list(trails))
        prefix = f"{folder}: " if len(found) > 1 else ""
        lines += [Line(name=prefix + run, style=styles[run], points=points) for run, points in trails.items()]
    if not lines:
        return None
    title, axes = "Reward and length", Axes(x="length, tokens, mean", y="proxy reward, mean")
    return Figure(
        identity=f"{identity}-length",
        title=title,
        sees="Every marker is a checkpoint, joined in the order of training. A run that climbs as it moves right may "
        "have bought its reward with length; one that climbs straight up has not.",
        drawing=both(f"{identity}-length", lambda name, width: xy_chart(name, title, axes, lines, width)),
    )


def scorer(identity: str, found: Named) -> Figure | None:
    """The toxicity scorer against published scores, and the map that mends its level."""
    lines: list[Line] = []
    for _, row in found[:1]:
        held = figures_of(row).get("scorer")
        bins, curve = (held.get("bins"), held.get("map")) if isinstance(held, Mapping) else (None, None)
        for name, columns, keys, look in (
            ("published", bins, ("score", "published"), "trail"),
            ("calibrated", curve, ("x", "y"), "held-out"),
        ):
            pairs = zip(*(columns.get(key) or () for key in keys), strict=False) if isinstance(columns, Mapping) else ()
            points = [
                (x, y, None, f"{name} {fixed(y)} where the scorer says {fixed(x)}")
                for own, other in pairs
                if (x := number(own)) is not None and (y := number(other)) is not None
            ]
            if points:
                style = style_at(len(lines))
                lines.append(Line(name=name, style=style, points=points, look=look, marks=name == "published"))
    if not lines:
        return None
    title, axes = "What the scorer's numbers mean", Axes(x="score it gives", y="published score, mean", diagonal=True)
    return Figure(
        identity=f"{identity}-scorer",
        title=title,
        sees="Mean published score of the texts to which the scorer gives about one score. On the diagonal both "
        "mean the same; the steps are the map that calibrated:FOLDER applies.",
        drawing=both(f"{identity}-scorer", lambda name, width: xy_chart(name, title, axes, lines, width)),
    )


def tax(identity: str, found: Named) -> Figure | None:
    """What changed from before to after, by task."""
    key = f"{identity}-tax"
    dots = dots_of(found, lambda one: one.get("name") == "after less before")
    if not dots:
        return None
    title = "After less before"
    return Figure(
        identity=key,
        title=title,
        sees="The change of each score, item by item. Left of zero something was lost; where the line crosses zero it "
        "may be chance.",
        drawing=both(
            key, lambda name, width: intervals(name, title, "change of the score", dots, width, (0.0, "no change"))
        ),
    )
