"""Python functions by name, `module:function`: rewards that are no models. No torch."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from accord.data.files import sha256
from accord.records import Conversation

__all__ = ["load_function"]


def load_function(name: str) -> tuple[Callable[[Sequence[Conversation]], Sequence[float]], str]:
    """A function by name, looked for in the current folder and among packages, and its name with its file's hash.

    Raises: ValueError: there is no such function.
    """
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a function in a file beside the command, as `python -m` would find it
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, SyntaxError, ValueError) as error:
        raise ValueError(f"reward {name!r}: {error}; looked for in this folder and among packages") from error
    if not callable(function):
        raise ValueError(f"reward {name!r} is a {type(function).__name__}; it must be a function of conversations")
    # A run that is continued after the function's file was edited would go on with another reward.
    source = getattr(sys.modules[module], "__file__", None)
    return function, f"{name} ({sha256(Path(source))[:12]})" if source else name
