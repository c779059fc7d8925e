"""Scores of tasks with known answers: choices, short texts, and their averages over templates, tasks and clusters."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from accord.evaluate._arrays import NAN, Floats, floats, same_length

__all__ = ["ChoiceScore", "ClusterAverage", "choice_score", "cluster_average", "exact_match", "token_f1"]

_ARTICLE = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class ChoiceScore(NamedTuple):
    """One question with options.

    Attributes:
        accuracy: 1 if the answer is the most probable option, 1/m if it is one of m.
        accuracy_normalised: the same by log-probability per unit of length.
        brier: sum over options of (softmax - one-hot)^2, 0..2.
    """

    accuracy: float
    accuracy_normalised: float
    brier: float


class ClusterAverage(NamedTuple):
    """Scores of many tasks as one number.

    Attributes:
        mean: over templates, then tasks, then clusters: a large cluster weighs no more than a small one.
        best_template: with the best template of each task; an upper bound, because nobody knows it beforehand.
        by_cluster: mean of each cluster.
    """

    mean: float
    best_template: float
    by_cluster: dict[str, float]


def choice_score(logprob_C: ArrayLike, length_C: ArrayLike, answer: int) -> ChoiceScore:
    """Score one multiple-choice question by the log-probabilities of its options.

    Options that tie for best share the point: an argmax that takes the first would inflate.

    Args:
        logprob_C: (C,) nats, summed over the tokens of each option; NaN unscored.
        length_C: (C,) characters of each option, > 0.
        answer: index of the right one.

    Returns: a `ChoiceScore`, all NaN if any option is unscored.

    Raises:
        ValueError: lengths differ, an answer that is not there, or an option without length.
    """
    from scipy.special import softmax

    logprob, length = floats("logprob_C", logprob_C), floats("length_C", length_C)
    same_length(logprob_C=logprob, length_C=length)
    if answer != int(answer) or not 0 <= answer < len(logprob):
        raise ValueError(f"the answer is number {answer}; expected an index from 0 to {len(logprob) - 1}")
    if (length <= 0).any():
        raise ValueError(f"`length_C` holds {length.min():g}; expected lengths above 0")
    if np.isnan(logprob).any() or np.isnan(length).any():
        return ChoiceScore(NAN, NAN, NAN)
    right_C = np.arange(len(logprob)) == answer
    return ChoiceScore(
        accuracy=_point(logprob, int(answer)),
        accuracy_normalised=_point(logprob / length, int(answer)),
        brier=float(((softmax(logprob) - right_C) ** 2).sum()),
    )


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1 if the prediction is one of the references, up to case, punctuation and articles (SQuAD, arXiv:1606.05250).

    Args:
        prediction: what the model said.
        references: right answers.

    Returns: 1 or 0; an empty prediction matches an empty reference.

    Raises:
        ValueError: no reference.
    """
    return max(float(_words(prediction) == _words(reference)) for reference in _some(references))


def token_f1(prediction: str, references: Sequence[str]) -> float:
    """Common words of the prediction and the best of the references (SQuAD, arXiv:1606.05250).

        2 common / (len + len), over the multisets of words, without case, punctuation and articles

    Args:
        prediction: what the model said.
        references: right answers.

    Returns: 0..1; empty against empty is 1, empty against something 0.

    Raises:
        ValueError: no reference.
    """
    return max(_f1(_words(prediction), _words(reference)) for reference in _some(references))


def cluster_average(scores: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> ClusterAverage:
    """Average scores as FLAN does (arXiv:2109.01652): over templates, then tasks, then clusters.

    Args:
        scores: cluster to task to template to score; a template that is NaN or None is left out, and what has none
            with it.

    Returns: a `ClusterAverage`, NaN without scores.
    """
    by_cluster, best = {}, []
    for cluster, tasks in scores.items():
        known = [
            [score for score in map(_number, templates.values()) if score == score] for templates in tasks.values()
        ]
        by_cluster[cluster] = _mean(_mean(task) for task in known)
        best.append(_mean(max(task, default=NAN) for task in known))
    return ClusterAverage(_mean(by_cluster.values()), _mean(best), by_cluster)


def _point(value_C: Floats, answer: int) -> float:
    best_C = value_C == value_C.max()
    return float(best_C[answer] / best_C.sum())


def _words(text: str) -> list[str]:
    return _ARTICLE.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def _f1(first: Sequence[str], second: Sequence[str]) -> float:
    if not first or not second:
        return float(first == second)
    common = (Counter(first) & Counter(second)).total()
    return 2 * common / (len(first) + len(second))


def _some(references: Sequence[str]) -> Sequence[str]:
    if isinstance(references, str) or not references:
        raise ValueError(f"`references` is {references!r}; expected a list of one right answer or more")
    return references


def _number(score: float | None) -> float:
    return NAN if score is None else score


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else NAN
