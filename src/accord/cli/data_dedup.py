"""Remove rows that say the same as an earlier one: exactly, but for case and white space, or almost, by MinHash.

The first row of a group stays, in the order in which files are given. Removed rows are written beside the others, each
with the row it repeats.
"""

from __future__ import annotations

import argparse

from rich.text import Text

from accord.cli.console import output_console, printable
from accord.cli.curation import print_written
from accord.cli.options import add_config_arguments, config_from
from accord.cli.progress import bars
from accord.data.curation.duplicates import DedupConfig, dedup

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the files and a flag for each setting."""
    add_config_arguments(parser, DedupConfig, words="data")


def run(arguments: argparse.Namespace) -> int:
    """Compare, write, print what went and the largest groups."""
    config = config_from(DedupConfig, arguments)
    with bars() as tell:
        written = dedup(config, tell)
    console = output_console()
    print_written(console, written)
    groups = written.details["largest_groups"]
    if groups:
        console.print("largest groups:")
    for group in groups[:5]:
        text = printable(group["text"])[: max(20, console.width - 12)]
        console.print(Text.assemble(f"  {group['rows']:>5} × ", (text, "dim")), no_wrap=True, overflow="ellipsis")  # noqa: RUF001
    return 0
