"""Where the command line prints: results on standard output, messages for people on standard error."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

__all__ = ["error_console", "output_console", "print_error"]


def output_console() -> Console:
    """Standard output, plain text when it is not a terminal."""
    return Console(highlight=False)


def error_console() -> Console:
    """Standard error, plain text when it is not a terminal."""
    return Console(stderr=True, highlight=False)


def print_error(message: str) -> None:
    """Print one line `error: ...` on standard error, whatever the width of the terminal."""
    line = Text.assemble(("error: ", "bold red"), " ".join(message.split()))
    error_console().print(line, soft_wrap=True)
