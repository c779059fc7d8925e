"""`accord eval frontier`: what reward every checkpoint of several runs bought, and at what distance from the reference.

per checkpoint   mean reward, KL to the reference, length, win rate against the reference, each with an interval
per method       hull over the checkpoints of all its runs, and the area under it up to a KL that all methods reach
best of n        of the reference, the frontier that needs no training
with both gold and proxy: the over-optimisation fit of Gao et al. 2022, and where gold begins to fall

accord eval frontier runs/ppo-0.05 runs/ppo-0.2 runs/dpo --data prompts.jsonl --gold tests.rewards:sentiment
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from accord.evaluate.frontier import Frontier, frontier
from accord.evaluate.intervals import bootstrap
from accord.evaluate.overoptimisation import fit_overoptimisation
from accord.evaluate.result import Result
from accord.evaluate.reward import best_of_n, best_of_n_kl
from accord.evaluate.winrate import outcomes, win_rate
from accord.pipelines.checkpoints import REFERENCE, Checkpoint, Sampled, SampledConfig, sample_all, scored_sets
from accord.pipelines.evaluation import Items, Outcome, data_facts, mean_amount
from accord.pipelines.scorers import open_scorer, score_sets
from accord.train.progress import Display

__all__ = ["FrontierConfig", "read_prompts", "run"]

Floats = NDArray[np.float64]


class FrontierConfig(SampledConfig):
    """Reward against KL for all checkpoints of several runs."""

    samples: int = Field(
        4, ge=1, description="responses per prompt and checkpoint; of the reference they give best of n"
    )

    @model_validator(mode="after")
    def _has_a_reward(self) -> FrontierConfig:
        if self.gold is None and self.proxy is None:
            raise ValueError("a frontier needs a reward: give gold, what counts, or proxy, what was optimised, or both")
        return self


@dataclass(frozen=True, kw_only=True)
class Point:
    """A checkpoint with its figures: (P,) means over the responses to each prompt, NaN where unscored."""

    checkpoint: Checkpoint
    kl_P: Floats
    length_P: Floats
    reward_P: Floats
    proxy_P: Floats | None
    win_P: Floats

    @property
    def kl(self) -> float:
        """Nats per response."""
        return _scored_mean(self.kl_P)

    @property
    def reward(self) -> float:
        """Mean over scored prompts."""
        return _scored_mean(self.reward_P)


def run(config: FrontierConfig, items: Items, display: Display) -> Outcome:
    """Sample from every checkpoint, score, and draw the frontier."""
    prompts, facts, notes = read_prompts(config)
    keys, sampled, models = sample_all(config, prompts, items, display)
    outcome = Outcome(models=models, data=facts, notes=notes)
    if len(sampled[0].sets) < len(prompts):
        outcome.notes.append(f"{len(prompts) - len(sampled[0].sets)} prompts leave no room for a response: left out.")
    scores: dict[str, list[Floats]] = {}
    for role, source in (("gold", config.gold), ("proxy", config.proxy)):
        if source is not None:
            scorer = open_scorer(source, role, config.precision, config.micro_tokens, config.max_length)
            more, rows = score_sets(scorer, scored_sets(sampled), items, display, role)
            keys += more
            outcome.models += scorer.facts
            scores[role] = _by_checkpoint([row["scores"] for row in rows], sampled)
    items.settle(keys)
    what = "gold" if "gold" in scores else "proxy"
    if what == "proxy":
        outcome.notes.append("No gold reward: the axis is the reward that was optimised, which flatters every run.")

    points = [_point(part, scores[what], scores.get("proxy"), at) for at, part in enumerate(sampled)]
    outcome.responses = responses_of(sampled, scores)
    methods = _method_rows(points, config, outcome)
    for point in points:
        _checkpoint_rows(point, what, config, outcome)
    _seed_rows(points, what, config, outcome)
    proxy = scores["proxy"][0] if "proxy" in scores else scores[what][0]
    best = _best_of_n_rows(scores[what][0], proxy, config, outcome)
    if what == "gold" and "proxy" in scores:
        _overoptimisation_rows(points, config, outcome)
    outcome.figures |= {
        "reward": what,
        "points": [_drawn(point, config) for point in points],
        "hulls": methods,
        "best_of_n": best,
    }
    return outcome


def read_prompts(config: SampledConfig) -> tuple[list[Any], list[dict[str, Any]], list[str]]:
    """The prompts, facts of their files, and what was left out."""
    from accord.data.readers import read

    result = read(list(config.data), "prompts", skip_bad_rows=config.skip_bad_rows)
    prompts = list(dict.fromkeys(result.records))[: config.max_prompts]
    notes = [f"{len(result.bad_rows)} bad rows left out."] if result.bad_rows else []
    return prompts, [data_facts(one.file, one.rows, one.sha256) for one in result.files], notes


def responses_of(sampled: Sequence[Sampled], scores: dict[str, list[Floats]]) -> list[dict[str, Any]]:
    """All responses of the reference (called base) and of the last checkpoint of each run, as the report reads them."""
    last = {part.checkpoint.run: at for at, part in enumerate(sampled)}
    names = {"gold": "gold_reward", "proxy": "reward_model_score"}
    rows = []
    for run, at in last.items():
        part = sampled[at]
        for p, one in enumerate(part.sets):
            for k, text in enumerate(one.responses):
                row: dict[str, Any] = {"stage": run, "prompt_id": p}
                row |= {"prompt": [turn.model_dump() for turn in one.prompt], "response": text}
                row |= {names[role]: value[at][p, k] for role, value in scores.items()}
                row |= {"kl": part.kl_PK[p][k], "length": part.length_PK[p][k]}
                rows.append(row | {"cut": not (one.finished or ())[k]})
    return rows


def _by_checkpoint(scores: Sequence[Sequence[float | None]], sampled: Sequence[Sampled]) -> list[Floats]:
    """(P, K) of each checkpoint, NaN where unscored."""
    table, at = [], 0
    for part in sampled:
        rows = scores[at : at + len(part.sets)]
        table.append(np.array([[math.nan if one is None else one for one in row] for row in rows], dtype=np.float64))
        at += len(part.sets)
    return table


def _point(part: Sampled, reward: Sequence[Floats], proxy: Sequence[Floats] | None, at: int) -> Point:
    """Per prompt: a response that lost its score costs its prompt, as the means would otherwise be of other prompts."""
    against = outcomes(reward[at].ravel(), reward[0].ravel()).reshape(reward[at].shape)
    return Point(
        checkpoint=part.checkpoint,
        kl_P=np.array(part.kl_PK).mean(1),
        length_P=np.array(part.length_PK, dtype=np.float64).mean(1),
        reward_P=reward[at].mean(1),
        proxy_P=None if proxy is None else proxy[at].mean(1),
        win_P=against.mean(1),
    )


# -- results -----------------------------------------------------------------------------------------------------------


def _checkpoint_rows(point: Point, what: str, config: FrontierConfig, outcome: Outcome) -> None:
    label = point.checkpoint.label
    outcome.add(f"{what} reward", "reward units", _mean(point.reward_P, config), of=label)
    if point.proxy_P is not None and what != "proxy":
        outcome.add("proxy reward", "reward units", _mean(point.proxy_P, config), of=label)
    if point.checkpoint.run == REFERENCE:
        outcome.add("length", "tokens", _mean(point.length_P, config), of=label)
        return
    kl = outcome.add("KL", "nats per response", _mean(point.kl_P, config), of=label)
    if kl.ci is not None and kl.ci[1] < 0:
        outcome.notes.append(
            f"{label}: the KL is clearly negative, which no KL is: sampling and scoring must have differed."
        )
    outcome.add("length", "tokens", _mean(point.length_P, config), of=label)
    wins = win_rate(point.win_P, None, config.replicates, config.level, config.seed)
    outcome.add("win rate against the reference", "share of prompts, ties half", wins, of=label)


def _method_rows(points: Sequence[Point], config: FrontierConfig, outcome: Outcome) -> dict[str, Any]:
    """Hull and area of each method, at one common KL: the smallest of their largest."""
    reference, rest = points[0], points[1:]
    families = {
        m: [p for p in rest if p.checkpoint.method == m] for m in dict.fromkeys(p.checkpoint.method for p in rest)
    }
    reach = {method: max(point.kl for point in family) for method, family in families.items()}
    nearest = min(reach, key=lambda method: reach[method])
    limit = max(0.0, reach[nearest])
    if limit == 0:
        outcome.notes.append(
            f"{nearest} is not measurably away from the reference (largest KL {reach[nearest]:.2g} nats). Areas are "
            "taken up to the KL that all methods reach, so there is none."
        )
    drawn: dict[str, Any] = {}
    for method, family in families.items():
        kl_PM = np.stack([point.kl_P for point in family], axis=1)
        reward_PM = np.stack([point.reward_P for point in family], axis=1)
        found = _frontier_of(kl_PM, reward_PM, reference.reward_P, limit)
        interval = None
        if config.replicates:

            def area(rows: Any, kl_PM: Floats = kl_PM, reward_PM: Floats = reward_PM) -> float:
                return _frontier_of(kl_PM[rows], reward_PM[rows], reference.reward_P[rows], limit).area

            prompts = np.arange(len(kl_PM))
            interval = bootstrap(area, prompts, min(config.replicates, 1000), config.level, config.seed)
        scored = sum(not math.isnan(point.reward) for point in family)
        outcome.add(
            "area",
            f"mean gain in reward within {limit:.2f} nats",
            Result(
                value=found.area,
                n=scored,
                n_unscored=len(family) - scored,
                ci=None if interval is None else (interval.low, interval.high),
                level=config.level,
                method="bootstrap" if interval else "none",
                clusters=len(kl_PM),
                seed=config.seed,
                detail={
                    "kl_max": limit,
                    "n_negative": found.n_negative,
                    "pareto": [family[at].checkpoint.label if at >= 0 else "reference" for at in found.pareto],
                },
            ),
            of=method,
        )
        drawn[method] = {"kl": found.hull_kl, "reward": found.hull_reward}
    return drawn


def _seed_rows(points: Sequence[Point], what: str, config: FrontierConfig, outcome: Outcome) -> None:
    """Final reward and KL over runs that differ in their seed only: mean and Student's t interval over seeds."""
    last = {point.checkpoint.run: point for point in points[1:]}
    for family in dict.fromkeys(point.checkpoint.family for point in last.values()):
        own = [point for point in last.values() if point.checkpoint.family == family]
        if len(own) < 2:
            continue
        label = f"{len(own)} seeds of {own[0].checkpoint.method}: {', '.join(point.checkpoint.run for point in own)}"
        for name, values in ((f"{what} reward", [p.reward for p in own]), ("KL", [p.kl for p in own])):
            unit = "nats per response" if name == "KL" else "reward units"
            outcome.add(name, f"{unit}, interval over seeds", _over_seeds(values, config.level), of=label)


def _over_seeds(values: Sequence[float], level: float) -> Result:
    """Mean -+ t(level, S - 1) deviation / sqrt(S)."""
    from scipy.stats import t

    count, mean = len(values), float(np.mean(values))
    half = float(t.ppf(0.5 + level / 2, count - 1) * np.std(values, ddof=1) / math.sqrt(count))
    return Result(value=mean, n=count, ci=(mean - half, mean + half), level=level, method="t", clusters=count)


def _frontier_of(kl_PM: Floats, reward_PM: Floats, reference_P: Floats, limit: float) -> Frontier:
    """The frontier of these prompts; without an area where no prompt of the reference was scored."""
    start = _scored_mean(reference_P)
    found = frontier(
        [_scored_mean(kl_P) for kl_P in kl_PM.T],
        [_scored_mean(reward_P) for reward_P in reward_PM.T],
        0.0 if math.isnan(start) else start,
        limit,
    )
    if math.isnan(start):
        return found._replace(pareto=(), hull_kl=np.empty(0), hull_reward=np.empty(0), area=math.nan)
    return found


def _scored_mean(value_P: Floats) -> float:
    """Mean over the scored prompts; NaN where there is none."""
    scored_P = value_P[~np.isnan(value_P)]
    return float(scored_P.mean()) if len(scored_P) else math.nan


def _best_of_n_rows(
    gold_PK: Floats, proxy_PK: Floats, config: FrontierConfig, outcome: Outcome
) -> list[dict[str, Any]]:
    """Best of n of the reference's own samples, chosen by the proxy where there is one."""
    samples = gold_PK.shape[1]
    points = []
    for n in sorted({samples, *(2**power for power in range(samples.bit_length()))}):
        found = _mean(best_of_n(proxy_PK, gold_PK, n), config)
        if n > 1:
            outcome.add("best of n of the reference", "reward units", found, of=f"n = {n}")
        points.append({"n": n, "kl": best_of_n_kl(n), "reward": found.value, "ci": found.ci})
    return points


def _overoptimisation_rows(points: Sequence[Point], config: FrontierConfig, outcome: Outcome) -> None:
    """Where the gold reward of a run turns while its proxy goes on rising."""
    start, curves = points[0].reward, []
    for run in dict.fromkeys(point.checkpoint.run for point in points[1:]):
        own = [point for point in points[1:] if point.checkpoint.run == run]
        kl_M = [max(point.kl, 0.0) for point in own]
        gain_M = [point.reward - start for point in own]
        scored = sum(not math.isnan(gain) for gain in gain_M)
        if scored >= 3:
            fitted = fit_overoptimisation(kl_M, gain_M, form="rl")
            peak = Result(value=fitted.peak_kl, n=scored, n_unscored=len(own) - scored, detail=fitted._asdict())
            outcome.add(
                "KL at the peak of gold", "nats, fitted", peak, of=f"run {run}"
            )  # a run may be called as its method
            if fitted.peak_kl > max(kl_M):
                outcome.notes.append(f"{run}: the fitted peak lies beyond its checkpoints; it was not seen.")
        falls = _first_fall(own, config)
        if falls is not None:
            outcome.notes.append(f"{run}: gold reward falls from {falls.kl:.2f} nats on, at {falls.checkpoint.label}.")
        curves.append({"run": run, "kl": kl_M, "gold": [p.reward for p in own], "proxy": [_proxy(p) for p in own]})
    outcome.figures["overoptimisation"] = {"start": {"gold": start, "proxy": _proxy(points[0])}, "curves": curves}


def _first_fall(own: Sequence[Point], config: FrontierConfig) -> Point | None:
    """The first checkpoint whose gold is below the running best by more than its interval."""
    best = -math.inf
    for point in own:
        found = _mean(point.reward_P, config)
        if found.ci is not None and found.ci[1] < best:
            return point
        best = max(best, point.reward)
    return None


def _proxy(point: Point) -> float:
    assert point.proxy_P is not None
    return _scored_mean(point.proxy_P)


def _drawn(point: Point, config: FrontierConfig) -> dict[str, Any]:
    """A checkpoint as charts take it."""
    found = _mean(point.reward_P, config)
    at = point.checkpoint
    return {
        "run": at.run,
        "method": at.method,
        "step": at.step,
        "kl": point.kl,
        "reward": found.value,
        "ci": found.ci,
        "proxy": None if point.proxy_P is None else _proxy(point),
        "length": _scored_mean(point.length_P),
    }


def _mean(value_P: Floats, config: FrontierConfig) -> Result:
    return mean_amount(value_P, None, config)
