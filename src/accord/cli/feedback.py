"""Collect feedback of people: serve the studio."""

from __future__ import annotations

import argparse

from accord.cli import studio

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what can be done with feedback."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, title="actions")
    pages = actions.add_parser("studio", help="serve the pages on which people judge", description=studio.__doc__)
    studio.add_arguments(pages)


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen action."""
    return studio.run(arguments)
