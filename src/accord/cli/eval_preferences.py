"""Rate models by the preferences between their responses: Bradley-Terry strengths with intervals over prompts.

Give rankings or comparisons exported with the names of the models. A model that never lost, or never won, has no
rating.
"""

from __future__ import annotations

import argparse

from accord.cli.evaluated import evaluate
from accord.cli.options import add_config_arguments, config_from
from accord.pipelines.eval_preferences import PreferencesConfig
from accord.pipelines.eval_preferences import run as job
from accord.pipelines.settings import SettingsError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the files and a flag for each setting."""
    add_config_arguments(parser, PreferencesConfig, words="judgments")


def run(arguments: argparse.Namespace) -> int:
    """Fit, write, print."""
    config = config_from(PreferencesConfig, arguments)
    if config.out is None:
        raise SettingsError("missing --out, the folder that gets the results")
    return evaluate("preferences", config, config.out, job)
