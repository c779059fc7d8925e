"""Reading what `accord eval` found, run by run, and drawing it twice: for desktops and for phones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from accord.evaluate.page.files import Row, number, pair
from accord.evaluate.page.plots import Dot
from accord.evaluate.page.svg import NARROW, OTHERS, WIDE, StageStyle, responsive

__all__ = ["Named", "both", "dots_of", "figures_of", "rows_of", "style_at"]

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


def dots_of(found: Named, wanted: Callable[[Row], bool]) -> list[Dot]:
    """A dot with its interval for each result that is wanted and has a value; of several runs each is named."""
    dots = []
    for position, (run, row) in enumerate(found):
        for one in rows_of(row.get("results")):
            value, words = number(one.get("value")), str(one.get("of") or one.get("name"))
            if value is not None and wanted(one):
                name = f"{run}: {words}" if len(found) > 1 else words
                dots.append(Dot(name=name, style=style_at(position), value=value, ci=pair(one.get("ci"))))
    return dots


def both(identity: str, draw: Any, wide: int = WIDE) -> Markup:
    """The drawing for desktops and the one for phones."""
    return responsive(draw(f"{identity}-wide", wide), draw(f"{identity}-narrow", NARROW))
