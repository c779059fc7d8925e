"""Form rather than content: what a response is made up with, and phrases that say nothing.

A policy that learns to please a reward model often learns its taste in form first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

__all__ = ["MARKS", "holds_phrase", "marks", "read_phrases"]

MARKS: Mapping[str, re.Pattern[str]] = {
    "list items": re.compile(r"^[ \t]*(?:[-*+\u2022]|\d{1,3}[.)])[ \t]+\S", re.MULTILINE),
    "bold": re.compile(r"\*\*[^\s*][^*\n]*\*\*|(?<!\w)__[^\s_][^_\n]*__(?!\w)"),
    "headings": re.compile(r"^#{1,6}[ \t]+\S", re.MULTILINE),
    "code": re.compile(r"^```", re.MULTILINE),
}
"""What is counted in a response; fences of code count as one a pair."""


def marks(text: str) -> dict[str, float]:
    r"""How often each of `MARKS` stands in a text.

    >>> marks("# A\n- one\n- two\n**three**")
    {'list items': 2.0, 'bold': 1.0, 'headings': 1.0, 'code': 0.0}
    """
    counts = {name: float(len(pattern.findall(text))) for name, pattern in MARKS.items()}
    return counts | {"code": float((int(counts["code"]) + 1) // 2)}


def holds_phrase(text: str, phrases: Sequence[str]) -> bool:
    """Whether a text holds one of some phrases, in any case, with straight or curly apostrophes."""
    plain = " ".join(text.replace("\u2019", "'").lower().split())
    return any(phrase in plain for phrase in phrases)


def read_phrases(path: Path | None = None) -> dict[str, tuple[str, ...]]:
    """Lists of phrases by name, from YAML (`name: [phrase, ...]`); the shipped refusals and stock phrases by default.

    Raises:
        ValueError: the file holds something else.
    """
    if path is None:
        return dict(_shipped())
    value = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict) or not all(isinstance(entry, list) and entry for entry in value.values()):
        raise ValueError(f'{path}: expected lists of phrases by name, such as `refusals: ["i can\'t help"]`')
    return _plain(value)


@cache
def _shipped() -> dict[str, tuple[str, ...]]:
    text = resources.files("accord.evaluate").joinpath("phrases.yaml").read_text(encoding="utf-8")
    return _plain(yaml.safe_load(text))


def _plain(value: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    return {
        str(name): tuple(" ".join(str(phrase).replace("\u2019", "'").lower().split()) for phrase in phrases)
        for name, phrases in value.items()
    }
