"""The REST API: what the pages do, for programs. `app.create_api` makes it, docs/studio.md has an example."""

from accord.feedback.studio.api.app import create_api

__all__ = ["create_api"]
