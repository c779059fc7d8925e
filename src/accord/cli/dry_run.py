"""What `accord train ... --dry-run` prints: the work, the memory part by part, whether it fits, what would lower it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from accord.train.configs import TrainConfig

if TYPE_CHECKING:
    from accord.train.estimate import Estimate

__all__ = ["print_estimate"]

BAR = 24  # columns
WARNED = 0.9  # share of the free memory from which a run is called tight: the estimate is good to 15%


def print_estimate(console: Console, config: TrainConfig, estimate: Estimate) -> None:
    """Print all that is known of a run before it; nothing was written."""
    console.print()
    for note in estimate.notes:
        console.print(note, style="dim", markup=False, soft_wrap=True)
    console.print(Text.assemble(("steps    ", "cyan"), _steps(estimate)), soft_wrap=True)
    console.print(Text.assemble(("tokens   ", "cyan"), _tokens(config, estimate)), soft_wrap=True)
    console.print()
    console.print(_memory(estimate))
    console.print(Text.assemble(*_verdict(estimate)), soft_wrap=True)
    if estimate.options:
        console.print()
        console.print(_options(estimate))
    console.print("\nA dry run: nothing was trained, nothing written.", style="dim")


def _steps(estimate: Estimate) -> str:
    steps = _counted(estimate.steps, "optimiser step")
    return steps + (f" on {_counted(estimate.rollouts, 'rollout')}" if estimate.rollouts else "")


def _counted(count: int, word: str) -> str:
    return f"{count:,} {word}" + ("" if count == 1 else "s")


def _tokens(config: TrainConfig, estimate: Estimate) -> str:
    most = "at most " if estimate.rollouts else ""
    return (
        f"{most}{estimate.tokens:,} in all steps, prompts counted once for all their responses; "
        f"largest pack {estimate.largest_pack:,} (--micro-tokens {config.micro_tokens})"
    )


def _memory(estimate: Estimate) -> Table:
    title = f"memory at its peak, {estimate.precision} on {estimate.device}"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("part", no_wrap=True)
    table.add_column("GB", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("of what", overflow="fold")
    for part in estimate.parts:
        share = part.bytes / estimate.peak
        table.add_row(part.name, _gb(part.bytes), Text("━" * round(share * BAR), "cyan"), part.meaning)
    table.add_section()
    table.add_row("peak", _gb(estimate.peak), "", "good to about 15% or 0.35 GB", style="bold")
    return table


def _verdict(estimate: Estimate) -> Iterator[tuple[str, str]]:
    needed, free = estimate.peak - estimate.used, estimate.available
    figures = f": {_gb(needed)} GB more than the process has now, {_gb(free)} GB are free"
    if not estimate.fits:
        yield "does not fit", "bold red"
    elif needed > WARNED * free:
        yield "may not fit", "bold yellow"
    else:
        yield "fits", "bold green"
    yield figures, ""


def _options(estimate: Estimate) -> Table:
    table = Table(title="what lowers it", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("setting", style="cyan", no_wrap=True)
    table.add_column("peak GB", justify="right", no_wrap=True)
    table.add_column("fits", no_wrap=True)
    table.add_column("costs", overflow="fold")
    for option in estimate.options:
        fits = option.peak - estimate.used <= estimate.available
        table.add_row(option.setting, _gb(option.peak), "yes" if fits else "no", option.cost)
    return table


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f}"
