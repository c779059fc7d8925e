"""Texts that are almost the same: MinHash and bands (Broder 1997; Leskovec, Rajaraman and Ullman, ch. 3).

    J(a, b) = |shingles of both| / |shingles of either|,   shingles: runs of 5 words

A text is 128 numbers, the smallest hash of its shingles under 128 permutations; two texts agree in each with
probability J. 25 bands of 5 make candidates: a pair with J = 0.8 is one with probability 1 - (1 - 0.8^5)^25 = 0.99995,
with J = 0.5 0.55, with J = 0.2 0.008. Candidates are compared by their shingles, so no pair below the threshold is
joined.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from accord.overlap import words

__all__ = ["Groups", "NearDuplicates", "jaccard", "shingles"]

PERMUTATIONS, BANDS, ROWS, WORDS = 128, 25, 5, 5
_PRIME = np.uint64(2**31 - 1)
Hashes = NDArray[np.uint32]


def shingles(text: str) -> Hashes:
    """Distinct hashes of the runs of 5 words of a text, sorted; of a shorter text, of its words as one run."""
    found = words(text, "unicode")
    runs = (" ".join(found[start : start + WORDS]) for start in range(max(1, len(found) - WORDS + 1)))
    return np.unique(np.fromiter((crc32(run.encode()) for run in runs), np.uint32))


def jaccard(first: Hashes, second: Hashes) -> float:
    """Shared share of two sorted sets of hashes, 0 to 1."""
    common = np.intersect1d(first, second, assume_unique=True).size
    return float(common / (first.size + second.size - common))


class Groups:
    """Union-find over numbers; the smallest number of a group stands for it."""

    def __init__(self, size: int) -> None:
        self._above = list(range(size))

    def first(self, number: int) -> int:
        """The smallest number of the group."""
        while self._above[number] != number:
            self._above[number] = self._above[self._above[number]]
            number = self._above[number]
        return number

    def join(self, one: int, other: int) -> None:
        """Make one group of two."""
        low, high = sorted((self.first(one), self.first(other)))
        self._above[high] = low


class NearDuplicates:
    """Texts taken one by one, then grouped: memory is 4 bytes a word and 200 bytes a text.

    Args:
        threshold: Jaccard similarity from which on two texts are the same.
        seed: of the permutations.
    """

    def __init__(self, threshold: float = 0.8, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self.threshold = threshold
        self._factor_P = generator.integers(1, int(_PRIME), PERMUTATIONS, dtype=np.uint64)[:, None]
        self._shift_P = generator.integers(0, int(_PRIME), PERMUTATIONS, dtype=np.uint64)[:, None]
        self._shingles: list[Hashes] = []
        self._bands: list[NDArray[np.uint64]] = []

    def add(self, text: str) -> None:
        """Take a text; texts have numbers from 0 in the order they come."""
        hashes = shingles(text)
        # 31 bits times 31 bits fit into 64
        value_S = hashes.astype(np.uint64) % _PRIME
        least_P = ((self._factor_P * value_S + self._shift_P) % _PRIME).min(axis=1)
        self._shingles.append(hashes)
        self._bands.append(_band_hashes(least_P[: BANDS * ROWS]))

    def groups(self) -> Groups:
        """Texts that are the same, directly or through others."""
        groups = Groups(len(self._shingles))
        if not self._bands:
            return groups
        band_NB = np.stack(self._bands)
        checked: set[tuple[int, int]] = set()
        for band in range(BANDS):
            for members in _equal(band_NB[:, band]):
                self._join(members, groups, checked)
        return groups

    def _join(self, members: Sequence[int], groups: Groups, checked: set[tuple[int, int]]) -> None:
        """Compare the members of a bucket with those that stand for the groups found in it so far."""
        leaders: list[int] = []
        for member in members:
            for leader in leaders:
                if groups.first(leader) == groups.first(member):
                    break
                if (leader, member) in checked:
                    continue
                checked.add((leader, member))
                if jaccard(self._shingles[leader], self._shingles[member]) >= self.threshold:
                    groups.join(leader, member)
                    break
            else:
                leaders.append(member)


def _band_hashes(least_P: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One number for each band of rows."""
    mixed_B = np.zeros(BANDS, np.uint64)
    for row_B in least_P.reshape(BANDS, ROWS).T:
        mixed_B = (mixed_B ^ row_B) * np.uint64(0x9E3779B97F4A7C15)  # wraps around: a multiplicative hash
    return mixed_B


def _equal(value_N: NDArray[np.uint64]) -> Iterator[list[int]]:
    """Places of equal values, in order, where there are several."""
    order = np.argsort(value_N, kind="stable")
    cuts = np.flatnonzero(np.diff(value_N[order])) + 1
    for piece in np.split(order, cuts):
        if piece.size > 1:
            yield piece.tolist()
