"""Export what people said as data that the trainers read: a file per split, and a manifest of how it was made.

The same command gives the same bytes. Judgments of excluded annotators are left out unless asked for.
"""

from __future__ import annotations

import argparse

from accord.cli.feedback_common import opened, print_pairs
from accord.cli.options import add_config_arguments, config_from
from accord.pipelines.feedback_settings import FeedbackExport

__all__ = ["add_arguments", "run"]

_OURS = {"campaign", "out", "table", "database"}  # the others are the options of the export itself


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting; `--as` is another name of `--form`."""
    add_config_arguments(parser, FeedbackExport, words="campaign")
    parser.add_argument("--as", dest="form", default=argparse.SUPPRESS, metavar="FORM", help="the same as --form")


def run(arguments: argparse.Namespace) -> int:
    """Export, and print what was written and what was left out."""
    config = config_from(FeedbackExport, arguments)
    with opened(config.database) as store:
        from accord.feedback.store import ExportOptions, export_campaign
        from accord.feedback.store.find import find_campaign

        campaign = store.read(find_campaign, config.campaign)
        options = ExportOptions(**config.model_dump(exclude=_OURS))
        manifest = export_campaign(
            store, config.out, options, campaign_id=campaign.id, actor_id=None, table=config.table
        )
    files = manifest["files"].items()
    pairs = [
        *[(str(config.out / name), f"{file['rows']:,} rows") for name, file in files],
        ("left out", "; ".join(f"{count:,}: {reason}" for reason, count in manifest["left_out"].items())),
        ("still looks personal", ", ".join(f"{count} {kind}" for kind, count in manifest["personal_data"].items())),
    ]
    print_pairs(f"{config.form} of campaign {campaign.name}", pairs)
    return 0
