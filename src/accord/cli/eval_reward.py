"""How well a reward model orders pairs: accuracy by split and annotator, calibration, length, best of n.

Give held-out comparisons or rankings with --data; files of an export keep their split, annotators and groups apart. The
longer response, and the one shown first, are the baselines that stand beside every accuracy.
"""

from __future__ import annotations

import argparse

from accord.cli.evaluated import evaluate
from accord.cli.options import add_config_arguments, config_from
from accord.pipelines.eval_reward import RewardEvalConfig
from accord.pipelines.eval_reward import run as job
from accord.pipelines.scorers import default_folder

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the reward model and a flag for each setting."""
    add_config_arguments(parser, RewardEvalConfig, words="reward")


def run(arguments: argparse.Namespace) -> int:
    """Measure, write, print."""
    config = config_from(RewardEvalConfig, arguments)
    return evaluate("reward", config, config.out or default_folder(config.reward, "reward"), job)
