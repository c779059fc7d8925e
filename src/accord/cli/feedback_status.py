"""List the campaigns of a store; a store that is not there is made, an older one is upgraded."""

from __future__ import annotations

import argparse

from accord.cli.feedback_common import opened, print_pairs, print_table
from accord.cli.options import add_config_arguments, config_from
from accord.pipelines.feedback_settings import StoreConfig

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting."""
    add_config_arguments(parser, StoreConfig)


def run(arguments: argparse.Namespace) -> int:
    """Open the store and print its campaigns."""
    config = config_from(StoreConfig, arguments)
    with opened(config.database) as store:
        from accord.evaluate.page.parts import Table
        from accord.feedback.store.database import newest_revision
        from accord.feedback.store.find import campaign_lines

        lines = store.read(campaign_lines)
        print_pairs(f"store {store.engine.url.render_as_string()}", [("schema", newest_revision())])
    rows = [
        [f"{line.project}/{line.campaign.name}", line.campaign.task_type, line.campaign.state,
         str(line.campaign.overlap), f"{line.items:,}", f"{line.judgments:,}", f"{line.people:,}"]
        for line in lines
    ]  # fmt: skip
    if rows:
        print_table(Table(header=["campaign", "task", "state", "overlap", "items", "judgments", "people"], rows=rows))
    else:
        print_pairs(
            "no campaign yet", [("next", "accord feedback import FILE --campaign NAME, or accord feedback studio")]
        )
    return 0
