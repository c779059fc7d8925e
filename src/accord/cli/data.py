"""Data: look at it the way the trainer sees it, make instructions of it, mix and clean it, map what people ask."""

from __future__ import annotations

import argparse
import importlib
from types import ModuleType
from typing import NamedTuple

from accord.cli.options import of_module

__all__ = ["ACTIONS", "add_arguments", "run"]


class Action(NamedTuple):
    """What can be done with data: the word for it, the module of `accord.cli`, a line of help."""

    name: str
    module: str
    help: str

    def load(self) -> ModuleType:
        """Its module."""
        return importlib.import_module(f"accord.cli.{self.module}")


ACTIONS = (
    Action("inspect", "inspect_data", "rows as coloured tokens, and totals"),
    Action("explore", "explore_data", "chat logs as a map of clusters"),
    Action("convert", "data_convert", "task data to instructions, by templates"),
    Action("tasks", "data_tasks", "list the tasks that come with templates"),
    Action("mix", "data_mix", "several data sets into one, by rates and caps"),
    Action("dedup", "data_dedup", "remove rows that say the same, or almost"),
    Action("decontaminate", "data_decontaminate", "remove rows that give evaluation sets away"),
    Action("clean", "data_clean", "remove bad rows by named rules"),
    Action("self-instruct", "data_self_instruct", "have a model write instructions from seeds"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what can be done with data."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, title="actions")
    for action in ACTIONS:
        actions.add_parser(action.name, help=action.help, fill=of_module(action.load))


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen action."""
    (chosen,) = (action for action in ACTIONS if action.name == arguments.action)
    code: int = chosen.load().run(arguments)
    return code
