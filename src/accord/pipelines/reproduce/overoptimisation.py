"""Over-optimisation of a proxy reward (Gao et al. 2022, arXiv:2210.10760; ensembles: arXiv:2310.02743).

Proxies are reward models of few rankings, so they err. PPO climbs one of them without a KL term, with one, and climbs
the most cautious reading of an ensemble; the gold reward says what became of what was wanted. Best-of-n by the proxy
shows the same without training.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from accord.evaluate.overoptimisation import fit_overoptimisation
from accord.evaluate.reward import best_of_n, best_of_n_kl
from accord.pipelines.reproduce.configs import OveroptimisationConfig
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
from accord.pipelines.reproduce.lab import Lab, Step, write_rows
from accord.pipelines.reproduce.sentiment import World

__all__ = ["conclude", "data", "steps"]

RUNS = {"free": "no KL term", "held": "KL term", "ensemble": "ensemble, no KL term"}


def steps(lab: Lab, config: OveroptimisationConfig) -> list[Step]:
    """Everything that is run, in order."""
    world = World(lab, config)
    found = world.steps()
    for seed in config.seeds:
        found += _of_seed(lab, config, world, seed)
    return found


def _of_seed(lab: Lab, config: OveroptimisationConfig, world: World, seed: int) -> list[Step]:
    proxy = {"proxy": str(lab.path(f"proxy-0-{seed}"))}

    def answers() -> float:
        return world.measure(f"best-of-{seed}", world.reference, seed, samples=config.best_of, proxies=proxy)

    found = [Step(f"rankings {seed}", "sample responses, rank them by gold", partial(world.rank, seed))]
    for member in range(config.members):
        work = partial(_train_proxy, lab, config, world, member, seed)
        found.append(Step(f"proxy {member}-{seed}", "a reward model of few rankings", work))
    found.append(Step(f"best of n {seed}", "the reference answers; proxy and gold score", answers))
    for kind, words in RUNS.items():
        work = partial(_climb, lab, config, world, kind, seed)
        found.append(Step(f"{kind}-{seed}", f"PPO against the proxy: {words}", work))
    return found


def _train_proxy(lab: Lab, config: OveroptimisationConfig, world: World, member: int, seed: int) -> float:
    lines = world.rankings(seed).read_text(encoding="utf8").splitlines()[: config.proxy_prompts]
    few = write_rows(lab.path(f"few-{seed}.jsonl"), [json.loads(line) for line in lines])
    return lab.train(
        "reward", f"proxy-{member}-{seed}", model=world.reference, data=(few,), seed=100 * seed + member,
        bootstrap=True, learning_rate=config.reward_rate, batch_size=config.batch_size,
    )  # fmt: skip


def _climb(lab: Lab, config: OveroptimisationConfig, world: World, kind: str, seed: int) -> float:
    folders = [str(lab.path(f"proxy-{member}-{seed}")) for member in range(config.members)]
    reward: dict[str, Any] = {"reward": (folders[0],)}
    if kind == "ensemble":
        reward = {"reward": (",".join(folders),), "ensemble": "min"}
    size = max(1, config.ppo_prompts // 4)
    optimiser_steps = -(-config.train_prompts // config.ppo_prompts) * 4 * config.ppo_epochs
    return lab.train(
        "ppo", f"{kind}-{seed}", model=world.reference, data=(lab.path("prompts.jsonl"),), seed=seed,
        kl_beta=config.kl_beta if kind == "held" else 0.0, learning_rate=config.ppo_rate, batch_size=size,
        minibatches=4, ppo_epochs=1, epochs=config.ppo_epochs, samples=config.samples,
        max_new_tokens=config.max_new_tokens, eval_every=max(1, optimiser_steps // config.looks),
        watch=watch(lab, config, world, folders[0], seed), **reward,
    )  # fmt: skip


def watch(
    lab: Lab, config: OveroptimisationConfig, world: World, proxy: str, seed: int
) -> Callable[[Any, Any, Any], dict[str, float]]:
    """Gold, proxy, KL and length of a live policy on the held-out prompts, one response each."""

    def look(model: Any, template: Any, precision: Any) -> dict[str, float]:
        from accord.models.load import load_policy
        from accord.models.score import prepare
        from accord.pipelines.held_out import Responder
        from accord.train.rewards import load_reward
        from accord.train.scoring import all_sequence_logprobs

        prompts = world.held_out()
        responder = Responder(prompts=prompts, samples=1, max_new_tokens=config.max_new_tokens, seed=2000 + seed)
        responses = responder(model, template, precision)
        reference, _ = load_policy(world.reference)
        prepare(reference)
        precision.freeze(reference)
        own, theirs = (
            all_sequence_logprobs(which, responses.trees, precision, config.micro_tokens)
            for which in (model, reference)
        )
        gold = world.gold_of(prompts, responses.texts_BK)
        score = load_reward(proxy, template, precision.name, config.micro_tokens)(responses)
        return {
            "eval__gold_reward": sum(gold) / len(gold),
            "eval__reward__mean": float(score.mean()),
            "eval__kl__reference": float((own - theirs).mean()),
        }

    return look


def conclude(lab: Lab, config: OveroptimisationConfig) -> Evidence:
    """Proxy and gold along each climb, the fitted peak, and the gap that is left."""
    world = World(lab, config)
    climbs = {kind: [_climbed(lab, f"{kind}-{seed}") for seed in config.seeds] for kind in RUNS}
    before = over_seeds([_start(lab, seed)[0] for seed in config.seeds])[0]
    rows = []
    ends: dict[str, list[float]] = {}
    drops: dict[str, list[float]] = {}
    for kind, several in climbs.items():
        ends[kind] = [climb[-1]["eval/gold_reward"] for climb in several]
        drops[kind] = [
            max(look["eval/gold_reward"] for look in climb) - climb[-1]["eval/gold_reward"] for climb in several
        ]
        gaps = [(climb[-1]["eval/reward/mean"] - climb[0]["eval/reward/mean"]) for climb in several]
        kls = [climb[-1]["eval/kl/reference"] for climb in several]
        rows.append(
            [RUNS[kind], with_interval(*over_seeds(ends[kind])), with_interval(*over_seeds(drops[kind])),
             with_interval(*over_seeds(gaps)), with_interval(*over_seeds(kls), 1), _peak(several, before)]
        )  # fmt: skip
    columns = ["PPO against the proxy", "gold at the end [t interval over seeds]", "gold lost since its best",
               "proxy gained since the first look", "KL at the end, nats", "fitted peak of gold, nats"]  # fmt: skip
    return Evidence(
        experiment="overoptimisation",
        title="Over-optimisation of a proxy reward",
        question="How far does the gold reward follow a proxy that PPO climbs, and what keeps the two together?",
        setting=world.words() + f" A proxy is a reward model of {config.proxy_prompts} rankings; the ensemble has "
        f"{config.members}, each on its own draw, read as their minimum. Gold reward of the reference: {before:.2f}.",
        findings=_findings(ends, drops),
        tables=[Table(title="At the end of the climb", columns=columns, rows=rows)],
        figures=[_figure(climbs, config), _best_of(lab, config)],
        caveats=[
            "The best of several looks is above the truth by chance: 'gold lost since its best' is biased upwards, "
            "by as much for every row."
        ],
    )


def _findings(ends: dict[str, list[float]], drops: dict[str, list[float]]) -> list[Finding]:
    lost = over_seeds(drops["free"])
    held = over_seeds([b - a for a, b in zip(ends["free"], ends["held"], strict=True)])
    cautious = over_seeds([b - a for a, b in zip(ends["free"], ends["ensemble"], strict=True)])
    return [
        Finding(
            claim="Gold reward rises, then falls, while the proxy goes on rising (Gao et al. 2022, figure 1).",
            seen=sign_of(*(None if end is None else end - 0.03 for end in lost[1:])),
            words=f"without a KL term gold ends {with_interval(*lost, 3)} under its best look (seen: more than .03)",
        ),
        Finding(
            claim="A KL term keeps gold from falling: it stops earlier on the same curve (Gao et al. 2022, 3.6).",
            seen=sign_of(*held[1:]),
            words=f"gold at the end with a KL term less that without: {with_interval(*held, 3)}",
        ),
        Finding(
            claim="Cautious ensembles are exploited less (Coste et al. 2023, figure 3).",
            seen=sign_of(*cautious[1:]),
            words=f"gold at the end with the ensemble less that without: {with_interval(*cautious, 3)}",
        ),
    ]


def _climbed(lab: Lab, name: str) -> list[dict[str, float]]:
    lines = (lab.path(name) / "metrics.jsonl").read_text(encoding="utf8").splitlines()
    return [row for row in map(json.loads, lines) if "eval/gold_reward" in row]


def _start(lab: Lab, seed: int) -> tuple[float, float]:
    """Gold and proxy of the reference."""
    one = lab.measured(f"best-of-{seed}")
    return float(one.gold_PS.mean()), float(one.proxy_PS["proxy"].mean())


def _peak(several: list[list[dict[str, float]]], before: float) -> str:
    looks = [look for climb in several for look in climb if look["eval/kl/reference"] > 0]
    if len(looks) < 3:
        return "-"
    fit = fit_overoptimisation(
        [look["eval/kl/reference"] for look in looks], [look["eval/gold_reward"] - before for look in looks], "rl"
    )
    return "none" if not np.isfinite(fit.peak_kl) else f"{fit.peak_kl:.3g} (R2 {fit.r_squared:.2f})"


def _figure(climbs: dict[str, list[list[dict[str, float]]]], config: OveroptimisationConfig) -> Figure:
    series = []
    for kind, several in climbs.items():
        for seed, climb in zip(config.seeds, several, strict=True):
            points = [
                Point(
                    x=max(look["eval/kl/reference"], 0.0) ** 0.5,
                    y=look["eval/gold_reward"],
                    label=f"step {look['step']}",
                )
                for look in climb
            ]
            series.append(Series(name=RUNS[kind] + (f", seed {seed}" if len(several) > 1 else ""), points=points))
    return Figure(
        name="climb",
        title="Gold reward while PPO climbs the proxy",
        x="square root of KL to the reference, nats^0.5",
        y="gold reward, P(positive)",
        series=series,
    )


def _best_of(lab: Lab, config: OveroptimisationConfig) -> Figure:
    one = lab.measured(f"best-of-{config.seeds[0]}")
    proxy = one.proxy_PS["proxy"]
    spread = proxy.std() or 1.0
    counts = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= config.best_of]
    gold = [
        Point(x=best_of_n_kl(n) ** 0.5, y=float(best_of_n(proxy, one.gold_PS, n).mean()), label=f"n = {n}")
        for n in counts
    ]
    own = [
        Point(
            x=best_of_n_kl(n) ** 0.5,
            y=float((best_of_n(proxy, proxy, n).mean() - proxy.mean()) / spread),
            label=f"n = {n}",
        )
        for n in counts
    ]
    return Figure(
        name="best-of-n", title="Best of n by the proxy, without training", x="square root of KL at most, nats^0.5",
        y="gold reward; proxy in deviations",
        series=[Series(name="gold", points=gold), Series(name="proxy", points=own)],
    )  # fmt: skip


def data(lab: Lab, config: OveroptimisationConfig) -> list[dict[str, Any]]:
    """Facts of the data files."""
    return World(lab, config).data()
