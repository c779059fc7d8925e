"""Import judged data, or data to judge, into a campaign of the feedback store; doing it again adds nothing.

Formats are recognised row by row: Accord's own records, HH-RLHF transcripts, TRL and Alpaca rows, OpenAssistant trees,
UltraFeedback, AlpacaEval, Label Studio, Argilla, ShareGPT and WildChat logs. A bad row is named with file, row, field,
what was found and what was expected. The campaign is made if it is not there.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from accord.cli.console import error_console
from accord.cli.feedback_common import extra_detectors, opened, print_pairs, steps
from accord.cli.options import add_config_arguments, config_from
from accord.pipelines.feedback_settings import FeedbackImport

if TYPE_CHECKING:
    from accord.pipelines.feedback_data import ImportOutcome

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting; words without a flag are files."""
    add_config_arguments(parser, FeedbackImport, words="files")


def run(arguments: argparse.Namespace) -> int:
    """Import, and print what became of every row."""
    config = config_from(FeedbackImport, arguments)
    with opened(config.database) as store, steps() as bar:
        from accord.data.writers import write_bad_rows
        from accord.pipelines.feedback_data import import_files

        detectors = extra_detectors(config.presidio)
        outcome = import_files(
            store,
            config,
            seen=lambda rows: bar("reading", rows, None),
            stored=lambda done, total: bar("importing", done, total),
            detectors=detectors,
        )
    print_outcome(outcome)
    if outcome.bad_rows:
        aside = Path(f"{config.files[0].name}.bad.jsonl")
        write_bad_rows(outcome.bad_rows, aside)
        error_console().print(f"{len(outcome.bad_rows)} rows were left out; they are in {aside}", soft_wrap=True)
    return 0


def print_outcome(outcome: ImportOutcome) -> None:
    """What became of the rows."""
    finds = ", ".join(f"{count} {kind}" for kind, count in sorted(outcome.finds.items()))
    pairs = [
        ("rows", f"{outcome.rows:,} ({', '.join(f'{name} {n:,}' for name, n in outcome.formats.items())})"),
        ("items", f"{outcome.items:,}"),
        ("new judgments", f"{outcome.judgments:,}"),
        ("left out", "; ".join(f"{count:,}: {reason}" for reason, count in outcome.left_out.items())),
        ("personal data", f"{finds} found by pattern; automatic removal misses cases" if finds else "none found"),
        ("dropped for it", f"{outcome.dropped:,}" if outcome.dropped else ""),
        ("held for review", f"{outcome.held:,}" if outcome.held else ""),
    ]
    print_pairs(f"campaign {outcome.campaign}", pairs)
