"""What the means hide: wins and losses prompt by prompt, and how rewards and lengths are spread (evaluation.jsonl)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from accord.evaluate.page.files import Row, number, stage_of
from accord.evaluate.page.parts import Figure, Table, baseline_of, stage_name, stages_in_order
from accord.evaluate.page.plots import Histogram, Outcome, histograms
from accord.evaluate.page.plots import outcomes as outcome_bars
from accord.evaluate.page.svg import DASH, NARROW, WIDE, fixed, responsive, stage_styles
from accord.evaluate.result import Result, ends_or_none
from accord.evaluate.winrate import outcomes, win_rate

__all__ = ["histogram_figures", "unscored_warning", "win_figure"]


def unscored_warning(rows: Sequence[Row]) -> str | None:
    """The first line of a report whose unscored share is above 5%."""
    if not any("gold_reward" in row for row in rows):
        return None  # nobody asked for one
    lost = sum(number(row.get("gold_reward")) is None for row in rows)
    if not rows or lost <= 0.05 * len(rows):
        return None
    share = f"{lost} of {len(rows)} held-out responses ({lost / len(rows):.0%})"
    return f"{share} have no gold reward; no figure here counts them."


def win_figure(rows: Sequence[Row]) -> Figure | None:
    """Each stage against base, or the reference, on the same prompts."""
    stages = stages_in_order(stage_of(row) for row in rows)
    styles, baseline = stage_styles(stages), baseline_of(stages)
    pairs = {stage: _pairs(rows, stage, baseline) for stage in stages if stage != baseline}
    bars, table = [], []
    for stage, (score, base, prompt) in pairs.items():
        rate = win_rate(outcomes(score, base), prompt)
        if not rate.n:
            continue
        bars.append(Outcome(name=stage_name(stage), style=styles[stage], **rate.detail))
        table.append((stage_name(stage), *(str(count) for count in rate.detail.values()), *_percentages(rate)))
    if not bars:
        return None
    against = "the base model" if baseline == "base" else "the reference"
    title = f"Wins against {against}"
    return Figure(
        identity="wins",
        title=title,
        sees="For each held-out prompt, whose response the gold reward prefers: that of the stage (win), neither "
        f"(tie), or that of {against} (loss). A bar that passes the half wins more often than not.",
        drawing=responsive(
            outcome_bars("wins-wide", title, bars, WIDE), outcome_bars("wins-narrow", title, bars, NARROW)
        ),
        table=Table(header=("Stage", "Wins", "Ties", "Losses", "Win rate, ties half", "95% interval"), rows=table),
    )


def histogram_figures(rows: Sequence[Row]) -> list[Figure]:
    """The spread of gold rewards and of lengths, by stage."""
    figures = [
        _histogram_figure(
            rows,
            "gold_reward",
            "Gold reward of single responses",
            "gold reward",
            "How the rewards are spread, with the mean as a line. A mean can rise because every response got a little "
            "better, or because a few became extreme: here the two look different.",
        ),
        _histogram_figure(
            rows,
            "length",
            "Length of responses",
            "tokens",
            "Lengths by stage, with the mean as a line. A row that moves far to the right may have bought its reward "
            "with length; a spike at the right end is the limit on new tokens.",
        ),
    ]
    return [figure for figure in figures if figure]


def _histogram_figure(rows: Sequence[Row], key: str, title: str, unit: str, sees: str) -> Figure | None:
    stages = stages_in_order(stage_of(row) for row in rows)
    styles = stage_styles(stages)
    found = {
        stage: [value for row in rows if stage_of(row) == stage and (value := number(row.get(key))) is not None]
        for stage in stages
    }
    drawn = [
        Histogram(name=stage_name(stage), style=styles[stage], values=values)
        for stage, values in found.items()
        if values
    ]
    if not drawn:
        return None
    table = [
        (
            row.name,
            str(len(row.values)),
            *(fixed(value) for value in (float(np.mean(row.values)), *_quartiles(row.values))),
        )
        for row in drawn
    ]
    identity = key.replace("_", "-")
    return Figure(
        identity=identity,
        title=title,
        sees=sees,
        drawing=responsive(
            histograms(f"{identity}-wide", title, unit, drawn, WIDE),
            histograms(f"{identity}-narrow", title, unit, drawn, NARROW),
        ),
        table=Table(header=("Stage", "n", "Mean", "Lower quartile", "Median", "Upper quartile"), rows=table),
    )


def _quartiles(values: Sequence[float]) -> list[float]:
    return [float(value) for value in np.percentile(values, [25, 50, 75])]


def _pairs(rows: Sequence[Row], stage: str, baseline: str) -> tuple[list[float], list[float], list[str]]:
    """Scores of a stage and of the baseline on the same prompts, NaN where unscored, and the prompt of each pair."""
    own, base = _scores_by_prompt(rows, stage), _scores_by_prompt(rows, baseline)
    pairs = [
        (score, against, prompt)
        for prompt, scores in own.items()
        for score, against in zip(scores, base.get(prompt, []), strict=False)
    ]
    return [score for score, _, _ in pairs], [against for _, against, _ in pairs], [prompt for _, _, prompt in pairs]


def _scores_by_prompt(rows: Sequence[Row], stage: str) -> dict[str, list[float]]:
    scores: dict[str, list[float]] = {}
    for row in rows:
        if stage_of(row) == stage:
            value = number(row.get("gold_reward"))
            scores.setdefault(str(row.get("prompt_id", row.get("prompt"))), []).append(
                math.nan if value is None else value
            )
    return scores


def _percentages(rate: Result) -> tuple[str, str]:
    low, high = ends_or_none(rate)
    return f"{rate.value:.0%}", DASH if low is None or high is None else f"{low:.0%} to {high:.0%}"
