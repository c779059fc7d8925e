"""Texts -> vectors in which like ones are near: TF-IDF and a truncated SVD, or a model where one is installed.

Suffixes: N texts, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Embedding", "sentence_vectors", "tf_idf"]

COMPONENTS = 100
LONGEST = 4000  # characters of a text that are looked at


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """Vectors of length one, and how they were made.

    Attributes:
        vector_ND: (N, D), rows of Euclidean length one.
        name: of the method or model.
        explained: share of the variance of TF-IDF that the SVD keeps; None: no SVD.
    """

    vector_ND: NDArray[np.float64]
    name: str
    explained: float | None


def tf_idf(texts: Sequence[str], components: int = COMPONENTS, seed: int = 0) -> Embedding:
    """TF-IDF of words (1 and 2) and of characters (3 to 5, inside words), and its first singular vectors.

    Both halves weigh the same. A text without a term has the direction of the first component.

    Args:
        texts: N of them; at most 4,000 characters of each are looked at.
        components: D at most; fewer where there are fewer texts or terms.
        seed: of the randomised SVD.
    """
    from scipy.sparse import hstack
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    cut = [text[:LONGEST] for text in texts]
    least = 2 if len(cut) > 50 else 1
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=least, sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    parts = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(3, 5), min_df=least, sublinear_tf=True, max_features=100_000
    )
    table = hstack([_fitted(words, cut), _fitted(parts, cut)]).tocsr()
    size = min(components, table.shape[0] - 1, table.shape[1] - 1)
    if size < 1:
        return Embedding(vector_ND=np.ones((len(cut), 1)), name="TF-IDF", explained=None)
    svd = TruncatedSVD(n_components=size, random_state=seed)
    vector_ND = svd.fit_transform(table)
    return Embedding(
        vector_ND=_normalised(vector_ND), name="TF-IDF", explained=float(svd.explained_variance_ratio_.sum())
    )


def _fitted(vectorizer: object, texts: Sequence[str]) -> object:
    """The table of a vectorizer; of texts without any term one of a single empty column."""
    from scipy.sparse import csr_matrix

    try:
        return vectorizer.fit_transform(texts)  # type: ignore[attr-defined]
    except ValueError:  # "empty vocabulary"
        return csr_matrix((len(texts), 1))


def _normalised(vector_ND: NDArray[np.float64]) -> NDArray[np.float64]:
    length_N1 = np.linalg.norm(vector_ND, axis=1, keepdims=True)
    first = np.zeros((1, vector_ND.shape[1]))
    first[0, 0] = 1.0
    return np.where(length_N1 > 1e-12, vector_ND / np.where(length_N1 > 1e-12, length_N1, 1), first)


def sentence_vectors(texts: Sequence[str], model: str) -> Embedding:
    """Vectors of a sentence-transformers model.

    Raises:
        ValueError: the library is not installed.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise ValueError(
            "placing texts with a model needs sentence-transformers: pip install sentence-transformers, or use TF-IDF"
        ) from None
    encoder = SentenceTransformer(model)
    vector_ND = np.asarray(encoder.encode([text[:LONGEST] for text in texts], show_progress_bar=True), dtype=np.float64)
    return Embedding(vector_ND=_normalised(vector_ND), name=model, explained=None)
