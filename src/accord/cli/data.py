"""Look at data the way the trainer sees it."""

from __future__ import annotations

import argparse

from accord.cli import inspect_data

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what can be done with data."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, title="actions")
    inspect = actions.add_parser(
        "inspect", help="rows as coloured tokens, and totals", description=inspect_data.__doc__
    )
    inspect_data.add_arguments(inspect)


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen action."""
    return inspect_data.run(arguments)
