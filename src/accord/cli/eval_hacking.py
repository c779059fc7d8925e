"""How every checkpoint of some runs came by its reward: length, form, repetition, disagreement, gain that gold lacks.

Settings are those of `accord eval frontier`; run in the same folder with the same ones, its responses are used again.
"""

from __future__ import annotations

import argparse

from accord.cli.evaluated import evaluate
from accord.cli.options import add_config_arguments, config_from
from accord.pipelines.eval_hacking import HackingConfig
from accord.pipelines.eval_hacking import run as job

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the runs and a flag for each setting."""
    add_config_arguments(parser, HackingConfig, words="runs")


def run(arguments: argparse.Namespace) -> int:
    """Measure, write into the first run, print."""
    config = config_from(HackingConfig, arguments)
    return evaluate("hacking", config, config.out or config.runs[0], job)
