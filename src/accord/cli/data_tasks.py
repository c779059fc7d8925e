"""List the tasks that come with templates: their clusters, how many ways they ask, and where they look for data."""

from __future__ import annotations

import argparse

from rich.table import Table

from accord.cli.console import output_console
from accord.data.tasks import read_tasks

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing to choose."""


def run(arguments: argparse.Namespace) -> int:
    """Print the table."""
    console = output_console()
    if not console.is_terminal:
        console.width = 140
    table = Table(title="tasks for `accord data convert`", title_justify="left", title_style="bold")
    for name in ("task", "cluster", "templates", "inverted", "file under --root", "licence of the data"):
        table.add_column(name, justify="right" if name in ("templates", "inverted") else "left", overflow="fold")
    for task in read_tasks(["all"]):
        path = task.source.path
        inverted = sum(template.inverted for template in task.templates)
        table.add_row(
            task.task,
            ", ".join(task.cluster),
            str(len(task.templates)),
            str(inverted or ""),
            path if isinstance(path, str) else ", ".join(path.values()),
            task.licence or "",
        )
    console.print(table)
    console.print("The package holds the templates; the data are yours. docs/instruction-data.md has the format.")
    return 0
