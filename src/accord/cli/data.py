"""Look at data: rows as the trainer sees them, chat logs as a map of what people ask."""

from __future__ import annotations

import argparse

from accord.cli import explore_data, inspect_data

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what can be done with data."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, title="actions")
    inspect = actions.add_parser(
        "inspect", help="rows as coloured tokens, and totals", description=inspect_data.__doc__
    )
    inspect_data.add_arguments(inspect)
    explore = actions.add_parser("explore", help="chat logs as a map of clusters", description=explore_data.__doc__)
    explore_data.add_arguments(explore)


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen action."""
    module = {"inspect": inspect_data, "explore": explore_data}[arguments.action]
    return module.run(arguments)
