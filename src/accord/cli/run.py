"""Run a recipe: training stages that feed each other.

The file has `out` (folder of the runs), `stages` (each a name, a job and its settings; "{name}" in a setting is the
run folder of an earlier stage), and `defaults` for all of them. The plan is printed first, finished stages are
skipped, and the same command continues a stopped recipe.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from accord.cli.console import output_console, waiting
from accord.cli.train import plan_panel, print_results
from accord.pipelines.recipe import Recipe, Stage, read_recipe

__all__ = ["add_arguments", "plan_of_recipe", "run"]

STATES = {"done": ("done", "green"), "started": ("continues", "yellow"), "to do": ("to do", "bold")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the recipe, another folder for it, and the dry run."""
    parser.add_argument("recipe", type=Path, metavar="RECIPE.yaml", help="stages, in order")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder of the runs (default: the recipe's)")
    parser.add_argument(
        "--judge", metavar="MODEL", help="labels and criticises in every stage, such as http://HOST/v1#MODEL"
    )
    parser.add_argument("--dry-run", action="store_true", help="check the recipe and print the plan, run nothing")


def run(arguments: argparse.Namespace) -> int:
    """Print the plan, then run what is to do."""
    recipe = read_recipe(arguments.recipe, arguments.out, arguments.judge)
    console = output_console()
    console.print(plan_of_recipe(recipe))
    if arguments.dry_run:
        return 0
    from accord.evaluate.report import write_report

    for number, stage in enumerate(recipe.stages, 1):
        if stage.state == "done":
            continue
        title = f"[bold]stage {number} of {len(recipe.stages)}: {stage.name}[/bold]"
        console.print("", Rule(title, align="left", style="green"))
        console.print(plan_panel(stage.job, stage.config))
        with waiting("starting"):
            stage.job.trainer()
        stage.job.run(stage.config)
        write_report(stage.config.out)
        if stage.job.reports and stage is not recipe.stages[-1]:
            print_results(console, stage.job, stage.config.out)
    print_results(console, stage.job, stage.config.out)
    return 0


def plan_of_recipe(recipe: Recipe) -> Panel:
    """Every stage: what it runs, from what, and whether that is done."""
    table = Table.grid(padding=(0, 0, 0, 2), expand=True)
    table.add_column(justify="right", style="dim")
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold", ratio=1)
    table.add_column(no_wrap=True, justify="right")
    for number, stage in enumerate(recipe.stages, 1):
        what = Text.assemble(stage.job.title, ("\n" + _inputs(stage, recipe), "dim"))
        table.add_row(str(number), stage.name, what, Text(*STATES[stage.state]))
    title = f"[bold]accord run {recipe.path}[/bold]"
    return Panel(table, title=title, title_align="left", subtitle=f"results in {recipe.out}", border_style="green")


def _inputs(stage: Stage, recipe: Recipe) -> str:
    """Where a stage starts; earlier stages by their names."""
    names = {str(other.config.out): f"{{{other.name}}}" for other in recipe.stages}
    rewards = [
        ",".join(names.get(part, part) for part in name.split(",")) for name in getattr(stage.config, "reward", ())
    ]
    parts = [
        f"model {names.get(stage.config.model, stage.config.model)}",
        *(f"reward {reward}" for reward in rewards),
        *(f"data {path}" for path in stage.config.data),
    ]
    return "\n".join(parts)
