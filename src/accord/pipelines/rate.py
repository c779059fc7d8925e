"""Ratings of responses by a model, as a run: a number from 1 to 10, or a rubric. See `accord.feedback.ai.ratings`.

ratings.jsonl     per prompt: the overall rating of each response, and every answer
rankings.jsonl    Rankings by rating, with the ratings as scores: data of reward models and of DPO
rate.json         how many were rated, unscored, left out; what it cost

accord feedback label --direct 1-10 --model http://127.0.0.1:8000/v1#judge --data responses.jsonl --out runs/rated
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accord.feedback.ai.draws import shuffled
from accord.feedback.ai.joint import rate_jointly
from accord.feedback.ai.ratings import DIRECT, RatingPlan, as_row, load_rubric, rate
from accord.pipelines.asking import Cost, Work, open_model, read_price, write_rows
from accord.pipelines.feedback_configs import LabelConfig
from accord.protocols import LanguageModel
from accord.records import Ranking, ResponseSet, to_row
from accord.train import inputs, loop
from accord.train.progress import Display
from accord.train.run import Run, write_text
from accord.train.sample import rows_of_file

__all__ = ["run"]

SAID = "ratings.jsonl"


def run(config: LabelConfig, display: Display, model: LanguageModel | None = None) -> Path:
    """Rate, or continue, or find finished; returns the run folder."""
    with loop.showing(display), Run("label", config, notify=display.note) as run:
        if run.finished:
            display.note(f"{run.folder} is finished")
            return run.folder
        rubric = DIRECT if config.rubric is None else load_rubric(config.rubric)
        plan = RatingPlan(rubric=rubric, reasoning_tokens=config.reasoning_tokens, seed=config.seed)
        sets: list[ResponseSet] = shuffled(inputs.read_data(config.data, "response_set", config, run), config.seed)
        model = model or open_model(config.model, config)
        run.begin(model=model.name, rubric=rubric.model_dump(mode="json"))
        work = Work(run, display, config.batch_size)
        cost = Cost([model], read_price(config.price), work.before)

        def rated(batch: Sequence[ResponseSet]) -> list[dict[str, Any]]:
            if config.joint:
                pairs = zip(batch, rate_jointly(batch, model, plan), strict=True)
                return [as_row(one.id, both.rated, rubric) | {"order": both.order} for one, both in pairs]
            responses = [(one.prompt, response.text) for one in batch for response in one.responses]
            found = iter(rate(responses, model, plan))
            return [as_row(one.id, [next(found) for _ in one.responses], rubric) for one in batch]

        def note(done: int) -> tuple[Mapping[str, float], Mapping[str, Any]]:
            used = cost.figures()
            figures = {"label__money": used["money"]} if "money" in used else {}
            return figures, {key: value for key, value in used.items() if key not in ("money", "currency")}

        work.through("rate", sets, SAID, rated, note)
        write_results(run, model, sets, cost, config, display)
        return run.finish()


def write_results(
    run: Run, model: LanguageModel, sets: Sequence[ResponseSet], cost: Cost, config: LabelConfig, display: Display
) -> None:
    """Rankings and the report, from what is on disk."""
    rows = rows_of_file(run.folder / SAID)
    rankings = [found for one, row in zip(sets, rows, strict=True) if (found := ranking(one, row["overall"]))]
    write_rows(run.folder / "rankings.jsonl", rankings)
    values = [value for row in rows for value in row["overall"]]
    known = [value for value in values if value is not None]
    result = {
        "judge": model.name,
        "method": model.method,
        "counts": {"responses": len(values), "rated": len(known), "unscored": len(values) - len(known)},
        "mean": sum(known) / len(known) if known else None,
        "rankings": len(rankings),
        "cost": cost.figures(),
        "seed": config.seed,
    }
    write_text(run.folder / "rate.json", json.dumps(result, indent=2, ensure_ascii=False))
    display.note(f"{len(values)} responses = {len(known)} rated + {len(values) - len(known)} unscored")
    display.note(f"{len(rankings)} of {len(sets)} prompts have responses that are rated differently")


def ranking(one: ResponseSet, ratings: Sequence[float | None]) -> dict[str, Any] | None:
    """The Ranking of a prompt's rated responses; None where there is nothing to prefer. Of one text the first."""
    best: dict[str, float] = {}
    for response, value in zip(one.responses, ratings, strict=True):
        if value is not None and response.text.strip():
            best.setdefault(response.text, value)
    places = sorted(set(best.values()), reverse=True)
    if len(places) < 2:
        return None
    ranks = tuple(places.index(value) + 1 for value in best.values())
    return to_row(Ranking(prompt=one.prompt, responses=tuple(best), ranks=ranks, scores=tuple(best.values())))
