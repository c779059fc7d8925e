"""PRO (arXiv:2306.17492) and Plackett-Luce (arXiv:2305.18290) against pairwise DPO, on the same rankings."""

from __future__ import annotations

from functools import partial
from typing import Any

from accord.evaluate.intervals import mean_result, paired_difference
from accord.pipelines.reproduce.configs import ListwiseConfig
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

__all__ = ["conclude", "data", "steps"]

CLAIMS = {
    "pro": "PRO, trained on whole rankings, does better than pairwise methods (Song et al. 2023, table 2).",
    "plackett-luce": "The Plackett-Luce form of DPO uses a ranking as a whole (Rafailov et al. 2023, appendix A.3); "
    "no published comparison with its pairs.",
}


def steps(lab: Lab, config: ListwiseConfig) -> list[Step]:
    """Everything that is run, in order."""
    world = World(lab, config)
    found = world.steps()
    found.append(
        Step("measured reference", "the reference answers", partial(world.measure, "reference", world.reference, 0))
    )
    for seed in config.seeds:
        found.append(Step(f"rankings {seed}", "sample, rank by gold", partial(world.rank, seed)))
        for loss in config.losses:
            name = f"{loss}-{seed}"
            work = partial(_train, lab, config, world, loss, seed)
            found.append(Step(name, f"{loss} on the rankings, and its held-out answers", work))
    return found


def _train(lab: Lab, config: ListwiseConfig, world: World, loss: str, seed: int) -> float:
    name = f"{loss}-{seed}"
    rate = config.pro_rate if loss == "pro" else config.dpo_rate
    seconds = lab.train(
        "dpo", name, model=world.reference, data=(world.rankings(seed),), seed=seed, loss=loss, learning_rate=rate,
        batch_size=config.batch_size,
    )  # fmt: skip
    return seconds + world.measure(name, str(lab.path(name)), seed)


def conclude(lab: Lab, config: ListwiseConfig) -> Evidence:
    """Gold reward of every loss, and its difference from the first, paired by prompt and by seed."""
    world = World(lab, config)
    found = {(loss, seed): lab.measured(f"{loss}-{seed}") for loss in config.losses for seed in config.seeds}
    base = config.losses[0]
    rows, points = [_row("reference", [lab.measured("reference")], None)], []
    findings = []
    for loss in config.losses:
        several = [found[loss, seed] for seed in config.seeds]
        gaps = [found[loss, seed].gold_P - found[base, seed].gold_P for seed in config.seeds]
        difference = over_seeds([float(gap.mean()) for gap in gaps])
        rows.append(_row(loss, several, None if loss == base else difference))
        points += [Point(x=float(one.kl_PS.mean()), y=float(one.gold_PS.mean()), label=f"{loss}, seed {s}")
                   for s, one in zip(config.seeds, several, strict=True)]  # fmt: skip
        if loss != base:
            within = paired_difference(found[loss, config.seeds[0]].gold_P, found[base, config.seeds[0]].gold_P)
            low, high = within.ci or (None, None)
            words = (
                f"gold reward of {loss} less that of {base}: {with_interval(*difference, 3)} over {len(gaps)} seeds; "
                f"of seed {config.seeds[0]} alone, over prompts, {with_interval(within.value, low, high, 3)}"
            )
            claim = CLAIMS.get(loss, f"{loss} against {base}")
            findings.append(Finding(claim=claim, seen=sign_of(*difference[1:]), words=words))
    series = []
    for loss in config.losses:
        chosen = [point for point in points if point.label.startswith(f"{loss},")]
        series.append(Series(name=loss, points=chosen, line=False))
    columns = ["loss", "gold reward [t interval over seeds]", f"less {base}", "KL, nats", "tokens"]
    return Evidence(
        experiment="listwise",
        title=f"Losses of rankings at K = {config.samples}",
        question="Does a loss of the whole ranking get more out of the same rankings than one of its pairs?",
        setting=world.words() + f" Every loss sees the same {config.train_prompts} rankings of {config.samples} once.",
        findings=findings,
        tables=[Table(title="Held-out prompts", columns=columns, rows=rows)],
        figures=[
            Figure(
                name="listwise",
                title="Gold reward against KL, a point per seed",
                x="KL to the reference, nats per response",
                y="gold reward, P(positive)",
                series=series,
            )
        ],
        caveats=["One learning rate for all losses; the best rate of each was not looked for."],
    )


def _row(name: str, several: list[Any], difference: tuple[float, float | None, float | None] | None) -> list[str]:
    gold = over_seeds([float(one.gold_PS.mean()) for one in several])
    if len(several) == 1:
        result = mean_result(several[0].gold_P)
        gold = (result.value, *(result.ci or (None, None)))
    kl = over_seeds([float(one.kl_PS.mean()) for one in several])[0]
    length = over_seeds([float(one.length_PS.mean()) for one in several])[0]
    return [name, with_interval(*gold), with_interval(*difference) if difference else "-", f"{kl:.2f}", f"{length:.1f}"]


def data(lab: Lab, config: ListwiseConfig) -> list[dict[str, Any]]:
    """Facts of the data files."""
    return World(lab, config).data()
