"""Erase texts that are older than their project's `retention_days`, and logins that have ended. Run it nightly."""

from __future__ import annotations

import argparse

from accord.cli.feedback_common import opened, print_pairs
from accord.cli.options import add_config_arguments, config_from
from accord.pipelines.feedback_settings import StoreConfig

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting."""
    add_config_arguments(parser, StoreConfig)


def run(arguments: argparse.Namespace) -> int:
    """Erase, and print how much."""
    config = config_from(StoreConfig, arguments)
    with opened(config.database) as store:
        from accord.feedback.store import enforce_retention, now_ms

        erased = store.run(enforce_retention, now=now_ms())
    print_pairs("retention", [("texts erased", f"{erased:,}")])
    return 0
