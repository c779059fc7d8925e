"""What people find in single responses: the share that has an attribute, such as "hallucinates"."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from accord.evaluate._arrays import NAN, Clusters, cluster_numbers, floats
from accord.evaluate.intervals import wilson
from accord.evaluate.result import Result

__all__ = ["binary_rate"]


def binary_rate(value_N: ArrayLike, prompt_N: Clusters | None = None, level: float = 0.95) -> Result:
    """Share of prompts with an attribute: several ratings of one prompt are averaged first.

        value = mean over prompts of the mean of their ratings,   interval: Wilson with n = number of prompts

    Args:
        value_N: (N,) 1 has it, 0 has it not, NaN unrated.
        prompt_N: (N,) the prompt of each rating; every rating its own when None.
        level: coverage.

    Returns: n counts ratings, `clusters` prompts. Without a rating: NaN with the interval (0, 1).

    Raises:
        ValueError: lengths differ, or a value that is none of these.
    """
    value = floats("value_N", value_N)
    wrong = value[~(np.isnan(value) | (value == 0) | (value == 1))]
    if wrong.size:
        raise ValueError(f"`value_N` holds {wrong[0]:g}; expected 0 or 1, NaN where unrated")
    rated = ~np.isnan(value)
    prompt = cluster_numbers(prompt_N, rated)
    mean_P = np.bincount(prompt, weights=value[rated]) / np.bincount(prompt)
    share = float(mean_P.mean()) if len(mean_P) else NAN
    interval = wilson(min(float(mean_P.sum()), len(mean_P)), len(mean_P), level)
    return Result(
        value=share,
        n=int(rated.sum()),
        n_unscored=len(value) - int(rated.sum()),
        ci=(interval.low, interval.high),
        level=level,
        method="wilson",
        clusters=len(mean_P),
    )
