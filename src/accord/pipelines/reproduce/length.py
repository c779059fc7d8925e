"""Length exploitation of DPO, and its cure by a penalty on length (Park et al. 2024, arXiv:2403.19159).

The annotator of this experiment likes length: to the gold reward's log-odds it adds `bias` nats for every ten tokens.
What is wanted is the gold reward alone. DPO on such preferences gets longer; with a penalty of alpha nats of margin per
token it should not, and keep what it has learned of the gold reward.
"""

from __future__ import annotations

import json
import math
from functools import partial
from typing import Any

import numpy as np

from accord.evaluate.hacking import length_report
from accord.evaluate.intervals import mean_result
from accord.evaluate.winrate import outcomes
from accord.pipelines.reproduce.configs import LengthConfig
from accord.pipelines.reproduce.evidence import (
    Evidence,
    Figure,
    Finding,
    Point,
    Series,
    Table,
    best_elsewhere,
    difference,
    over_seeds,
    with_interval,
)
from accord.pipelines.reproduce.lab import Lab, Measured, Step
from accord.pipelines.reproduce.sentiment import World

__all__ = ["biased", "conclude", "steps"]

MARGIN = 0.02  # of win rate: more than this is a loss
EDGE = 1e-4  # gold rewards are kept this far from 0 and 1, where log-odds have no end


def steps(lab: Lab, config: LengthConfig) -> list[Step]:
    """Everything that is run, in order."""
    world = World(lab, config)
    found = [*world.steps(), world.answers()]
    for seed in config.seeds:
        found.append(
            Step(
                f"rankings {seed}",
                "sample; an annotator who likes length ranks",
                partial(_rank, lab, config, world, seed),
            )
        )
        for alpha in config.alphas:
            work = partial(_train, lab, config, world, alpha, seed)
            found.append(Step(_name(alpha, seed), f"DPO with alpha {alpha:g}, and its held-out answers", work))
    return found


def biased(gold: float, tokens: int, bias: float) -> float:
    """Score of the annotator who likes length: log-odds of the gold reward, and `bias` nats for every ten tokens."""
    kept = min(max(gold, EDGE), 1 - EDGE)
    return math.log(kept / (1 - kept)) + bias * tokens / 10


def _rank(lab: Lab, config: LengthConfig, world: World, seed: int) -> None:
    from accord.models.load import load_tokenizer
    from accord.text import Template

    template = Template(load_tokenizer(world.reference))

    def shape(conversations: Any, values: list[float]) -> list[float]:
        return [
            biased(value, len(template.text(c[-1].content)), config.bias)
            for c, value in zip(conversations, values, strict=True)
        ]

    lab.train(
        "sample", f"sampled-{seed}", model=world.reference, data=(lab.path("prompts.jsonl"),), seed=seed,
        samples=config.samples, max_new_tokens=config.max_new_tokens, reward_object=world.gold_reward(shape),
    )  # fmt: skip


def _train(lab: Lab, config: LengthConfig, world: World, alpha: float, seed: int) -> float:
    name = _name(alpha, seed)
    loss: dict[str, Any] = {"loss": "dpo-length", "alpha": alpha} if alpha else {"loss": "dpo"}
    seconds = lab.train(
        "dpo", name, model=world.reference, data=(world.rankings(seed),), seed=seed, beta=config.beta,
        learning_rate=config.dpo_rate, batch_size=config.batch_size, **loss,
    )  # fmt: skip
    return seconds + world.measure(name, str(lab.path(name)), seed)


def _name(alpha: float, seed: int) -> str:
    return f"alpha-{alpha:g}-{seed}"


def conclude(lab: Lab, config: LengthConfig) -> Evidence:
    """Mean length and win rate by alpha, against the reference, as gold sees it and as the annotator sees it."""
    world = World(lab, config)
    reference = lab.measured("reference")
    rows, gold_points, biased_points = [], [], []
    lengths, wins = {}, {}  # by alpha: (S, P)
    for alpha in config.alphas:
        several = [lab.measured(_name(alpha, seed)) for seed in config.seeds]
        lengths[alpha] = np.array([one.length_PS.mean(axis=1) for one in several])
        wins[alpha] = np.array([_wins(one, reference) for one in several])
        liked = np.array([_wins(one, reference, config.bias) for one in several])
        length, win, like = (over_seeds(values.mean(axis=1)) for values in (lengths[alpha], wins[alpha], liked))
        kl = over_seeds([float(one.kl_PS.mean()) for one in several])[0]
        rows.append([f"{alpha:g}", with_interval(*length, 1), with_interval(*win), with_interval(*like), f"{kl:.2f}"])
        gold_points.append(Point(x=length[0], y=win[0], low=win[1], high=win[2], label=f"alpha {alpha:g}"))
        biased_points.append(Point(x=length[0], y=like[0], label=f"alpha {alpha:g}"))
    columns = ["alpha", "tokens [t interval over seeds]", "win rate by gold", "win rate by the annotator", "KL, nats"]
    rows.insert(0, ["reference", f"{reference.length_PS.mean():.1f}", "0.50", "0.50", "0.00"])
    return Evidence(
        experiment="length",
        title="Length exploitation of DPO, and its cure",
        question="Does DPO get longer where its annotators like length, and does a penalty on length undo that?",
        setting=world.words() + f" The annotator adds {config.bias:g} nats of preference for every ten tokens; "
        f"beta {config.beta:g}. {_taste(lab, config)}",
        findings=_findings(config, lengths, wins, reference.length_PS.mean(axis=1)),
        tables=[Table(title="By strength of the penalty; win rates against the reference", columns=columns, rows=rows)],
        figures=[
            Figure(
                name="length",
                title="Win rate against mean length",
                x="tokens of a response",
                y="win rate against the reference",
                series=[
                    Series(name="by gold", points=gold_points),
                    Series(name="by the annotator", points=biased_points),
                ],
            )
        ],
        caveats=["The annotator's taste is made, not measured; what real annotators like is another question."],
        provenance={"data": world.data()},
    )


def _findings(config: LengthConfig, lengths: Any, wins: Any, before_P: Any) -> list[Finding]:
    first, last = config.alphas[0], config.alphas[-1]
    grown, shrunk = difference(lengths[first] - before_P), difference(lengths[first] - lengths[last])
    learned = difference(wins[first] - 0.5)
    others = config.alphas[1:] or config.alphas
    places = best_elsewhere([wins[alpha].mean(axis=1) for alpha in others])
    chosen = np.array([wins[others[place]][seed] for seed, place in enumerate(places)])
    kept = difference(chosen - wins[first])
    names = ", ".join(f"{others[place]:g}" for place in places)
    return [
        Finding(
            claim="DPO exploits length: responses get longer than those it started from (Park et al. 2024, figure 2).",
            seen=grown.above(),
            words=f"alpha {first:g}: {grown.words(1)} tokens more than the reference",
        ),
        Finding(
            claim="A penalty on length undoes it (Park et al. 2024, figure 3).",
            seen=shrunk.above() if grown.above() == "yes" else "unclear",  # nothing to undo
            words=f"alpha {last:g} has {shrunk.words(1)} tokens fewer than alpha {first:g}",
        ),
        Finding(
            claim="The penalty costs no quality, or improves it (Park et al. 2024, figure 3).",
            seen=kept.above(-MARGIN) if learned.above() == "yes" else "unclear",
            words=f"win rate by gold of the best alpha less that of alpha {first:g}: {kept.words()} (seen: no more "
            f"than {MARGIN:g} lost, where alpha {first:g} itself beats the reference; its win rate is above 1/2 by "
            f"{learned.words()}); the best alpha of a seed is chosen by the other seeds: {names}",
        ),
    ]


def _wins(one: Measured, reference: Measured, bias: float = 0.0) -> Any:
    """(P,) win rate against the reference, response by response of the same prompt."""

    def scores(of: Measured) -> list[float]:
        pairs = zip(of.gold_PS.ravel().tolist(), of.length_PS.ravel().tolist(), strict=True)
        return [biased(gold, int(tokens), bias) for gold, tokens in pairs]

    return outcomes(scores(one), scores(reference)).reshape(one.gold_PS.shape).mean(axis=1)


def _taste(lab: Lab, config: LengthConfig) -> str:
    """How much of the annotator's taste is length, on the responses that were ranked."""
    folder = lab.path(f"sampled-{config.seeds[0]}")
    rewards: list[float] = []
    lengths: list[int] = []
    prompts: list[int] = []
    for number, line in enumerate((folder / "rankings.jsonl").read_text(encoding="utf8").splitlines()):
        row = json.loads(line)
        rewards += row["scores"]
        lengths += [len(text.split()) for text in row["responses"]]
        prompts += [number] * len(row["responses"])
    found = length_report(rewards, lengths, prompts)
    mean = mean_result([float(n) for n in lengths], replicates=0).value
    return f"Within a prompt its scores correlate {found.within_prompt:.2f} with length (mean {mean:.1f} words)."
