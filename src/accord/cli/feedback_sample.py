"""Fill a campaign with responses of models: each prompt becomes an item with the responses of all of them, blind.

Prompts that have responses of these models and settings are not asked again, so the same command goes on where it was
stopped.
"""

from __future__ import annotations

import argparse

from accord.cli.console import waiting
from accord.cli.feedback_common import opened, print_pairs, steps
from accord.cli.options import add_config_arguments, config_from
from accord.pipelines.feedback_settings import FeedbackSample

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting; words without a flag are files of prompts."""
    add_config_arguments(parser, FeedbackSample, words="prompts")


def run(arguments: argparse.Namespace) -> int:
    """Read the prompts, open the models, sample, print what became of the prompts."""
    config = config_from(FeedbackSample, arguments)
    with opened(config.database) as store:
        from accord.data import read
        from accord.pipelines.feedback_sampling import sample_into
        from accord.pipelines.language_models import open_language_model

        prompts = read(config.prompts, "prompts").records[: config.limit]
        with waiting("loading models"):
            options = {} if config.api_key_env is None else {"api_key_env": config.api_key_env}
            models = [open_language_model(name, **options) for name in config.models]
        with steps() as bar:
            outcome = sample_into(store, config, prompts, models, lambda done, total: bar("sampling", done, total))
    pairs = [
        ("prompts", f"{outcome.prompts:,}"),
        ("there already", f"{outcome.there:,}" if outcome.there else ""),
        ("new items", f"{outcome.items:,}"),
        ("cut by length", f"{outcome.cut:,} responses" if outcome.cut else ""),
        ("failed", "; ".join(f"{count:,}: {reason}" for reason, count in outcome.failed.items())),
    ]
    print_pairs(f"campaign {outcome.campaign}", pairs)
    return 0
