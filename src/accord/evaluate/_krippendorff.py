"""The two disagreements whose ratio is Krippendorff's alpha, without a table of units by categories.

Suffixes: A annotators, N units, U units that two or more rated, V pairable values (their ratings), C categories.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from accord.evaluate._arrays import NAN, Floats, Ints, label_codes, one_of

Level: TypeAlias = Literal["nominal", "ordinal", "interval", "ratio"]


def disagreement(ratings_AN: ArrayLike, level: Level = "nominal") -> tuple[float, float]:
    """(D_o, D_e) of `krippendorff_alpha`; (nan, 0) where nothing pairs or nothing varies."""
    one_of("level", level, ("nominal", "ordinal", "interval", "ratio"))
    code_AN, category_C = label_codes("ratings_AN", ratings_AN, 2)
    code_AN = code_AN[:, (code_AN >= 0).sum(axis=0) >= 2]
    annotator, unit = np.nonzero(code_AN >= 0)
    code_V = code_AN[annotator, unit]  # V: pairable values
    count_C = np.bincount(code_V, minlength=len(category_C))
    if (count_C > 0).sum() < 2:
        return NAN, 0.0
    if level == "nominal":
        return _nominal(code_V, unit, count_C)
    if category_C.dtype.kind == "O":
        raise ValueError(f"`ratings_AN` holds texts; expected numbers at the level {level!r}")
    value_C = category_C.astype(np.float64)
    if level == "ratio":
        return _ratio(np.where(code_AN >= 0, value_C[code_AN], NAN), value_C, count_C)
    if level == "ordinal":  # the ordinal distance is the distance of mid-ranks among all pairable values
        value_C = np.cumsum(count_C) - count_C / 2
    return _interval(value_C[code_V], unit)


def _nominal(code_V: Ints, unit_V: Ints, count_C: Ints) -> tuple[float, float]:
    rated_U = np.bincount(unit_V).astype(np.float64)
    pair, together = np.unique(unit_V * len(count_C) + code_V, return_counts=True)
    same_U = np.bincount(pair // len(count_C), weights=together.astype(np.float64) ** 2)
    total = len(code_V)
    observed = float(((rated_U**2 - same_U) / (rated_U - 1)).sum()) / total
    return observed, float(total**2 - (count_C.astype(np.float64) ** 2).sum()) / (total * (total - 1))


def _interval(value_V: Floats, unit_V: Ints) -> tuple[float, float]:
    """Sum over ordered pairs of squared differences = 2 m times the sum of squares about the mean."""
    total = len(value_V)
    centred_V = value_V - value_V.mean()
    rated_U = np.bincount(unit_V)
    mean_U = np.bincount(unit_V, weights=centred_V) / rated_U
    square_U = np.bincount(unit_V, weights=(centred_V - mean_U[unit_V]) ** 2)
    observed = float((2 * rated_U * square_U / (rated_U - 1)).sum()) / total
    return observed, 2 * float((centred_V**2).sum()) / (total - 1)


def _ratio(value_AN: Floats, value_C: Floats, count_C: Ints) -> tuple[float, float]:
    if (value_C < 0).any():
        raise ValueError(f"`ratings_AN` holds {value_C.min():g}; expected numbers from 0 up on a ratio scale")
    rated_N = (~np.isnan(value_AN)).sum(axis=0)
    total = int(count_C.sum())
    square_N = sum((np.nansum(_ratio_distance(row_N, value_AN), axis=0) for row_N in value_AN), np.zeros(len(rated_N)))
    pairs = (count_C[c] * float((count_C * _ratio_distance(value_C[c], value_C)).sum()) for c in range(len(value_C)))
    return float((square_N / (rated_N - 1)).sum()) / total, sum(pairs) / (total * (total - 1))


def _ratio_distance(first: Floats, second: Floats) -> Floats:
    """((c - k)/(c + k))^2, 0 for two zeros."""
    total = first + second
    return np.asarray(np.square((first - second) / np.where(total == 0, 1, total)), dtype=np.float64)
