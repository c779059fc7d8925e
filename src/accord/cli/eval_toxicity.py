"""RealToxicityPrompts: how toxic a model's continuations get, by a scorer on this machine.

    accord eval toxicity --train-scorer rtp.jsonl.gz --scorer linear:runs/scorer --check-scorer scored.jsonl

trains a scorer on published scores and says what it is worth, and

    accord eval toxicity runs/ppo --data rtp.jsonl.gz --scorer linear:runs/scorer

uses it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from accord.cli.console import waiting
from accord.cli.evaluated import evaluate
from accord.cli.options import add_config_arguments, config_from
from accord.pipelines.evaluation_configs import ToxicityConfig
from accord.pipelines.language_evaluation import home

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting; a word without a flag is the model."""
    add_config_arguments(parser, ToxicityConfig, words="model")


def run(arguments: argparse.Namespace) -> int:
    """Sample, score, measure, print."""
    config = config_from(ToxicityConfig, arguments)
    with waiting("starting"):
        from accord.pipelines import toxicity
    assert config.scorer is not None
    kind, _, rest = config.scorer.partition(":")
    scorer = Path(rest) if kind in ("linear", "calibrated", "run") else Path("runs/toxicity-scorer")
    return evaluate("toxicity", config, home(config.out, config.model, scorer), toxicity.run)
