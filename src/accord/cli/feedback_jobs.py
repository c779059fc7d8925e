"""How `accord feedback` runs a job of a model: plan, work, report, results."""

from __future__ import annotations

import argparse

from accord.cli.console import output_console, waiting
from accord.cli.options import config_from
from accord.cli.train import plan_panel, print_results
from accord.pipelines.jobs import JOBS, check_data

__all__ = ["run_job"]


def run_job(name: str, arguments: argparse.Namespace) -> int:
    """Run the job of that name with the settings of the arguments."""
    job = JOBS[name]
    config = config_from(job.config, arguments)
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
