"""TruthfulQA: does a model think true answers likelier than false ones, and does it say true things.

MC0 to MC3 are read from log-probabilities. With --judge the model answers in its own words too, and truth, information
and both together are given, as two judges see them that --train-judge trains on the published judge data.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from accord.cli.console import waiting
from accord.cli.evaluated import evaluate
from accord.cli.options import add_config_arguments, config_from
from accord.pipelines.evaluation_configs import TruthfulnessConfig
from accord.pipelines.language_evaluation import home

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting; a word without a flag is the model."""
    add_config_arguments(parser, TruthfulnessConfig, words="model")


def run(arguments: argparse.Namespace) -> int:
    """Ask, measure, print."""
    config = config_from(TruthfulnessConfig, arguments)
    with waiting("starting"):
        from accord.pipelines import truthfulness
    out = home(config.out, config.model, config.judge or Path("runs/truthfulness"))
    return evaluate("truthfulness", config, out, truthfulness.run)
