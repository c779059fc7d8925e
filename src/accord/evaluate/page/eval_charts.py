"""Charts of what `accord eval` wrote: calibration, best of n, wins, ratings, reward against KL, over-optimisation."""

from __future__ import annotations

from collections.abc import Mapping

from accord.evaluate.page.curves_xy import Axes, Line, xy_chart
from accord.evaluate.page.files import Row, number, pair
from accord.evaluate.page.found import Named, both, dots_of, figures_of, rows_of, style_at
from accord.evaluate.page.model_charts import TRUTHS, reward_and_length, scorer, shares, tax
from accord.evaluate.page.parts import Figure
from accord.evaluate.page.plots import Histogram, Outcome, histograms, intervals
from accord.evaluate.page.plots import outcomes as outcome_bars
from accord.evaluate.page.svg import (
    fixed,
    format_number,
    stage_style,
    stage_styles,
)

__all__ = ["charts_of"]


BROAD = 760  # px of a chart that takes the whole width
MOST_LABELLED = 6  # lines with their names at the end


def charts_of(kind: str, identity: str, found: Named) -> list[Figure]:
    """All charts that there are data for."""
    makers = {
        "reward": (_calibration, _best_of_n, _scores),
        "winrate": (_wins,),
        "preferences": (_ratings,),
        "frontier": (_frontier, _overoptimisation),
        "hacking": (reward_and_length,),
        "truthfulness": (shares("How true it is", "share", ("",), TRUTHS),),
        "toxicity": (shares("Expected maximum toxicity", "0 to 1", None, ("expected maximum toxicity",)), scorer),
        "tasks": (
            shares("Score by task", "0 to 1", None, ("score",)),
            shares("Score by task, after", "0 to 1", None, ("after",)),
            tax,
        ),
    }
    made = [maker(identity, found) for maker in makers.get(kind, ())]
    return [figure for figure in made if figure is not None]


def _calibration(identity: str, found: Named) -> Figure | None:
    lines = []
    for position, (run, row) in enumerate(found):
        bins = figures_of(row).get("calibration")
        columns = [bins.get(name) for name in ("confidence", "outcome", "count")] if isinstance(bins, Mapping) else []
        if not columns or not all(isinstance(column, list) for column in columns):
            continue
        points = [
            (x, y, None, f"said {x:.0%}, right {y:.0%}, {count} pairs")
            for said, right, count in zip(*columns, strict=False)
            if (x := number(said)) is not None and (y := number(right)) is not None
        ]
        if points:
            lines.append(Line(name=run if len(found) > 1 else "", style=style_at(position), points=points))
    if not lines:
        return None
    title, axes = "Calibration", Axes(x="probability it gives", y="share it is right", diagonal=True)
    return Figure(
        identity=f"{identity}-calibration",
        title=title,
        sees="How often the reward model is right where it claims a probability. On the dashed line it means what it "
        "says; below it, it is surer than it may be.",
        drawing=both(f"{identity}-calibration", lambda name, width: xy_chart(name, title, axes, lines, width)),
    )


def _best_of_n(identity: str, found: Named) -> Figure | None:
    lines: list[Line] = []
    for run, row in found:
        points = rows_of(figures_of(row).get("best_of_n"))
        for key, look in (("score", "held-out"), ("gold", "trail")):
            drawn = [
                (n, value, pair(result.get("ci")), f"best of {n:g}: {key} {fixed(value)}")
                for point in points
                if isinstance(result := point.get(key), Mapping)
                and (n := number(point.get("n"))) is not None
                and (value := number(result.get("value"))) is not None
            ]
            if drawn:
                name = f"{run}, {key}" if len(found) > 1 else key
                lines.append(Line(name=name, style=style_at(len(lines)), points=drawn, look=look))
    if not lines:
        return None
    title, axes = "Best of n", Axes(x="n, responses chosen from", y="expected reward of the best by score")
    return Figure(
        identity=f"{identity}-best-of-n",
        title=title,
        sees="The reward of the best of n responses by score. Where gold falls behind while the score goes on rising, "
        "the reward model is choosing what only it likes.",
        drawing=both(f"{identity}-best-of-n", lambda name, width: xy_chart(name, title, axes, lines, width)),
    )


def _scores(identity: str, found: Named) -> Figure | None:
    drawn = []
    for position, (run, row) in enumerate(found):
        scores = figures_of(row).get("scores")
        values = [
            value
            for one in (scores.get("score") or () if isinstance(scores, Mapping) else ())
            if (value := number(one)) is not None
        ]
        if values:
            drawn.append(Histogram(name=run if len(found) > 1 else "scores", style=style_at(position), values=values))
    if not drawn:
        return None
    title = "Scores of single responses"
    return Figure(
        identity=f"{identity}-scores",
        title=title,
        sees="How the scores are spread over all responses of the data, with the mean as a line.",
        drawing=both(f"{identity}-scores", lambda name, width: histograms(name, title, "reward units", drawn, width)),
    )


def _wins(identity: str, found: Named) -> Figure | None:
    bars: list[Outcome] = []
    for run, row in found:
        wins, settings = rows_of(figures_of(row).get("wins")), row.get("settings")
        models = settings.get("models") if isinstance(settings, Mapping) else None
        baseline = [str(models[-1])] if isinstance(models, list) and models else []
        styles = stage_styles([*baseline, *(str(one.get("name")) for one in wins)])  # as the responses have them
        for one in wins:
            counts = {word: int(number(one.get(word)) or 0) for word in ("wins", "ties", "losses")}
            if sum(counts.values()):
                name = f"{run}: {one.get('name')}" if len(found) > 1 else str(one.get("name"))
                style = style_at(len(bars)) if len(found) > 1 else styles[str(one.get("name"))]
                bars.append(Outcome(name=name, style=style, **counts))
    if not bars:
        return None
    title = "Wins against the baseline"
    return Figure(
        identity=f"{identity}-wins",
        title=title,
        sees="Whose response was preferred: the candidate's (win), neither (tie), or the baseline's (loss). A bar that "
        "passes the half is preferred more often than not.",
        drawing=both(f"{identity}-wins", lambda name, width: outcome_bars(name, title, bars, width)),
    )


def _ratings(identity: str, found: Named) -> Figure | None:
    dots = dots_of(found, lambda one: one.get("name") == "rating")
    if not dots:
        return None
    title = "Ratings"
    return Figure(
        identity=f"{identity}-ratings",
        title=title,
        sees="191 points more mean three wins of four. The line is the interval over prompts; models whose lines "
        "overlap cannot be told apart by these games.",
        drawing=both(
            f"{identity}-ratings", lambda name, width: intervals(name, title, "points, anchor 1000", dots, width)
        ),
    )


def _frontier(identity: str, found: Named) -> Figure | None:
    lines: list[Line] = []
    for name, row in found:
        prefix = f"{name}: " if len(found) > 1 else ""
        lines += _trails(prefix, row, len(lines))
    if not lines:
        return None
    what = " and ".join(sorted({str(figures_of(row).get("reward", "")) for _, row in found} - {""}))
    title, axes = "Reward against KL", Axes(x="KL to the reference, nats per response", y=f"{what} reward, mean")
    return Figure(
        identity=f"{identity}-frontier",
        title=title,
        sees="Every marker is a checkpoint: how far it has moved from the reference (right), and the reward that "
        "bought (up). Solid lines follow a run, faint ones are the hull of a method: what its checkpoints can reach. "
        "Dashed: the best of n of the reference, which needs no training.",
        drawing=both(f"{identity}-frontier", lambda key, width: xy_chart(key, title, axes, lines, width), BROAD),
        is_wide=True,
    )


def _trails(prefix: str, row: Row, start: int) -> list[Line]:
    """Runs as trails, hulls of methods, and best of n."""
    figures = figures_of(row)
    points = rows_of(figures.get("points"))
    runs = [run for run in dict.fromkeys(str(point.get("run")) for point in points) if run != "reference"]
    styles = {run: style_at(start + position) for position, run in enumerate(runs)} if start else stage_styles(runs)
    lines = [
        Line(
            name=prefix + run if len(runs) <= MOST_LABELLED else "",
            style=styles[run],
            points=[_point(point) for point in points if str(point.get("run")) == run and _is_drawn(point)],
        )
        for run in runs
    ]
    reference = [_point(point) for point in points if str(point.get("run")) == "reference" and _is_drawn(point)]
    if reference:
        lines.append(Line(name=f"{prefix}reference", style=stage_style("base"), points=reference, look=""))
    hulls = figures.get("hulls")
    for hull in (hulls if isinstance(hulls, Mapping) else {}).values():
        corners = zip(hull.get("kl") or (), hull.get("reward") or (), strict=False) if isinstance(hull, Mapping) else ()
        drawn = [
            (x, y, None, "")
            for kl, value in corners
            if (x := number(kl)) is not None and (y := number(value)) is not None
        ]
        if drawn:
            lines.append(Line(name="", style=stage_style("base"), points=drawn, look="faint", marks=False))
    best = [
        (x, y, pair(one.get("ci")), f"best of {one.get('n')}: {fixed(y)}")
        for one in rows_of(figures.get("best_of_n"))
        if (x := number(one.get("kl"))) is not None and (y := number(one.get("reward"))) is not None
    ]
    if len(best) > 1:
        lines.append(
            Line(name=f"{prefix}best of n", style=stage_style("base"), points=best, look="held-out", marks=False)
        )
    return [line for line in lines if line.points]


def _is_drawn(point: Row) -> bool:
    return number(point.get("kl")) is not None and number(point.get("reward")) is not None


def _point(point: Row) -> tuple[float, float, tuple[float, float] | None, str]:
    kl, value = number(point.get("kl")) or 0.0, number(point.get("reward")) or 0.0
    words = f"{point.get('run')}, step {point.get('step')}: reward {fixed(value)} at {format_number(kl)} nats"
    return kl, value, pair(point.get("ci")), words


def _overoptimisation(identity: str, found: Named) -> Figure | None:
    """Gain of proxy and gold over the reference, each in its own unit, over sqrt(KL)."""
    lines: list[Line] = []
    for _, row in found:
        figures = figures_of(row).get("overoptimisation")
        if not isinstance(figures, Mapping) or not isinstance(figures.get("start"), Mapping):
            continue
        curves = rows_of(figures.get("curves"))
        styles = stage_styles([str(curve.get("run")) for curve in curves])
        for curve in curves:
            style = style_at(len(lines) // 2) if len(found) > 1 else styles[str(curve.get("run"))]
            for what, look in (("proxy", "held-out"), ("gold", "trail")):
                start = number(figures["start"].get(what)) or 0.0
                drawn = [(0.0, 0.0, None, "reference")] + [
                    (
                        x**0.5,
                        y - start,
                        None,
                        f"{curve.get('run')}, {what}: {fixed(y - start)} at {format_number(x)} nats",
                    )
                    for kl, value in zip(curve.get("kl") or (), curve.get(what) or (), strict=False)
                    if (x := number(kl)) is not None and x >= 0 and (y := number(value)) is not None
                ]
                lines.append(Line(name=f"{curve.get('run')}, {what}", style=style, points=drawn, look=look))
    if not lines:
        return None
    title = "Proxy and gold"
    axes = Axes(x="square root of the KL, \u221anat", y="gain over the reference, reward units")
    return Figure(
        identity=f"{identity}-overoptimisation",
        title=title,
        sees="What the proxy says was gained (dashed) and what gold says (solid), each in its own unit. Where gold "
        "turns down while the proxy still rises, the policy exploits the proxy.",
        drawing=both(
            f"{identity}-overoptimisation", lambda name, width: xy_chart(name, title, axes, lines, width), BROAD
        ),
        is_wide=True,
    )
