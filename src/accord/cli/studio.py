"""Serve the studio, where people judge responses; docs/studio.md says how.

Prints the address, and on a new database a link that makes you its admin, good once, for 15 minutes. Everything is kept
in the database at once, so the server can be stopped at any time.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from accord.cli.console import output_console, waiting
from accord.cli.options import add_config_arguments, config_from
from accord.pipelines.settings import SettingsError

if TYPE_CHECKING:
    from accord.feedback.studio import StudioConfig

__all__ = ["add_arguments", "run"]


@contextmanager
def _naming_the_extra() -> Iterator[None]:
    """A package of the extra that is missing is an error that says how to get it."""
    try:
        yield
    except ImportError as error:
        raise SettingsError(f"the studio needs {error.name}; pip install 'accord-align[studio]'") from None


def _config() -> type[StudioConfig]:
    with _naming_the_extra():
        from accord.feedback.studio import StudioConfig
    return StudioConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting."""
    add_config_arguments(parser, _config())


def run(arguments: argparse.Namespace) -> int:
    """Open the store, fill it on `--demo`, print how to get in, serve."""
    config = config_from(_config(), arguments)
    with _naming_the_extra():
        from accord.feedback.store import Store, now_ms
        from accord.feedback.studio.demo import add_demo
        from accord.feedback.studio.serve import admin_link, serve
        from accord.pipelines.feedback_data import import_upload

    store = Store.open(config.database)
    console = output_console()
    models = _models(config)
    if config.demo:
        add_demo(store, chats=bool(models))

    def ready(address: str) -> None:
        link = store.run(admin_link, base=address, now=now_ms())
        console.print(f"Accord studio on [bold]{address}[/bold], kept in {config.database}")
        if link is not None:
            console.print("Open this link to become its admin (once, within 15 minutes):")
            console.print(f"  {link}", soft_wrap=True)
        console.print("Ctrl-C stops it; nothing is lost.", style="dim")

    try:
        serve(store, config, models=models, importer=import_upload, ready=ready)
    finally:
        store.close()
    return 0


def _models(config: StudioConfig) -> dict[str, Any]:
    """Models people can talk to, by name. Loading a local one takes some seconds."""
    found: dict[str, Any] = {}
    for spec in config.models:
        from accord.pipelines.language_models import open_language_model

        with waiting(f"loading {spec}"):
            model = open_language_model(spec)
        found[model.name] = model
    return found
