"""Feedback from people and from models: collect it, label by a constitution, critique and revise."""

from __future__ import annotations

import argparse
import importlib
from dataclasses import dataclass
from types import ModuleType

from accord.cli.options import of_module

__all__ = ["ACTIONS", "Action", "add_arguments", "run"]


@dataclass(frozen=True)
class Action:
    """A row of the table of subcommands.

    Attributes:
        name: what the user types behind `accord feedback`.
        module: of `accord.cli`, with `add_arguments(parser)` and `run(arguments) -> exit code`.
        help: one line.
    """

    name: str
    module: str
    help: str

    def load(self) -> ModuleType:
        """Its module."""
        return importlib.import_module(f"accord.cli.{self.module}")


ACTIONS: tuple[Action, ...] = (
    # One line each, so that additions merge.
    Action("critique", "feedback_critique", "let a model criticise and revise its replies: demonstrations"),
    Action("label", "feedback_label", "let a model compare responses by a constitution: soft labels"),
    Action("studio", "studio", "serve the pages on which people judge"),
    Action("status", "feedback_status", "the campaigns of a store; makes or upgrades it"),
    Action("import", "feedback_import", "judged data, or data to judge, into a campaign"),
    Action("sample", "feedback_sample", "fill a campaign with responses of models"),
    Action("prioritise", "feedback_prioritise", "serve first what teaches most"),
    Action("agreement", "feedback_agreement", "how far annotators agree, and whom to look at"),
    Action("export", "feedback_export", "what people said, as data for the trainers"),
    Action("forget", "feedback_forget", "erase a person"),
    Action("retention", "feedback_retention", "erase what is kept too long; run it nightly"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one subcommand per action."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, title="actions")
    for action in ACTIONS:
        actions.add_parser(action.name, help=action.help, fill=of_module(action.load))


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen action."""
    (chosen,) = (action for action in ACTIONS if action.name == arguments.action)
    code: int = chosen.load().run(arguments)
    return code
