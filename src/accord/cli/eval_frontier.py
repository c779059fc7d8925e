"""Reward against KL for every checkpoint of several runs, with the hull and area of each method.

Train with --keep-every N to have checkpoints on the way. All models answer the same held-out prompts with the same
random numbers. --gold is a reward nobody trained on; with --proxy beside it the report shows over-optimisation.
"""

from __future__ import annotations

import argparse

from accord.cli.evaluated import evaluate
from accord.cli.options import add_config_arguments, config_from
from accord.pipelines.eval_frontier import FrontierConfig
from accord.pipelines.eval_frontier import run as job

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the runs and a flag for each setting."""
    add_config_arguments(parser, FrontierConfig, words="runs")


def run(arguments: argparse.Namespace) -> int:
    """Measure, write into the first run, print."""
    config = config_from(FrontierConfig, arguments)
    return evaluate("frontier", config, config.out or config.runs[0], job)
