"""docs/cli.md: the help of every command, as the commands print it.

python -m accord.cli.docs > docs/cli.md
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator

from accord.cli.app import COMMANDS, EXAMPLES, parser_of

__all__ = ["reference"]

COLUMNS = 100

HEAD = """\
# The command line

Made by `python -m accord.cli.docs > docs/cli.md` from the commands themselves; a test holds both equal.

Every `train` command takes a YAML file, flags, or both: a file and flags mean the same, and flags win. What is wrong
with a command is said in one line, with exit code 2. Ctrl-C ends a command with exit code 130; the same command
continues a run. `ACCORD_DEBUG=1` shows tracebacks.

```
"""


def reference() -> str:
    """The content of docs/cli.md."""
    examples = "".join(f"{command.ljust(48)}# {meaning}\n" for command, meaning in EXAMPLES)
    sections = [section for command in COMMANDS for section in _sections(parser_of(command))]
    return HEAD + examples + "```\n" + "".join(sections)


def _sections(parser: argparse.ArgumentParser) -> Iterator[str]:
    """A parser's help and that of its subcommands."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(COLUMNS)
    try:
        text = parser.format_help()
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)
    yield f"\n## {parser.prog}\n\n```\n{text.rstrip()}\n```\n"
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from _sections(child)


if __name__ == "__main__":
    sys.stdout.write(reference())
