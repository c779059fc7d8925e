"""Let a model draft, criticise and revise its replies by the principles of a constitution: demonstrations.

The supervised stage of Constitutional AI. Killing it at any moment and giving the same command again continues; a
server that is away ends it with exit code 75.
"""

from __future__ import annotations

import argparse

from accord.cli.feedback_jobs import run_job
from accord.cli.options import add_config_arguments
from accord.pipelines.feedback_configs import CritiqueConfig

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting."""
    add_config_arguments(parser, CritiqueConfig)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan, work through the rounds, write the report, print what came of them."""
    return run_job("critique", arguments)
