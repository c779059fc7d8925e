"""Sample responses to prompts; with a reward, rank them: best-of-n, and data for rejection-sampling fine-tuning.

Killing a run at any moment and giving the same command again continues it.
"""

from __future__ import annotations

import argparse

from accord.cli.console import output_console, waiting
from accord.cli.options import add_config_arguments, config_from
from accord.cli.train import plan_panel, print_results
from accord.pipelines.jobs import JOBS, check_data
from accord.train.configs import SampleConfig

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting."""
    add_config_arguments(parser, SampleConfig)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan, sample, write the report, print the table and what to do next."""
    job = JOBS["sample"]
    config = config_from(SampleConfig, arguments)
    check_data(config)
    console = output_console()
    console.print(plan_panel(job, config))
    with waiting("starting"):
        job.trainer()
    folder = job.run(config)
    from accord.evaluate.report import write_report

    write_report(folder)
    print_results(console, job, folder)
    return 0
