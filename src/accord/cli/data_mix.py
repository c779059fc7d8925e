"""Several data sets into one: drawn by size up to a cap, a weight and a temperature, in an order that is a function of
the seed.

Give data files, folders of them, or a YAML file with settings and `sources`: name -> path, or path, weight and cap.
Killing the job at any moment and giving the same command again continues it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from accord.cli.console import output_console
from accord.cli.options import add_config_arguments, config_from
from accord.cli.progress import bars
from accord.data.curation.examples import expanded
from accord.data.curation.mix import MixConfig, Mixed, MixSource, mix, read_sources
from accord.pipelines.settings import Block, SettingsError, read_yaml
from accord.records import describe

__all__ = ["add_arguments", "run", "sources_of"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sources and a flag for each setting."""
    parser.add_argument(
        "sources", nargs="+", metavar="MIX.yaml|FILE", help="settings with `sources`, data files, folders of data files"
    )
    add_config_arguments(parser, MixConfig, settings_file=False)


def run(arguments: argparse.Namespace) -> int:
    """Mix and print the table."""
    sources, settings = sources_of(arguments.sources)
    arguments.recipe = None
    config = config_from(MixConfig, arguments, settings)
    with bars() as tell:
        mixed = mix(sources, config, tell)
    print_mixed(output_console(), mixed, config)
    return 0


def sources_of(names: Sequence[str]) -> tuple[list[MixSource], tuple[Block, Path] | None]:
    """Sources from files, folders and at most one YAML file, whose other entries are settings.

    Raises:
        SettingsError: two YAML files, or `sources` in it is not what it should be.
    """
    yamls = [Path(name) for name in names if name.endswith((".yaml", ".yml"))]
    if len(yamls) > 1:
        raise SettingsError(f"{yamls[1]}: a second file of settings; give one, with all `sources`")
    found = list(read_sources(expanded([name for name in names if Path(name) not in yamls])))
    if not yamls:
        return found, None
    block = read_yaml(yamls[0])
    named = block.pop("sources", {})
    if not isinstance(named, Mapping):
        raise SettingsError(f"{yamls[0]}: `sources` is no mapping; expected name: path, or name: {{path, weight, cap}}")
    found += [_source(name, value, yamls[0]) for name, value in named.items()]
    block.lines.pop("sources", None)
    return found, (block, yamls[0])


def _source(name: str, value: Any, path: Path) -> MixSource:
    values = value if isinstance(value, Mapping) else {"path": value}
    try:
        return MixSource.model_validate({"name": name, **values})
    except ValidationError as error:
        raise SettingsError(f"{path}, source {name}: {describe(error)}") from None


def print_mixed(console: Console, mixed: Mixed, config: MixConfig) -> None:
    """Print the table of sources and what was left out."""
    table = Table(title=str(config.out), title_justify="left", title_style="bold")
    table.add_column("source", no_wrap=True)
    for name in ("rows", "rate", "in the mixture", "share", "times each"):
        table.add_column(name, justify="right")
    for part in mixed.shares:
        at_limit = part.drawn == part.available * config.max_repeats
        table.add_row(
            part.name,
            f"{part.available:,}",
            f"{part.rate:.2%}",
            f"{part.drawn:,}",
            f"{part.drawn / mixed.rows:.2%}",
            f"{part.repeats:.2f}" + (" (limit)" if at_limit else ""),
        )
    console.print(table)
    console.print(f"{mixed.rows:,} rows of {len(mixed.shares)} sources")
    if mixed.rows < mixed.wanted:
        console.print(
            f"{mixed.wanted:,} were asked for: no row stands in it more than {config.max_repeats} times", style="yellow"
        )
    if config.against:
        console.print(f"{mixed.contaminated:,} rows left out because they give evaluation sets away")
    if mixed.bad:
        console.print(f"{mixed.bad:,} bad rows set aside", style="yellow")
