"""Length exploitation of DPO, and its cure by a penalty on length (Park et al. 2024, arXiv:2403.19159).

The annotator of this experiment likes length: to the gold reward's log-odds it adds `bias` nats for every ten tokens.
What is wanted is the gold reward alone. DPO on such preferences gets longer; with a penalty of alpha nats of margin per
token it should not, and keep what it has learned of the gold reward.
"""

from __future__ import annotations

import json
import math
from functools import partial
from typing import Any, Literal

from accord.evaluate.hacking import length_report
from accord.evaluate.intervals import mean_result
from accord.evaluate.winrate import outcomes, win_rate
from accord.pipelines.reproduce.configs import LengthConfig
from accord.pipelines.reproduce.evidence import (
    Evidence,
    Figure,
    Finding,
    Point,
    Series,
    Table,
    over_seeds,
    sign_of,
    with_interval,
)
from accord.pipelines.reproduce.lab import Lab, Step
from accord.pipelines.reproduce.sentiment import World

__all__ = ["biased", "conclude", "data", "steps"]

EDGE = 1e-4  # gold rewards are kept this far from 0 and 1, where log-odds have no end


def steps(lab: Lab, config: LengthConfig) -> list[Step]:
    """Everything that is run, in order."""
    world = World(lab, config)
    found = world.steps()
    found.append(
        Step("measured reference", "the reference answers", partial(world.measure, "reference", world.reference, 0))
    )
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
    lengths: dict[float, list[float]] = {}
    wins: dict[float, list[float]] = {}
    for alpha in config.alphas:
        several = [lab.measured(_name(alpha, seed)) for seed in config.seeds]
        lengths[alpha] = [float(one.length_PS.mean()) for one in several]
        wins[alpha] = [_wins(one, reference) for one in several]
        liked = [_wins(one, reference, config.bias) for one in several]
        length, win, like = over_seeds(lengths[alpha]), over_seeds(wins[alpha]), over_seeds(liked)
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
        findings=_findings(config, lengths, wins, float(reference.length_PS.mean())),
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
    )


def _findings(config: LengthConfig, lengths: Any, wins: Any, before: float) -> list[Finding]:
    first, last = config.alphas[0], config.alphas[-1]
    grown = over_seeds([value - before for value in lengths[first]])
    shrunk = over_seeds([a - b for a, b in zip(lengths[first], lengths[last], strict=True)])
    best = max(config.alphas[1:], key=lambda alpha: over_seeds(wins[alpha])[0], default=first)
    kept = over_seeds([b - a for a, b in zip(wins[first], wins[best], strict=True)])
    return [
        Finding(
            claim="DPO exploits length: responses get longer than those it started from (Park et al. 2024, figure 2).",
            seen=sign_of(*grown[1:]),
            words=f"alpha {first:g}: {with_interval(*grown, 1)} tokens more than the reference",
        ),
        Finding(
            claim="A penalty on length undoes it (Park et al. 2024, figure 3).",
            seen=sign_of(*shrunk[1:]),
            words=f"alpha {last:g} has {with_interval(*shrunk, 1)} tokens fewer than alpha {first:g}",
        ),
        Finding(
            claim="The penalty costs no quality, or improves it (Park et al. 2024, figure 3).",
            seen=_kept(kept[1], kept[2]),
            words=f"win rate by gold of alpha {best:g} less that of alpha {first:g}: {with_interval(*kept, 3)}; the "
            "best of several strengths was taken, which flatters it",
        ),
    ]


def _kept(low: float | None, high: float | None) -> Literal["yes", "no", "unclear"]:
    """Whether an interval rules out that more than two points of win rate were lost."""
    if low is None or high is None:
        return "unclear"
    return "no" if high < 0 else "yes" if low > -0.02 else "unclear"


def _wins(one: Any, reference: Any, bias: float = 0.0) -> float:
    """Win rate against the reference, both on the same prompts, response by response."""

    def scores(of: Any) -> list[float]:
        pairs = zip(of.gold_PS.ravel().tolist(), of.length_PS.ravel().tolist(), strict=True)
        return [biased(gold, int(tokens), bias) for gold, tokens in pairs]

    prompts, samples = one.gold_PS.shape
    clusters = [n // samples for n in range(prompts * samples)]
    return win_rate(outcomes(scores(one), scores(reference)), clusters, replicates=0).value


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


def data(lab: Lab, config: LengthConfig) -> list[dict[str, Any]]:
    """Facts of the data files."""
    return World(lab, config).data()
