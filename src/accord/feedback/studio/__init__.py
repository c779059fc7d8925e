"""The studio: pages on which people judge responses, and admins see what that is worth. docs/studio.md is its manual.

    app = create_app(Store.open("sqlite:///feedback.db"), StudioConfig())      # an ASGI application

A page is a module of `pages` with a `router`; `app.py` lists them. Handlers parse, ask `access` whether a person may,
and call one function of the store.
"""

from accord.feedback.studio.app import create_app
from accord.feedback.studio.config import StudioConfig

__all__ = ["StudioConfig", "create_app"]
