"""PRO (arXiv:2306.17492) and Plackett-Luce (arXiv:2305.18290) against pairwise DPO, on the same rankings."""

from __future__ import annotations

from functools import partial

from accord.pipelines.reproduce.configs import ListwiseConfig
from accord.pipelines.reproduce.evidence import Difference, Evidence, Figure, Finding, Point, Series, Table, difference
from accord.pipelines.reproduce.lab import Lab, Measured, Step
from accord.pipelines.reproduce.sentiment import World, cells

__all__ = ["conclude", "steps"]

CLAIMS = {
    "pro": "PRO, trained on whole rankings, does better than pairwise methods (Song et al. 2023, table 2).",
    "plackett-luce": "The Plackett-Luce form of DPO (Rafailov et al. 2023, appendix A.3) does better than its pairs "
    "(no published comparison).",
}


def steps(lab: Lab, config: ListwiseConfig) -> list[Step]:
    """Everything that is run, in order."""
    world = World(lab, config)
    found = [*world.steps(), world.answers()]
    for seed in config.seeds:
        found.append(Step(f"rankings {seed}", "sample, rank by gold", partial(world.rank, seed)))
        for loss in config.losses:
            name = f"{loss}-{seed}"
            work = partial(_train, lab, config, world, loss, seed)
            found.append(Step(name, f"{loss} on the rankings, and its held-out answers", work))
    return found


def _train(lab: Lab, config: ListwiseConfig, world: World, loss: str, seed: int) -> float:
    name = f"{loss}-{seed}"
    seconds = lab.train(
        "dpo", name, model=world.reference, data=(world.rankings(seed),), seed=seed, loss=loss,
        learning_rate=rate_of(config, loss), batch_size=config.batch_size,
    )  # fmt: skip
    return seconds + world.measure(name, str(lab.path(name)), seed)


def rate_of(config: ListwiseConfig, loss: str) -> float:
    """Learning rate of a loss."""
    return config.pro_rate if loss == "pro" else config.dpo_rate


def conclude(lab: Lab, config: ListwiseConfig) -> Evidence:
    """Gold reward of every loss, and its difference from the first, paired by prompt and by seed."""
    world = World(lab, config)
    found = {loss: [lab.measured(f"{loss}-{seed}") for seed in config.seeds] for loss in config.losses}
    base = config.losses[0]
    less = {loss: _less(found[loss], found[base]) for loss in config.losses[1:]}
    rows = [["reference", *cells([lab.measured("reference")]), "-"]]
    rows += [[loss, *cells(several), less[loss].words() if loss in less else "-"] for loss, several in found.items()]
    series = [
        Series(name=loss, line=False, points=[
            Point(x=float(one.kl_PS.mean()), y=float(one.gold_PS.mean()), label=f"seed {seed}")
            for seed, one in zip(config.seeds, several, strict=True)
        ])
        for loss, several in found.items()
    ]  # fmt: skip
    columns = ["loss", "gold reward [t interval over seeds]", "KL, nats", "tokens", f"gold reward less {base}"]
    return Evidence(
        experiment="listwise",
        title=f"Losses of rankings at K = {config.samples}",
        question="Does a loss of the whole ranking get more out of the same rankings than one of its pairs?",
        setting=f"{world.words()} Every loss sees the same {config.train_prompts} rankings of {config.samples} once.",
        findings=[
            Finding(
                claim=CLAIMS.get(loss, f"{loss} does better than {base} (no published comparison)."),
                seen=gap.above(),
                words=f"gold reward of {loss} less that of {base}: {gap.words()}",
            )
            for loss, gap in less.items()
        ],
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
        caveats=[
            "Learning rates: " + ", ".join(f"{loss} {rate_of(config, loss):g}" for loss in config.losses)
            + "; the best rate of each was not looked for.",
            "Losses differ in how far they go from the reference as well: read the gain beside the KL.",
        ],
        provenance={"data": world.data()},
    )  # fmt: skip


def _less(several: list[Measured], base: list[Measured]) -> Difference:
    return difference([a.gold_P - b.gold_P for a, b in zip(several, base, strict=True)])
