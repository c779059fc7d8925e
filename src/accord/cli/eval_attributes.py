"""What people find in the responses of each model: quality, failures, hallucination and nine more, with agreement.

Give the exported judgments of a campaign of attributes; files of an export keep training and held-out annotators apart.
"""

from __future__ import annotations

import argparse

from accord.cli.evaluated import evaluate
from accord.cli.options import add_config_arguments, config_from
from accord.pipelines.eval_attributes import AttributesConfig
from accord.pipelines.eval_attributes import run as job
from accord.pipelines.settings import SettingsError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the files and a flag for each setting."""
    add_config_arguments(parser, AttributesConfig, words="judgments")


def run(arguments: argparse.Namespace) -> int:
    """Count, write, print."""
    config = config_from(AttributesConfig, arguments)
    if config.out is None:
        raise SettingsError("missing --out, the folder that gets the results")
    return evaluate("attributes", config, config.out, job)
