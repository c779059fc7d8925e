import math

import numpy as np
import pytest

from accord.evaluate.overoptimisation import fit_overoptimisation

D = np.linspace(0, 4, 9)


def test_the_published_forms_are_recovered():
    found = fit_overoptimisation(D**2, D * (1.2 - 0.3 * D))
    assert found == pytest.approx((1.2, 0.3, 2.0**2, 1.0, 9))
    log_D = np.log(np.where(D > 0, D, 1))
    found = fit_overoptimisation(D**2, D * (1.2 - 0.6 * log_D), "rl")
    assert found == pytest.approx((1.2, 0.6, math.e**2, 1.0, 9))


def test_the_peak_is_where_the_curve_is_highest():
    found = fit_overoptimisation(D**2, D * (1.0 - 0.4 * np.log(np.where(D > 0, D, 1))), "rl")
    d = np.linspace(0.01, 20, 20_000)
    assert math.sqrt(found.peak_kl) == pytest.approx(d[np.argmax(d * (found.alpha - found.beta * np.log(d)))], abs=1e-2)


def test_curves_without_a_peak():
    assert math.isnan(fit_overoptimisation(D**2, D * (1.0 + 0.2 * D)).peak_kl)
    for form in ("best_of_n", "rl"):  # a straight line: a bend of rounding error, 1e-17, is none
        straight = [fit_overoptimisation(D**2, slope * D, form).peak_kl for slope in (0.3, 0.7, 1.0, 1.9)]
        assert all(map(math.isnan, straight))
    assert fit_overoptimisation(D**2, D * (-1.0 - 0.2 * D)).peak_kl == 0
    assert fit_overoptimisation(D**2, D * (1.0 - 1e-4 * np.log(np.where(D > 0, D, 1))), "rl").peak_kl == math.inf


def test_one_kl_says_nothing_about_a_curve():
    found = fit_overoptimisation([2.0] * 4, [1.0, 2.0, 3.0, 2.0])
    assert all(map(math.isnan, found[:4]))
    with pytest.raises(ValueError, match="2 checkpoints"):
        fit_overoptimisation([1.0, 2.0, math.nan], [1.0, 2.0, 3.0])
