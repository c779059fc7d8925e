import json
import math

import pytest

from accord import __version__
from accord.evaluate.intervals import mean_result
from accord.evaluate.result import Result, ends_or_none, finite_or_none


def test_a_result_says_what_it_rests_on():
    found = mean_result([1.0, 0.0, math.nan, 1.0], seed=3, unit="share")
    assert (found.n, found.n_unscored, found.clusters, found.method) == (3, 1, 3, "bootstrap")
    assert (found.seed, found.level, found.version, found.detail) == (3, 0.95, __version__, {"unit": "share"})
    with pytest.raises(AttributeError):
        found.value = 1.0


def test_json_has_no_nan():
    lost = mean_result([math.nan])
    assert json.dumps([finite_or_none(lost.value), *ends_or_none(lost)], allow_nan=False) == "[null, null, null]"
    assert ends_or_none(Result(value=1.0, n=1, ci=(math.nan, math.nan))) == [None, None]
    assert ends_or_none(Result(value=1.0, n=2, ci=(0.5, 1.0))) == [0.5, 1.0]
