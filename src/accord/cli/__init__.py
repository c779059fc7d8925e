"""The command line: one module per command, imported when it is chosen. `accord --help` needs no torch."""

from accord.cli.app import main

__all__ = ["main"]
