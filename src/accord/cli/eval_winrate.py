"""How often responses are preferred to a baseline's, ties half, raw and at equal length.

The last of the models is the baseline. People judge (--judgments, an export of comparisons or rankings), or a reward
(--reward), or a language model (--judge), which sees both orders. Intervals are over prompts.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from accord.cli.evaluated import evaluate
from accord.cli.options import add_config_arguments, config_from
from accord.pipelines.eval_winrate import run as job
from accord.pipelines.scorers import default_folder
from accord.pipelines.winrate_games import WinrateConfig

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the models and a flag for each setting."""
    add_config_arguments(parser, WinrateConfig, words="models")


def run(arguments: argparse.Namespace) -> int:
    """Compare, write into the first candidate's run, print."""
    config = config_from(WinrateConfig, arguments)
    return evaluate("winrate", config, config.out or _folder(config), job)


def _folder(config: WinrateConfig) -> Path:
    return default_folder(config.models[0], "the first model")
