"""Ranks as numbers to compare: 1 is best; a failed response (None) is below every rank, tied with other failures.

Suffixes: A annotators, K responses, P pairs of them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accord.evaluate._arrays import Floats, Numbers, floats, ratio, same_length


def ranks(name: str, values: Numbers, dimensions: int) -> Floats:
    """Ranks as float64, a failed one as infinity; ValueError where they have no such shape."""
    array = floats(name, values, dimensions)
    return np.where(np.isnan(array), np.inf, array)


def order(rank: Floats) -> NDArray[np.int8]:
    """(..., K, K) for (..., K) ranks: 1 where response i is above j, -1 where below, 0 where they tie."""
    first, second = rank[..., :, None], rank[..., None, :]
    return (first < second).astype(np.int8) - (first > second).astype(np.int8)


class RankingAgreement(NamedTuple):
    """Agreement of several annotators on the order of K responses, over all pairs of annotators.

    Attributes:
        tau_b: mean of Kendall's tau-b, pairs of annotators without one left out.
        agreement: share of pairs of responses ordered alike, where both annotators are strict.
        agreement_half: the same over all pairs of responses: 1 if equal (two ties too), 1/2 with one tie.
        n_strict: pairs behind `agreement`.
        n_pairs: pairs behind `agreement_half`.
    """

    tau_b: float
    agreement: float
    agreement_half: float
    n_strict: int
    n_pairs: int


def kendall_tau_b(x_K: Numbers, y_K: Numbers) -> float:
    """Rank correlation of two rankings with ties (Kendall 1945).

        (concordant - discordant) / sqrt(pairs not tied in x * pairs not tied in y)

    Args:
        x_K: (K,) ranks, 1 is best, equal numbers tie, None failed: below every rank, tied with other failures.
        y_K: (K,) ranks of the same responses.

    Returns: 1 for the same order, -1 for the reverse; NaN where either has no order.

    Raises:
        ValueError: lengths differ.
    """
    x, y = ranks("x_K", x_K, 1), ranks("y_K", y_K, 1)
    same_length(x_K=x, y_K=y)
    return ranking_agreement([x, y]).tau_b


def ranking_agreement(ranks_AK: Numbers) -> RankingAgreement:
    """Agreement of several rankings of the same responses.

    Args:
        ranks_AK: (A, K) 1 is best, equal numbers tie, None failed: below every rank, tied with other failures.

    Returns: a `RankingAgreement`; NaN where nothing can be compared.

    Raises:
        ValueError: the ranks are no matrix.
    """
    rank_AK = ranks("ranks_AK", ranks_AK, 2)
    annotators, responses = rank_AK.shape
    i, j = np.triu_indices(responses, 1)
    sign_AP = order(rank_AK)[:, i, j].astype(np.float64)
    strict_AP = np.abs(sign_AP)
    first, second = np.triu_indices(annotators, 1)
    net = (sign_AP @ sign_AP.T)[first, second]
    both = (strict_AP @ strict_AP.T)[first, second]
    neither = ((1 - strict_AP) @ (1 - strict_AP).T)[first, second]
    scale = np.sqrt(strict_AP.sum(axis=1)[first] * strict_AP.sum(axis=1)[second])
    alike, pairs = float((both + net).sum() / 2), len(i) * len(first)
    one_tie = pairs - float(both.sum() + neither.sum())
    return RankingAgreement(
        tau_b=ratio(float((net[scale > 0] / scale[scale > 0]).sum()), int((scale > 0).sum())),
        agreement=ratio(alike, float(both.sum())),
        agreement_half=ratio(alike + float(neither.sum()) + one_tie / 2, pairs),
        n_strict=int(both.sum()),
        n_pairs=pairs,
    )
