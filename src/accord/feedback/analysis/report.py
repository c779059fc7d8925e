"""The report of a campaign: every figure in one frozen record, with and without excluded annotators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from statistics import median
from typing import Any

import accord
from accord.evaluate.intervals import wilson
from accord.evaluate.result import finite_or_none
from accord.feedback.analysis.agreement import (
    Agreement,
    AnnotatorLine,
    agreement_of,
    annotator_lines,
    slices,
    time_of,
)
from accord.feedback.analysis.bias import Bias, bias_of
from accord.feedback.analysis.consensus import ItemConsensus, consensus, disputed
from accord.feedback.analysis.learning import LearningPoint, learning_curves
from accord.feedback.analysis.material import Material
from accord.feedback.analysis.measures import main_measure, measures_of
from accord.feedback.analysis.rogue import Suspect, suspects
from accord.feedback.store.queries.verdicts import Verdict

__all__ = ["Annotatability", "CampaignReport", "JudgeLine", "analyse", "annotatability", "as_json"]

UNCLEAR = 0.2  # alpha of a pilot below this: people read the guideline differently
USABLE = 0.4


@dataclass(frozen=True, kw_only=True)
class Annotatability:
    """Whether people can do the task as it is described: what a pilot is for.

    Attributes:
        alpha: of the main measure; NaN: nothing to compare.
        minutes: median time of a task; None: not known.
        skips: tasks skipped, by reason.
        skip_rate: share of all tasks.
        tie_rate: of response pairs; NaN: no ranks.
        failed_rate: of responses; NaN: no ranks.
        advice: what to do, in a sentence.
    """

    alpha: float
    minutes: float | None
    skips: Mapping[str, int]
    skip_rate: float
    tie_rate: float
    failed_rate: float
    advice: str


@dataclass(frozen=True, kw_only=True)
class JudgeLine:
    """A model or rule beside the people: share of response pairs on which it agrees with their majority.

    Attributes:
        judge: name, revision.
        source: ai or rule.
        judgments: of normal items.
        agreement: on pairs that both the judge and the majority of people order strictly; NaN: none.
        interval: Wilson's.
        n: such pairs.
    """

    judge: str
    source: str
    judgments: int
    agreement: float
    interval: tuple[float, float]
    n: int


@dataclass(frozen=True, kw_only=True)
class CampaignReport:
    """Everything the store can say of a campaign's judgments.

    Attributes:
        campaign: PROJECT/CAMPAIGN.
        campaign_id: of the store.
        task_type: rank, pairwise, ...
        state: of the campaign.
        version: of Accord.
        counts: judgments, annotators, items, skips, surplus, excluded, models' judgments.
        agreement: by measure, of counted judgments of people who are not excluded.
        with_excluded: the same with those who are; empty where nobody is.
        random_arm: the same on the items whose place no score decided; empty where no item is selected.
        learning: what labels of either arm teach; empty where no item is selected, or too few are judged.
        main: name of the measure that stands for the campaign.
        slices: dimension -> part -> figures of the main measure.
        annotators: everyone beside the others.
        bias: of place and length.
        judges: models and rules beside the people.
        suspects: annotators with evidence.
        pilot: whether the task can be done.
        consensus: of every item.
        disputed: the items to review.
    """

    campaign: str
    campaign_id: str
    task_type: str
    state: str
    version: str
    counts: Mapping[str, int]
    agreement: tuple[Agreement, ...]
    with_excluded: tuple[Agreement, ...]
    random_arm: tuple[Agreement, ...]
    learning: tuple[LearningPoint, ...]
    main: str | None
    slices: Mapping[str, Mapping[str, Agreement]]
    annotators: tuple[AnnotatorLine, ...]
    bias: Bias
    judges: tuple[JudgeLine, ...]
    suspects: tuple[Suspect, ...]
    pilot: Annotatability
    consensus: tuple[ItemConsensus, ...]
    disputed: tuple[ItemConsensus, ...]


def analyse(material: Material, step: Callable[[str], object] = lambda name: None) -> CampaignReport:
    """Compute the report.

    Args:
        material: of `gather`.
        step: called with the name of each part before it is computed, for a progress bar.
    """
    human, everyone = material.human(), material.human(excluded=True)
    skips = [one for one in material.verdicts if one.source == "human" and "skip" in one.payload]
    measures = measures_of(human, material.contents)
    main = main_measure(measures)
    step("agreement")
    agreement = _agreement(material, human)
    excluded = len(everyone) > len(human)
    step("with excluded annotators")
    with_excluded = _agreement(material, everyone) if excluded else ()
    selected = any(one.arm == "selected" for one in human)
    random_arm = _agreement(material, [one for one in human if one.arm == "random"]) if selected else ()
    step("learning")
    learning = learning_curves(material) if selected else []
    step("groups, guidelines, weeks")
    parts = slices(main.name, human, material.contents) if main is not None else {}
    step("annotators")
    lines = annotator_lines(measures_of(everyone, material.contents), everyone, skips)
    found = suspects(material)
    step("consensus")
    agreed = consensus(material)
    return CampaignReport(
        campaign=material.name,
        campaign_id=material.campaign_id,
        task_type=material.task_type,
        state=material.state,
        version=accord.__version__,
        counts=_counts(material, human, everyone, skips),
        agreement=agreement,
        with_excluded=with_excluded,
        random_arm=random_arm,
        learning=tuple(learning),
        main=None if main is None else main.name,
        slices=parts,
        annotators=tuple(lines),
        bias=bias_of(human, material.contents),
        judges=tuple(_judges(material, agreed)),
        suspects=tuple(found),
        pilot=annotatability(material, agreement, main.name if main else None),
        consensus=tuple(agreed),
        disputed=tuple(disputed(agreed)),
    )


def _agreement(material: Material, verdicts: Sequence[Verdict]) -> tuple[Agreement, ...]:
    return tuple(
        agreement_of(measure, verdicts, material.contents) for measure in measures_of(verdicts, material.contents)
    )


def _counts(
    material: Material, human: Sequence[Verdict], everyone: Sequence[Verdict], skips: Sequence[Verdict]
) -> dict[str, int]:
    return {
        "items": len(material.contents),
        "items judged": len({one.item_id for one in human}),
        "judgments": len(human),
        "annotators": len({one.annotator for one in human}),
        "skipped": len(skips),
        "surplus": sum(
            one.source == "human" and not one.counted and "skip" not in one.payload for one in material.verdicts
        ),
        "excluded": len(everyone) - len(human),
        "by models": sum(one.source == "ai" for one in material.verdicts),
        "by rules": sum(one.source == "rule" for one in material.verdicts),
    }


def annotatability(material: Material, agreement: Sequence[Agreement], main: str | None) -> Annotatability:
    """What a pilot has to say: agreement, time, skips, and whether to rewrite the guideline."""
    said = [one for one in material.verdicts if one.source == "human" and not one.excluded]
    skips = Counter(str(one.payload["skip"]) for one in said if "skip" in one.payload)
    spent = [ms for one in material.human() if (ms := time_of(one)) is not None]
    figures = next((one for one in agreement if one.name == main), None)
    alpha = figures.alpha.value if figures else float("nan")
    ranks = [rank for one in material.human() if one.ranks is not None for rank in one.ranks.values()]
    return Annotatability(
        alpha=alpha,
        minutes=median(spent) / 60_000 if spent else None,
        skips=dict(skips.most_common()),
        skip_rate=sum(skips.values()) / len(said) if said else float("nan"),
        tie_rate=figures.tie_rate if figures else float("nan"),
        failed_rate=sum(rank is None for rank in ranks) / len(ranks) if ranks else float("nan"),
        advice=_advice(alpha),
    )


def _advice(alpha: float) -> str:
    if alpha != alpha:
        return "no item has two verdicts that can be compared yet"
    if alpha < UNCLEAR:
        return f"alpha is under {UNCLEAR}: people read the guideline differently; rewrite it before more is collected"
    if alpha < USABLE:
        return f"alpha is under {USABLE}: look at the disputed items, and add examples of them to the guideline"
    return "people agree well enough to go on"


def _judges(material: Material, agreed: Sequence[ItemConsensus]) -> list[JudgeLine]:
    """Models and rules against the majority of people, response pair by response pair."""
    majority = {one.item_id: one.votes for one in agreed}
    by_judge: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in material.verdicts:
        if verdict.source != "human" and verdict.counted and verdict.judge is not None:
            name = "@".join(part for part in verdict.judge[:2] if part)
            by_judge.setdefault((name, verdict.source), []).append(verdict)
    lines = []
    for (name, source), verdicts in sorted(by_judge.items()):
        same = [agrees for one in verdicts for agrees in _agreements(one, material, majority.get(one.item_id, {}))]
        right, n = same.count(True), len(same)
        low, high = wilson(right, n) if n else (float("nan"), float("nan"))
        lines.append(
            JudgeLine(
                judge=name,
                source=source,
                judgments=len(verdicts),
                agreement=right / n if n else float("nan"),
                interval=(low, high),
                n=n,
            )
        )
    return lines


def _agreements(verdict: Verdict, material: Material, votes: Mapping[str, float]) -> list[bool]:
    content = material.contents.get(verdict.item_id)
    if content is None or verdict.ranks is None:
        return []
    found = []
    ids = list(content.responses)
    for place, first in enumerate(ids):
        for second in ids[place + 1 :]:
            share = votes.get(f"{content.names[first]} over {content.names[second]}", 0.5)
            a, b = (float("inf") if (rank := verdict.ranks.get(one)) is None else rank for one in (first, second))
            if share != 0.5 and a != b:
                found.append((share > 0.5) == (a < b))
    return found


def as_json(value: Any) -> Any:
    """A report, or a part of one, as JSON can hold it: NaN is null."""
    if is_dataclass(value) and not isinstance(value, type):
        extra = {"flagged": value.flagged} if isinstance(value, Suspect) else {}
        return {name: as_json(found) for name, found in vars(value).items()} | extra
    if isinstance(value, Mapping):
        return {str(name): as_json(found) for name, found in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(one) for one in value]
    return finite_or_none(value) if isinstance(value, float) else value
