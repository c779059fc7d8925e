"""`accord eval reward`: does a reward model order pairs, does it mean its probabilities, what does its best of n gain.

accuracy      share of held-out pairs in which the preferred response scores higher, equal scores half,
              beside "the longer wins" and "the first shown wins" of the same pairs
calibration   of sigma(score of the preferred - score of the other), folded
length        correlation of score and length within prompts
best of n     expected score, and gold reward where there is one, of the best of n by score
invariance    largest difference of a score computed alone and in any batch

accord eval reward runs/reward --data pairs.held_out_prompts.jsonl pairs.held_out_annotators.jsonl
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from accord.evaluate.hacking import length_report
from accord.evaluate.intervals import Interval, bootstrap_several, mean_result, paired_difference
from accord.evaluate.result import Result, of_amounts
from accord.evaluate.reward import (
    best_of_n,
    best_of_n_kl,
    pairwise_accuracy,
    preference_calibration,
)
from accord.evaluate.winrate import outcomes
from accord.pipelines.evaluation import EvalConfig, Items, Outcome, mean_amount
from accord.pipelines.judged import Judged, read_judged, read_response_sets
from accord.pipelines.scorers import EnsembleScorer, ModelScorer, Scorer, open_scorer, score_sets
from accord.pipelines.settings import SettingsError
from accord.train.configs import Paths
from accord.train.progress import Display

__all__ = ["RewardEvalConfig", "run"]

FEWEST_PAIRS = 10  # of an annotator or a group that gets a row of its own
MOST_GROUPS = 40
INVARIANT = 1e-4  # largest difference between a score alone and in a batch, fp32
DRAWS = 300  # of the bootstrap of what is no mean
PROBED = 8  # sets that are scored alone as well


class RewardEvalConfig(EvalConfig):
    """How well a reward model orders pairs of responses."""

    reward: str = Field(
        description="reward model: run or model folder, folders joined by commas (an ensemble), or module:function"
    )
    data: Paths = Field(min_length=1, description="held-out comparisons and rankings: JSONL (.gz too) or Parquet")
    responses: Paths = Field((), description="response sets, K samples a prompt, for the best-of-n curve")
    gold: str | None = Field(None, description="what counts in the best-of-n curve: a reward as above; none: no gold")
    group_by: str = Field("group", description="field of the rows, or of their `meta`, whose values are prompt groups")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="arithmetic of the reward model")
    micro_tokens: int = Field(4096, ge=16, description="token budget of one forward pass; memory, never the result")
    max_length: int = Field(1024, ge=8, description="tokens of a prompt with its longest response")


class Pair(NamedTuple):
    """Two responses that somebody put in an order, and what the scorer says of them."""

    prompt: str
    better: float
    worse: float
    longer: float  # 1 if the better one has more characters, 1/2 if as many
    share: float  # P(better is better), as the annotators have it
    first: float  # share of displays in which the better one stood first; NaN where nobody said
    labels: tuple[tuple[str, str], ...]  # (kind, value) of the rows of the table it counts in


@dataclass(frozen=True)
class Scored:
    """Sets with their scores: (K,) each, NaN unscored."""

    sets: Sequence[Judged]
    scores: Sequence[Sequence[float]]
    rows: Sequence[Mapping[str, Any]]


def run(config: RewardEvalConfig, items: Items, display: Display) -> Outcome:
    """Score every response of the data, and say how good the scores are."""
    data = read_judged(config.data, config.group_by, config.skip_bad_rows)
    if config.group_by != "group" and not any(one.group for one in data.sets):
        raise SettingsError(f"--group-by {config.group_by}: no row has that field, nor its `meta`; name one they have")
    loose = read_response_sets(config.responses) if config.responses else None
    scorer = _open(config.reward, "reward model", config)
    outcome = Outcome(models=list(scorer.facts), data=data.facts + (loose.facts if loose else []))
    if data.bad_rows:
        outcome.notes.append(f"{data.bad_rows} bad rows left out.")

    keys, rows = score_sets(scorer, data.sets, items, display, "scores")
    judged = Scored(data.sets, [_numbers(row["scores"]) for row in rows], rows)
    pairs = pairs_of(judged)
    accuracy_rows(pairs, data.sets, config, outcome)
    calibration_rows(pairs, config, outcome)
    length_rows(judged, scorer, config, outcome)
    if isinstance(scorer, EnsembleScorer):
        disagreement_row(judged, config, outcome)

    sampled = judged
    if loose:
        more_keys, more_rows = score_sets(scorer, loose.sets, items, display, "scores of samples")
        keys += more_keys
        sampled = Scored(loose.sets, [_numbers(row["scores"]) for row in more_rows], more_rows)
    gold = None
    if config.gold:
        judge = _open(config.gold, "gold reward", config)
        outcome.models += judge.facts
        gold_keys, gold_rows = score_sets(judge, sampled.sets, items, display, "gold reward")
        keys += gold_keys
        gold = [_numbers(row["scores"]) for row in gold_rows]
    best_of_n_rows(sampled, gold, config, outcome)
    if isinstance(scorer, ModelScorer):
        invariance_row(scorer, judged, config, outcome)
    items.settle(keys)
    return outcome


def _open(source: str, role: str, config: RewardEvalConfig) -> Scorer:
    return open_scorer(source, role, config.precision, config.micro_tokens, config.max_length)


def pairs_of(judged: Scored) -> list[Pair]:
    """Every decided pair of the data with its scores."""
    found = []
    for one, score_K in zip(judged.sets, judged.scores, strict=True):
        for pair in one.pairs():
            lengths = [len(one.responses[at]) for at in (pair.winner, pair.loser)]
            shown = (math.nan, math.nan) if one.first is None else one.first
            turned = shown if pair.winner == 0 else shown[::-1]
            found.append(
                Pair(
                    prompt=one.prompt_id,
                    better=score_K[pair.winner],
                    worse=score_K[pair.loser],
                    longer=0.5 + 0.5 * np.sign(lengths[0] - lengths[1]),
                    share=pair.probability,
                    first=turned[0] / sum(turned),
                    labels=_labels(one, one.gap(pair)),
                )
            )
    return found


def _labels(one: Judged, gap: int | None) -> tuple[tuple[str, str], ...]:
    """The rows of the table a pair counts in, beside the one of all pairs."""
    labels = [("split", one.split), ("group", one.group)]
    if one.agreement is not None:
        labels.append(("agreement", "all annotators agree" if one.agreement == 1 else "annotators differ"))
    if len(one.responses) > 2:
        labels.append(("places apart", "unknown, one failed" if gap is None else str(gap) if gap < 4 else "4 or more"))
    labels += [("annotator", name) for name in one.annotators]
    return tuple((kind, value) for kind, value in labels if value)


# -- results -----------------------------------------------------------------------------------------------------------


def accuracy_rows(pairs: Sequence[Pair], sets: Sequence[Judged], config: RewardEvalConfig, outcome: Outcome) -> None:
    """Accuracy of all pairs and of every part of them, each beside the length baseline."""
    whole = _accuracy(pairs, config)
    outcome.add("accuracy", "share of pairs, ties half", whole)
    longer = mean_result([pair.longer for pair in pairs], [p.prompt for p in pairs], **_how(config))
    outcome.add("the longer wins", "share of pairs, ties half", longer)
    correct_N = outcomes([pair.better for pair in pairs], [pair.worse for pair in pairs])
    longer_N = np.array([pair.longer for pair in pairs])
    more = of_amounts(paired_difference(correct_N, longer_N, [pair.prompt for pair in pairs], **_how(config)))
    outcome.add("accuracy less the longer wins", "share of pairs", more)
    shown = [pair for pair in pairs if not math.isnan(pair.first)]
    if shown:
        first = mean_result([pair.first for pair in shown], [p.prompt for p in shown], **_how(config))
        outcome.add("the first shown wins", "share of pairs", first)
    parts: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in pairs:
        for label in pair.labels:
            parts[label].append(pair)
    for kind in dict.fromkeys(kind for kind, _ in parts):
        values = sorted(value for other, value in parts if other == kind)
        if len(values) == 1 and kind != "annotator":
            continue  # the same pairs as above
        shown_values = [value for value in values if len(parts[kind, value]) >= FEWEST_PAIRS][:MOST_GROUPS]
        for value in shown_values:
            _part_rows(f"{kind} {value}", parts[kind, value], config, outcome)
        if len(shown_values) < len(values):
            outcome.notes.append(
                f"{len(values) - len(shown_values)} of {len(values)} values of {kind} have under {FEWEST_PAIRS} pairs, "
                f"or come after the first {MOST_GROUPS}: no row of their own."
            )
    _warn(whole, longer, more, sets, outcome)


def _part_rows(label: str, pairs: Sequence[Pair], config: RewardEvalConfig, outcome: Outcome) -> None:
    outcome.add("accuracy", "share of pairs, ties half", _accuracy(pairs, config), of=label)
    longer = mean_result([pair.longer for pair in pairs], [p.prompt for p in pairs], **_how(config))
    outcome.add("the longer wins", "share of pairs, ties half", longer, of=label)


def _accuracy(pairs: Sequence[Pair], config: RewardEvalConfig) -> Result:
    return pairwise_accuracy(
        [pair.better for pair in pairs], [pair.worse for pair in pairs], [pair.prompt for pair in pairs], **_how(config)
    )


def _warn(accuracy: Result, longer: Result, more: Result, sets: Sequence[Judged], outcome: Outcome) -> None:
    """What a reader should doubt."""
    if accuracy.ci is None:
        return
    if accuracy.ci[0] <= 0.5 <= accuracy.ci[1]:
        outcome.notes.append(
            "The interval of the accuracy holds 1/2: no better than a coin, as far as these pairs say."
        )
    if more.ci is not None and more.ci[0] <= 0:
        outcome.notes.append(
            f'"The longer wins" is right in {longer.value:.1%} of these pairs; the reward model is not surely better.'
        )
    agreement = [one.agreement for one in sets if one.agreement is not None]
    if agreement and accuracy.ci[0] > float(np.mean(agreement)):
        outcome.notes.append(
            f"The annotators agree with each other on {np.mean(agreement):.1%} of pairs; an accuracy above that is a "
            "sign that these pairs, or ones like them, were in the training data."
        )


def calibration_rows(pairs: Sequence[Pair], config: RewardEvalConfig, outcome: Outcome) -> None:
    """Calibration of sigma(difference), against the annotators' shares where they are soft."""
    gap_N = np.array([pair.better - pair.worse for pair in pairs])
    with np.errstate(over="ignore"):
        probability_N = 1 / (1 + np.exp(-gap_N))
    share_N = np.array([pair.share for pair in pairs])
    found = preference_calibration(probability_N, share_N)
    units = {"ece": "share", "mce": "share", "brier": "share squared", "log_loss": "nats per pair"}

    def figures(rows: Any) -> list[float]:
        drawn = preference_calibration(probability_N[rows], share_N[rows])
        return [getattr(drawn, name) for name in units]

    intervals = _intervals(figures, [pair.prompt for pair in pairs], config)
    for (name, unit), interval in zip(units.items(), intervals, strict=True):
        value = _figure(getattr(found, name), found.n, found.n_unscored, interval, config)
        outcome.add(name.replace("_", " "), unit, value, of="calibration")
    outcome.figures["calibration"] = {
        "edges": [0.5, 1.0],
        "count": found.count_B,
        "confidence": found.confidence_B,
        "outcome": found.outcome_B,
    }


def length_rows(judged: Scored, scorer: Scorer, config: RewardEvalConfig, outcome: Outcome) -> None:
    """Score against length."""
    flat = [
        (score, length, one.prompt_id)
        for one, score_K, row in zip(judged.sets, judged.scores, judged.rows, strict=True)
        for score, length in zip(score_K, row["lengths"], strict=True)
    ]
    score_N, length_N, prompt_N = (np.array(column) for column in zip(*flat, strict=True))
    found = length_report(score_N, length_N, prompt_N)
    lost = len(flat) - found.n
    units = dict.fromkeys(("pearson", "spearman", "within_prompt"), "correlation")
    units["slope_per_100"] = f"score per 100 {scorer.length_unit}"

    def figures(rows: Any) -> list[float]:
        drawn = length_report(score_N[rows], length_N[rows], prompt_N[rows])
        return [getattr(drawn, name) for name in units]

    for (name, unit), interval in zip(units.items(), _intervals(figures, prompt_N, config), strict=True):
        value = _figure(getattr(found, name), found.n, lost, interval, config)
        outcome.add(name.removesuffix("_per_100").replace("_", " "), unit, value, of="score and length")
    if abs(found.within_prompt) > 0.5:
        outcome.notes.append(f"Within prompts score and length correlate at {found.within_prompt:.2f}.")
    outcome.figures["scores"] = {"score": score_N, "length": length_N, "length_unit": scorer.length_unit}


def disagreement_row(judged: Scored, config: RewardEvalConfig, outcome: Outcome) -> None:
    """How far the members of an ensemble are apart on single responses."""
    apart, prompts = [], []
    for one, row in zip(judged.sets, judged.rows, strict=True):
        for column in zip(*row["members"], strict=True):
            apart.append(math.nan if None in column else float(np.std(column)))
            prompts.append(one.prompt_id)
    found = mean_amount(apart, prompts, config)
    outcome.add("ensemble disagreement", "deviations between members", found)


def best_of_n_rows(
    sampled: Scored, gold: Sequence[Sequence[float]] | None, config: RewardEvalConfig, outcome: Outcome
) -> None:
    """The curve of best-of-n, over the sets with three responses or more, cut to the fewest any of them has."""
    wide = [at for at, one in enumerate(sampled.sets) if len(one.responses) >= 3]
    if not wide:
        return
    width = min(len(sampled.sets[at].responses) for at in wide)
    proxy_PK = np.array([sampled.scores[at][:width] for at in wide])
    golds_PK = None if gold is None else np.array([gold[at][:width] for at in wide])
    prompts = [sampled.sets[at].prompt_id for at in wide]
    points = []
    for n in sorted({width, *(2**power for power in range(width.bit_length()))}):
        point: dict[str, Any] = {"n": n, "kl": best_of_n_kl(n)}
        for name, value_PK in (("score", proxy_PK), ("gold", golds_PK)):
            if value_PK is not None:
                result = mean_amount(best_of_n(proxy_PK, value_PK, n), prompts, config)
                outcome.add(name, "reward units", result, of=f"best of {n}")
                point[name] = {"value": result.value, "ci": result.ci}
        points.append(point)
    outcome.figures["best_of_n"] = points


def invariance_row(scorer: ModelScorer, judged: Scored, config: RewardEvalConfig, outcome: Outcome) -> None:
    """|score alone - score in a batch| over a few sets: packing must not change a reward."""
    if config.precision != "fp32":
        outcome.notes.append("Batch invariance is measured in fp32 only.")
        return
    probed = [at for at, score_K in enumerate(judged.scores) if not np.isnan(score_K).any()][:PROBED]
    together = scorer([judged.sets[at] for at in reversed(probed)])[::-1]
    differences = [
        abs(alone - packed)
        for at, row in zip(probed, together, strict=True)
        for alone, packed in zip(scorer.alone(judged.sets[at]), row["scores"], strict=True)
    ]
    worst = max(differences, default=math.nan)
    outcome.add("batch invariance", "largest difference, reward units", _figure(worst, len(differences), 0))
    if worst > INVARIANT:
        outcome.notes.append(f"A score changes by up to {worst:.1e} with its batch; expected at most {INVARIANT:.0e}.")


def _how(config: RewardEvalConfig) -> dict[str, Any]:
    return {"replicates": config.replicates, "level": config.level, "seed": config.seed}


def _intervals(figures: Callable[[Any], list[float]], prompts: Any, config: RewardEvalConfig) -> list[Interval]:
    """Intervals over prompts of several figures of the same rows, from fewer draws than means get: each is a report."""
    return bootstrap_several(figures, prompts, min(config.replicates, DRAWS), config.level, config.seed)


def _figure(
    value: float, n: int, n_unscored: int, interval: Interval | None = None, config: RewardEvalConfig | None = None
) -> Result:
    """A figure that is no mean; without an interval where none can be drawn, as of a largest difference."""
    if interval is None or config is None or math.isnan(interval.low):
        return Result(value=value, n=n, n_unscored=n_unscored)
    return Result(
        value=value, n=n, n_unscored=n_unscored, ci=interval, level=config.level, method="bootstrap", seed=config.seed
    )


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]
