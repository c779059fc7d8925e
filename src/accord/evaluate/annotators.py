"""Which annotators disagree with the others more than chance explains. A flag is evidence, not a verdict."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accord.evaluate._arrays import between, floats, same_length
from accord.evaluate.intervals import wilson

__all__ = ["low_agreement"]


def low_agreement(
    rate_A: ArrayLike, n_A: ArrayLike, margin: float = 0.10, minimum: int = 20, level: float = 0.95
) -> NDArray[np.bool_]:
    """Annotators whose agreement with the others is surely lower than usual, for a person to look at.

        flagged if n >= minimum and the upper Wilson limit of the rate < median rate of those with n >= minimum - margin

    Args:
        rate_A: (A,) shares, `leave_one_out_agreement`; NaN without an item.
        n_A: (A,) items behind each.
        margin: how much lower, as a share, is worth a look.
        minimum: items below which nobody is judged.
        level: of Wilson's interval.

    Returns: (A,) bool; all False where nobody reaches the minimum.

    Raises:
        ValueError: lengths differ, or a rate outside 0..1.
    """
    rate, n = floats("rate_A", rate_A), floats("n_A", n_A)
    same_length(rate_A=rate, n_A=n)
    between("rate_A", rate, 0, 1)
    judged = (n >= minimum) & ~np.isnan(rate)
    if not judged.any():
        return np.zeros(len(rate), dtype=bool)
    bound = float(np.median(rate[judged])) - margin
    upper = [
        wilson(share * count, int(count), level).high if known else np.inf
        for share, count, known in zip(rate.tolist(), n.tolist(), judged, strict=True)
    ]
    return np.asarray(upper) < bound
