"""The training jobs by name: which configuration each takes, and which module runs it, imported only then."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accord.train.configs import DpoConfig, PpoConfig, RewardConfig, SftConfig, TrainConfig

__all__ = ["JOBS", "Job", "check_data"]


@dataclass(frozen=True)
class Job:
    """A training job.

    Attributes:
        name: as in `accord train NAME` and in a recipe.
        config: the settings it takes.
        module: of `accord.train`, with `run(config) -> run folder`.
        title: what it does, in a few words.
    """

    name: str
    config: type[TrainConfig]
    module: str
    title: str

    def trainer(self) -> Callable[[Any], Path]:
        """Import the trainer, which takes seconds."""
        trainer: Callable[[Any], Path] = importlib.import_module(f"accord.train.{self.module}").run
        return trainer

    def run(self, config: TrainConfig) -> Path:
        """Train; returns the run folder."""
        return self.trainer()(config)


JOBS = {
    job.name: job
    for job in (
        Job("sft", SftConfig, "sft", "supervised fine-tuning"),
        Job("reward", RewardConfig, "reward", "reward model"),
        Job("dpo", DpoConfig, "preference", "direct preference optimisation"),
        Job("ppo", PpoConfig, "policy", "reinforcement learning with PPO"),
    )
}


def check_data(config: TrainConfig, made: tuple[Path, ...] = ()) -> None:
    """Data files must be there before a model is loaded, but for those in folders that are still to be made.

    Raises:
        DataError: a file is missing, empty or of no known format.
    """
    from accord.data.files import check_path  # takes longer to import than the help of a command may

    for path in (*config.data, *config.eval_data, *(getattr(config, "ptx_data", None) or ())):
        if not any(path.is_relative_to(folder) for folder in made):
            check_path(path)
