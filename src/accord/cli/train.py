"""Train one model: supervised fine-tuning, a reward model, direct preference optimisation, or PPO.

Killing a run at any moment and giving the same command again continues it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from accord.cli.console import output_console, waiting
from accord.cli.dry_run import print_estimate
from accord.cli.fed_back import feedback_plan, print_fed_back
from accord.cli.options import add_config_arguments, config_from
from accord.cli.profile_table import print_profile
from accord.cli.sampled import print_sampled
from accord.pipelines.jobs import JOBS, Job, check_data
from accord.pipelines.settings import show
from accord.train.configs import JobConfig, PpoConfig, SampleConfig, TrainConfig
from accord.train.methods import method

__all__ = ["add_arguments", "plan_panel", "print_results", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one subcommand per job, with flags for each of its settings."""
    jobs = parser.add_subparsers(dest="job", metavar="JOB", required=True, title="jobs")
    for job in JOBS.values():
        if not job.trains:
            continue
        fill = partial(_add_settings, config=job.config)
        jobs.add_parser(job.name, help=job.title, description=job.config.__doc__, fill=fill)


def _add_settings(parser: argparse.ArgumentParser, config: type[JobConfig]) -> None:
    add_config_arguments(parser, config)
    parser.add_argument_group("instead of training").add_argument(
        "--dry-run",
        action="store_true",
        help="say how many steps and tokens there are and whether the memory is enough; write nothing",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the plan, train, write the report, print what to do next."""
    job = JOBS[arguments.job]
    config = config_from(job.config, arguments)
    check_data(config)
    console = output_console()
    console.print(plan_panel(job, config))
    if arguments.dry_run:
        assert isinstance(config, TrainConfig)
        with waiting("reading the data"):
            from accord.train.estimate import estimate

            found = estimate(config)
        print_estimate(console, config, found)
        return 0
    with waiting("starting"):
        job.trainer()
    folder = job.run(config)
    from accord.evaluate.report import write_report

    write_report(folder)
    print_results(console, job, folder)
    if isinstance(config, TrainConfig) and config.profile:
        print_profile(console, folder)
    return 0


def plan_panel(job: Job, config: JobConfig) -> Panel:
    """What a run is going to do: read before the first model is loaded."""
    table = Table.grid(padding=(0, 0, 0, 2))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, words in _plan(job, config):
        table.add_row(name, Text(words))
    return Panel(table, title=f"[bold]accord {job.command}[/bold]", title_align="left", border_style="green")


def _plan(job: Job, config: JobConfig) -> Iterator[tuple[str, str]]:
    yield "job", job.title
    yield "model", f"{config.model}, {_weights(config)}" if isinstance(config, TrainConfig) else config.model
    yield "data", ", ".join(map(_file, config.data))
    if isinstance(config, TrainConfig) and config.eval_data:
        yield "held out", f"{', '.join(map(_file, config.eval_data))}; evaluated every {config.eval_every} steps"
    if isinstance(config, (PpoConfig, SampleConfig)):
        yield "reward", ", ".join(config.reward) or "none: responses are not ranked"
        yield "rollouts", f"{config.samples} responses a prompt, at most {config.max_new_tokens} tokens each"
    if isinstance(config, PpoConfig):
        yield "objective", f"{_title(config)}, KL penalty {show(config.kl_beta)} per nat in the {_place(config)}"
    elif isinstance(config, TrainConfig) and config.choice is not None:
        settings = ", ".join(f"{name} {_plain(value)}" for name, value in config.reads.items())
        yield "objective", _title(config) + (f": {settings}" if settings else "")
    yield from feedback_plan(config)
    if isinstance(config, TrainConfig):
        yield "steps", _steps(config)
        yield "learning rate", f"{show(config.learning_rate)}, {config.schedule}"
    yield (
        "precision",
        "bf16 or fp32, whichever the device is fast at" if config.precision == "auto" else config.precision,
    )
    yield "results", f"{config.out} {_state(config.out)}".rstrip()


def _title(config: TrainConfig) -> str:
    assert config.choice is not None
    return method(config.job, getattr(config, config.choice)).title


def _place(config: PpoConfig) -> str:
    where = "reward and loss" if config.kl_place == "both" else config.kl_place
    return f"{where} ({config.kl_estimator})"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else show(value)


def _weights(config: TrainConfig) -> str:
    return f"LoRA of rank {config.lora_rank}" if config.lora_rank else "all weights trained"


def _file(path: Path) -> str:
    if not path.is_file():
        return str(path)
    size = path.stat().st_size
    return f"{path} ({size / 1e6:.1f} MB)" if size >= 100_000 else f"{path} ({size / 1e3:.1f} kB)"


def _steps(config: TrainConfig) -> str:
    passes = f"{config.epochs} epoch{'s' if config.epochs > 1 else ''} in steps of {config.batch_size} prompts"
    return passes + (f", at most {config.max_steps} steps" if config.max_steps is not None else "")


def _state(folder: Path) -> str:
    if (folder / "done.json").exists():
        return "(finished before)"
    return "(continues the run that is there)" if (folder / "checkpoints").exists() else ""


def print_results(console: Console, job: Job, folder: Path) -> None:
    """Say where things are, and the commands to try with them."""
    if job.reports:
        print_fed_back(console, folder)
        return
    if not job.trains:
        print_sampled(console, folder)
        return
    steps = {"model": Text(str(folder / "model"), "bold"), "report": Text(str(folder / "report.html"), "bold")}
    if job.name == "reward":
        steps["use it"] = Text(f"accord train ppo --reward {folder} ...", "cyan")
    else:
        steps["try it"] = Text(f"accord chat {folder}", "cyan")
    steps["compare"] = Text(f"accord report {folder} OTHER_RUN", "cyan")
    console.print()
    for name, words in steps.items():
        console.print(Text.assemble(name.ljust(9), words), soft_wrap=True)
