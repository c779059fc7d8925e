"""Remove training rows that give evaluation questions away: a shared run of 13 words, or a short question as a whole.

What is removed is listed with the evaluation row, the shared words and the rule. Copies in other words are not seen.
"""

from __future__ import annotations

import argparse

from accord.cli.console import output_console
from accord.cli.curation import print_written
from accord.cli.options import add_config_arguments, config_from
from accord.cli.progress import bars
from accord.data.curation.contamination import DecontaminateConfig, decontaminate

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the files and a flag for each setting."""
    add_config_arguments(parser, DecontaminateConfig, words="data")


def run(arguments: argparse.Namespace) -> int:
    """Compare, write, print what went."""
    config = config_from(DecontaminateConfig, arguments)
    with bars() as tell:
        written = decontaminate(config, tell)
    console = output_console()
    print_written(console, written)
    console.print(f"{written.details['evaluation_prompts']:,} evaluation prompts")
    for name, count in sorted(written.details["removed_by_set"].items(), key=lambda pair: -pair[1]):
        console.print(f"  {count:>6,} rows give away {name}", soft_wrap=True)
    return 0
