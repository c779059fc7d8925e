"""Reading what `accord eval` found, run by run, and drawing it twice: for desktops and for phones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from accord.evaluate.page.files import Row
from accord.evaluate.page.svg import NARROW, OTHERS, WIDE, StageStyle, responsive

__all__ = ["Named", "both", "figures_of", "rows_of", "style_at"]

Named = Sequence[tuple[str, Row]]
"""(run, its evaluation) pairs: one where a single run is shown, else a line or row for each."""


def style_at(position: int) -> StageStyle:
    """The look of a line or row by its position."""
    return OTHERS[position % len(OTHERS)]


def figures_of(row: Row) -> Mapping[str, Any]:
    """What charts of an evaluation are drawn from."""
    value = row.get("figures")
    return value if isinstance(value, Mapping) else {}


def rows_of(value: object) -> list[Row]:
    """The objects of a list; of anything else none."""
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list) else []


def both(identity: str, draw: Any, wide: int = WIDE) -> Markup:
    """The drawing for desktops and the one for phones."""
    return responsive(draw(f"{identity}-wide", wide), draw(f"{identity}-narrow", NARROW))
