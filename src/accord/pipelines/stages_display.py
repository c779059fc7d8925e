"""A live view of a job of several stages: what is done, what runs, how long it will take, the latest figures."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from accord.train.progress import figures_text

__all__ = ["StagesDisplay"]

PLAIN_SECONDS = 15.0  # between lines where there is no terminal to redraw


class StagesDisplay:
    """Stages in order, one line each.

    Args:
        stages: name -> what happens in it, in a few words.
        console: where to draw; plain lines where it is no terminal.
    """

    def __init__(self, stages: Mapping[str, str], console: Console) -> None:
        self.console = console
        self._stages = dict(stages)
        self._seconds: dict[str, float] = {}
        self._kept: dict[str, str] = {}
        self._now: str | None = None
        self._started = self._printed = self._began = time.monotonic()
        self._title, self._total, self._first, self._done = "", 1, 0, 0
        self._figures: dict[str, float] = {}
        self._live = Live(console=console, get_renderable=self._draw, refresh_per_second=4, transient=True)

    # -- what a pipeline says ------------------------------------------------------------------------------------------

    def stage(self, name: str) -> None:
        """A stage begins; the one before it is done."""
        self._close_stage()
        self._now, self._began, self._figures = name, time.monotonic(), {}
        self._title, self._total, self._done = "starting", 0, 0
        if self.console.is_terminal:
            self._live.start()
        else:
            self.console.print(f"{name}: {self._stages[name]}")

    def finished(self, name: str, seconds: float) -> None:
        """A stage that an earlier call finished."""
        self._seconds[name] = seconds
        self._kept[name] = "from the earlier part of this run"

    def close(self) -> None:
        """All stages are done, or one failed: leave the table as it stands."""
        if self._live.is_started:
            self._live.stop()
            self.console.print(self._draw())

    def complete(self) -> None:
        """The last stage is done."""
        self._close_stage()

    # -- what a job says (accord.train.progress.Display) ---------------------------------------------------------------

    def begin(self, title: str, total: int, done: int = 0) -> None:
        """A stretch of `total` steps."""
        self._title, self._total, self._first, self._done = title, total, done, done
        self._started = time.monotonic()

    def update(self, done: int, figures: dict[str, float]) -> None:
        """`done` steps are behind it."""
        self._done = done
        self._figures |= figures
        if not self.console.is_terminal and time.monotonic() - self._printed > PLAIN_SECONDS:
            self._printed = time.monotonic()
            words = f"  {self._title} {done}/{self._total}  {self._left()}  {figures_text(self._figures)}"
            self.console.print(words.rstrip(), highlight=False)

    def note(self, text: str) -> None:
        """A line that stays, above the table."""
        self.console.print(f"  {text}", style="dim", highlight=False)

    def end(self) -> None:
        """A job is over; the stages go on."""

    # -- drawing -------------------------------------------------------------------------------------------------------

    def _close_stage(self) -> None:
        if self._now is not None:
            self._seconds[self._now] = time.monotonic() - self._began
            self._kept[self._now] = figures_text(self._figures)
            self._now = None

    def _left(self) -> str:
        steps = self._done - self._first
        if not steps or self._done >= self._total:
            return ""
        rest = (time.monotonic() - self._started) / steps * (self._total - self._done)
        return f"{_clock(rest)} left"

    def _draw(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for column in ("mark", "stage", "time"):
            table.add_column(column, no_wrap=True, justify="right" if column == "time" else "left")
        table.add_column("what", overflow="ellipsis", no_wrap=True)
        for name, meaning in self._stages.items():
            if name == self._now:
                table.add_row(
                    Text("▶", "bold cyan"), Text(name, "bold"), _clock(time.monotonic() - self._began), meaning
                )
                table.add_row("", "", "", self._bar())
            elif name in self._seconds:
                words = Text(self._kept.get(name, ""), "cyan")
                table.add_row(Text("✓", "green"), name, _clock(self._seconds[name]), words)
            else:
                table.add_row(Text("·", "dim"), Text(name, "dim"), "", Text(meaning, "dim"))
        return Group(Text(""), table)

    def _bar(self) -> Table:
        line = Table.grid(padding=(0, 2))
        words = Text(f"{self._title} {self._done}/{self._total}" if self._total else self._title, "dim")
        bar = ProgressBar(total=max(1, self._total), completed=self._done, width=24)
        line.add_row(bar, words, Text(self._left(), "dim"), Text(figures_text(self._figures), "cyan"))
        return line


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
