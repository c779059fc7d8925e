"""How far a job is, on a terminal: the stage, a bar, time left and the latest figures."""

from __future__ import annotations

from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["Bar", "Display", "figures_text"]

SHOWN = {
    "loss": "loss",
    "accuracy_tie_half": "accuracy",
    "reward/mean": "reward",
    "kl/reference": "KL",
    "length/mean": "length",
    "eval/loss": "held-out loss",
    "eval/accuracy_tie_half": "held-out accuracy",
    "label/per_second": "items/s",
    "label/tokens": "tok/s",
    "label/unscored": "unscored",
    "label/flips": "flips",
    "label/money": "cost",
    "tokens_per_second": "tok/s",
}


class Display(Protocol):
    """Where a job shows how far it is."""

    def begin(self, title: str, total: int, done: int = 0) -> None:
        """A stage of `total` steps starts, of which `done` are behind it."""
        ...

    def update(self, done: int, figures: dict[str, float]) -> None:
        """`done` steps are behind it; the latest figures by metric name."""
        ...

    def note(self, text: str) -> None:
        """One line that stays."""
        ...

    def end(self) -> None:
        """The job is over, or failed."""
        ...


def figures_text(figures: dict[str, float]) -> str:
    """The few figures people watch, in words."""
    return "  ".join(f"{word} {figures[name]:.4g}" for name, word in SHOWN.items() if name in figures)


class Bar:
    """One bar on standard error; plain lines where that is no terminal."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}", style="cyan"),
            console=self.console,
        )
        self._task = self._progress.add_task("", total=None, visible=False, figures="")
        self._figures: dict[str, float] = {}

    def begin(self, title: str, total: int, done: int = 0) -> None:
        """Show a fresh bar."""
        self._figures = {}
        self._progress.start()
        self._progress.reset(self._task, total=total, completed=done, description=title, visible=True, figures="")

    def update(self, done: int, figures: dict[str, float]) -> None:
        """Move the bar."""
        self._figures |= figures
        self._progress.update(self._task, completed=done, figures=figures_text(self._figures))

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text, style="dim", markup=False)

    def end(self) -> None:
        """Leave the bar as it stands."""
        self._progress.stop()


class Quiet:
    """Shows nothing."""

    def begin(self, title: str, total: int, done: int = 0) -> None:
        """Nothing to show."""

    def update(self, done: int, figures: dict[str, float]) -> None:
        """Nothing to show."""

    def note(self, text: str) -> None:
        """Nothing to show."""

    def end(self) -> None:
        """Nothing to show."""
