"""How far annotators agree, beyond what chance would give them.

Suffixes: A annotators, N items, C categories, K responses of one item. A rating that is missing is NaN (or None).
Undefined agreement (no variation, nothing to compare) is NaN, never 1 and never 0.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from accord.evaluate._arrays import NAN, Floats, Ints, floats, label_codes, labels, one_of, ratio
from accord.evaluate._krippendorff import Level, disagreement
from accord.evaluate._ranks import RankingAgreement, kendall_tau_b, ranking_agreement

__all__ = [
    "LeaveOneOut",
    "Level",
    "PreferenceAgreement",
    "RankingAgreement",
    "cohen_kappa",
    "fleiss_kappa",
    "kendall_tau_b",
    "krippendorff_alpha",
    "leave_one_out_agreement",
    "preference_agreement",
    "preference_alpha",
    "ranking_agreement",
]


class PreferenceAgreement(NamedTuple):
    """Agreement of several annotators on which of two responses is better.

    Attributes:
        agreement: share, mean over items of the mean credit of pairs of annotators.
        expected: share that blind annotators would reach.
        kappa: (agreement - expected) / (1 - expected).
        tie_rate: share of ties among the ratings of items with two or more.
        n_items: items with a pair of annotators that counts.
        n_pairs: such pairs.
    """

    agreement: float
    expected: float
    kappa: float
    tie_rate: float
    n_items: int
    n_pairs: int


class LeaveOneOut(NamedTuple):
    """How often each annotator says what the others say: rate_A shares (NaN without an item), n_A items."""

    rate_A: Floats
    n_A: Ints


def cohen_kappa(
    a_N: ArrayLike,
    b_N: ArrayLike,
    weights: Literal["none", "linear", "quadratic"] = "none",
    categories: ArrayLike | None = None,
) -> float:
    """Agreement of two annotators beyond chance (Cohen 1960; weighted, Cohen 1968).

        1 - sum w o / sum w e

    with o the observed joint shares, e the product of the two margins, and w of two categories [i != j], |i - j| or
    (i - j)^2 in their positions.

    Args:
        a_N: (N,) labels, numbers or texts, missing where NaN or None; rows missing on either side are dropped.
        b_N: (N,) those of the other annotator.
        weights: how much a disagreement weighs.
        categories: in their order; the sorted union of what occurs when None.

    Returns: 1 for full agreement, 0 at chance; NaN where chance leaves nothing to disagree about.

    Raises:
        ValueError: lengths differ, an unknown word, or a label that is no category.
    """
    one_of("weights", weights, ("none", "linear", "quadratic"))
    first, second = labels(a_N), labels(b_N)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"labels of shapes {first.shape} and {second.shape}; expected one label of each per row")
    codes_2N, found = label_codes("a_N, b_N", np.stack([first.astype(object), second.astype(object)]), 2)
    codes_2N = codes_2N[:, (codes_2N >= 0).all(axis=0)]
    if categories is None:
        used, compact = np.unique(codes_2N, return_inverse=True)
        codes_2N, count = compact.reshape(codes_2N.shape), len(used)
    else:
        order = {category: place for place, category in enumerate(np.asarray(categories).tolist())}
        unknown = [label for label in found.tolist() if label not in order]
        if unknown:
            raise ValueError(f"found the label {unknown[0]!r}; expected one of {list(order)}")
        codes_2N, count = np.array([order[label] for label in found.tolist()], dtype=np.intp)[codes_2N], len(order)
    if not codes_2N.shape[1]:
        return NAN
    joint_CC = np.bincount(codes_2N[0] * count + codes_2N[1], minlength=count * count).reshape(count, count)
    distance_CC = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    weight_CC = {"none": distance_CC > 0, "linear": distance_CC, "quadratic": distance_CC**2}[weights]
    chance_CC = np.outer(joint_CC.sum(axis=1), joint_CC.sum(axis=0))
    return 1 - ratio(float((weight_CC * joint_CC).sum() * joint_CC.sum()), float((weight_CC * chance_CC).sum()))


def fleiss_kappa(counts_NC: ArrayLike) -> float:
    """Agreement of the same number of annotators on every item (Fleiss 1971).

        (P - E) / (1 - E),   P = mean over items of sum_c n_c (n_c - 1) / (n (n - 1)),   E = sum_c share_c^2

    Args:
        counts_NC: (N, C) how many annotators put each item in each category; every row sums to the same n >= 2.

    Returns: 1 for full agreement, 0 at chance; NaN where only one category was used, or without items.

    Raises:
        ValueError: rows with different sums (use `krippendorff_alpha`), or with fewer than two ratings, or counts that
            are no counts.
    """
    count_NC = floats("counts_NC", counts_NC, 2)
    if not (count_NC >= 0).all() or (count_NC != np.floor(count_NC)).any():
        raise ValueError("`counts_NC` holds something else than counts; expected whole numbers from 0")
    if not len(count_NC):
        return NAN
    n = count_NC[0].sum()
    if n < 2 or (count_NC.sum(axis=1) != n).any():
        raise ValueError(
            f"rows of `counts_NC` sum to {np.unique(count_NC.sum(axis=1)).tolist()}; expected the same number of "
            "ratings, 2 or more, for every item; krippendorff_alpha takes unequal numbers"
        )
    share_C = count_NC.sum(axis=0) / count_NC.sum()
    if (share_C > 0).sum() < 2:
        return NAN
    agreement = float(((count_NC**2).sum(axis=1) - n).mean() / (n * (n - 1)))
    expected = float((share_C**2).sum())
    return (agreement - expected) / (1 - expected)


def krippendorff_alpha(ratings_AN: ArrayLike, level: Level = "nominal") -> float:
    """Agreement of any number of annotators with gaps (Krippendorff 2011, "Computing Krippendorff's alpha").

        1 - D_o / D_e
        D_o = 1/N sum over units of sum over ordered pairs of delta^2 / (m_u - 1)
        D_e = sum_{c,k} n_c n_k delta^2 / (N (N - 1))

    N counts pairable values, those of units with two ratings or more; n_c those equal to c. delta^2 of c and k is
    [c != k] (nominal), the squared difference of mid-ranks (ordinal: (sum_{g=c..k} n_g - (n_c + n_k)/2)^2, not
    |a - b|), (c - k)^2 (interval), or ((c - k)/(c + k))^2 (ratio).

    Args:
        ratings_AN: (A, N) numbers (nominal: texts too), NaN or None where an annotator did not rate.
        level: of measurement.

    Returns: 1 for full agreement, 0 at chance; NaN without variation or without a unit that two rated.

    Raises:
        ValueError: an unknown level, or negative values on a ratio scale.
    """
    observed, expected = disagreement(ratings_AN, level)
    return 1 - ratio(observed, expected)


def preference_agreement(verdict_AN: ArrayLike, ties: Literal["exclude", "half"] = "exclude") -> PreferenceAgreement:
    """Agreement on which of two responses is better.

        exclude: pairs of annotators without a tie, credit 1 if equal; expected 1/2
        half:    all pairs, credit 1 if equal (two ties too), 1/2 with one tie, 0 if opposed;
                 expected (1-t)^2/2 + t^2 + t(1-t), t the tie rate

    Responses are shuffled on the screen: "A" and "B" mean nothing and their margins carry no information, so chance is
    1/2 by design, not what the margins say. An item's credit is the mean over its pairs of annotators, and items weigh
    the same.

    Args:
        verdict_AN: (A, N) +1 response A better, 0 tie, -1 response B better, in the item's own frame; NaN unrated.
        ties: how a tie counts.

    Returns: a `PreferenceAgreement`. 73% without ties is kappa .46.

    Raises:
        ValueError: another verdict, or an unknown word.
    """
    one_of("ties", ties, ("exclude", "half"))
    verdict_AN = _verdicts(verdict_AN)
    up_N, down_N, tie_N = ((verdict_AN == verdict).sum(axis=0) for verdict in (1, -1, 0))
    rated_N = up_N + down_N + tie_N
    credit_N = _pairs(up_N) + _pairs(down_N)
    pairs_N = _pairs(up_N + down_N)
    if ties == "half":
        credit_N, pairs_N = credit_N + _pairs(tie_N) + tie_N * (up_N + down_N) / 2, _pairs(rated_N)
    counted_N = pairs_N > 0
    agreement = float((credit_N[counted_N] / pairs_N[counted_N]).mean()) if counted_N.any() else NAN
    tie_rate = ratio(float(tie_N[rated_N >= 2].sum()), float(rated_N[rated_N >= 2].sum()))
    expected = 0.5 if ties == "exclude" else (1 - tie_rate) ** 2 / 2 + tie_rate**2 + tie_rate * (1 - tie_rate)
    return PreferenceAgreement(
        agreement=agreement,
        expected=expected,
        kappa=ratio(agreement - expected, 1 - expected),
        tie_rate=tie_rate,
        n_items=int(counted_N.sum()),
        n_pairs=int(pairs_N.sum()),
    )


def preference_alpha(verdict_AN: ArrayLike, level: Literal["nominal", "ordinal"] = "nominal") -> float:
    """Krippendorff's alpha of verdicts beside their mirror image, [V, -V], so that A and B have the same margin.

    Args:
        verdict_AN: (A, N) +1, 0, -1 as in `preference_agreement`; NaN unrated.
        level: "ordinal" puts a tie between the two preferences.

    Returns: 1 for full agreement, 0 at chance; NaN where nothing pairs.

    Raises:
        ValueError: another verdict, or an unknown word.
    """
    one_of("level", level, ("nominal", "ordinal"))
    verdict_AN = _verdicts(verdict_AN)
    return krippendorff_alpha(np.concatenate([verdict_AN, 0 - verdict_AN], axis=1), level)


def leave_one_out_agreement(label_AN: ArrayLike) -> LeaveOneOut:
    """How often each annotator's label is the commonest among the others' of the item.

    Credit is 1/m if the label is one of the m commonest, else 0: what breaking ties by chance gives on average,
    without a seed.

    Args:
        label_AN: (A, N) numbers or texts, NaN or None unrated; items nobody else rated do not count.

    Returns: a `LeaveOneOut`. For people it is the ceiling of what a judge of their taste can reach.

    Raises:
        ValueError: the labels are no matrix.
    """
    code_AN, category_C = label_codes("label_AN", label_AN, 2)
    item_N = np.arange(code_AN.shape[1])
    rated_AN = code_AN >= 0
    pair_V, votes_V = np.unique((item_N * len(category_C) + code_AN)[rated_AN], return_counts=True)
    item_V = pair_V // max(len(category_C), 1)
    most_N = np.zeros(len(item_N), dtype=np.intp)
    np.maximum.at(most_N, item_V, votes_V)
    modes_N = np.bincount(item_V[votes_V == most_N[item_V]], minlength=len(item_N))
    behind_N = np.bincount(item_V[votes_V == most_N[item_V] - 1], minlength=len(item_N))
    # Without the own vote a label still leads only if it led alone; those one vote behind then lead beside it.
    votes_AN = np.zeros(code_AN.shape, dtype=np.intp)
    votes_AN[rated_AN] = votes_V[np.searchsorted(pair_V, (item_N * len(category_C) + code_AN)[rated_AN])]
    counted_AN = rated_AN & (rated_AN.sum(axis=0) >= 2)
    leads_AN = counted_AN & (votes_AN == most_N) & (modes_N == 1)
    n_A = counted_AN.sum(axis=1)
    credit_A = (leads_AN / (1 + behind_N)).sum(axis=1)
    return LeaveOneOut(np.array([ratio(credit, n) for credit, n in zip(credit_A, n_A, strict=True)]), n_A)


def _verdicts(verdict_AN: ArrayLike) -> Floats:
    array = floats("verdict_AN", verdict_AN, 2)
    wrong = array[~(np.isnan(array) | np.isin(array, (-1, 0, 1)))]
    if wrong.size:
        raise ValueError(f"`verdict_AN` holds {wrong[0]:g}; expected 1, 0, -1, or NaN where unrated")
    return array


def _pairs(count: Ints) -> Floats:
    return np.asarray(count * (count - 1) / 2, dtype=np.float64)
