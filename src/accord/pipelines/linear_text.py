"""A linear model of text: TF-IDF of characters and words, then one weight per feature and a logistic curve.

    p(text) = sigma(w . tfidf(text) + b)

Small enough to train in seconds on a laptop, and saved as plain numbers: nothing of it is executed when it is loaded.
scikit-learn does the work.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["LinearText", "require_sklearn"]

Floats = NDArray[np.float64]

CHARACTERS = {"analyzer": "char_wb", "ngram_range": (2, 5), "min_df": 3, "sublinear_tf": True, "max_features": 200_000}
WORDS = {"analyzer": "word", "ngram_range": (1, 2), "min_df": 2, "sublinear_tf": True, "max_features": 100_000,
         "token_pattern": r"(?u)\b\w+\b|[!?*]+"}  # fmt: skip
EDGE = 0.01  # published scores are kept this far from 0 and 1, where their logit has no end


def require_sklearn() -> None:
    """Say which extra is missing, where scikit-learn is not installed."""
    try:
        import sklearn  # noqa: F401  # asked for by name, so that the message can say what to do
    except ImportError:
        raise ValueError(
            "scikit-learn is not installed, which trains and reads linear text models; pip install accord-align[eval]"
        ) from None


class LinearText:
    """A trained model; make one with `fit` or `load`.

    Attributes:
        card: what it was trained on and how good it is; saved beside the numbers.
    """

    def __init__(self, features: Sequence[Any], weight_F: Floats, bias: float, card: dict[str, Any]) -> None:
        self._features, self._weight_F, self._bias, self.card = features, weight_F, bias, card

    @classmethod
    def fit(
        cls, texts: Sequence[str], target_N: ArrayLike, objective: Literal["ridge", "logistic"], strength: float
    ) -> LinearText:
        """Train.

        Args:
            texts: N of them.
            target_N: (N,) 0..1; for "logistic" labels 0 and 1.
            objective: least squares on the logit of the targets, or the likelihood of labels.
            strength: of the L2 penalty.
        """
        require_sklearn()
        from scipy.sparse import hstack
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression, Ridge

        target = np.asarray(target_N, dtype=float)
        features = [TfidfVectorizer(**CHARACTERS), TfidfVectorizer(**WORDS)]
        matrix = hstack([one.fit_transform(texts) for one in features]).tocsr()
        if objective == "ridge":
            clipped = target.clip(EDGE, 1 - EDGE)
            # lsqr needs no dense matrix and no random numbers
            model = Ridge(alpha=strength, solver="lsqr").fit(matrix, np.log(clipped / (1 - clipped)))
            weight, bias = model.coef_, float(model.intercept_)
        else:
            model = LogisticRegression(C=1 / strength, max_iter=1000).fit(matrix, target.astype(int))
            weight, bias = model.coef_[0], float(model.intercept_[0])
        return cls(features, np.asarray(weight, dtype=float), bias, {"texts": len(texts), "objective": objective})

    def __call__(self, texts: Sequence[str]) -> list[float]:
        """A number 0..1 for each text."""
        if not texts:
            return []
        from scipy.sparse import hstack
        from scipy.special import expit

        matrix = hstack([one.transform(texts) for one in self._features]).tocsr()
        return [float(value) for value in expit(matrix @ self._weight_F + self._bias)]

    @property
    def hash(self) -> str:
        """Names the numbers: twelve letters."""
        digest = hashlib.sha256(np.ascontiguousarray(self._weight_F).tobytes())
        digest.update(repr(self._bias).encode())
        return digest.hexdigest()[:12]

    def save(self, folder: Path, name: str) -> None:
        """Write NAME.npz and NAME.json, the card."""
        from accord.train.files import write_atomically, write_text

        folder.mkdir(parents=True, exist_ok=True)
        arrays = {"weight_F": self._weight_F, "bias": np.array(self._bias)}
        for number, one in enumerate(self._features):
            terms = sorted(one.vocabulary_, key=one.vocabulary_.__getitem__)
            arrays[f"terms_{number}"] = np.frombuffer("\n".join(terms).encode(), dtype=np.uint8)
            arrays[f"idf_{number}"] = one.idf_

        def write(aside: Path) -> None:
            with aside.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **arrays)

        write_atomically(folder / f"{name}.npz", write)
        write_text(folder / f"{name}.json", json.dumps({"hash": self.hash, **self.card}, indent=2))

    @classmethod
    def load(cls, folder: Path, name: str) -> LinearText:
        """Read what `save` wrote.

        Raises: ValueError: there is none, or it is damaged.
        """
        require_sklearn()
        from sklearn.feature_extraction.text import TfidfVectorizer

        if not (folder / f"{name}.npz").exists():
            raise ValueError(f"{folder}: no {name}.npz; expected the folder that training one left")
        try:
            card = json.loads((folder / f"{name}.json").read_text(encoding="utf8"))
            with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
                features = []
                for number, settings in enumerate((CHARACTERS, WORDS)):
                    terms = arrays[f"terms_{number}"].tobytes().decode().split("\n")
                    one = TfidfVectorizer(**settings, vocabulary={term: i for i, term in enumerate(terms)})
                    one.idf_ = arrays[f"idf_{number}"]
                    features.append(one)
                return cls(features, arrays["weight_F"], float(arrays["bias"]), card)
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(f"{folder}/{name}.npz is damaged ({error}); train it again") from error
