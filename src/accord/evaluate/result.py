"""The form in which every figure reaches a report: a value, what it rests on, and how sure it is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from accord import __version__

__all__ = ["Result", "ends_or_none", "finite_or_none", "of_amounts"]


@dataclass(frozen=True, kw_only=True)
class Result:
    """One figure. 7 wins of 10 prompts: `Result(value=0.7, n=10, ci=(0.4, 1.0), method="bootstrap", clusters=10, ...)`.

    Attributes:
        value: in the unit of what was measured; NaN when nothing was scored. Nothing measured is not zero.
        n: observations used.
        n_unscored: observations lost: a scorer failed, a reply could not be parsed.
        ci: both ends of the interval; None where it was not asked for or nothing was scored, (nan, nan) with fewer
            than two clusters.
        level: coverage of the interval.
        method: where the interval comes from: "bootstrap", "wilson", or "none".
        clusters: independent units (usually prompts) behind the interval.
        seed: of the bootstrap; None where none was made.
        version: of Accord.
        detail: what else the function that made it documents.
    """

    value: float
    n: int
    n_unscored: int = 0
    ci: tuple[float, float] | None = None
    level: float = 0.95
    method: str = "none"
    clusters: int | None = None
    seed: int | None = None
    version: str = __version__
    detail: dict[str, Any] = field(default_factory=dict)


def finite_or_none(value: float) -> float | None:
    """A number as JSON can hold it: None for NaN and the infinities."""
    return value if math.isfinite(value) else None


def ends_or_none(result: Result) -> list[float | None]:
    """Both ends of a result's interval as JSON can hold them: [None, None] where there is no interval."""
    return [finite_or_none(end) for end in (result.ci or (math.nan, math.nan))]


def of_amounts(found: Result) -> Result:
    """A `mean_result` of what is no share: amounts, differences.

    Of shares, ten ones of ten are no certainty, and `mean_result` gives them Wilson's interval. A reward that is the
    same everywhere, or a KL of 0, is no share, and a difference has its own sign: equal ones have an interval without
    width.
    """
    return replace(found, ci=(found.value, found.value), method="bootstrap") if found.method == "wilson" else found
