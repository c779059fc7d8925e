"""Checks and conversions that the functions of this package share. A missing value is NaN here, whatever it was."""

from __future__ import annotations

from collections.abc import Hashable, Sequence, Sized
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.intp]
Numbers: TypeAlias = ArrayLike | Sequence[float | None] | Sequence[Sequence[float | None]]
Clusters: TypeAlias = Sequence[Hashable] | NDArray[np.generic]

NAN = float("nan")


class Codes(NamedTuple):
    """Labels as numbers: `codes` has the shape of the labels, -1 where missing, and indexes `categories`."""

    codes: Ints
    categories: NDArray[Any]


def floats(name: str, values: Numbers, dimensions: int = 1) -> Floats:
    """Numbers as float64, with NaN for None; ValueError if they are none, or of another number of dimensions."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` is no array of numbers ({error}); expected numbers, NaN where missing") from None
    if array.ndim != dimensions:
        raise ValueError(f"`{name}` has shape {array.shape}; expected {dimensions} dimensions")
    return array


def integers(name: str, values: ArrayLike, below: int) -> Ints:
    """Codes 0..below-1; ValueError for anything else."""
    array = floats(name, values)
    codes = array.astype(np.intp) if np.isfinite(array).all() else None
    if codes is None or (codes != array).any() or (codes < 0).any() or (codes >= below).any():
        raise ValueError(f"`{name}` holds something else than the whole numbers 0..{below - 1}; expected codes from 0")
    return codes


def same_length(**columns: Sized) -> None:
    """ValueError unless all columns are of one length."""
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"`{name}` {length}" for name, length in lengths.items())
        raise ValueError(f"lengths differ: {found}; expected one entry of each per row")


def between(name: str, array: Floats, low: float, high: float) -> None:
    """ValueError if a number lies outside low..high; NaN passes."""
    wrong = array[(array < low) | (array > high)]
    if wrong.size:
        raise ValueError(f"`{name}` holds {wrong[0]:g}; expected numbers from {low:g} to {high:g}, NaN where missing")


def one_of(name: str, word: str, words: Sequence[str]) -> None:
    """ValueError for a word that is none of `words`."""
    if word not in words:
        raise ValueError(f"`{name}` is {word!r}; expected one of {', '.join(map(repr, words))}")


def labels(values: ArrayLike) -> NDArray[Any]:
    """Labels as an array; of a list that holds texts, an array of objects, for numpy would make NaN a text too."""
    array = np.asarray(values)
    mixed = array.dtype.kind in "US" and not isinstance(values, np.ndarray)
    return np.asarray(values, dtype=object) if mixed else array


def label_codes(name: str, values: ArrayLike, dimensions: int) -> Codes:
    """Labels, numbers or texts, as positions in their sorted union; NaN and None are missing."""
    array = labels(values)
    if array.dtype.kind in "OUS" and any(isinstance(label, (str, bytes)) for label in array.flat):
        objects = array.astype(object)
        missing = np.array([label is None or label != label for label in objects.flat], dtype=bool).reshape(array.shape)
    else:
        array = objects = floats(name, array, dimensions)
        missing = np.isnan(array)
    if array.ndim != dimensions:
        raise ValueError(f"`{name}` has shape {array.shape}; expected {dimensions} dimensions")
    codes = np.full(array.shape, -1, dtype=np.intp)
    try:
        categories, inverse = np.unique(objects[~missing], return_inverse=True)
    except TypeError:
        raise ValueError(f"`{name}` mixes numbers and texts; expected labels of one kind") from None
    codes[~missing] = inverse.reshape(-1)
    return Codes(codes, categories)


def numbered(clusters_N: Clusters) -> Ints:
    """Clusters as numbers, by first appearance."""
    if isinstance(clusters_N, np.ndarray) and clusters_N.dtype.kind in "biuf":
        _, first, inverse = np.unique(clusters_N, return_index=True, return_inverse=True)
        place = np.empty(len(first), dtype=np.intp)
        place[np.argsort(first)] = np.arange(len(first))
        return place[inverse.reshape(-1)]
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters_N], dtype=np.intp)


def picked(clusters_N: Clusters | None, kept_N: NDArray[np.bool_]) -> Clusters | None:
    """The clusters of the rows that are kept; ValueError if there is not one cluster per row."""
    if clusters_N is None:
        return None
    if len(clusters_N) != len(kept_N):
        raise ValueError(f"{len(clusters_N)} clusters for {len(kept_N)} values; expected one cluster per value")
    if isinstance(clusters_N, np.ndarray):
        return clusters_N[kept_N]
    return [cluster for cluster, kept in zip(clusters_N, kept_N, strict=True) if kept]


def cluster_numbers(clusters_N: Clusters | None, kept_N: NDArray[np.bool_]) -> Ints:
    """The clusters of the rows that are kept, numbered by first appearance; every row its own when None."""
    clusters = picked(clusters_N, kept_N)
    return np.arange(int(kept_N.sum())) if clusters is None else numbered(clusters)


def ratio(numerator: float, denominator: float) -> float:
    """The quotient, NaN where the denominator is 0: undefined is neither 0 nor 1."""
    return float(numerator / denominator) if denominator else NAN
