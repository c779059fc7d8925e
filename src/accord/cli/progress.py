"""A bar for jobs on data, on standard error; nothing where that is no terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from accord.cli.console import error_console
from accord.data.progress import Tell, silent

__all__ = ["bars"]


@contextlib.contextmanager
def bars() -> Iterator[Tell]:
    """Yield what a job tells its progress to; each title gets a bar of its own."""
    console = error_console()
    if not console.is_terminal:
        yield silent
        return
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="cyan", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        tasks: dict[str, TaskID] = {}

        def tell(title: str, done: int, total: int | None = None, note: str = "") -> None:
            if title not in tasks:
                for other in list(tasks):  # bars without an end have no more to say once another job begins
                    if progress.tasks and progress._tasks[tasks[other]].total is None:
                        progress.remove_task(tasks.pop(other))
                tasks[title] = progress.add_task(title, total=total, note=note)
            progress.update(tasks[title], completed=done, total=total, note=note)

        yield tell
