"""Text to token ids and back: the one place where ids and training marks are made, together."""

from accord.text.template import Template

__all__ = ["Template"]
