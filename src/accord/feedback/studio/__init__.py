"""The studio: pages on which people judge responses, and admins see what that is worth. docs/studio.md is its manual.

    app = create_app(Store.open("sqlite:///feedback.db"), StudioConfig())      # an ASGI application

A page is a module of `pages` with a `router`; `app.py` lists them. Handlers parse, ask `access` whether a person may,
and call one function of the store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from accord.feedback.studio.config import StudioConfig

if TYPE_CHECKING:
    from accord.feedback.studio.app import create_app

__all__ = ["StudioConfig", "create_app"]


def __getattr__(name: str) -> Any:
    """`create_app` is imported when it is asked for: the help of the command line needs the settings alone."""
    if name == "create_app":
        from accord.feedback.studio.app import create_app

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
