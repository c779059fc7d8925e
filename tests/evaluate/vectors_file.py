"""Golden cases as functions, arguments and expectations: the format of `vectors/evaluation.json`."""

import copy
import importlib
import math

import numpy as np
import pytest


def function_of(case):
    module, name = case["call"].split(":")
    return getattr(importlib.import_module(module), name)


def argument(value):
    """JSON as it stands, or what an object with one key stands for: an array (null is NaN), or a statistic."""
    if not isinstance(value, dict) or len(value) != 1:
        return value
    [(kind, content)] = value.items()
    if kind == "median_of":
        numbers = np.array(content)
        return lambda rows: float(np.median(numbers[rows]))
    dtypes = {"f64": np.float64, "i64": np.int64, "bool": np.bool_}
    return np.array(content, dtype=dtypes[kind]) if kind in dtypes else value


def field(found, name):
    return found[name] if isinstance(found, dict) else getattr(found, name)


def plain(value):
    """Arrays and named tuples as lists, for a comparison entry by entry."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value


def assert_same(found, expected, rtol, atol, where):
    found = found if isinstance(expected, dict) else plain(found)
    if isinstance(expected, dict):
        for name, entry in expected.items():
            assert_same(field(found, name), entry, rtol, atol, f"{where}.{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_same(one, other, rtol, atol, f"{where}[{index}]")
    elif isinstance(expected, bool) or expected is None:
        assert found is expected or (isinstance(found, np.bool_) and bool(found) is expected), f"{where}: {found}"
    elif expected == "nan":
        assert math.isnan(found), f"{where}: {found} is not nan"
    elif isinstance(expected, str) and expected != "inf":
        assert found == expected, where
    else:
        assert math.isclose(found, float(expected), rel_tol=rtol, abs_tol=atol), f"{where}: {found} is not {expected}"


def unchanged(before, after):
    if isinstance(before, np.ndarray):
        return np.array_equal(before, after, equal_nan=before.dtype.kind == "f")
    return before == after


def check(case):
    arguments = {name: argument(value) for name, value in case["args"].items()}
    kept = {name: value if callable(value) else copy.deepcopy(value) for name, value in arguments.items()}
    if "raises" in case:
        assert case["raises"] == "ValueError"
        with pytest.raises(ValueError, match="expected"):
            function_of(case)(**arguments)
    else:
        assert_same(function_of(case)(**arguments), case["expect"], case["rtol"], case["atol"], case["id"])
    assert all(unchanged(kept[name], arguments[name]) for name in kept), f"{case['id']}: an argument was changed"
