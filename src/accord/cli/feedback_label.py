"""Let a model say which of two responses is better, by the principles of a constitution: soft labels.

Every pair is asked about in both orders and for several principles. With --check the judge is measured on pairs that
people decided; one that is near chance is refused. Killing it at any moment and giving the same command again
continues; a server that is away ends it with exit code 75.
"""

from __future__ import annotations

import argparse

from accord.cli.feedback_jobs import run_job
from accord.cli.options import add_config_arguments
from accord.pipelines.feedback_configs import LabelConfig

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting."""
    add_config_arguments(parser, LabelConfig)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan, label, write the report, print what the judge is worth."""
    return run_job("label", arguments)
