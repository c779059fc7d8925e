"""Forget a person: handle, address, logins, drafts and all they wrote; their verdicts stay under a new pseudonym.

In projects that promise so, their judgments are deleted too. Exports made before are listed: those are out of the
store's reach. It cannot be undone.
"""

from __future__ import annotations

import argparse

from accord.cli.console import error_console
from accord.cli.feedback_common import opened, print_pairs
from accord.cli.options import add_config_arguments, config_from
from accord.pipelines.feedback_settings import ForgetConfig
from accord.pipelines.settings import SettingsError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting."""
    add_config_arguments(parser, ForgetConfig, words="user")


def run(arguments: argparse.Namespace) -> int:
    """Find the person, ask, forget, print what was erased."""
    config = config_from(ForgetConfig, arguments)
    with opened(config.database) as store:
        from accord.feedback.store import forget, now_ms
        from accord.feedback.store.find import find_person

        person = store.read(find_person, config.user)
        if not config.yes:
            _ask(person.handle)
        done = store.run(forget, user_id=person.id, now=now_ms())
    pairs = [
        ("texts erased", f"{done.bodies:,}"),
        ("prompts and responses erased", f"{done.contents:,}"),
        ("judgments deleted", f"{done.judgments:,}"),
        ("exports made before", ", ".join(done.exports) or "none"),
    ]
    print_pairs(f"forgot {config.user}", pairs)
    return 0


def _ask(handle: str) -> None:
    console = error_console()
    if not console.is_terminal:
        raise SettingsError(f"forgetting {handle} cannot be undone; say --yes to do it without being asked")
    said = console.input(f"Forget {handle} for good? Type the handle to go on: ", markup=False)
    if said.strip() != handle:
        raise SettingsError("the handle was not typed; nothing was erased")
