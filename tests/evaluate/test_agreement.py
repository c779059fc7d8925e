import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from accord.evaluate._krippendorff import disagreement
from accord.evaluate.agreement import (
    cohen_kappa,
    fleiss_kappa,
    kendall_tau_b,
    krippendorff_alpha,
    leave_one_out_agreement,
    preference_agreement,
    preference_alpha,
    ranking_agreement,
)

NAN = math.nan
LEVELS = ["nominal", "ordinal", "interval", "ratio"]
RATINGS = arrays(float, st.tuples(st.integers(2, 5), st.integers(1, 8)), elements=st.sampled_from([1.0, 2.0, 4.0, NAN]))


def same(first, second):
    return first == pytest.approx(second, rel=1e-9, abs=1e-12, nan_ok=True)


def alpha_by_definition(ratings, delta):
    """Pair by pair, as the formula is written: the slow way."""
    units = [[x for x in unit if not math.isnan(x)] for unit in ratings.T]
    units = [unit for unit in units if len(unit) >= 2]
    values = [x for unit in units for x in unit]
    observed = sum(sum(delta(a, b) for a in unit for b in unit) / (len(unit) - 1) for unit in units)
    expected = sum(delta(a, b) for a in values for b in values)
    return 1 - observed * (len(values) - 1) / expected if expected else NAN


@given(RATINGS)
def test_alpha_is_its_definition(ratings):
    def ordinal(a, b):
        pairable = [x for unit in ratings.T for x in unit[~np.isnan(unit)] if (~np.isnan(unit)).sum() >= 2]
        low, high = min(a, b), max(a, b)
        between = sum(low <= x <= high for x in pairable)
        return 0 if a == b else (between - (pairable.count(a) + pairable.count(b)) / 2) ** 2

    deltas = {
        "nominal": lambda a, b: a != b,
        "ordinal": ordinal,
        "interval": lambda a, b: (a - b) ** 2,
        "ratio": lambda a, b: ((a - b) / (a + b)) ** 2,
    }
    for level, delta in deltas.items():
        assert same(krippendorff_alpha(ratings, level), alpha_by_definition(ratings, delta))


@given(RATINGS, st.randoms())
def test_names_of_annotators_and_of_classes_mean_nothing(ratings, random):
    order = random.sample(range(len(ratings)), len(ratings))
    renamed = np.select([ratings == 1, ratings == 2, ratings == 4], [4.0, 1.0, 2.0], NAN)
    for level in LEVELS:
        assert same(krippendorff_alpha(ratings[order], level), krippendorff_alpha(ratings, level))
    assert same(krippendorff_alpha(renamed), krippendorff_alpha(ratings))
    assert same(cohen_kappa(ratings[1], ratings[0]), cohen_kappa(ratings[0], ratings[1]))
    assert same(cohen_kappa(renamed[0], renamed[1]), cohen_kappa(ratings[0], ratings[1]))
    assert leave_one_out_agreement(renamed).rate_A == pytest.approx(
        leave_one_out_agreement(ratings).rate_A, nan_ok=True
    )
    permuted = leave_one_out_agreement(ratings[order])
    assert permuted.rate_A == pytest.approx(leave_one_out_agreement(ratings).rate_A[order], nan_ok=True)


@given(RATINGS)
def test_texts_are_labels_too(ratings):
    names = np.select([ratings == 1, ratings == 2, ratings == 4], ["a", "b", "c"], "-").astype(object)
    names[names == "-"] = None
    assert same(krippendorff_alpha(names), krippendorff_alpha(ratings))
    assert same(cohen_kappa(list(names[0]), list(names[1])), cohen_kappa(ratings[0], ratings[1]))
    assert leave_one_out_agreement(names).rate_A == pytest.approx(leave_one_out_agreement(ratings).rate_A, nan_ok=True)


@pytest.mark.parametrize("missing", [None, NAN])
def test_lists_may_hold_what_is_missing(missing):
    """numpy would make an array of objects of the one list, and the text "nan", a label, of the other."""
    ratings = np.array([[1.0, 2.0, 4.0, NAN], [1.0, 4.0, 4.0, 2.0], [2.0, 2.0, NAN, 2.0]])
    numbers = [[missing if math.isnan(x) else int(x) for x in row] for row in ratings]
    texts = [[missing if math.isnan(x) else "abcd"[int(x) - 1] for x in row] for row in ratings]
    for level in LEVELS:
        assert same(krippendorff_alpha(numbers, level), krippendorff_alpha(ratings, level))
    for labels in (numbers, texts):
        assert same(krippendorff_alpha(labels), krippendorff_alpha(ratings))
        assert same(cohen_kappa(labels[0], labels[2]), cohen_kappa(ratings[0], ratings[2]))
        assert leave_one_out_agreement(labels).rate_A == pytest.approx(leave_one_out_agreement(ratings).rate_A)
    with pytest.raises(ValueError, match="one kind"):
        cohen_kappa(["1", "2"], [1, 2])


@given(RATINGS)
def test_twice_the_items_disagree_as_much(ratings):
    for level in ("nominal", "interval", "ratio"):
        once, twice = disagreement(ratings, level)[0], disagreement(np.tile(ratings, 2), level)[0]
        assert same(twice, once)


def test_alpha_of_full_agreement_and_of_texts_on_a_scale():
    assert krippendorff_alpha([[1, 2, 3], [1, 2, 3]], "ordinal") == 1
    with pytest.raises(ValueError, match="texts"):
        krippendorff_alpha([["low", "high"], ["low", "high"]], "ordinal")
    with pytest.raises(ValueError, match="ratio scale"):
        krippendorff_alpha([[-1.0, 2.0], [1.0, 2.0]], "ratio")
    with pytest.raises(ValueError, match="'nominal', 'ordinal'"):
        krippendorff_alpha([[1.0, 2.0], [1.0, 2.0]], "cardinal")


def test_kappa_with_categories_in_their_own_order():
    """low-high is two steps when "middle" exists, one when not; (1 + 2) / 4 seen against 14 / 16 by the margins."""
    a, b = ["low", "high", "low", "low"], ["low", "high", "high", "low"]
    steps = ["low", "middle", "high"]
    assert cohen_kappa(a, b, "linear", steps) == pytest.approx(cohen_kappa(a, b))  # every weight doubled
    assert cohen_kappa([0, 1, 2, 0], [0, 1, 1, 2], "linear") == pytest.approx(1 - 12 / 14)
    with pytest.raises(ValueError, match="'high'"):
        cohen_kappa(a, b, categories=["low"])


def test_fleiss_refuses_what_is_no_count():
    assert math.isnan(fleiss_kappa(np.empty((0, 3))))
    for counts in ([[1, 0], [1, 0]], [[1.5, 0.5], [1, 1]], [[-1, 3], [1, 1]], [[2, 1], [1, 1]]):
        with pytest.raises(ValueError, match="expected"):
            fleiss_kappa(counts)


def test_73_percent_is_kappa_46():
    """InstructGPT's annotators: 100 items, two annotators, 73 alike."""
    found = preference_agreement([[1] * 100, [1] * 73 + [-1] * 27])
    assert found == (0.73, 0.5, pytest.approx(0.46), 0.0, 100, 100)


VERDICTS = arrays(
    float, st.tuples(st.integers(2, 5), st.integers(1, 8)), elements=st.sampled_from([1.0, 0.0, -1.0, NAN])
)


@given(VERDICTS, st.sampled_from(["exclude", "half"]), st.data())
def test_what_is_called_a_does_not_matter(verdicts, ties, data):
    """Any items may be turned round, because A and B were shuffled."""
    turned = verdicts * data.draw(arrays(float, verdicts.shape[1], elements=st.sampled_from([1.0, -1.0])))
    assert preference_agreement(turned, ties) == pytest.approx(preference_agreement(verdicts, ties), nan_ok=True)
    assert same(preference_alpha(turned), preference_alpha(verdicts))


def test_always_the_same_button_is_no_agreement():
    """Two annotators who both press A nine times in ten: .82 alike, which margins explain, and shuffling does not."""
    rng = np.random.default_rng(0)
    verdicts = np.where(rng.random((2, 4000)) < 0.9, 1.0, -1.0)
    assert preference_agreement(verdicts).agreement == pytest.approx(0.82, abs=0.02)
    assert krippendorff_alpha(verdicts) == pytest.approx(0, abs=0.05)
    assert preference_alpha(verdicts) == pytest.approx(preference_agreement(verdicts).kappa, abs=1e-3)


def test_a_verdict_is_one_of_three():
    with pytest.raises(ValueError, match=r"holds 0\.5"):
        preference_agreement([[1, 0.5], [1, 1]])


def test_leave_one_out_by_hand():
    """Others say 1, 1; 2 alone is wrong. With the others split 1, 2 either is half a point. Alone, nothing counts."""
    found = leave_one_out_agreement([[1, 1, 5], [1, 2, NAN], [2, 1, NAN]])
    assert found.n_A.tolist() == [2, 2, 2]
    assert found.rate_A.tolist() == [(0.5 + 0.5) / 2, (0.5 + 0) / 2, (0 + 0.5) / 2]
    nobody = leave_one_out_agreement([[1.0], [NAN]])
    assert nobody.n_A.tolist() == [0, 0]
    assert np.isnan(nobody.rate_A).all()


@given(RATINGS)
def test_leave_one_out_is_its_definition(ratings):
    found = leave_one_out_agreement(ratings)
    for a, row in enumerate(ratings):
        credits = []
        for n, label in enumerate(row):
            others = [x for b, x in enumerate(ratings[:, n]) if b != a and not math.isnan(x)]
            if others and not math.isnan(label):
                most = max(others.count(x) for x in others)
                modes = {x for x in others if others.count(x) == most}
                credits.append((label in modes) / len(modes))
        assert found.n_A[a] == len(credits)
        assert same(found.rate_A[a], sum(credits) / len(credits) if credits else NAN)


RANKS = st.lists(st.one_of(st.none(), st.integers(1, 4)), min_size=1, max_size=6)


@given(RANKS)
def test_tau_of_a_ranking_with_itself_and_its_reverse(ranks):
    if len(set(ranks)) == 1:
        assert math.isnan(kendall_tau_b(ranks, ranks))
    else:
        reverse = [-5 if rank is None else -rank for rank in ranks]
        assert kendall_tau_b(ranks, ranks) == pytest.approx(1)
        assert kendall_tau_b(ranks, reverse) == pytest.approx(-1)


def test_ranking_agreement_by_hand():
    """(1, 2, 3) against (1, 3, 2) agrees on two of three pairs; a tie on one of them is half."""
    assert ranking_agreement([[1, 2, 3], [1, 3, 2]]) == pytest.approx((1 / 3, 2 / 3, 2 / 3, 3, 3))
    found = ranking_agreement([[1, 2, 2], [1, 2, 3]])
    assert found == pytest.approx((2 / math.sqrt(6), 1.0, 2.5 / 3, 2, 3))
    assert ranking_agreement([[1, 2, 2], [1, None, None]]).agreement_half == 1


def test_ten_thousand_items_and_a_hundred_annotators_take_seconds():
    rng = np.random.default_rng(0)
    ratings = rng.integers(1, 8, size=(100, 10_000)).astype(float)
    ratings[rng.random(ratings.shape) < 0.3] = NAN
    began = time.perf_counter()
    alphas = [krippendorff_alpha(ratings, level) for level in LEVELS]
    loo = leave_one_out_agreement(ratings)
    preference_agreement(np.sign(ratings - 4), "half")
    assert time.perf_counter() - began < 20  # about 2 s on one core; twenty leave room for a busy machine
    assert np.abs(alphas).max() < 1e-2
    assert loo.rate_A.mean() == pytest.approx(1 / 7, abs=0.02)
