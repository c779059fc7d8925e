"""Splits made at export: by prompt and by annotator, so that both generalisations can be measured."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["held_out", "near_duplicates", "split_names"]

_SHINGLE, _HASHES, _BANDS = 5, 128, 32


def held_out(seed: str, names: Sequence[str], share: float) -> frozenset[str]:
    """Some of the distinct names: those whose hash is among the lowest `share` of all hashes there can be.

    Each name is drawn by itself, so whoever comes later moves nobody to the other side: what was trained on yesterday
    is not held out today. The price is a share that is met on average only (of n names share n, give or take
    sqrt(share (1 - share) n)). Should that be none of a few though `share n` rounds to one, the name with the lowest
    hash is held out; should it be all of them, the one with the highest is not.

    Example: `held_out("accord", ["ada", "bob", "eve"], 0.3)` is one or two of the three.
    """
    drawn = sorted((hashlib.sha256(f"{seed}\0{name}".encode()).digest(), name) for name in set(names))
    below = sum(int.from_bytes(digest[:8], "big") < share * 2**64 for digest, _ in drawn)
    wanted = round(share * len(drawn))
    if not below and wanted:
        below = 1
    elif below == len(drawn) and wanted < len(drawn):
        below -= 1
    return frozenset(name for _, name in drawn[:below])


def split_names(prompts: Sequence[str], texts: Sequence[str]) -> list[str]:
    """What stands for each prompt when prompts are held out: the oldest of those that are nearly its text.

    Args:
        prompts: names of prompts, oldest first.
        texts: their words.
    """
    first: dict[int, str] = {}
    return [first.setdefault(cluster, name) for name, cluster in zip(prompts, near_duplicates(texts), strict=True)]


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
