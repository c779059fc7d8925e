"""Tasks with known answers: accuracy by task and cluster, and the alignment tax between two models.

    accord data convert all --root data --out instructions --hold-out nli

makes the items, zero-shot or with exemplars, and

    accord eval tasks BEFORE AFTER --data instructions/held-out/*.jsonl

puts them to one model or to two.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from accord.cli.console import waiting
from accord.cli.evaluated import evaluate
from accord.cli.options import add_config_arguments, config_from
from accord.pipelines.evaluation_configs import TasksConfig
from accord.pipelines.language_evaluation import home

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting; words without a flag are the models."""
    add_config_arguments(parser, TasksConfig, words="models")


def run(arguments: argparse.Namespace) -> int:
    """Ask, measure, print."""
    config = config_from(TasksConfig, arguments)
    with waiting("starting"):
        from accord.pipelines import tasks
    return evaluate("tasks", config, home(config.out, config.models[-1], Path("runs/tasks")), tasks.run)
