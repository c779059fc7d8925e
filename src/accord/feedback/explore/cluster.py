"""Vectors -> clusters with names people understand, and a map of two dimensions.

Suffixes: N texts, D dimensions, C clusters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Cluster", "Divergence", "clusters_of", "compare_shares", "layout", "number_of_clusters"]

TERMS, MEDOIDS, NEIGHBOURS, PERPLEXITY = 6, 3, 5, 30.0

# Words that ask, whatever is asked about: they name no cluster.
_ASKING = """
answer ask asked based best come described description does doesn don example examples explain following give
given gives going good help include includes input just know let like list ll look make making need needs
output person possible provide provided question questions really result say sentence sentences sure task tell
text thing things time try use used user using ve want wants way ways word words work write written
"""
ASKING = frozenset(_ASKING.split())


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A group of like texts.

    Attributes:
        number: from 0, the largest first.
        size: texts in it.
        terms: that tell it from the others, by class TF-IDF.
        medoids: positions of the texts nearest to its middle.
    """

    number: int
    size: int
    terms: tuple[str, ...]
    medoids: tuple[int, ...]

    @property
    def name(self) -> str:
        """Its first three terms."""
        return ", ".join(self.terms[:3]) or f"cluster {self.number}"


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """How differently two sets spread over the clusters.

    Attributes:
        shares: cluster -> (share of the first set, share of the second).
        jensen_shannon: bits, 0 the same, 1 no cluster in common.
    """

    shares: Mapping[int, tuple[float, float]]
    jensen_shannon: float


def number_of_clusters(n: int) -> int:
    """sqrt(n/2), from 4 to 60, and never more than there are texts."""
    return max(1, min(n, max(4, min(60, round(math.sqrt(n / 2))))))


def clusters_of(
    vector_ND: NDArray[np.float64], texts: Sequence[str], count: int | None = None, seed: int = 0
) -> tuple[NDArray[np.int64], list[Cluster]]:
    """Mini-batch k-means, and a name for each cluster.

    Returns: the cluster of each text, and the clusters, largest first.
    """
    from sklearn.cluster import MiniBatchKMeans

    k = min(count or number_of_clusters(len(texts)), len(np.unique(vector_ND.round(9), axis=0)))
    model = MiniBatchKMeans(n_clusters=k, random_state=seed, n_init=5, batch_size=1024)
    label_N = model.fit_predict(vector_ND)
    sizes = np.bincount(label_N, minlength=k)
    order = [label for label in np.argsort(-sizes, kind="stable").tolist() if sizes[label]]
    number = {label: place for place, label in enumerate(order)}
    cluster_N = np.array([number[label] for label in label_N.tolist()], dtype=np.int64)
    terms = _terms(texts, cluster_N, len(order))
    return cluster_N, [
        Cluster(
            number=place,
            size=int(sizes[label]),
            terms=terms[place],
            medoids=_medoids(vector_ND, np.flatnonzero(cluster_N == place), model.cluster_centers_[label]),
        )
        for place, label in enumerate(order)
    ]


def _medoids(
    vector_ND: NDArray[np.float64], members: NDArray[np.int64], centre_D: NDArray[np.float64]
) -> tuple[int, ...]:
    distance = np.linalg.norm(vector_ND[members] - centre_D, axis=1)
    return tuple(int(members[place]) for place in np.argsort(distance, kind="stable")[:MEDOIDS])


def _terms(texts: Sequence[str], cluster_N: NDArray[np.int64], count: int) -> list[tuple[str, ...]]:
    """Terms with the highest class TF-IDF: share of the cluster's words, times ln(1 + mean words a cluster / count).

    (Grootendorst 2022, arXiv:2203.05794, eq. 2.) A term that is part of a longer one that is listed is left out.
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

    pattern = r"(?u)\b[^\W\d_]\w+\b"
    common = sorted(ENGLISH_STOP_WORDS | ASKING)
    vectorizer = CountVectorizer(stop_words=common, ngram_range=(1, 2), token_pattern=pattern, max_features=50_000)
    try:
        table = vectorizer.fit_transform([text[:4000] for text in texts])
    except ValueError:  # nothing but stop words
        return [()] * count
    names = vectorizer.get_feature_names_out()
    # One mention a text: a long prompt does not name its cluster by itself.
    table.data[:] = 1
    by_cluster = np.stack([np.asarray(table[cluster_N == place].sum(axis=0)).ravel() for place in range(count)])
    words = by_cluster.sum(axis=1, keepdims=True)
    weight = by_cluster / np.maximum(words, 1) * np.log(1 + words.mean() / np.maximum(by_cluster.sum(axis=0), 1))
    found = []
    for row, present in zip(weight, by_cluster, strict=True):
        best = [names[place] for place in np.argsort(-row, kind="stable")[: 6 * TERMS] if present[place] > 0]
        kept: list[str] = []
        for term in best:
            if not any(set(term.split()) & set(other.split()) for other in kept):
                kept.append(term)
        found.append(tuple(kept[:TERMS]))
    return found


def layout(vector_ND: NDArray[np.float64], points: int = 5000, seed: int = 0) -> NDArray[np.float64]:
    """Place texts on a plane by t-SNE (perplexity 30, PCA start), within -1..1.

    Of more than `points` texts a random part is placed so, and each of the others at the mean of its five nearest of
    those. The map keeps neighbours together; distances between clusters mean little.
    """
    from sklearn.manifold import TSNE
    from sklearn.neighbors import NearestNeighbors

    n = len(vector_ND)
    if n < 4:
        return np.stack([np.linspace(-1, 1, n), np.zeros(n)], axis=1)
    chosen = np.arange(n)
    if n > points:
        chosen = np.sort(np.random.default_rng(seed).choice(n, size=points, replace=False))
    perplexity = min(PERPLEXITY, (len(chosen) - 1) / 3)
    model = TSNE(perplexity=perplexity, init="pca" if vector_ND.shape[1] > 1 else "random", random_state=seed, n_jobs=1)
    placed = model.fit_transform(vector_ND[chosen].astype(np.float32)).astype(np.float64)
    place_N2 = np.zeros((n, 2))
    place_N2[chosen] = placed
    rest = np.setdiff1d(np.arange(n), chosen)
    if len(rest):
        search = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(vector_ND[chosen])
        place_N2[rest] = placed[search.kneighbors(vector_ND[rest], return_distance=False)].mean(axis=1)
    place_N2 -= place_N2.mean(axis=0)
    return place_N2 / max(float(np.abs(place_N2).max()), 1e-12)


def compare_shares(cluster_N: NDArray[np.int64], first_N: NDArray[np.bool_], count: int) -> Divergence:
    """Cluster shares of two sets on one map.

        JS(p, q) = H((p + q)/2) - (H(p) + H(q))/2   in bits

    Args:
        cluster_N: cluster of each text.
        first_N: whether a text is of the first set.
        count: number of clusters.
    """
    p, q = (np.bincount(cluster_N[of], minlength=count) / max(int(of.sum()), 1) for of in (first_N, ~first_N))
    divergence = _entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2
    shares = {place: (float(a), float(b)) for place, (a, b) in enumerate(zip(p, q, strict=True))}
    return Divergence(shares=shares, jensen_shannon=max(0.0, divergence))


def _entropy(share: NDArray[np.float64]) -> float:
    known = share[share > 0]
    return float(-(known * np.log2(known)).sum())
