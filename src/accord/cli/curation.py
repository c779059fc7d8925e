"""What the commands that remove rows have in common: their report on the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from accord.data.curation.written import Written

__all__ = ["print_written"]


def print_written(console: Console, written: Written, meanings: Mapping[str, str] | None = None) -> None:
    """Print what stayed and what went, by reason and by file, and where it is."""
    removed = sum(written.removed.values())
    rows = written.kept + removed + written.bad
    console.print(f"[bold]{rows:,}[/] rows: [green]{written.kept:,} kept[/], {removed:,} removed, {written.bad:,} bad")
    if removed:
        table = Table(box=None, padding=(0, 2, 0, 2))
        for name in ("removed", "share", "reason", "" if not meanings else "what it removes"):
            table.add_column(name, justify="right" if name in ("removed", "share") else "left")
        for reason, count in sorted(written.removed.items(), key=lambda pair: -pair[1]):
            table.add_row(f"{count:,}", f"{count / rows:.1%}", reason, (meanings or {}).get(reason, ""))
        console.print(table)
    if len(written.by_file) > 1:
        files = sorted(written.by_file.items(), key=lambda pair: -pair[1])[:10]
        console.print("by file: " + ", ".join(f"{file} {count:,}" for file, count in files), soft_wrap=True)
    where = f"kept: {written.out}" + (f"   removed, with reasons: {written.aside}" if written.aside else "")
    console.print(f"{where}   report: {written.report}", style="dim", soft_wrap=True)
