"""`accord eval winrate`: how often a model's response is preferred to a baseline's, ties half.

Who says so: people (--judgments, as `accord feedback export` writes them), a reward (--reward) or a language model
(--judge), which is asked in both orders. Beside the raw rate stands the rate at equal length. With people and a judge
together the judge is measured against the people.

    accord eval winrate runs/dpo runs/sft --data prompts.jsonl --judge smollm2-135m
    accord eval winrate dpo sft --judgments campaign.jsonl
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from accord.evaluate.agreement import leave_one_out_agreement, preference_agreement
from accord.evaluate.intervals import benjamini_hochberg, binomial_test, mean_result
from accord.evaluate.judge import judge_report
from accord.evaluate.result import Result
from accord.evaluate.winrate import (
    PositionFlips,
    length_controlled_win_rate,
    position_flips,
    win_rate,
)
from accord.pipelines.evaluation import Items, Outcome, mean_amount, model_facts
from accord.pipelines.judged import prompt_hash
from accord.pipelines.pair_judges import Pair, judge_pairs
from accord.pipelines.winrate_games import (
    Game,
    WinrateConfig,
    export_answers,
    human_games,
    judged_games,
    open_model,
    read_all_answers,
)
from accord.protocols import LanguageModel
from accord.train.progress import Display

__all__ = ["run"]

FLIPS_WARNED, FLIPS_ALARM = 0.1, 0.3
FEWEST_VERDICTS = 10  # of an annotator who gets a row


def run(config: WinrateConfig, items: Items, display: Display) -> Outcome:
    """Gather responses or judgments, have them compared, and count."""
    outcome = Outcome()
    keys: list[str] = []
    judge = open_model(config.judge, config) if config.judge else None
    if judge is not None:
        outcome.models.append(model_facts("judge", judge.name, None))
        outcome.notes.append(f'Judge: {judge.name}, both orders, rule "{config.rule}".')
    candidates, baseline = config.models[:-1], config.models[-1]
    if config.judgments:
        games = human_games(config, outcome)
    else:
        answers = read_all_answers(config, keys, items, display, outcome)
        games = {
            name: judged_games(answers[name], answers[baseline], judge, config, keys, items, display, outcome)
            for name in candidates
        }
        if config.export:
            export_answers(config, answers, items.path.parent)
    for name, played in games.items():
        _rows(name if len(games) > 1 else "", played, config, outcome)
    if len(games) > 1:
        _mark(games, outcome)
    if config.judgments and judge is not None:
        for name, played in games.items():
            _against_people(name, played, judge, config, keys, items, display, outcome)
    items.settle(keys)
    outcome.responses = _responses(games, config.models[-1], config.models[0])
    return outcome


def _responses(games: Mapping[str, Sequence[Game]], baseline: str, only: str) -> list[dict[str, Any]]:
    """What the browser of the report shows: each response with the share of its comparisons that it won, ties half."""
    rows: list[dict[str, Any]] = []
    seen: set[tuple[str, str, str]] = set()
    for name, played in games.items():
        by_pair: dict[tuple[str, Pair], list[float]] = defaultdict(list)
        for game in played:
            by_pair[str(game.prompt), game.pair].append(game.outcome)
        for (prompt, pair), outcomes in by_pair.items():
            won = float(np.mean(outcomes))
            turns = [turn.model_dump() for turn in pair.prompt]
            sides = [
                (baseline, pair.baseline, 1 - won if len(games) == 1 else math.nan),
                (name or only, pair.candidate, won),
            ]
            for stage, text, share in sides:
                about = {"stage": stage, "prompt_id": prompt, "prompt": turns, "response": text, "preferred": share}
                if (stage, prompt, text) not in seen:  # the baseline meets every candidate
                    rows.append(about)
                seen.add((stage, prompt, text))
    return rows


# -- results -----------------------------------------------------------------------------------------------------------


def _rows(name: str, games: Sequence[Game], config: WinrateConfig, outcome: Outcome) -> None:
    """Win rate, raw and at equal length, the lengths, what position did, and every annotator apart."""
    value_N, prompt_N = [game.outcome for game in games], [game.prompt for game in games]
    unit = "share of pairs, ties half"
    raw = win_rate(value_N, prompt_N, **_how(config))
    outcome.add("win rate", unit, raw, of=name)
    own_N, other_N = ([len(text) for text in texts] for texts in zip(*(game.pair[1:] for game in games), strict=True))
    fair = length_controlled_win_rate(
        value_N, own_N, other_N, prompt_N,
        replicates=min(config.replicates, 500), level=config.level, seed=config.seed,
    )  # fmt: skip
    outcome.add("at equal length", unit, fair.controlled, of=name)
    of = f"{name}: " if name else ""
    if fair.controlled.detail.get("extrapolated") and own_N != other_N:
        outcome.notes.append(f"{of}the lengths hardly overlap: the rate at equal length is an extrapolation.")
    counts = raw.detail
    for word, count in counts.items():
        outcome.add(word, "pairs", Result(value=count, n=raw.n), of=name)
    outcome.add("length", "characters", mean_amount(own_N, prompt_N, config), of=name)
    outcome.add("length of the baseline's", "characters", mean_amount(other_N, prompt_N, config), of=name)
    if any(game.orders for game in games):
        orders = [game.orders or (math.nan, math.nan) for game in games]
        flips = position_flips([ab for ab, _ in orders], [ba for _, ba in orders])
        _flip_rows(flips, of, name, outcome)
    _position_row(games, config, name, outcome)
    _annotator_rows(games, config, of, outcome)
    outcome.figures.setdefault("wins", []).append({"name": name or config.models[0], **counts})


def _flip_rows(flips: PositionFlips, of: str, name: str, outcome: Outcome) -> None:
    for field, words in (
        ("flip_rate", "verdicts that follow the position"),
        ("first_rate", "first shown preferred"),
        ("inconsistent_rate", "inconsistent verdicts"),
    ):
        result = Result(value=getattr(flips, field), n=flips.n, n_unscored=flips.n_unscored)
        outcome.add(words, "share of pairs", result, of=name)
    if flips.flip_rate >= FLIPS_WARNED:
        how = "far too often" if flips.flip_rate >= FLIPS_ALARM else "often"
        outcome.notes.append(
            f"{of}the judge prefers a position rather than a response {how}: in {flips.flip_rate:.0%} of pairs another "
            "response wins when the two are swapped."
        )


def _position_row(games: Sequence[Game], config: WinrateConfig, name: str, outcome: Outcome) -> None:
    """People see one order each: how often the first shown was preferred, of decided verdicts."""
    shown = [game for game in games if game.first is not None and game.outcome in (0, 1)]
    if shown:
        picked = [float(game.first == (game.outcome == 1)) for game in shown]
        found = mean_result(picked, [game.prompt for game in shown], **_how(config))
        outcome.add("first shown preferred", "share of decided verdicts", found, of=name)


def _annotator_rows(games: Sequence[Game], config: WinrateConfig, of: str, outcome: Outcome) -> None:
    """Every annotator's own rate, and how far they agree with each other on the same prompts."""
    by: dict[str, list[Game]] = defaultdict(list)
    for game in games:
        if game.annotator:
            by[game.annotator].append(game)
    if len(by) < 2:
        return
    for annotator, own in sorted(by.items()):
        if len(own) >= FEWEST_VERDICTS:
            rate = win_rate([game.outcome for game in own], [game.prompt for game in own], **_how(config))
            outcome.add("win rate", "share of pairs, ties half", rate, of=f"{of}annotator {annotator}")
    items = list(dict.fromkeys(game.pair for game in games))
    verdict_AN = np.full((len(by), len(items)), math.nan)
    place = {pair: at for at, pair in enumerate(items)}
    for row, own in enumerate(by.values()):
        for game in own:
            verdict_AN[row, place[game.pair]] = np.sign(game.outcome - 0.5)
    found = preference_agreement(verdict_AN, ties="half")
    if found.n_pairs:
        agreement = Result(value=found.agreement, n=found.n_items, detail=found._asdict())
        outcome.add("agreement of annotators", "share of verdict pairs, ties half", agreement, of=of.removesuffix(": "))
    alone = leave_one_out_agreement(verdict_AN)
    if alone.n_A.sum():
        ceiling = Result(value=float(np.nansum(alone.rate_A * alone.n_A) / alone.n_A.sum()), n=int(alone.n_A.sum()))
        outcome.add("ceiling: one against the others", "share of verdicts", ceiling, of=of.removesuffix(": "))


def _mark(games: dict[str, list[Game]], outcome: Outcome) -> None:
    """Several candidates in one table: which of the differences to believe (Benjamini-Hochberg, q = 0.05)."""
    p_values = []
    for played in games.values():
        by_prompt: dict[str, list[float]] = defaultdict(list)
        for game in played:
            if not math.isnan(game.outcome):
                by_prompt[game.prompt].append(game.outcome)
        side = [np.sign(np.mean(values) - 0.5) for values in by_prompt.values()]
        wins, losses = side.count(1), side.count(-1)
        p_values.append(binomial_test(wins, wins + losses) if wins + losses else 1.0)
    believed = [name for name, mark in zip(games, benjamini_hochberg(p_values), strict=True) if mark]
    words = ", ".join(believed) or "none"
    outcome.notes.append(f"Different from the baseline, all candidates together (Benjamini-Hochberg, q .05): {words}.")


def _against_people(
    name: str,
    games: Sequence[Game],
    judge: LanguageModel,
    config: WinrateConfig,
    keys: list[str],
    items: Items,
    display: Display,
    outcome: Outcome,
) -> None:
    """The judge on the pairs that people judged: its accuracy, and what it looks at."""
    said: dict[Pair, list[float]] = defaultdict(list)
    for game in games:
        said[game.pair].append(game.outcome)
    pairs = list(said)
    own, orders = judge_pairs(judge, pairs, config.question, items, display)
    keys += own
    truth_N = [0.5 + 0.5 * float(np.sign(np.mean(said[pair]) - 0.5)) for pair in pairs]
    report = judge_report(
        [ab for ab, _ in orders], [ba for _, ba in orders], truth_N,
        [len(pair.candidate) for pair in pairs], [len(pair.baseline) for pair in pairs],
        [prompt_hash(pair.prompt) for pair in pairs], **_how(config),
    )  # fmt: skip
    label = f"judge, {name}" if len(config.models) > 2 else "judge"
    outcome.add("accuracy against people", "share of decided pairs", report.accuracy, of=label)
    n = report.accuracy.n
    for value, words in (
        (report.longer_wins, "the longer wins"),
        (report.prefers_longer, "takes the longer"),
        (report.gold_prefers_longer, "people take the longer"),
        (report.calibration.ece, "calibration error"),
        (report.flips.flip_rate, "verdicts that follow the position"),
    ):
        outcome.add(words, "share", Result(value=value, n=n), of=label)
    low = report.accuracy.ci[0] if report.accuracy.ci else math.nan
    if config.replicates and not low > max(0.5, report.longer_wins):  # without an interval, NaN, nothing is sure
        outcome.notes.append(
            "The judge is not usable as a labeller: no surer than a coin, or than the longer response."
        )


def _how(config: WinrateConfig) -> dict[str, Any]:
    return {"replicates": config.replicates, "level": config.level, "seed": config.seed}
