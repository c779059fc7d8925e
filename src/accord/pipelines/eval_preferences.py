"""`accord eval preferences`: models rated by the preferences between their responses, an arena.

    P(a beats b) = sigma(s_a - s_b),   rating = 1000 + 400/ln 10 (s - s of the anchor);   191 points are 75% wins

Every pair of responses of a ranking is a game; ties count half. Intervals resample prompts with all their games.

    accord eval preferences campaign.jsonl --out runs/arena
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from accord.evaluate.ratings import bradley_terry, bradley_terry_ci, rank_from_intervals
from accord.evaluate.result import Result
from accord.pipelines.evaluation import EvalConfig, Items, Outcome
from accord.pipelines.judged import Judged, read_judged
from accord.pipelines.settings import SettingsError
from accord.train.configs import Paths
from accord.train.progress import Display

__all__ = ["PreferencesConfig", "run"]


class PreferencesConfig(EvalConfig):
    """Ratings of models from judgments of their responses."""

    judgments: Paths = Field(min_length=1, description="rankings or comparisons, exported with the names of the models")
    anchor: str | None = Field(None, description="model that is rated 1000; none: the one with the most games")
    replicates: int = Field(200, ge=0, description="draws of the bootstrap behind an interval; 0: no intervals")


@dataclass(frozen=True, kw_only=True)
class Games:
    """Games in columns: indices of both models, the outcome of the first (1, 1/2, 0), and the prompt."""

    names: list[str]
    first: list[int]
    second: list[int]
    outcome: list[float]
    prompt: list[str]


def run(config: PreferencesConfig, items: Items, display: Display) -> Outcome:
    """Count games and fit the strengths; nothing is measured, so there are no rows to keep."""
    data = read_judged(config.judgments, skip_bad_rows=config.skip_bad_rows)
    outcome = Outcome(data=data.facts)
    if data.bad_rows:
        outcome.notes.append(f"{data.bad_rows} bad rows left out.")
    games = games_of(data.sets, config.anchor)
    how: dict[str, Any] = {"num_models": len(games.names), "anchor": 0}
    display.begin("ratings", 2)
    fitted = bradley_terry(games.first, games.second, games.outcome, **how)
    display.update(1, {})
    low_M, high_M = bradley_terry_ci(
        games.first, games.second, games.outcome, **how,
        clusters_G=games.prompt, replicates=config.replicates, level=config.level, seed=config.seed,
    )  # fmt: skip
    display.update(2, {})
    rank_M = rank_from_intervals(low_M, high_M) if config.replicates else np.zeros(len(games.names), dtype=int)
    played = np.bincount(games.first, minlength=len(games.names)) + np.bincount(
        games.second, minlength=len(games.names)
    )
    won = wins_of(games)
    few = [name for name, bounded in zip(games.names, fitted.bounded_M, strict=True) if not bounded]
    for at in np.argsort(-np.nan_to_num(fitted.rating_M, nan=-math.inf), kind="stable"):
        name, rated = games.names[at], bool(fitted.bounded_M[at]) or len(few) == len(games.names) == 1
        result = Result(
            value=float(fitted.rating_M[at]) if rated else math.nan,
            n=int(played[at]),
            ci=(float(low_M[at]), float(high_M[at])) if rated and config.replicates else None,
            level=config.level,
            method="bootstrap" if config.replicates else "none",
            clusters=len(set(games.prompt)),
            seed=config.seed,
            detail={"place": int(rank_M[at]), "anchor": at == 0, "component": int(fitted.component_M[at])},
        )
        outcome.add("rating", "points, anchor 1000", result, of=name)
        place = Result(value=int(rank_M[at]) if rated and rank_M[at] else math.nan, n=int(played[at]))
        outcome.add("place", "1 + models surely above", place, of=name)
        share = Result(value=float(won[at].sum() / played[at]) if played[at] else math.nan, n=int(played[at]))
        outcome.add("games won", "share, ties half", share, of=name)
    if few:
        outcome.notes.append(
            f"Too few games to rate {', '.join(few)}: some model never lost or never won against the rest."
        )
    apart = [name for name, rating in zip(games.names, fitted.rating_M, strict=True) if math.isnan(rating)]
    if apart:
        outcome.notes.append(
            f"No chain of games joins {', '.join(apart)} to {games.names[0]}, the anchor: not comparable with it."
        )
    outcome.figures["wins"] = {"models": games.names, "won": won}
    return outcome


def games_of(sets: list[Judged], anchor: str | None) -> Games:
    """Every pair of responses of two models as a game; the anchor is the first model."""
    played: list[tuple[str, str, float, str]] = []
    for one in sets:
        if one.models is None:
            continue
        for pair in one.pairs(ties=True):
            better, worse = one.models[pair.winner], one.models[pair.loser]
            if better and worse and better != worse:
                played.append((better, worse, pair.probability, one.prompt_id))
    if not played:
        raise SettingsError("no row names the models of two responses (`meta.models`); export them with the judgments")
    names = [name for better, worse, _, _ in played for name in (better, worse)]
    ordered = sorted(set(names), key=lambda name: (-names.count(name), name))
    if anchor is not None:
        if anchor not in ordered:
            raise SettingsError(f"anchor {anchor} has no games; the files hold {', '.join(sorted(ordered))}")
        ordered = [anchor, *(name for name in ordered if name != anchor)]
    place = {name: at for at, name in enumerate(ordered)}
    return Games(
        names=ordered,
        first=[place[better] for better, _, _, _ in played],
        second=[place[worse] for _, worse, _, _ in played],
        outcome=[share for _, _, share, _ in played],
        prompt=[prompt for _, _, _, prompt in played],
    )


def wins_of(games: Games) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(M, M) games that the model of the row won against that of the column, ties half."""
    won = np.zeros((len(games.names), len(games.names)))
    np.add.at(won, (games.first, games.second), games.outcome)
    np.add.at(won, (games.second, games.first), 1 - np.array(games.outcome))
    return won
