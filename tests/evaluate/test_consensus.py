import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.evaluate.consensus import dawid_skene, majority_vote, preference_share, ranked_pairs


def test_a_tie_is_no_majority():
    found = majority_vote([0, 0, 1, 1, 1], [0, 1, 2, 2, 0], 3, 3)
    assert found.label_N.tolist() == [-1, 2, -1]
    assert found.share_NC[1] == pytest.approx([1 / 3, 0, 2 / 3])
    assert np.isnan(found.share_NC[2]).all()
    with pytest.raises(ValueError, match=r"0\.\.2"):
        majority_vote([0], [3], 1, 3)


def simulated(seed=0, items=600, annotators=9):
    """Two skilled annotators among seven who are right less than half the time, and lean to class 0."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, items, p=[0.4, 0.3, 0.3])
    skilled, lazy = np.full((3, 3), 0.05) + 0.85 * np.eye(3), np.full((3, 3), 0.2) + 0.2 * np.eye(3)
    lazy[:, 0] += 0.2
    confusion = np.stack([skilled] * 2 + [lazy] * (annotators - 2))
    item, annotator = (grid.ravel() for grid in np.mgrid[:items, :annotators])
    label = (rng.random(len(item))[:, None] > confusion[annotator, truth[item]].cumsum(axis=1)).sum(axis=1)
    return truth, confusion, item, annotator, label


def test_skill_is_recovered_and_beats_the_majority():
    truth, confusion, item, annotator, label = simulated(items=10_000)
    found = dawid_skene(item, annotator, label, 10_000, 9, 3)
    assert found.converged
    assert np.abs(found.confusion_ACC - confusion).max() < 0.05
    by_majority = (majority_vote(item, label, 10_000, 3).label_N == truth).mean()
    assert (found.posterior_NC.argmax(axis=1) == truth).mean() > by_majority + 0.05


def test_the_likelihood_rises_and_the_names_of_classes_mean_nothing():
    _, _, item, annotator, label = simulated()
    likelihood = [
        dawid_skene(item, annotator, label, 600, 9, 3, 0.0, max_iterations=n).log_likelihood for n in (1, 2, 9)
    ]
    assert likelihood == sorted(likelihood)
    found = dawid_skene(item, annotator, label, 600, 9, 3)
    renamed = dawid_skene(item, annotator, (label + 1) % 3, 600, 9, 3)
    assert renamed.posterior_NC == pytest.approx(np.roll(found.posterior_NC, 1, axis=1), abs=1e-6)
    assert not dawid_skene(item, annotator, label, 600, 9, 3, max_iterations=2).converged


def test_what_dawid_skene_refuses():
    for change in ({"num_items": 0, "item_M": []}, {"smoothing": -1}, {"num_items": 2}, {"label_M": [2]}):
        arguments = {"item_M": [0], "annotator_M": [0], "label_M": [1]} | change
        with pytest.raises(ValueError, match="expected"):
            dawid_skene(**{"num_items": 1, "num_annotators": 1, "num_classes": 2} | arguments)


def test_one_annotator_is_believed():
    found = dawid_skene([0, 1, 2], [0, 0, 0], [0, 1, 1], 3, 1, 2, smoothing=0.0)
    assert found.posterior_NC.tolist() == [[1, 0], [0, 1], [0, 1]]
    assert found.log_likelihood == pytest.approx(math.log(1 / 3) + 2 * math.log(2 / 3))


RANKS = st.integers(1, 5).flatmap(
    lambda k: st.lists(
        st.lists(st.one_of(st.none(), st.integers(1, 4)), min_size=k, max_size=k), min_size=1, max_size=6
    )
)


@given(RANKS)
def test_who_beats_all_others_is_first(ranks):
    found, share = ranked_pairs(ranks), preference_share(ranks)
    assert share + share.T == pytest.approx(np.ones(share.shape))
    for k in range(len(share)):
        if all(share[k, j] > 0.5 for j in range(len(share)) if j != k):
            assert found.order[0] == k
            assert found.rank_K.tolist().count(1) == 1
    assert sorted(found.order) == list(range(len(share)))
    assert found.rank_K[found.order].tolist() == sorted(found.rank_K)


@given(RANKS, st.randoms())
def test_votes_do_not_care_who_cast_them(ranks, random):
    shuffled = random.sample(ranks, len(ranks))
    assert ranked_pairs(shuffled).rank_K.tolist() == ranked_pairs(ranks).rank_K.tolist()


def test_one_strict_ranking_stands():
    for ranks in permutations([1, 2, 3, 4]):
        assert ranked_pairs([ranks]).rank_K.tolist() == list(ranks)


def test_a_wide_margin_counts_before_many_votes():
    """B over A by 6:3, C over B by 5:4, A over C by 4:2 with three ties: the cycle breaks at the margin of 1."""
    ranks = [[1, 2, 1], *[[1, 3, 2]] * 2, *[[2, 1, 2]] * 2, *[[2, 1, 3]] * 2, *[[3, 2, 1]] * 2]
    found = ranked_pairs(ranks)
    assert (found.votes_KK[1, 0], found.votes_KK[2, 1], found.votes_KK[0, 2]) == (6, 5, 4)
    assert found.order.tolist() == [1, 0, 2]


def test_nobody_ranked():
    with pytest.raises(ValueError, match="no row"):
        preference_share(np.empty((0, 3)))
