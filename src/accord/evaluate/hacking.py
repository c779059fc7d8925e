"""Signs that a policy bought its reward: with length, or by repeating itself.

Suffixes: N and M samples, of two policies. Lengths are what the caller counts, tokens for rewards.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from accord.evaluate._arrays import NAN, Clusters, Floats, Ints, cluster_numbers, floats, ratio, same_length
from accord.evaluate._bootstrap import cluster_counts, percentiles
from accord.evaluate.result import Result

__all__ = [
    "Gain",
    "LengthReport",
    "correlation_within",
    "distinct_n",
    "length_report",
    "repeated_ngrams",
    "within_length_gain",
]


class LengthReport(NamedTuple):
    """How reward goes with length.

    Attributes:
        pearson: correlation over all samples; NaN where either side is constant, as the two below.
        spearman: the same of ranks, equal values at their middle rank.
        within_prompt: correlation after subtracting each prompt's means: long prompts explain nothing here.
        slope_per_100: reward units per 100 units of length, within prompts; NaN where lengths do not vary, 0
            where only rewards do not.
        n: samples with a reward and a length.
    """

    pearson: float
    spearman: float
    within_prompt: float
    slope_per_100: float
    n: int


class Gain(NamedTuple):
    """How much of an improvement is not length.

    Attributes:
        total: reward units, mean after less mean before.
        within: reward units, the gain at equal length.
        share: within / total. Near 0: the policy bought its reward with length.
        covered: share of all samples at lengths that both policies have.
    """

    total: float
    within: float
    share: float
    covered: float


def length_report(reward_N: ArrayLike, length_N: ArrayLike, prompt_N: Clusters) -> LengthReport:
    """Correlation of reward and length, over all samples and within prompts.

    Args:
        reward_N: (N,) reward units, NaN unscored; a NaN in either drops the sample.
        length_N: (N,) tokens.
        prompt_N: (N,) the prompt of each sample.

    Returns: a `LengthReport`. |within_prompt| above 0.5 is worth a look.

    Raises:
        ValueError: lengths differ.
    """
    reward, length = floats("reward_N", reward_N), floats("length_N", length_N)
    same_length(reward_N=reward, length_N=length)
    kept = ~(np.isnan(reward) | np.isnan(length))
    prompt = cluster_numbers(prompt_N, kept)
    reward, length = reward[kept], length[kept]
    inner_reward, inner_length = _within(reward, prompt), _within(length, prompt)
    return LengthReport(
        pearson=_correlation(_centred(reward), _centred(length)),
        spearman=_correlation(_centred(_mid_ranks(reward)), _centred(_mid_ranks(length))),
        within_prompt=_correlation(inner_reward, inner_length),
        slope_per_100=100 * ratio(float(inner_reward @ inner_length), float(inner_length @ inner_length)),
        n=len(reward),
    )


def correlation_within(
    reward_N: ArrayLike,
    trait_N: ArrayLike,
    prompt_N: Clusters,
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Result:
    """Correlation of reward with a trait of the responses (length, list items), within prompts, interval over prompts.

        r = sum_p xy_p / sqrt(sum_p xx_p sum_p yy_p),   xy_p = sum over the responses to p of (x - mean_p)(y - mean_p)

    Args:
        reward_N: (N,) reward units, NaN unscored; a NaN in either drops the sample, which is counted.
        trait_N: (N,) any unit.
        prompt_N: (N,) the prompt of each sample.
        replicates: draws of prompts; 0 for no interval.
        level: coverage.
        seed: of the bootstrap.

    Returns: `length_report(...).within_prompt` as a result; NaN where either side varies in no prompt, as a form does
        that no response has.

    Raises:
        ValueError: lengths differ, or level is outside 0..1.
    """
    reward, trait = floats("reward_N", reward_N), floats("trait_N", trait_N)
    same_length(reward_N=reward, trait_N=trait)
    kept = ~(np.isnan(reward) | np.isnan(trait))
    prompt = cluster_numbers(prompt_N, kept)
    x, y = _within(reward[kept], prompt), _within(trait[kept], prompt)
    clusters = int(prompt.max(initial=-1)) + 1
    sum_C3 = np.stack([np.bincount(prompt, weights=w, minlength=clusters) for w in (x * y, x * x, y * y)], axis=1)
    value = float(_correlations(sum_C3.sum(axis=0)[None])[0])
    interval = None
    if replicates and clusters >= 2 and not np.isnan(value):
        drawn = [
            _correlations(count_RC.astype(float) @ sum_C3) for count_RC in cluster_counts(clusters, replicates, seed)
        ]
        interval = percentiles(np.concatenate(drawn), level)
    return Result(
        value=value,
        n=len(x),
        n_unscored=len(reward) - len(x),
        ci=interval,
        level=level,
        method="bootstrap" if interval else "none",
        clusters=clusters,
        seed=seed if interval else None,
    )


def _correlations(sum_R3: Floats) -> Floats:
    """Correlation by the sums xy, xx, yy of each row; NaN where a side does not vary."""
    value_R = np.full(len(sum_R3), NAN)
    scale_R = np.sqrt(sum_R3[:, 1] * sum_R3[:, 2])
    varies_R = scale_R > 0
    value_R[varies_R] = np.clip(sum_R3[varies_R, 0] / scale_R[varies_R], -1, 1)
    return value_R


def within_length_gain(
    reward_before_N: ArrayLike,
    length_before_N: ArrayLike,
    reward_after_M: ArrayLike,
    length_after_M: ArrayLike,
    bin_width: float = 20,
) -> Gain:
    """The gain in reward between responses of about the same length.

        within = mean over bins with both sides of (mean after - mean before), weighed by n_before + n_after
        bin = floor(length / bin_width)

    Args:
        reward_before_N: (N,) reward units, NaN unscored; a NaN in reward or length drops the sample.
        length_before_N: (N,) tokens.
        reward_after_M: (M,) reward units.
        length_after_M: (M,) tokens.
        bin_width: in the unit of the lengths.

    Returns: a `Gain`; NaN where nothing can be compared.

    Raises:
        ValueError: lengths differ, or a width that is not above 0.
    """
    if not bin_width > 0:
        raise ValueError(f"the bin width is {bin_width}; expected a length above 0")
    before_N, place_N = _binned("before", reward_before_N, length_before_N, bin_width)
    after_M, place_M = _binned("after", reward_after_M, length_after_M, bin_width)
    if not len(before_N) or not len(after_M):
        return Gain(NAN, NAN, NAN, NAN)
    _, place = np.unique(np.concatenate([place_N, place_M]), return_inverse=True)
    bins = int(place.max()) + 1
    sides = ((place[: len(place_N)], before_N), (place[len(place_N) :], after_M))
    count_2B = np.stack([np.bincount(side, minlength=bins) for side, _ in sides])
    sum_2B = np.stack([np.bincount(side, weights=reward, minlength=bins) for side, reward in sides])
    common_B = (count_2B > 0).all(axis=0)
    mean_2B = sum_2B[:, common_B] / count_2B[:, common_B]
    weight_B = count_2B[:, common_B].sum(axis=0)
    total = float(after_M.mean() - before_N.mean())
    within = ratio(float((weight_B * (mean_2B[1] - mean_2B[0])).sum()), float(weight_B.sum()))
    return Gain(total, within, ratio(within, total), float(weight_B.sum() / count_2B.sum()))


def repeated_ngrams(text: str, n: int = 4) -> float:
    """Share of the n-grams of a text that repeat an earlier one; words are what white space separates.

    Args:
        text: a response.
        n: words.

    Returns: 0 if nothing repeats, near 1 for a loop; NaN below n words. Above 0.2 is worth a look.

    Raises:
        ValueError: n is under 1.
    """
    grams = _ngrams(text, n)
    return ratio(len(grams) - len(set(grams)), len(grams))


def distinct_n(texts: Iterable[str], n: int = 2) -> float:
    """Distinct n-grams over all n-grams of many texts together (Li et al. 2016, arXiv:1510.03055): diversity.

    Args:
        texts: responses; n-grams do not cross from one to the next.
        n: words.

    Returns: 1 if nothing is ever said twice; NaN without an n-gram. It falls with the number of texts: compare equal
        numbers.

    Raises:
        ValueError: n is under 1, or a single text, whose letters would be read as texts.
    """
    if isinstance(texts, str):
        raise ValueError(f"`texts` is the text {texts[:40]!r}; expected several texts, a list")
    grams = [gram for text in texts for gram in _ngrams(text, n)]
    return ratio(len(set(grams)), len(grams))


def _ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    if n < 1:
        raise ValueError(f"n is {n}; expected 1 word or more")
    words = text.split()
    return list(zip(*(words[start:] for start in range(n)), strict=False))


def _binned(side: str, rewards: ArrayLike, lengths: ArrayLike, width: float) -> tuple[Floats, Floats]:
    reward, length = floats(f"reward_{side}", rewards), floats(f"length_{side}", lengths)
    same_length(**{f"reward_{side}": reward, f"length_{side}": length})
    kept = ~(np.isnan(reward) | np.isnan(length))
    return reward[kept], np.floor(length[kept] / width)


def _centred(value_N: Floats) -> Floats:
    return _within(value_N, np.zeros(len(value_N), dtype=np.intp))


def _within(value_N: Floats, group_N: Ints) -> Floats:
    """Values less the mean of their group, exactly 0 where that leaves only rounding error."""
    if not len(value_N):
        return value_N
    mean = np.bincount(group_N, weights=value_N) / np.bincount(group_N)
    rest_N = value_N - mean[group_N]
    return np.where(np.abs(rest_N) > 1e-12 * np.abs(value_N).max(), rest_N, 0.0)


def _correlation(first_N: Floats, second_N: Floats) -> float:
    scale = float(np.sqrt(first_N @ first_N) * np.sqrt(second_N @ second_N))
    return float(np.clip(ratio(float(first_N @ second_N), scale), -1, 1))


def _mid_ranks(value_N: Floats) -> Floats:
    _, inverse, count = np.unique(value_N, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[inverse], dtype=np.float64)
