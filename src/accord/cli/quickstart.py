"""The whole loop on a small real model: sample, rank, SFT, reward model, PPO, DPO, evaluation, report.

The controlled-sentiment experiment of the RLHF and DPO papers: a language model learns to write positive film reviews.
Killing it at any moment and giving the same command again continues it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from accord.cli.console import output_console, waiting
from accord.cli.options import add_config_arguments, config_from
from accord.pipelines.quickstart_config import FAST, FULL, QuickstartConfig

__all__ = ["add_arguments", "plan_panel", "print_summary", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one flag per setting."""
    add_config_arguments(parser, QuickstartConfig)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan, run the stages, print the results and what to try next."""
    config = config_from(QuickstartConfig, arguments)
    console = output_console()
    console.print(plan_panel(config))
    with waiting("starting"):
        from accord.pipelines import quickstart
        from accord.pipelines.stages_display import StagesDisplay

    display = StagesDisplay(quickstart.STAGES, console)
    try:
        summary = quickstart.run(config, display)
    finally:
        display.close()
    print_summary(console, summary, config.out)
    return 0


def plan_panel(config: QuickstartConfig) -> Panel:
    """What the quickstart is going to do."""
    recipe = FAST if config.fast else FULL
    prompts = f"{recipe.train_prompts} film-review prompts, {recipe.samples} responses each"
    table = Table.grid(padding=(0, 0, 0, 2))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, words in (
        ("model", config.model),
        ("reward", "sentiment of the response (VADER), which nobody trains on"),
        ("data", prompts + (" (fast: checks the machinery, shows no effect)" if config.fast else "")),
        ("held out", f"{recipe.held_out_prompts} prompts, for every figure below"),
        ("results", f"{config.out}"),
    ):
        table.add_row(name, Text(words))
    return Panel(table, title="[bold]accord quickstart[/bold]", title_align="left", border_style="green")


def print_summary(console: Console, summary: dict[str, Any], out: Path) -> None:
    """Print the results of all policies, where the report is, and two commands to try."""
    table = Table(title="held-out prompts", title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column("policy", style="cyan", no_wrap=True)
    for heading in ("sentiment", "95% CI", "reward", "KL", "wins", "tokens", "ppl"):
        table.add_column(heading, justify="right", no_wrap=True)
    for policy, found in summary["stages"].items():
        table.add_row(policy, *_figures(found))
    console.print(table)
    reward = summary["reward_model"]
    seconds = round(sum(summary["seconds"].values()))
    facts = (
        f"reward model: right on {reward['accuracy']:.0%} of {reward['n']} held-out pairs "
        f'("the longer one wins": {reward["longer_wins_accuracy"]:.0%})\n'
        f"{seconds // 60} min {seconds % 60} s, {summary['peak_memory_gb']:.1f} GB of memory at most"
    )
    console.print(Text(facts, "dim"), soft_wrap=True)
    own = "accord train dpo --model YOUR_MODEL --data YOUR_PAIRS.jsonl --out runs/mine"
    console.print(Text.assemble("\nreport      ", (str(out / "report.html"), "bold")), soft_wrap=True)
    console.print(Text.assemble("try it      ", (f"accord chat {out / 'dpo'}", "cyan")), soft_wrap=True)
    console.print(Text.assemble("your model  ", (own, "cyan")), soft_wrap=True)


def _figures(found: dict[str, Any]) -> tuple[str, ...]:
    low, high = found["gold_reward_ci"]
    return (
        f"{found['gold_reward']:.2f}",
        f"{low:.2f} to {high:.2f}",
        f"{found['reward_model_score']:.2f}",
        f"{found['kl']:.1f}",
        f"{found['win_rate_vs_base']:.0%}",
        f"{found['mean_length']:.0f}",
        f"{found['base_perplexity']:.1f}",
    )
