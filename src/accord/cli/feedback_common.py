"""What the feedback commands share: opening the store, a bar, tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from accord.cli.console import error_console, escaped, output_console
from accord.pipelines.settings import SettingsError

if TYPE_CHECKING:
    from accord.evaluate.page.parts import Table as PageTable
    from accord.feedback.store import Store
    from accord.feedback.store.personal_data import Detector

__all__ = ["Steps", "extra_detectors", "opened", "print_pairs", "print_table", "steps"]

_WIDE = 160  # columns, where nobody's terminal sets a limit


@contextmanager
def opened(database: str) -> Iterator[Store]:
    """The store, closed at the end; upgraded to this version's schema first.

    Raises:
        SettingsError: its libraries are not installed, or it cannot be opened.
    """
    try:
        from sqlalchemy.exc import ArgumentError, OperationalError

        from accord.feedback.store import Store
    except ImportError as error:
        raise SettingsError(f"the feedback store needs {error.name}: pip install 'accord-align[studio]'") from None
    try:
        store = Store.open(database)
    except ImportError as error:
        raise SettingsError(f"--database {database} needs {error.name}: pip install 'accord-align[postgres]'") from None
    except (ArgumentError, OperationalError) as error:
        reason = str(getattr(error, "orig", error)).splitlines()[0]
        raise SettingsError(
            f"--database {database}: cannot be opened ({reason}); expected sqlite:///FILE or postgresql+psycopg://..."
        ) from None
    try:
        yield store
    finally:
        store.close()


def extra_detectors(presidio: bool) -> tuple[Detector, ...]:
    """Detectors of personal data beyond the patterns."""
    if not presidio:
        return ()
    from accord.feedback.store.presidio import presidio_detector

    return (presidio_detector(),)


class Steps:
    """A bar on standard error for work of one or more stages."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def __call__(self, title: str, done: int, total: int | None) -> None:
        """Show `done` of `total` of a stage; None: nobody knows how many."""
        if self._task is None:
            self._task = self._progress.add_task(title, total=total)
        self._progress.update(self._task, description=title, completed=done, total=total)


@contextmanager
def steps() -> Iterator[Steps]:
    """A bar while the block runs; nothing where standard error is no terminal."""
    console = error_console()
    columns = (
        TextColumn("[bold]{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Steps(progress)


def print_table(table: PageTable, title: str = "", note: str = "", right: bool = True) -> None:
    """A table of the report on the terminal; text columns are for `right=False`."""
    console = wide_console()
    if title:
        console.print(Text(f"\n{title}", "bold"))
    if note:
        console.print(Text(note, "dim"))
    shown = Table(box=None, padding=(0, 2, 0, 0), show_header=any(table.header), header_style="dim")
    for place, heading in enumerate(table.header):
        style = "cyan" if not place else ""
        shown.add_column(heading, style=style, justify="right" if right and place else "left", overflow="fold")
    for row in table.rows:
        shown.add_row(*[Text(escaped(cell)) for cell in row])
    console.print(shown)


def print_pairs(title: str, pairs: Sequence[tuple[str, str]]) -> None:
    """Names and values under a title; empty values are left out."""
    console = output_console()
    console.print(Text(title, "bold"))
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        if value:
            console.print(Text.assemble("  ", (name.ljust(width + 2), "cyan"), escaped(value)), soft_wrap=True)


def wide_console() -> Console:
    """Standard output, not cut to 80 columns where it is no terminal."""
    console = output_console()
    if not console.is_terminal:
        console.width = _WIDE
    return console
