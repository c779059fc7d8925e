"""What `accord sample` left, printed: the table of best-of-n, and which file is for what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["print_sampled"]

USES = {
    "best.jsonl": "accord train sft --data {path} ...",
    "rankings.jsonl": "accord train reward --data {path} ...",
    "responses.jsonl": "",
}


def print_sampled(console: Console, folder: Path) -> None:
    """The best-of-n table of a run with a reward, then its files and what reads them."""
    table = folder / "best_of_n.json"
    if table.exists():
        console.print()
        console.print(_table(json.loads(table.read_text(encoding="utf8"))))
    console.print()
    for name, use in USES.items():
        path = folder / name
        if path.exists():
            rows = path.read_bytes().count(b"\n")
            console.print(Text.assemble((str(path), "bold"), f", {rows} row{'s' * (rows != 1)}"), soft_wrap=True)
            if use and rows:
                console.print(Text.assemble("  ", (use.format(path=path), "cyan")), soft_wrap=True)
    console.print(Text.assemble((str(folder / "report.html"), "bold")), soft_wrap=True)


def _table(found: Mapping[str, Any]) -> Table:
    title = f"best of n, {found['prompts']} prompts, {found['samples']} responses each"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for header in ("n", "reward", found["interval"], "KL to the model, at most"):
        table.add_column(header, justify="right", header_style="dim")
    for row in found["rows"]:
        interval = "-" if row["lo"] is None else f"{row['lo']:.3f} to {row['hi']:.3f}"
        table.add_row(str(row["n"]), f"{row['reward']:.3f}", interval, f"{row['kl_bound']:.2f} nats")
    return table
