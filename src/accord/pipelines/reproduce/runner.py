"""Runs an experiment: its steps once each, in a folder that nobody else is using, then its evidence."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accord.pipelines.reproduce.configs import (
    DataSizeConfig,
    ExperimentConfig,
    FrontierConfig,
    InstructionConfig,
    LabelsConfig,
    LengthConfig,
    ListwiseConfig,
    OveroptimisationConfig,
    TaxConfig,
)
from accord.pipelines.reproduce.evidence import Evidence

__all__ = ["EXPERIMENTS", "Experiment", "reproduce"]


@dataclass(frozen=True)
class Experiment:
    """A row of the table.

    Attributes:
        name: what the user types after `accord reproduce`; of its module here too, and of its recipe.
        config: the settings it takes.
        help: one line.
        needs: files under the folder of data that some step reads, maybe hours later; a star stands for any ending.
    """

    name: str
    config: type[ExperimentConfig]
    help: str
    needs: tuple[str, ...]

    def check(self, data: Path) -> None:
        """Raise ValueError where a file is missing that a step will want."""
        if not data.is_dir():
            raise ValueError(f"{data}: no such folder; --data names the one that holds imdb/ and the other data sets")
        missing = [name for name in self.needs if not any(data.glob(name))]
        if missing:
            raise ValueError(f"{data}: no {', '.join(missing)}, which {self.name} reads; is it the folder of the data?")

    def load(self) -> Any:
        """Its module, with `steps(lab, config)` and `conclude(lab, config)`, whose provenance names the data."""
        return importlib.import_module(f"accord.pipelines.reproduce.{self.name.replace('-', '_')}")


REVIEWS = ("imdb/train.jsonl.gz", "imdb/test.jsonl.gz")
HARMLESS = tuple(f"hh_rlhf/harmless-base.{split}.jsonl*" for split in ("train", "test"))
TESTS = ("truthfulqa/mc_task.jsonl", "real_toxicity_prompts/rtp_sample.jsonl.gz", "corpus/gutenberg_children.jsonl.gz")
EXPERIMENTS = {
    one.name: one
    for one in (
        Experiment("frontier", FrontierConfig, "reward against KL: PPO and DPO on controlled sentiment", REVIEWS),
        Experiment(
            "data-size", DataSizeConfig, "reward-model accuracy against data size, one epoch and three", ("hh_rlhf",)
        ),
        Experiment("length", LengthConfig, "length exploitation of DPO, and its cure", REVIEWS),
        Experiment("overoptimisation", OveroptimisationConfig, "gold reward while PPO climbs a proxy", REVIEWS),
        Experiment("listwise", ListwiseConfig, "PRO and Plackett-Luce against pairwise DPO", REVIEWS),
        Experiment(
            "labels",
            LabelsConfig,
            "labels of a model against gold labels; harmlessness of revisions by round",
            (*REVIEWS, *HARMLESS, "red_team_prompts/harmful_questions.jsonl"),
        ),
        Experiment(
            "instruction",
            InstructionConfig,
            "held-out tasks against the number of training clusters",
            ("self_instruct/user_oriented_instructions.jsonl",),
        ),
        Experiment(
            "tax",
            TaxConfig,
            "truthfulness, toxicity and tasks before and after PPO, with and without ptx",
            (*REVIEWS, *TESTS),
        ),
    )
}


def reproduce(experiment: Experiment, given: ExperimentConfig, console: Any) -> tuple[Evidence, Path]:
    """Run, or continue, or find finished; returns the evidence and its file.

    Raises: ValueError: data that cannot be read, or a folder that holds another experiment.
    """
    from accord.models.load import resolve
    from accord.pipelines.quickstart import Clock
    from accord.pipelines.reproduce.lab import Lab
    from accord.pipelines.stages_display import StagesDisplay
    from accord.train.run import settle_config, take

    config = given.sized()
    experiment.check(config.data)
    source = resolve(config.model)  # a wrong name must not bind the folder
    config.out.mkdir(parents=True, exist_ok=True)
    module, lab = experiment.load(), Lab(config)
    steps = module.steps(lab, config)
    with take(config.out):
        settle_config(config.out, {"job": f"reproduce-{experiment.name}", **config.model_dump(mode="json")})
        lab.settle({"model": config.model, "model_fingerprint": source.fingerprint, "experiment": experiment.name})
        display = StagesDisplay({step.name: step.meaning for step in steps}, console)
        lab.display = display
        clock = Clock(config.out, display)
        try:
            for step in steps:
                clock.time(step.name, step.work)
        finally:
            display.close()
        evidence: Evidence = module.conclude(lab, config)
        facts = lab.facts(clock.seconds, clock.peak_memory_gb)
        evidence = replace(evidence, provenance=facts | evidence.provenance)
        path = config.out / "evidence.json"
        evidence.write(path)
    return evidence, path
