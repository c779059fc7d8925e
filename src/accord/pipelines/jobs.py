"""The jobs by name: which configuration each takes, and which module runs it, imported only then."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accord.pipelines.feedback_configs import CompareConfig, CritiqueConfig, FeedbackConfig, LabelConfig
from accord.train.configs import DpoConfig, JobConfig, PpoConfig, RewardConfig, SampleConfig, SftConfig, TrainConfig

__all__ = ["JOBS", "Job", "check_data"]


@dataclass(frozen=True)
class Job:
    """A job.

    Attributes:
        name: as in a recipe, and in `accord train NAME` where it trains.
        config: the settings it takes.
        module: with `run(config) -> run folder`.
        title: what it does, in a few words.
    """

    name: str
    config: type[JobConfig]
    module: str
    title: str

    @property
    def trains(self) -> bool:
        """Whether it makes a model."""
        return issubclass(self.config, TrainConfig)

    @property
    def reports(self) -> bool:
        """Whether its figures are worth reading before a recipe goes on: what a judge is worth, say."""
        return issubclass(self.config, (CompareConfig, FeedbackConfig))

    @property
    def command(self) -> str:
        """The command that runs it alone, without `accord`."""
        if issubclass(self.config, FeedbackConfig):
            return f"feedback {self.name}"
        if self.name == "compare":
            return "run"
        return f"train {self.name}" if self.trains else self.name

    def makes(self, config: JobConfig) -> tuple[str, ...]:
        """Names of the data files that a finished run has for later stages; empty for a job that makes a model."""
        if isinstance(config, CompareConfig):
            return ("replies.jsonl",)
        if isinstance(config, CritiqueConfig):
            return ("demonstrations.jsonl",)
        if isinstance(config, LabelConfig):
            return ("rankings.jsonl",) if config.rates else ("comparisons.jsonl",)
        if not isinstance(config, SampleConfig):
            return ()
        return ("responses.jsonl", *(("rankings.jsonl", "best.jsonl") if config.reward else ()))

    def trainer(self) -> Callable[[Any], Path]:
        """Import what runs it, which takes seconds."""
        trainer: Callable[[Any], Path] = importlib.import_module(self.module).run
        return trainer

    def run(self, config: JobConfig) -> Path:
        """Run it; returns the run folder."""
        return self.trainer()(config)


JOBS = {
    job.name: job
    for job in (
        Job("sft", SftConfig, "accord.train.sft", "supervised fine-tuning"),
        Job("reward", RewardConfig, "accord.train.reward", "reward model"),
        Job("dpo", DpoConfig, "accord.train.preference", "direct preference optimisation"),
        Job("ppo", PpoConfig, "accord.train.policy", "reinforcement learning with PPO"),
        Job("critique", CritiqueConfig, "accord.pipelines.critique", "critiques and revisions by a constitution"),
        Job("compare", CompareConfig, "accord.pipelines.compare", "replies of two models, side by side"),
        Job("label", LabelConfig, "accord.pipelines.label", "labels of response pairs by a model"),
        Job("sample", SampleConfig, "accord.train.sample", "responses of a model, ranked by a reward"),
    )
}


def check_data(config: JobConfig, made: tuple[Path, ...] = ()) -> None:
    """Data files must be there before a model is loaded, but for those in folders that are still to be made.

    Raises:
        DataError: a file is missing, empty or of no known format.
    """
    from accord.data.files import check_path  # takes longer to import than the help of a command may

    others = ("eval_data", "ptx_data", "check", "helpful", "harmless")
    for path in (*config.data, *(path for name in others for path in getattr(config, name, None) or ())):
        if not any(path.is_relative_to(folder) for folder in made):
            check_path(path)
