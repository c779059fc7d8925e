"""One answer from many annotators: votes, annotators weighed by their skill, and rankings of several responses.

Suffixes: M rows (one label each), N items, A annotators, C classes, K responses of one item.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from accord.evaluate._arrays import NAN, Floats, Ints, Numbers, integers, same_length
from accord.evaluate._ranks import order, ranks

__all__ = [
    "DawidSkene",
    "Majority",
    "RankedPairs",
    "dawid_skene",
    "majority_vote",
    "preference_share",
    "ranked_pairs",
]


class Majority(NamedTuple):
    """Votes: share_NC (NaN where an item has none) and label_N, -1 on a tie or without votes."""

    share_NC: Floats
    label_N: Ints


class DawidSkene(NamedTuple):
    """What annotators whose errors are modelled say together.

    Attributes:
        posterior_NC: P(true class) of each item.
        confusion_ACC: P(annotator a says the last | the true class is the middle).
        prior_C: P(class).
        log_likelihood: nats, of all labels under the returned prior and confusion.
        iterations: made.
        converged: whether the posteriors stopped moving.
    """

    posterior_NC: Floats
    confusion_ACC: Floats
    prior_C: Floats
    log_likelihood: float
    iterations: int
    converged: bool


class RankedPairs(NamedTuple):
    """A ranking from many.

    Attributes:
        order: response indices, best first.
        rank_K: from 1; responses the votes do not tell apart share a rank.
        votes_KK: annotators with i above j.
    """

    order: Ints
    rank_K: Ints
    votes_KK: Ints


def majority_vote(item_M: ArrayLike, label_M: ArrayLike, num_items: int, num_classes: int) -> Majority:
    """Shares of votes per class, and the class with most of them.

    Args:
        item_M: (M,) item of each vote, 0..num_items-1.
        label_M: (M,) class of each vote, 0..num_classes-1.
        num_items: N.
        num_classes: C.

    Returns: a `Majority`; a tie is -1, not the first of the tied.

    Raises:
        ValueError: lengths differ, or a code out of range.
    """
    item, label = integers("item_M", item_M, num_items), integers("label_M", label_M, num_classes)
    same_length(item_M=item, label_M=label)
    votes_NC = np.bincount(item * num_classes + label, minlength=num_items * num_classes)
    votes_NC = votes_NC.reshape(num_items, num_classes)
    total_N1 = votes_NC.sum(axis=1, keepdims=True)
    share_NC = np.where(total_N1 > 0, votes_NC / np.maximum(total_N1, 1), NAN)
    alone_N = (votes_NC == votes_NC.max(axis=1, initial=0, keepdims=True)).sum(axis=1) == 1
    decided_N = alone_N & (total_N1[:, 0] > 0)
    return Majority(share_NC, np.where(decided_N, votes_NC.argmax(axis=1), -1))


def dawid_skene(
    item_M: ArrayLike,
    annotator_M: ArrayLike,
    label_M: ArrayLike,
    num_items: int,
    num_annotators: int,
    num_classes: int,
    smoothing: float = 0.01,
    tolerance: float = 1e-8,
    max_iterations: int = 1000,
) -> DawidSkene:
    """True classes and annotators' errors together, by EM (Dawid & Skene 1979).

        prior_j           = mean_i T_ij
        confusion[a,j,l]  = (smoothing + sum_i T_ij n_ial) / sum_l of the same
        T_ij              ~ prior_j prod_{a,l} confusion[a,j,l]^n_ial

    starting from the share of votes and ending when max |T - previous T| < tolerance. n_ial counts how often annotator
    a put item i in class l; one may label an item more than once.

    Args:
        item_M: (M,) 0..num_items-1; every item needs a label.
        annotator_M: (M,) 0..num_annotators-1.
        label_M: (M,) 0..num_classes-1.
        num_items: N.
        num_annotators: A.
        num_classes: C.
        smoothing: labels added to every cell of a confusion matrix; 0 is the paper's, and a row of zeros is uniform.
        tolerance: of the posteriors.
        max_iterations: then `converged` is False.

    Returns: a `DawidSkene`.

    Raises:
        ValueError: lengths differ, a code out of range, no items, an item without a label, or negative smoothing.
    """
    item, label = integers("item_M", item_M, num_items), integers("label_M", label_M, num_classes)
    annotator = integers("annotator_M", annotator_M, num_annotators)
    same_length(item_M=item, annotator_M=annotator, label_M=label)
    if smoothing < 0 or max_iterations < 1 or num_items < 1:
        found = f"smoothing {smoothing}, {max_iterations} iterations, {num_items} items"
        raise ValueError(f"{found}; expected at least 0, 1 and 1")
    unlabelled = np.flatnonzero(np.bincount(item, minlength=num_items) == 0)
    if len(unlabelled):
        raise ValueError(f"item {unlabelled[0]} has no label; expected one or more for every item; leave it out")
    cell_M = annotator * num_classes + label
    posterior_NC = majority_vote(item, label, num_items, num_classes).share_NC
    converged = False
    iterations, likelihood = 0, NAN
    while iterations < max_iterations and not converged:
        iterations += 1
        prior_C = posterior_NC.mean(axis=0)
        confusion_ACC = _confusion(posterior_NC[item], cell_M, (num_annotators, num_classes), smoothing)
        previous_NC, (posterior_NC, likelihood) = (
            posterior_NC,
            _posterior(prior_C, confusion_ACC, item, cell_M, num_items),
        )
        converged = bool(np.abs(posterior_NC - previous_NC).max(initial=0.0) < tolerance)
    return DawidSkene(posterior_NC, confusion_ACC, prior_C, likelihood, iterations, converged)


def _confusion(weight_MC: Floats, cell_M: Ints, shape: tuple[int, int], smoothing: float) -> Floats:
    annotators, classes = shape
    count_CAL = np.stack([np.bincount(cell_M, weights=w, minlength=annotators * classes) for w in weight_MC.T])
    count_ACL = count_CAL.reshape(classes, annotators, classes).transpose(1, 0, 2) + smoothing
    total_AC1 = count_ACL.sum(axis=2, keepdims=True)
    return np.where(total_AC1 > 0, count_ACL / np.where(total_AC1 > 0, total_AC1, 1), 1 / classes)


def _posterior(
    prior_C: Floats, confusion_ACC: Floats, item_M: Ints, cell_M: Ints, num_items: int
) -> tuple[Floats, float]:
    from scipy.special import logsumexp

    with np.errstate(divide="ignore"):  # log 0: a class that is out of the question
        log_prior_C, log_CAL = np.log(prior_C), np.log(confusion_ACC.transpose(1, 0, 2).reshape(len(prior_C), -1))
    joint_NC = log_prior_C + np.stack(
        [np.bincount(item_M, weights=log_AL[cell_M], minlength=num_items) for log_AL in log_CAL], axis=1
    )
    evidence_N = logsumexp(joint_NC, axis=1)
    return np.exp(joint_NC - evidence_N[:, None]), float(evidence_N.sum())


def ranked_pairs(ranks_AK: Numbers) -> RankedPairs:
    """One ranking from several, by ranked pairs (Tideman 1987).

    Majorities are sorted by margin, wide first, then by votes, then by (i, j); each is locked unless it would close a
    cycle of locked ones. A response's rank is the length of the longest locked path that ends in it.

    Args:
        ranks_AK: (A, K) 1 is best, equal numbers tie, None failed: below every rank, tied with other failures.

    Returns: a `RankedPairs`.

    Raises:
        ValueError: the ranks are no matrix.
    """
    votes_KK = _votes(_some_ranks(ranks_AK))
    margin_KK = votes_KK - votes_KK.T
    majorities = sorted(zip(*np.nonzero(margin_KK > 0), strict=True), key=lambda p: (-margin_KK[p], -votes_KK[p], p))
    count = len(votes_KK)
    reach_KK = np.eye(count, dtype=bool)  # i leads to j by locked majorities
    locked: list[tuple[int, int]] = []
    for better, worse in majorities:
        if not reach_KK[worse, better]:
            locked.append((int(better), int(worse)))
            reach_KK |= np.outer(reach_KK[:, better], reach_KK[worse])
    rank_K = np.ones(count, dtype=np.intp)
    # Whoever is reached by fewer comes first, so the ranks of all that lead to a response are known before its own.
    for response in np.argsort(reach_KK.sum(axis=0), kind="stable"):
        before = [rank_K[better] for better, worse in locked if worse == response]
        rank_K[response] = 1 + max(before, default=0)
    return RankedPairs(np.lexsort((np.arange(count), rank_K)), rank_K, votes_KK)


def preference_share(ranks_AK: Numbers) -> Floats:
    """Share of annotators with response i above j, ties half: what a soft-label comparison takes as its probability.

    Args:
        ranks_AK: (A, K) 1 is best, equal numbers tie, None failed: below every rank, tied with other failures.

    Returns: (K, K), 1/2 on the diagonal; share[i, j] + share[j, i] = 1.

    Raises:
        ValueError: the ranks are no matrix, or nobody ranked.
    """
    rank_AK = _some_ranks(ranks_AK)
    votes_KK = _votes(rank_AK)
    return (len(rank_AK) + votes_KK - votes_KK.T) / (2 * len(rank_AK))


def _some_ranks(ranks_AK: Numbers) -> Floats:
    rank_AK = ranks("ranks_AK", ranks_AK, 2)
    if not len(rank_AK):
        raise ValueError("`ranks_AK` has no row; expected the ranks of one annotator or more")
    return rank_AK


def _votes(rank_AK: Floats) -> Ints:
    """How many put i above j."""
    return np.asarray((order(rank_AK) > 0).sum(axis=0), dtype=np.intp)
