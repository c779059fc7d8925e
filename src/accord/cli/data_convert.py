"""Turn task data into instructions by templates, several per task, with held-out clusters of tasks.

Tasks are YAML files, or names of tasks that come with the package (`accord data tasks` lists them); the data are yours,
found under --root. Killing a conversion at any moment and giving the same command again continues it.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from accord.cli.console import output_console
from accord.cli.options import add_config_arguments, config_from
from accord.cli.progress import bars
from accord.data.tasks import ConvertConfig, Renderer, Task, TaskReport, convert, read_tasks
from accord.data.tasks.rows import examples_of

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the tasks and a flag for each setting."""
    add_config_arguments(parser, ConvertConfig, words="tasks", config_flag=True)
    parser.add_argument("--preview", action="store_true", help="print one example of each template, write nothing")


def run(arguments: argparse.Namespace) -> int:
    """Convert and print what became of each task, or show what the templates make."""
    if arguments.preview and "out" not in arguments:
        arguments.out = "."  # nothing is written
    config = config_from(ConvertConfig, arguments)
    tasks = read_tasks(config.tasks)
    console = output_console()
    if arguments.preview:
        for task in tasks:
            preview(console, task, config)
        return 0
    with bars() as tell:
        reports = convert(tasks, config, tell)
    print_reports(console, reports, config)
    return 0


def preview(console: Console, task: Task, config: ConvertConfig) -> None:
    """Print the first example of each template of a task."""
    wanted = {template.id for template in task.templates}
    shown = config.model_copy(update={"templates_per_row": len(wanted), "skip_bad_rows": False})
    console.print(f"[bold cyan]{task.task}[/]  {', '.join(task.cluster)}, {len(wanted)} templates")
    Renderer(task)
    for _, row, example in examples_of(task, shown, Counter()):
        template = example.template
        if template.id in wanted:
            wanted.remove(template.id)
            body = Text.assemble(example.prompt, "\n", ("→ ", "bold green"), (example.response, "green"))
            title = f"{template.id}{' (inverted)' if template.inverted else ''}"
            console.print(Panel(body, title=title, title_align="left", subtitle=row.key, subtitle_align="right"))
        if not wanted:
            break
    for name in sorted(wanted):
        console.print(f"  template {name} fits no row", style="yellow")


def print_reports(console: Console, reports: Sequence[TaskReport], config: ConvertConfig) -> None:
    """Print a table of tasks and where the rows are."""
    splits = list(dict.fromkeys(split for report in reports for split in report.written))
    table = Table(title=f"instructions in {config.out}", title_justify="left", title_style="bold")
    table.add_column("task", no_wrap=True)
    table.add_column("cluster")
    for name in ("rows", *splits, "bad"):
        table.add_column(name, justify="right")
    for report in reports:
        cluster = ", ".join(report.clusters)
        counts = [f"{report.written[split]:,}" if split in report.written else "" for split in splits]
        table.add_row(
            report.task,
            cluster if report.role == "train" else f"{cluster} ({report.role})",
            f"{report.read:,}",
            *counts,
            f"{report.bad:,}" if report.bad else "",
            style={"held-out": "yellow", "left out": "dim"}.get(report.role),
        )
    console.print(table)
    written = sum(sum(report.written.values()) for report in reports)
    unsplit = sum(report.unsplit for report in reports)
    console.print(
        f"{written:,} examples of {len(reports)} task{'s' * (len(reports) != 1)}"
        + (f"; {unsplit:,} rows in no split" * bool(unsplit))
    )
    if any(report.role == "left out" for report in reports):
        console.print("left out: too close to a cluster that is held out (`exclude_with`)", style="dim")
    console.print(f"next: accord data mix {config.out / 'train'} --out mixture.jsonl", style="dim")
