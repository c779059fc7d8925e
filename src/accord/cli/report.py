"""Write the report of a run: RUN/report.html, one file that opens offline."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from accord.cli.console import output_console

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        type=Path,
        help="run folder; the report is written into the first, the others are drawn beside it",
    )


def run(arguments: Namespace) -> int:
    """Write the report and print where it is."""
    from accord.evaluate.report import write_report

    path = write_report(*arguments.runs)
    output_console().print(str(path), soft_wrap=True, markup=False)
    return 0
