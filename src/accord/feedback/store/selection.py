"""Active selection: which items would teach most. Scores go to `prioritise`, higher ones are served first.

A share of the items stays random whatever their score, and quality is measured on those (`prioritise`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["by_disagreement", "by_diversity", "by_uncertainty"]


def by_disagreement(votes: Sequence[Sequence[object]]) -> NDArray[np.float64]:
    """Entropy of the current votes of each item, in nats.

        H = -sum_v p_v ln p_v,  p_v = share of the item's votes that are v

    Args:
        votes: of each item, any values that can be compared; an item without votes has entropy 0.
    Returns: (N,), 0 where all agree, ln 2 for one vote each way.
    """
    entropies = []
    for item in votes:
        counts = np.array([sum(other == vote for other in item) for vote in item], dtype=float)
        entropies.append(float(-np.mean(np.log(counts / len(item)))) if len(item) else 0.0)
    return np.array(entropies) + 0.0  # no negative zeros


def by_uncertainty(probability_N: ArrayLike) -> NDArray[np.float64]:
    """1 - 2|p - 1/2| of a reward model's probability that one response is better: 1 where it has no idea, 0 where sure.

    Raises:
        ValueError: a probability outside 0..1.
    """
    p = np.asarray(probability_N, dtype=float)
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError(f"found the probability {p[~((p >= 0) & (p <= 1))][0]}; expected 0 to 1; correct it")
    return np.asarray(1 - 2 * np.abs(p - 0.5), dtype=float)


def by_diversity(vector_ND: ArrayLike, labelled_MD: ArrayLike) -> NDArray[np.float64]:
    """Cosine distance of each item to the nearest one that is labelled already.

    Args:
        vector_ND: embeddings of the items, none of them zero.
        labelled_MD: embeddings of what is labelled; empty: every item is as far as can be.
    Returns: (N,), 0 for a copy of a labelled item, 1 for a right angle, 2 for the opposite.
    """
    items, labelled = np.asarray(vector_ND, dtype=float), np.asarray(labelled_MD, dtype=float)
    if not labelled.size:
        return np.full(len(items), 2.0)
    items = items / np.linalg.norm(items, axis=1, keepdims=True)
    labelled = labelled / np.linalg.norm(labelled, axis=1, keepdims=True)
    return np.asarray(1 - (items @ labelled.T).max(axis=1), dtype=float)
