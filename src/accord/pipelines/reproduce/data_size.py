"""Reward-model accuracy on HH-RLHF against the number of comparisons (arXiv:2204.05862), one epoch against three."""

from __future__ import annotations

import gzip
import json
import math
import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from accord.evaluate.intervals import wilson
from accord.pipelines.evaluation import data_facts
from accord.pipelines.reproduce.configs import DataSizeConfig
from accord.pipelines.reproduce.evidence import (
    Evidence,
    Figure,
    Finding,
    Point,
    Series,
    Table,
    difference,
    over_seeds,
    with_interval,
)
from accord.pipelines.reproduce.lab import Lab, Step, write_rows

__all__ = ["comparisons", "conclude", "hh_file", "steps"]

CEILING = (0.65, 0.75)  # agreement of people with each other or with the authors on such pairs, as published


def steps(lab: Lab, config: DataSizeConfig) -> list[Step]:
    """Everything that is run, in order."""
    found = [Step("data", "choose comparisons, the small sets inside the large ones", partial(_choose, lab, config))]
    for seed in config.seeds:
        for epochs in config.epochs:
            for size in config.sizes:
                work = partial(_train, lab, config, size, epochs, seed)
                found.append(Step(_name(size, epochs, seed), f"{size} comparisons, {epochs} epochs", work))
    return found


def _choose(lab: Lab, config: DataSizeConfig) -> None:
    """Per seed one order of the training rows, so that a larger set holds the smaller ones; one test set for all."""
    train, test = _rows(config, "train"), _rows(config, "test")
    for seed in config.seeds:
        order = list(range(len(train)))
        random.Random(seed).shuffle(order)
        for size in config.sizes:
            if size > len(train):
                raise ValueError(
                    f"sizes has {size}, and the training file {len(train)} usable comparisons; ask for fewer"
                )
            write_rows(lab.path(f"train-{size}-{seed}.jsonl"), [train[i] for i in order[:size]])
    write_rows(lab.path("test.jsonl"), test[: config.test_rows])


def comparisons(folder: Path, subset: str, split: str) -> list[dict[str, Any]]:
    """Comparisons of HH-RLHF whose two responses differ and say something."""
    path = hh_file(folder, subset, split)
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rows = [json.loads(line) for line in content.decode("utf8").splitlines() if line.strip()]
    kept = [{"chosen": row["chosen"], "rejected": row["rejected"]} for row in rows]
    return [row for row in kept if row["chosen"] != row["rejected"] and all(map(_answered, row.values()))]


def _rows(config: DataSizeConfig, split: str) -> list[dict[str, Any]]:
    return comparisons(config.data, config.subset, split)


def _answered(transcript: str) -> bool:
    return bool(transcript.rpartition("Assistant:")[2].strip())


def hh_file(folder: Path, subset: str, split: str) -> Path:
    """The file of a part of HH-RLHF in a folder of data sets, packed or not."""
    for name in (f"{subset}.{split}.jsonl", f"{subset}.{split}.jsonl.gz"):
        if (folder / "hh_rlhf" / name).exists():
            return folder / "hh_rlhf" / name
    raise ValueError(f"{folder}/hh_rlhf: no {subset}.{split}.jsonl; the subsets are helpful-base and harmless-base")


def _name(size: int, epochs: int, seed: int) -> str:
    return f"{size}x{epochs}-{seed}"


def _train(lab: Lab, config: DataSizeConfig, size: int, epochs: int, seed: int) -> float:
    return lab.train(
        "reward", _name(size, epochs, seed), model=config.model, data=(lab.path(f"train-{size}-{seed}.jsonl"),),
        eval_data=(lab.path("test.jsonl"),), epochs=epochs, seed=seed, batch_size=config.batch_size,
        learning_rate=config.reward_rate, max_length=config.max_length, eval_every=100_000, skip_bad_rows=True,
    )  # fmt: skip


def conclude(lab: Lab, config: DataSizeConfig) -> Evidence:
    """Accuracy on the test file by size and epochs, what it rises by per doubling, and what more epochs do."""
    found = {
        (size, epochs, seed): _last(lab, _name(size, epochs, seed))
        for size in config.sizes for epochs in config.epochs for seed in config.seeds
    }  # fmt: skip
    rows, series = [], []
    for epochs in config.epochs:
        points = []
        for size in config.sizes:
            several = [found[size, epochs, seed] for seed in config.seeds]
            accuracy = over_seeds([one["eval/accuracy_tie_half"] for one in several])
            calibration = over_seeds([one.get("eval/nll", float("nan")) for one in several])
            rows.append([str(size), str(epochs), with_interval(*accuracy, 3), with_interval(*calibration, 3)])
            points.append(Point(x=float(size), y=accuracy[0], low=accuracy[1], high=accuracy[2]))
        series.append(Series(name=f"{epochs} epoch{'s' * (epochs > 1)}", points=points))
    ends = [float(config.sizes[0]), float(config.sizes[-1])]
    series += [
        Series(name=f"people, {level:.0%}", points=[Point(x=x, y=level) for x in ends], marks=False)
        for level in CEILING
    ]
    tested = len(lab.path("test.jsonl").read_text(encoding="utf8").splitlines())
    longer = next(iter(found.values())).get("eval/longer_wins_accuracy", float("nan"))
    return Evidence(
        experiment="data-size",
        title="Reward-model accuracy against data size",
        question="How much do more comparisons, and more passes over them, help a reward model on HH-RLHF?",
        setting=f"{config.subset}; {config.model} with a score head, all weights trained at {config.reward_rate:g}; "
        f"{tested} comparisons of the test file, the same for all. The longer response wins {longer:.2f} of them.",
        findings=_findings(config, found, tested),
        tables=[
            Table(
                title="On the test file",
                columns=["comparisons", "epochs", "accuracy, ties half [t interval over seeds]", "nll, nats"],
                rows=rows,
            )
        ],
        figures=[
            Figure(
                name="data-size",
                title="Accuracy on held-out comparisons",
                x="comparisons trained on",
                y="accuracy",
                series=series,
            )
        ],
        caveats=_caveats(config),
        provenance={"data": _sources(config)},
    )


def _caveats(config: DataSizeConfig) -> list[str]:
    said = ["These are the official test files, split again: the training files of HH-RLHF are a hundred times larger."]
    known = len(_rows(config, "train"))
    shared = [str(size) for size in config.sizes if size > known / 2]
    if shared and len(config.seeds) > 1:
        said.append(
            f"Of {known} comparisons {' and '.join(shared)} are most: seeds share them there, and differ in little but "
            "order and start."
        )
    return said


def _findings(config: DataSizeConfig, found: Any, tested: int) -> list[Finding]:
    first, last, one, many = config.sizes[0], config.sizes[-1], config.epochs[0], config.epochs[-1]

    def of_seeds(name: str, size: int, epochs: int) -> Any:
        return np.array([found[size, epochs, seed].get(f"eval/{name}", np.nan) for seed in config.seeds])

    few, reached = (of_seeds("accuracy_tie_half", size, one) for size in (first, last))
    gain = difference(reached - few, prompts=_apart(reached.mean(), few.mean(), tested))
    accuracy = difference(reached, prompts=wilson(reached.mean() * tested, tested))
    findings = [
        Finding(
            claim="Accuracy grows with the number of comparisons (Bai et al. 2022, figure 7).",
            seen=gain.above(),
            words=f"accuracy with {last} comparisons less that with {first}, {one} epoch: {gain.words()} (those as if "
            "every set had test comparisons of its own, which is wider)",
        )
    ]
    if many != one:
        worse = difference(of_seeds("nll", last, many) - of_seeds("nll", last, one))
        findings.append(
            Finding(
                claim="One epoch is enough: more passes over-fit a reward model (Ouyang et al. 2022, appendix C.2).",
                seen=worse.above(),
                words=f"held-out nll of {many} epochs less that of {one} at {last}: {worse.words()}, nats",
            )
        )
    findings.append(
        Finding(
            claim="A reward model agrees with people about as often as people with each other, 65 to 75 %.",
            seen=accuracy.above(CEILING[0]),
            words=f"accuracy at {last}, {one} epoch: {accuracy.words()} (seen: above {CEILING[0]:g})",
        )
    )
    return findings


def _apart(share: float, other: float, n: int) -> tuple[float, float]:
    """Interval of the difference of two shares, of n comparisons each (Newcombe 1998, method 10)."""
    (a, a_low, a_high), (b, b_low, b_high) = ((p, *wilson(p * n, n)) for p in (share, other))
    return a - b - math.hypot(a - a_low, b_high - b), a - b + math.hypot(a_high - a, b - b_low)


def _last(lab: Lab, name: str) -> dict[str, float]:
    lines = (lab.path(name) / "metrics.jsonl").read_text(encoding="utf8").splitlines()
    return next(row for row in map(json.loads, reversed(lines)) if "eval/accuracy_tie_half" in row)


def _sources(config: DataSizeConfig) -> list[dict[str, Any]]:
    from accord.data.files import sha256

    return [
        data_facts(path, len(_rows(config, split)), sha256(path))
        for split in ("train", "test")
        for path in (hh_file(config.data, config.subset, split),)
    ]
