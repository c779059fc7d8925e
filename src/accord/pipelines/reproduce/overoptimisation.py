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
    Seen,
    Series,
    Table,
    best_elsewhere,
    difference,
    over_seeds,
    with_interval,
)
from accord.pipelines.reproduce.lab import Lab, Measured, Step, write_rows
from accord.pipelines.reproduce.sentiment import World

__all__ = ["conclude", "steps"]

MARGIN = 0.03  # of gold reward: a fall is more than this
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
    name, size = f"{kind}-{seed}", max(1, config.ppo_prompts // 4)
    optimiser_steps = -(-config.train_prompts // config.ppo_prompts) * 4 * config.ppo_epochs
    seconds = lab.train(
        "ppo", name, model=world.reference, data=(lab.path("prompts.jsonl"),), seed=seed,
        kl_beta=config.kl_beta if kind == "held" else 0.0, learning_rate=config.ppo_rate, batch_size=size,
        minibatches=4, ppo_epochs=1, epochs=config.ppo_epochs, samples=config.samples,
        max_new_tokens=config.max_new_tokens, eval_every=max(1, optimiser_steps // config.looks),
        watch=watch(lab, config, world, folders[0], seed), **reward,
    )  # fmt: skip
    return seconds + world.measure(name, str(lab.path(name)), seed, proxies={"proxy": folders[0]})


def watch(
    lab: Lab, config: OveroptimisationConfig, world: World, proxy: str, seed: int
) -> Callable[[Any, Any, Any], dict[str, float]]:
    """Gold, proxy and KL of a live policy on the held-out prompts, the same random numbers at every look."""

    def look(model: Any, template: Any, precision: Any) -> dict[str, float]:
        from accord.models.load import load_policy
        from accord.models.score import prepare
        from accord.pipelines.held_out import Responder
        from accord.train.rewards import load_reward
        from accord.train.scoring import all_sequence_logprobs

        prompts = world.held_out()
        responder = Responder(
            prompts=prompts, samples=config.look_samples, max_new_tokens=config.max_new_tokens, seed=2000 + seed
        )
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
    ends = {kind: [lab.measured(f"{kind}-{seed}") for seed in config.seeds] for kind in RUNS}
    starts = [_start(lab, seed) for seed in config.seeds]
    before = over_seeds([gold for gold, _ in starts])[0]
    rows = []
    for kind, several in climbs.items():
        gold = over_seeds([float(one.gold_PS.mean()) for one in ends[kind]])
        gained = over_seeds([
            float(one.proxy_PS["proxy"].mean()) - proxy for one, (_, proxy) in zip(ends[kind], starts, strict=True)
        ])  # fmt: skip
        kl = over_seeds([float(one.kl_PS.mean()) for one in ends[kind]])
        rows.append([RUNS[kind], with_interval(*gold), Fall(several, starts).lost.words(2), with_interval(*gained),
                     with_interval(*kl, 1), _peak(several, starts)])  # fmt: skip
    columns = ["PPO against the proxy", "gold at the end [t interval over seeds]", "gold lost since its best look",
               "proxy gained", "KL at the end, nats", "fitted peak of gold, nats"]  # fmt: skip
    return Evidence(
        experiment="overoptimisation",
        title="Over-optimisation of a proxy reward",
        question="How far does the gold reward follow a proxy that PPO climbs, and what keeps the two together?",
        setting=world.words() + f" A proxy is a reward model of {config.proxy_prompts} rankings; the ensemble has "
        f"{config.members}, each on its own draw, read as their minimum. Gold reward of the reference: {before:.2f}.",
        findings=_findings(Fall(climbs["free"], starts), ends),
        tables=[Table(title="At the end of the climb", columns=columns, rows=rows)],
        figures=[
            _figure(climbs, config, "climb", "Gold reward while PPO climbs the proxy", "gold reward, P(positive)"),
            _figure(climbs, config, "proxy", "The proxy meanwhile", "reward of the proxy"),
            _best_of(lab, config),
        ],
        caveats=[
            "The best look of a seed is chosen by the other seeds: the best of several noisy looks is above the truth "
            "by chance.",
            f"A look is {config.held_out_prompts * config.look_samples} responses; figures at the end are of "
            f"{config.held_out_prompts * config.held_out_samples} others.",
        ],
        provenance={"data": world.data()},
    )


class Fall:
    """What became of gold and proxy between the best look of a climb and its last.

    Attributes:
        rise: gold at the best look less that of the reference.
        lost: gold at the best look less that at the last.
        proxy: the proxy at the last look less that at the best.
    """

    def __init__(self, climbs: list[list[dict[str, float]]], starts: list[tuple[float, float]]) -> None:
        gold_SL, proxy_SL = (
            np.array([[look[f"eval/{name}"] for look in climb] for climb in climbs])
            for name in ("gold_reward", "reward/mean")
        )
        seeds, best_S = np.arange(len(climbs)), best_elsewhere(gold_SL.T)
        self.rise = difference(gold_SL[seeds, best_S] - [gold for gold, _ in starts])
        self.lost = difference(gold_SL[seeds, best_S] - gold_SL[:, -1])
        self.proxy = difference(proxy_SL[:, -1] - proxy_SL[seeds, best_S])

    @property
    def seen(self) -> Seen:
        """Whether gold rose, and fell by more than a margin while the proxy rose."""
        parts = {self.rise.above(), self.lost.above(MARGIN), self.proxy.above()}
        return "no" if "no" in parts else "yes" if parts == {"yes"} else "unclear"

    def words(self) -> str:
        """The three figures."""
        return (
            f"without a KL term gold rises by {self.rise.words()} to its best look and then loses {self.lost.words()} "
            f"(seen: more than {MARGIN:g}), while the proxy gains {self.proxy.words(2)}"
        )


def _findings(free: Fall, ends: dict[str, list[Measured]]) -> list[Finding]:
    held, cautious = (
        difference([b.gold_P - a.gold_P for a, b in zip(ends["free"], ends[kind], strict=True)])
        for kind in ("held", "ensemble")
    )

    def spared(seen: Seen) -> Seen:
        """Where gold did not fall there was nothing to be kept from: a lower end shows a shorter climb, no more."""
        return seen if seen == "yes" or free.seen == "yes" else "unclear"

    return [
        Finding(
            claim="Gold reward rises, then falls, while the proxy goes on rising (Gao et al. 2022, figure 1).",
            seen=free.seen,
            words=free.words(),
        ),
        Finding(
            claim="A KL term keeps gold from falling: it stops earlier on the same curve (Gao et al. 2022, 3.6).",
            seen=spared(held.above()),
            words=f"gold at the end with a KL term less that without: {held.words()}",
        ),
        Finding(
            claim="Cautious ensembles are exploited less (Coste et al. 2023, figure 3).",
            seen=spared(cautious.above()),
            words=f"gold at the end with the ensemble less that without: {cautious.words()}",
        ),
    ]


def _climbed(lab: Lab, name: str) -> list[dict[str, float]]:
    lines = (lab.path(name) / "metrics.jsonl").read_text(encoding="utf8").splitlines()
    return [row for row in map(json.loads, lines) if "eval/gold_reward" in row]


def _start(lab: Lab, seed: int) -> tuple[float, float]:
    """Gold and proxy of the reference."""
    one = lab.measured(f"best-of-{seed}")
    return float(one.gold_PS.mean()), float(one.proxy_PS["proxy"].mean())


def _peak(several: list[list[dict[str, float]]], starts: list[tuple[float, float]]) -> str:
    looks = [
        (look["eval/kl/reference"], look["eval/gold_reward"] - gold)
        for climb, (gold, _) in zip(several, starts, strict=True)
        for look in climb
        if look["eval/kl/reference"] > 0
    ]
    if len(looks) < 3:
        return "-"
    kl_M, gain_M = np.array(looks).T
    fit = fit_overoptimisation(kl_M, gain_M, "rl")
    return "none" if not np.isfinite(fit.peak_kl) else f"{fit.peak_kl:.3g} (R2 {fit.r_squared:.2f})"


def _figure(
    climbs: dict[str, list[list[dict[str, float]]]], config: OveroptimisationConfig, name: str, title: str, y: str
) -> Figure:
    key = {"climb": "eval/gold_reward", "proxy": "eval/reward/mean"}[name]
    series = []
    for kind, several in climbs.items():
        for seed, climb in zip(config.seeds, several, strict=True):
            points = [
                Point(x=max(look["eval/kl/reference"], 0.0) ** 0.5, y=look[key], label=f"step {look['step']}")
                for look in climb
            ]
            series.append(Series(name=RUNS[kind] + (f", seed {seed}" if len(several) > 1 else ""), points=points))
    return Figure(name=name, title=title, x="square root of KL to the reference, nats^0.5", y=y, series=series)


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
