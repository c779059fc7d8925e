"""Games between a candidate's and a baseline's responses: judged by people, by a reward, or by a language model."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from accord.evaluate.winrate import combine_orders, outcomes
from accord.pipelines.answers import Answers, ask, is_file, read_answers
from accord.pipelines.evaluation import EvalConfig, Items, Outcome, data_facts
from accord.pipelines.judged import Judged, prompt_hash, read_judged
from accord.pipelines.pair_judges import QUESTION, Pair, judge_pairs
from accord.pipelines.scorers import open_scorer, score_sets
from accord.pipelines.settings import SettingsError
from accord.protocols import LanguageModel, Sampling
from accord.records import Conversation
from accord.train.configs import Names, Paths
from accord.train.files import write_text
from accord.train.progress import Display

__all__ = ["Game", "WinrateConfig", "export_answers", "human_games", "judged_games", "open_model", "read_all_answers"]


class WinrateConfig(EvalConfig):
    """How often responses are preferred to a baseline's."""

    models: Names = Field(
        description="candidates, and the baseline as the last: runs, models, servers (URL#model), files of responses; "
        "with judgments, the names in them",
    )
    judgments: Paths = Field((), description="rankings or comparisons by people, exported with the names of the models")
    judge: str | None = Field(None, description="language model that compares, in both orders: run, model or URL#model")
    reward: str | None = Field(None, description="reward that compares: reward-model folder(s) or module:function")
    question: str = Field(QUESTION, min_length=1, description="what the judge is asked about the two replies")
    rule: Literal["mean", "consistent"] = Field("mean", description="how both orders of the judge make one outcome")
    data: Paths = Field((), description="prompts that models are asked: JSONL (.gz too) or Parquet")
    max_prompts: int | None = Field(None, ge=2, description="the first so many prompts only; none: all")
    max_new_tokens: int = Field(128, ge=1, description="tokens of a response at most")
    temperature: float = Field(0.0, ge=0, description="of the responses; 0 takes the most probable token")
    api_key_env: str | None = Field(None, description="environment variable with the key of a server; never the key")
    export: Literal["alpaca_eval"] | None = Field(None, description="also write the responses as that tool reads them")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="arithmetic of models in this process")
    micro_tokens: int = Field(4096, ge=16, description="token budget of one forward pass; memory, never the result")
    max_length: int = Field(1024, ge=8, description="of a reward model: tokens of a prompt with its response")

    @model_validator(mode="after")
    def _somebody_judges(self) -> WinrateConfig:
        twice = [name for name in self.models if self.models.count(name) > 1]
        if twice:
            raise ValueError(f"models: {twice[0]} is named twice; a model cannot be compared with itself")
        if len(self.models) < 2:
            raise ValueError("models: give one candidate or more and, as the last, the baseline")
        if self.judge is None and self.reward is None and not self.judgments:
            raise ValueError("nobody judges: give judgments (people), reward, or judge (a language model)")
        if self.reward is not None and (self.judge is not None or self.judgments):
            raise ValueError("reward beside judge or judgments: one evaluation has one judge; give it another name")
        return self


@dataclass(frozen=True, kw_only=True)
class Game:
    """A candidate's response against the baseline's: what was said of it.

    Attributes:
        pair: the texts.
        outcome: 1 the candidate's was preferred, 0 the baseline's, 1/2 neither; NaN unscored.
        annotator: who said so; "" for a model.
        first: whether the candidate's stood first; None: in both places, or unknown.
        orders: a judge's P(the first shown wins) with the candidate first, and with the baseline first.
    """

    pair: Pair
    outcome: float
    annotator: str = ""
    first: bool | None = None
    orders: tuple[float, float] | None = None

    @property
    def prompt(self) -> str:
        """The prompt as a cluster."""
        return prompt_hash(self.pair.prompt)


def human_games(config: WinrateConfig, outcome: Outcome) -> dict[str, list[Game]]:
    """A game per verdict of an annotator on a pair of responses by a candidate and the baseline."""
    data = read_judged(config.judgments, skip_bad_rows=config.skip_bad_rows)
    outcome.data = data.facts
    if data.bad_rows:
        outcome.notes.append(f"{data.bad_rows} bad rows left out.")
    baseline = config.models[-1]
    games: dict[str, list[Game]] = {name: [] for name in config.models[:-1]}
    for one in data.sets:
        places = {model: at for at, model in enumerate(one.models or ()) if model}
        for name, played in games.items():
            if name in places and baseline in places:
                played.append(_verdict(one, places[name], places[baseline]))
    known = sorted({model for one in data.sets for model in one.models or () if model})
    for name, played in games.items():
        if not played:
            found = ", ".join(known) if known else "no names of models (`meta.models`)"
            raise SettingsError(f"no judgment compares {name} with {baseline}; the files hold {found}")
    return games


def _verdict(one: Judged, own: int, other: int) -> Game:
    """Equal ranks tie, and so do two failed responses: neither was preferred."""
    value = 0.5
    for ranked in one.pairs(ties=True):
        if {ranked.winner, ranked.loser} == {own, other}:
            value = ranked.probability if ranked.winner == own else 1 - ranked.probability
    first = None if one.first is None or sum(one.first) != 1 else one.first[own] == 1
    pair = Pair(one.prompt, one.responses[own], one.responses[other])
    return Game(pair=pair, outcome=value, annotator=" + ".join(one.annotators), first=first)


def read_all_answers(
    config: WinrateConfig, keys: list[str], items: Items, display: Display, outcome: Outcome
) -> dict[str, Answers]:
    """One response of every model to every prompt."""
    found: dict[str, Answers] = {}
    prompts: list[Conversation] | None = None
    if config.data:
        from accord.data.readers import read

        result = read(list(config.data), "prompts", skip_bad_rows=config.skip_bad_rows)
        prompts = list(dict.fromkeys(result.records))[: config.max_prompts]
        outcome.data += [data_facts(one.file, one.rows, one.sha256) for one in result.files]
    sampling = Sampling(temperature=config.temperature, max_new_tokens=config.max_new_tokens, seed=config.seed)
    for name in dict.fromkeys(config.models):
        if is_file(name):
            found[name] = read_answers(Path(name))
        elif prompts is None:
            raise SettingsError(f"{name} is asked for responses, and there are no prompts; give --data")
        else:
            asked, found[name] = ask(open_model(name, config), name, prompts, sampling, items, display)
            keys += asked
        outcome.models += found[name].models
        outcome.data += found[name].data
    return found


def open_model(name: str, config: WinrateConfig) -> LanguageModel:
    """A model by name, with what the settings say of it."""
    from accord.pipelines.language_models import open_language_model

    return open_language_model(
        name, precision=config.precision, micro_tokens=config.micro_tokens, api_key_env=config.api_key_env
    )


def judged_games(
    candidate: Answers,
    baseline: Answers,
    judge: LanguageModel | None,
    config: WinrateConfig,
    keys: list[str],
    items: Items,
    display: Display,
    outcome: Outcome,
) -> list[Game]:
    """A game per prompt that both answered, judged by the judge or, where there is none, by the reward."""
    shared = [at for at in candidate.prompts if at in baseline.prompts][: config.max_prompts]
    if not shared:
        raise SettingsError(f"{candidate.name} and {baseline.name} answer no common prompt")
    both = [at for at in shared if at in candidate.texts and at in baseline.texts]
    pairs = [Pair(candidate.prompts[at], candidate.texts[at], baseline.texts[at]) for at in both]
    missing = [
        Game(
            pair=Pair(candidate.prompts[at], candidate.texts.get(at, ""), baseline.texts.get(at, "")), outcome=math.nan
        )
        for at in shared
        if at not in both
    ]
    if judge is not None:
        own, orders = judge_pairs(judge, pairs, config.question, items, display)
        keys += own
        first_AB, first_BA = ([order[side] for order in orders] for side in (0, 1))
        values = combine_orders(first_AB, first_BA, config.rule)
        games = [
            Game(pair=pair, outcome=float(value), orders=order)
            for pair, value, order in zip(pairs, values, orders, strict=True)
        ]
        return games + missing
    assert config.reward is not None
    scorer = open_scorer(config.reward, "reward", config.precision, config.micro_tokens, config.max_length)
    outcome.models += [fact for fact in scorer.facts if fact not in outcome.models]
    sets = [Judged(prompt=pair.prompt, responses=pair[1:], ranks=(1, 1)) for pair in pairs]
    own, rows = score_sets(scorer, sets, items, display, "rewards")
    keys += own
    score_2N = np.array([[math.nan if s is None else s for s in row["scores"]] for row in rows]).T.reshape(2, -1)
    values = outcomes(score_2N[0], score_2N[1])
    return [Game(pair=pair, outcome=float(value)) for pair, value in zip(pairs, values, strict=True)] + missing


def export_answers(config: WinrateConfig, answers: dict[str, Answers], folder: Path) -> None:
    """The responses as AlpacaEval reads them: alpaca_eval/NAME.json, a list for each model."""
    (folder / "alpaca_eval").mkdir(exist_ok=True)
    for name, said in answers.items():
        rows = [
            {"instruction": said.prompts[at][-1].content, "output": text, "generator": said.name, "dataset": "accord"}
            for at, text in said.texts.items()
        ]
        label = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in Path(name).name)
        write_text(folder / "alpaca_eval" / f"{label}.json", json.dumps(rows, indent=1, ensure_ascii=False))
