"""What `accord train ... --profile` prints at its end: where the time went, how near the limit of the machine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

__all__ = ["print_profile", "profile_table"]

BAR = 20  # columns
LABELS = {
    "matmul": "matrix products",
    "attention": "attention",
    "head": "vocabulary head",
    "casts": "casts and copies",
    "pointwise": "pointwise",
    "optimiser": "optimiser",
    "data": "data",
    "other": "other",
}
PHASES = ("training", "scoring", "sampling")
BESIDES = ("evaluation", "checkpoint")


def print_profile(console: Console, folder: Path) -> None:
    """Print the profile of a run, where it has one."""
    path = folder / "profile.json"
    if path.exists():
        console.print()
        console.print(profile_table(json.loads(path.read_text(encoding="utf8"))))


def profile_table(profile: Mapping[str, Any]) -> Group:
    """The content of a `profile.json` as a table, and the sentences that belong to it."""
    phases = [name for name in PHASES if sum(profile["phases"].get(name, {}).values())]
    seconds = {phase: profile["phases"][phase] for phase in phases}
    total = sum(sum(kinds.values()) for kinds in seconds.values())
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.collapse_padding = True
    table.add_column("", no_wrap=True)
    for phase in phases:
        table.add_column(phase, justify="right", no_wrap=True)
    if len(phases) > 1:
        table.add_column("all", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    if len(phases) == 1:  # there is room for it
        table.add_column("", no_wrap=True)
    table.add_column("GFLOP/s", justify="right", no_wrap=True)
    table.add_column("ceiling", justify="right", no_wrap=True)
    for kind, label in LABELS.items():
        row = [seconds[phase].get(kind, 0.0) for phase in phases]
        if not sum(row):
            continue
        cells = [_seconds(value) for value in row] + ([_seconds(sum(row))] if len(phases) > 1 else [])
        share = sum(row) / total
        rate = sum(profile["flop"].get(phase, {}).get(kind, 0.0) for phase in phases) / sum(row)
        table.add_row(
            label,
            *cells,
            f"{share:.1%}",
            *([Text("━" * round(share * BAR), "cyan")] if len(phases) == 1 else []),
            f"{rate / 1e9:,.0f}" if rate else "",
            f"{rate / _ceiling(profile):.0%}" if rate else "",
        )
    table.add_section()
    sums = [sum(kinds.values()) for kinds in seconds.values()]
    cells = [_seconds(value) for value in sums] + ([_seconds(total)] if len(phases) > 1 else [])
    useful = profile["useful_flop_per_second"]
    table.add_row(
        "whole steps",
        *cells,
        "100%",
        *([""] if len(phases) == 1 else []),
        f"{useful / 1e9:,.0f}",
        f"{profile['share_of_ceiling']:.0%}",
        style="bold",
    )
    return Group(Text(_title(profile), "bold"), table, *map(Text, _sentences(profile, phases, sums, total)))


def _title(profile: Mapping[str, Any]) -> str:
    steps = profile["steps"]
    kind = "rollout" if profile["job"] == "ppo" else "step"
    which = f"{kind} {steps[0]}" if len(steps) == 1 else f"{kind}s {steps[0]} to {steps[-1]}"
    return f"{profile['job']} of {profile['model']}, {which}: {profile['precision']} on {profile['device']}, seconds"


def _sentences(profile: Mapping[str, Any], phases: list[str], sums: list[float], total: float) -> Iterator[str]:
    rates = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {name}" for name, rate in profile["matmul_rate"].items())
    yield f"Ceiling: a large matrix product reaches {rates} on this machine now."
    if len(phases) > 1:
        parts = ", ".join(f"{name} {part / total:.0%}" for name, part in zip(phases, sums, strict=True))
        yield f"Phases: {parts}."
    besides = {name: sum(profile["phases"].get(name, {}).values()) for name in BESIDES}
    if any(besides.values()):
        yield "Besides: " + ", ".join(f"{name} {_seconds(spent)} s" for name, spent in besides.items() if spent) + "."
    yield (
        "Rows count the products as they were computed; whole steps count useful ones: nothing made a second time, no "
        "padding, no masked pairs."
    )
    if profile["first_step_included"]:
        yield "The run had one step: what only a first step does is in it."


def _ceiling(profile: Mapping[str, Any]) -> float:
    ceiling: float = profile["matmul_rate"][profile["precision"]]
    return ceiling


def _seconds(value: float) -> str:
    return f"{value:.2f}" if value >= 0.995 else f"{value:.3f}"
