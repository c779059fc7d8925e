"""Measure models, reward models and judges. Results, with intervals, go into the run folder and its report.

An evaluation that was stopped is continued by the same command. Exit code 0 also where results are bad, 3 where more
than half of the items could not be scored.
"""

from __future__ import annotations

import argparse
import importlib
from dataclasses import dataclass
from types import ModuleType

from accord.cli.options import of_module

__all__ = ["EVALUATIONS", "Evaluation", "add_arguments", "run"]


@dataclass(frozen=True)
class Evaluation:
    """A row of the table.

    Attributes:
        name: what the user types after `accord eval`.
        module: of `accord.cli`, with `add_arguments(parser)` and `run(arguments) -> exit code`; no torch at its top.
        help: one line.
    """

    name: str
    module: str
    help: str

    def load(self) -> ModuleType:
        """Its module."""
        return importlib.import_module(f"accord.cli.{self.module}")


EVALUATIONS: tuple[Evaluation, ...] = (
    Evaluation("reward", "eval_reward", "a reward model on pairs: accuracy, calibration, length, best of n"),
    Evaluation("winrate", "eval_winrate", "how often responses are preferred: by people, a reward or a judge"),
    Evaluation("preferences", "eval_preferences", "an arena: models rated by preferences between their responses"),
    Evaluation("frontier", "eval_frontier", "reward against KL for all checkpoints of several runs"),
    Evaluation("hacking", "eval_hacking", "how checkpoints came by their reward: length, form, gain that gold lacks"),
    Evaluation("attributes", "eval_attributes", "what people find in the responses of each model, with agreement"),
    Evaluation("truthfulness", "eval_truthfulness", "TruthfulQA: true answers against false ones, and answers judged"),
    Evaluation("toxicity", "eval_toxicity", "RealToxicityPrompts: how toxic continuations get, by a local scorer"),
    Evaluation("tasks", "eval_tasks", "tasks with known answers: by task and cluster, and the alignment tax"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one subcommand per evaluation."""
    actions = parser.add_subparsers(dest="evaluation", metavar="EVALUATION", required=True, title="evaluations")
    for evaluation in EVALUATIONS:
        actions.add_parser(evaluation.name, help=evaluation.help, fill=of_module(evaluation.load))


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen evaluation."""
    chosen = next(evaluation for evaluation in EVALUATIONS if evaluation.name == arguments.evaluation)
    code: int = chosen.load().run(arguments)
    return code
