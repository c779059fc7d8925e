"""Remove bad rows by named rules: length, repetition, cut or refused responses, open code fences, personal data, ...

Each rule has a count and can be switched off (--without). Removed rows are written beside the others, each with its
reason.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Sequence
from typing import Any

from accord.cli.console import error_console, output_console
from accord.cli.curation import print_written
from accord.cli.options import add_config_arguments, config_from
from accord.cli.progress import bars
from accord.data.curation.quality import clean
from accord.data.curation.rules import RULES, CleanConfig, Scorer
from accord.pipelines.settings import SettingsError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the files and a flag for each setting."""
    add_config_arguments(parser, CleanConfig, words="data")
    parser.add_argument("--rules", action="store_true", help="list the rules and stop")


def run(arguments: argparse.Namespace) -> int:
    """Look at every row, write, print what went by which rule; or list the rules."""
    console = output_console()
    if arguments.rules:
        for rule in RULES:
            console.print(f"[cyan]{rule.name.ljust(12)}[/] {rule.removes}")
        return 0
    config = config_from(CleanConfig, arguments)
    with bars() as tell:
        written = clean(
            config,
            tell,
            personal=None if "personal" in config.without else _personal(),
            toxicity=_scorer("toxicity", config.toxicity),
            reward=_scorer("reward", config.reward),
        )
    print_written(console, written, {rule.name: rule.removes for rule in RULES})
    return 0


def _personal() -> Callable[[str], Sequence[Any]] | None:
    try:
        from accord.feedback.store.personal_data import find
    except ImportError:
        error_console().print(
            "personal data are not looked for: pip install 'accord-align\\[studio]'", style="yellow", soft_wrap=True
        )
        return None
    return find


def _scorer(name: str, where: str | None) -> Scorer | None:
    if where is None:
        return None
    module, _, attribute = where.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(f'--{name} "{where}": {error}; expected module:function, found from this folder') from None
    scorer: Scorer = found
    return scorer
