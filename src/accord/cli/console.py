"""Where the command line prints: results on standard output, messages for people on standard error."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

__all__ = ["WordWrap", "error_console", "escaped", "output_console", "print_error", "printable", "waiting"]


def output_console() -> Console:
    """Standard output, plain text when it is not a terminal."""
    return Console(highlight=False)


def error_console() -> Console:
    """Standard error, plain text when it is not a terminal."""
    return Console(stderr=True, highlight=False)


def waiting(words: str) -> AbstractContextManager[object]:
    """A spinner on standard error while something is imported or loaded; nothing where it is no terminal."""
    console = error_console()
    return console.status(words) if console.is_terminal else nullcontext()


def print_error(message: str) -> None:
    """Print one line `error: ...` on standard error, whatever the width of the terminal."""
    line = Text.assemble(("error: ", "bold red"), " ".join(message.split()))
    error_console().print(line, soft_wrap=True)


class WordWrap:
    """Writes text that comes in pieces and breaks lines between words.

    A word is held back until its end is there; `flush` writes the rest.

    Args:
        write: where to.
        width: columns of a line.
        column: where the first line begins.
    """

    def __init__(self, write: Callable[[str], object], width: int, column: int = 0) -> None:
        self._write, self._width, self._column, self._word = write, width, column, ""

    def __call__(self, text: str) -> None:
        """Take a piece."""
        for character in text:
            if not character.isspace():
                self._word += character
                continue
            self.flush()
            if character == "\n" or self._column >= self._width:
                self._write("\n")
                self._column = 0
            else:
                self._write(" ")
                self._column += 1

    def flush(self) -> None:
        """Write the word that is held back."""
        size = cell_len(self._word)
        if self._column and self._column + size > self._width:
            self._write("\n")
            self._column = 0
        self._write(self._word)
        self._column += size
        self._word = ""


def escaped(text: str) -> str:
    r"""Text that cannot move the cursor or change colours: control characters but line ends and tabs spelled out.

    >>> escaped("a\n\x1b[31mb")
    'a\n\\x1b[31mb'
    """
    return "".join(map(_escape, text))


def _escape(character: str) -> str:
    keep = character in "\n\t" or unicodedata.category(character) != "Cc"
    return character if keep else f"\\x{ord(character):02x}"


def printable(text: str) -> str:
    r"""Escaped text with line ends and tabs shown.

    >>> printable("a\tb\nc")
    'a⇥b↵\nc'
    """
    return escaped(text).replace("\n", "↵\n").replace("\t", "⇥")
