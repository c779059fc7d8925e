"""Reward against KL on controlled sentiment: DPO and PPO, SFT on the best, best-of-n (arXiv:2305.18290, figure 2)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from accord.evaluate.frontier import frontier
from accord.evaluate.intervals import bootstrap, mean_result
from accord.evaluate.reward import best_of_n, best_of_n_kl
from accord.pipelines.reproduce.configs import FrontierConfig
from accord.pipelines.reproduce.evidence import Difference, Evidence, Figure, Finding, Point, Series, Table, difference
from accord.pipelines.reproduce.lab import Lab, Measured, Step
from accord.pipelines.reproduce.sentiment import World, cells

__all__ = ["conclude", "steps"]

CLAIMS = {
    "ppo": "DPO has a better reward-KL frontier than PPO against a reward model (Rafailov et al. 2023, figure 2).",
    "ppo-gold": "DPO has a better frontier even than PPO that sees the gold reward (Rafailov et al. 2023, figure 2).",
}
REPLICATES = 300  # draws of prompts behind the interval of an area: each makes all hulls again
METHODS = {"dpo": "DPO", "ppo": "PPO, reward model", "ppo-gold": "PPO, gold reward"}


def steps(lab: Lab, config: FrontierConfig) -> list[Step]:
    """Everything that is run, in order."""
    world = World(lab, config)
    found = [*world.steps(), world.answers(samples=config.best_of)]
    for seed in config.seeds:
        found += _of_seed(lab, config, world, seed)
    return found


def _of_seed(lab: Lab, config: FrontierConfig, world: World, seed: int) -> list[Step]:
    found = [
        Step(f"rankings {seed}", "sample responses, rank them by gold", partial(world.rank, seed)),
        Step(f"reward {seed}", "reward model on the rankings", partial(train_reward, lab, config, world, seed)),
        Step(f"best {seed}", "SFT on the best responses", partial(_sft_on_best, lab, config, world, seed)),
    ]
    for name, job, beta in runs(config):
        full = f"{name}-{seed}"

        def work(job: str = job, beta: float = beta, full: str = full) -> float:
            seconds = train_policy(lab, config, world, full, job, beta, seed)
            return seconds + world.measure(full, str(lab.path(full)), seed)

        found.append(Step(full, f"{METHODS[job]} at {beta:g}, and its held-out answers", work))
    return found


def runs(config: FrontierConfig) -> list[tuple[str, str, float]]:
    """(name, method, beta) of every run of a seed."""
    methods = [("dpo", config.dpo_betas), ("ppo", config.ppo_betas)]
    if config.ppo_gold:
        methods.append(("ppo-gold", config.ppo_betas))
    return [(f"{job}-{beta:g}", job, beta) for job, betas in methods for beta in betas]


def train_reward(lab: Lab, config: Any, world: World, seed: int) -> float:
    """A reward model on the gold rankings."""
    return lab.train(
        "reward", f"reward-{seed}", model=world.reference, data=(world.rankings(seed),), seed=seed,
        learning_rate=config.reward_rate, batch_size=config.batch_size,
    )  # fmt: skip


def train_policy(
    lab: Lab, config: Any, world: World, name: str, job: str, beta: float, seed: int, **more: Any
) -> float:
    """DPO, or PPO against the reward model or the gold reward."""
    if job == "dpo":
        return lab.train(
            "dpo", name, model=world.reference, data=(world.rankings(seed),), seed=seed, beta=beta,
            learning_rate=config.dpo_rate, batch_size=config.batch_size, **more,
        )  # fmt: skip
    reward: dict[str, Any] = {"reward": (str(lab.path(f"reward-{seed}")),)}
    if job == "ppo-gold":
        reward = {"reward": ("gold",), "reward_object": world.gold_reward()}
    return lab.train(
        "ppo", name, **{
            "model": world.reference, "data": (lab.path("prompts.jsonl"),), "seed": seed, "kl_beta": beta,
            "learning_rate": config.ppo_rate, "batch_size": max(1, config.ppo_prompts // 4), "minibatches": 4,
            "ppo_epochs": 1, "epochs": config.ppo_epochs, "samples": config.samples,
            "max_new_tokens": config.max_new_tokens, **reward, **more,
        }
    )  # fmt: skip


def _sft_on_best(lab: Lab, config: FrontierConfig, world: World, seed: int) -> float:
    seconds = lab.train(
        "sft", f"best-{seed}", model=world.reference, data=(world.best(seed),), seed=seed,
        learning_rate=config.dpo_rate, batch_size=config.batch_size,
    )  # fmt: skip
    return seconds + world.measure(f"best-{seed}", str(lab.path(f"best-{seed}")), seed)


# -- what came out -----------------------------------------------------------------------------------------------------


def conclude(lab: Lab, config: FrontierConfig) -> Evidence:
    """Points, hulls, areas within a common KL budget, and whether DPO's is the larger."""
    world = World(lab, config)
    reference = lab.measured("reference")
    found = {
        (job, beta, seed): lab.measured(f"{name}-{seed}") for name, job, beta in runs(config) for seed in config.seeds
    }
    jobs = list(dict.fromkeys(job for job, _, _ in found))
    budget = max(0.0, min(max(float(one.kl_P.mean()) for key, one in found.items() if key[0] == job) for job in jobs))
    areas = {job: Areas(found, reference, budget, job, config.seeds) for job in jobs}
    table = Table(
        title=f"Area under the hull within {budget:.2f} nats: the mean gain in gold reward that this budget of KL buys",
        columns=["method", "runs a seed", "area and its intervals"],
        rows=[[METHODS[job], str(len(one.keys[0])), one.less(None).words()] for job, one in areas.items()],
    )
    findings = []
    for other in jobs[1:]:
        gap = areas["dpo"].less(areas[other])
        words = f"area of DPO less that of {METHODS[other]}: {gap.words()}"
        findings.append(Finding(claim=CLAIMS[other], seen=gap.above(), words=words))
    caveats = [
        "Learning rates were not tuned per method; runs of a method differ in the strength of the KL term alone."
    ]
    if len(config.dpo_betas) != len(config.ppo_betas):
        caveats.append("A hull takes the best of its runs, so the method with more of them is higher by chance.")
    return Evidence(
        experiment="frontier",
        title="Reward against KL: PPO and DPO",
        question="Which method buys more gold reward for the same distance from the reference?",
        setting=f"{world.words()} DPO sees its rankings once; PPO samples {config.samples} new responses to each "
        f"training prompt in each of {config.ppo_epochs} passes.",
        findings=findings,
        tables=[_points_table(config, found, reference), table],
        figures=[_figure(config, lab, found, reference)],
        caveats=caveats,
        provenance={"data": world.data()},
    )


class Areas:
    """Area under the hull of a method within a KL budget: of each seed, and of any draw of the prompts."""

    def __init__(
        self, found: dict[Any, Measured], reference: Measured, budget: float, job: str, seeds: Sequence[int]
    ) -> None:
        self.found, self.reference_P, self.budget = found, reference.gold_P, budget
        self.keys = [[key for key in found if key[0] == job and key[2] == seed] for seed in seeds]

    def of_seeds(self, rows: Any) -> Any:
        """(S,) area of each seed over these prompts."""
        zero = float(self.reference_P[rows].mean())
        return np.array([frontier(*self._points(keys, rows), zero, self.budget).area for keys in self.keys])

    def _points(self, keys: Sequence[Any], rows: Any) -> tuple[list[float], list[float]]:
        several = [self.found[key] for key in keys]
        return [float(one.kl_P[rows].mean()) for one in several], [float(one.gold_P[rows].mean()) for one in several]

    def less(self, other: Areas | None) -> Difference:
        """The area, or what it is above another's; over prompts by the bootstrap, points and hulls made again."""

        def gaps(rows: Any) -> Any:
            return self.of_seeds(rows) - (other.of_seeds(rows) if other else 0.0)

        everyone = np.arange(len(self.reference_P))
        ends = bootstrap(lambda rows: float(gaps(rows).mean()), everyone, replicates=REPLICATES)
        return difference(gaps(everyone), prompts=(ends.low, ends.high))


def _points_table(config: FrontierConfig, found: Any, reference: Any) -> Table:
    rows = [["reference", "-", *cells([reference])]]
    for job, beta in dict.fromkeys((job, beta) for job, beta, _ in found):
        rows.append([METHODS[job], f"{beta:g}", *cells([found[job, beta, seed] for seed in config.seeds])])
    columns = ["policy", "KL weight", "gold reward [t interval over seeds]", "KL, nats", "tokens"]
    return Table(title="Every policy on the held-out prompts", columns=columns, rows=rows)


def _figure(config: FrontierConfig, lab: Lab, found: Any, reference: Any) -> Figure:
    base = float(reference.gold_PS.mean())
    series = []
    for job in dict.fromkeys(key[0] for key in found):
        points = []
        for (name, beta, seed), one in found.items():
            if name == job:
                result = mean_result(one.gold_P)
                low, high = result.ci or (None, None)
                points.append(
                    Point(x=float(one.kl_PS.mean()), y=result.value, low=low, high=high, label=f"{beta:g}, seed {seed}")
                )
        hull = frontier([p.x for p in points], [p.y for p in points], base)
        series.append(Series(name=METHODS[job], points=points, line=False))
        corners = [Point(x=float(x), y=float(y)) for x, y in zip(hull.hull_kl, hull.hull_reward, strict=True)]
        series.append(Series(name=f"hull of {METHODS[job]}", points=corners, marks=False))
    counts = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= config.best_of]
    line = [
        Point(x=best_of_n_kl(n), y=float(best_of_n(reference.gold_PS, reference.gold_PS, n).mean()), label=f"n = {n}")
        for n in counts
    ]
    series.append(Series(name="best of n by gold (KL at most)", points=line))
    best = [lab.measured(f"best-{seed}") for seed in config.seeds]
    series.append(
        Series(
            name="SFT on the best",
            line=False,
            points=[Point(x=float(b.kl_PS.mean()), y=float(b.gold_PS.mean())) for b in best],
        )
    )
    return Figure(
        name="frontier",
        title="Gold reward against KL to the reference",
        x="KL to the reference, nats per response",
        y="gold reward, P(positive)",
        series=series,
    )
