"""What the labels of each arm teach: was it worth choosing the items, or would random ones have done?

A small preference model (logistic regression on TF-IDF differences and length) learns from the items of one arm and is
tested on random items it has not seen, so the selection cannot flatter itself. It stands in for a reward model: cheap
enough to be trained at every size of both arms, and better than nothing at saying whether labels carry information.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accord.evaluate.intervals import mean_result
from accord.evaluate.result import Result, of_amounts
from accord.feedback.analysis.material import Material

__all__ = ["LearningPoint", "learning_curves"]

LEAST_TEST, LEAST_ARM, REPEATS = 20, 20, 5


@dataclass(frozen=True, kw_only=True)
class LearningPoint:
    """What so many items of each arm teach.

    Attributes:
        items: trained on, of either arm.
        random: accuracy on held-out random items after random ones, mean over draws.
        selected: after selected ones.
        gain: selected less random, on the same test items.
    """

    items: int
    random: float
    selected: float
    gain: Result


@dataclass(frozen=True)
class _Pair:
    item: str
    features: Any
    first_better: bool


def learning_curves(material: Material, seed: int = 0) -> list[LearningPoint]:
    """Accuracy by number of judged items, for both arms.

    Half of the judged random items, by hash, are for testing; the other half and the selected ones are learnt from.
    Each size is drawn five times. Of an item every response pair with a majority is used.

    Returns: one point per size, doubling from ten; none with fewer than 20 test items or 20 of either arm.
    """
    pairs = _pairs(material)
    arms = {verdict.item_id: verdict.arm for verdict in material.human()}
    items = sorted({pair.item for pair in pairs}, key=lambda item: hashlib.sha256(f"{seed}\0{item}".encode()).digest())
    random = [item for item in items if arms[item] == "random"]
    selected = [item for item in items if arms[item] == "selected"]
    test, random = random[: len(random) // 2], random[len(random) // 2 :]
    if len(test) < LEAST_TEST or min(len(random), len(selected)) < LEAST_ARM:
        return []
    sizes = [size for size in (10 * 2**step for step in range(20)) if size <= min(len(random), len(selected))]
    known = {item: [pair for pair in pairs if pair.item == item] for item in items}
    trials = [pair for item in test for pair in known[item]]
    generator = np.random.default_rng(seed)
    return [_point(size, random, selected, known, trials, generator) for size in sizes]


def _point(
    size: int,
    random: Sequence[str],
    selected: Sequence[str],
    known: dict[str, list[_Pair]],
    trials: Sequence[_Pair],
    generator: np.random.Generator,
) -> LearningPoint:
    means = []
    for pool in (random, selected):
        drawn = [generator.choice(len(pool), size=size, replace=False) for _ in range(REPEATS)]
        rights = [_right([pair for at in draw.tolist() for pair in known[pool[at]]], trials) for draw in drawn]
        means.append(np.mean(rights, axis=0))
    gain = of_amounts(mean_result(means[1] - means[0], [pair.item for pair in trials]))
    return LearningPoint(items=size, random=float(means[0].mean()), selected=float(means[1].mean()), gain=gain)


def _pairs(material: Material) -> list[_Pair]:
    """Every response pair people order by majority, with the difference of its texts."""
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    votes: dict[tuple[str, str, str], list[int]] = {}
    for verdict in material.human():
        content = material.contents.get(verdict.item_id)
        if content is None or verdict.ranks is None or None in content.responses.values():
            continue
        ids = list(content.responses)
        for place, first in enumerate(ids):
            for second in ids[place + 1 :]:
                a, b = (math.inf if (rank := verdict.ranks.get(one)) is None else rank for one in (first, second))
                votes.setdefault((verdict.item_id, first, second), []).append((a < b) - (a > b))
    clear = {key: sum(said) > 0 for key, said in votes.items() if sum(said) != 0}
    texts = [material.contents[item].responses[one] or "" for item, first, second in clear for one in (first, second)]
    if not texts:
        return []
    try:
        table = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True).fit_transform(texts)
    except ValueError:  # no word is in two texts
        table = csr_matrix((len(texts), 1))
    length = csr_matrix(np.log1p([len(text) for text in texts])[:, None])
    rows = hstack([table, length]).tocsr()
    return [
        _Pair(item, rows[2 * number] - rows[2 * number + 1], better)
        for number, ((item, _, _), better) in enumerate(clear.items())
    ]


def _right(train: Sequence[_Pair], test: Sequence[_Pair]) -> NDArray[np.float64]:
    """Whether each test pair is ordered right by a model of the training pairs; each is seen from both sides."""
    from scipy.sparse import vstack
    from sklearn.linear_model import LogisticRegression

    features = vstack([pair.features for pair in train])
    better = np.array([pair.first_better for pair in train])
    model = LogisticRegression(fit_intercept=False, max_iter=500)
    model.fit(vstack([features, -features]), np.concatenate([better, ~better]))
    said = model.decision_function(vstack([pair.features for pair in test]))
    return np.where(said == 0, 0.5, (said > 0) == np.array([pair.first_better for pair in test])).astype(np.float64)
