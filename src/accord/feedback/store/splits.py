"""Splits made at export: by prompt and by annotator, so that both generalisations can be measured."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["held_out", "near_duplicates"]

_SHINGLE, _HASHES, _BANDS = 5, 128, 32


def held_out(seed: str, names: Sequence[str], share: float) -> frozenset[str]:
    """A share of the distinct names, rounded, drawn by hash: the same names and seed give the same draw."""
    distinct = sorted(set(names), key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest())
    return frozenset(distinct[: round(share * len(distinct))])


def near_duplicates(texts: Sequence[str], threshold: float = 0.8) -> list[int]:
    """Cluster number of each text: texts that share four fifths of their 5-word shingles stand together.

    Candidates come from MinHash (128 hashes in 32 bands); each is then checked by its exact Jaccard index, so nothing
    is joined by chance. Clusters are the connected components, numbered by first appearance. Case, width of characters
    and spaces do not matter; a text of fewer words is one shingle.
    """
    shingles = [_shingles(text) for text in texts]
    parent = list(range(len(texts)))

    def root(one: int) -> int:
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    seen: dict[tuple[int, bytes], list[int]] = {}
    rows = _HASHES // _BANDS
    for number, found in enumerate(shingles):
        signature = _signature(found)
        for band in range(_BANDS):
            others = seen.setdefault((band, signature[band * rows : (band + 1) * rows].tobytes()), [])
            for other in others:
                a, b = root(number), root(other)
                if a != b and len(found & shingles[other]) >= threshold * len(found | shingles[other]):
                    parent[max(a, b)] = min(a, b)
            others.append(number)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(number), len(numbers)) for number in range(len(texts))]


def _shingles(text: str) -> frozenset[int]:
    words = unicodedata.normalize("NFKC", text).lower().split()
    grams = [words[start : start + _SHINGLE] for start in range(max(1, len(words) - _SHINGLE + 1))]
    return frozenset(
        int.from_bytes(hashlib.blake2b(" ".join(gram).encode(), digest_size=8).digest(), "big") for gram in grams
    )


def _signature(shingles: frozenset[int]) -> NDArray[np.uint64]:
    """Least hash of the shingles under each of the hash functions (a multiply-xorshift mix with a seed each)."""
    seeds = np.random.default_rng(0).integers(0, 2**63, size=(_HASHES, 1), dtype=np.uint64)
    mixed = np.fromiter(shingles, dtype=np.uint64)[None, :] ^ seeds
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray((mixed ^ (mixed >> np.uint64(31))).min(axis=1), dtype=np.uint64)
