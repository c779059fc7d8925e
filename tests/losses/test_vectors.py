"""Every golden case of `vectors/objectives.json`, values and gradients, in double and in single precision."""

import importlib
import json
import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

VECTORS = json.loads(Path(__file__).with_name("vectors").joinpath("objectives.json").read_text())
DTYPES = {"float64": torch.float64, "float32": torch.float32, "int64": torch.int64, "bool": torch.bool}


def function_of(case):
    module, name = case["function"].split(".")
    return getattr(importlib.import_module(f"{VECTORS['package']}.{module}"), name)


def numbers(value):
    """Nested lists of numbers, where JSON has to write nan and the infinities as words."""
    if isinstance(value, list):
        return [numbers(item) for item in value]
    return float(value) if isinstance(value, str) else value


def tensor_of(value, precision):
    dtype = precision if value["dtype"].startswith("float") else DTYPES[value["dtype"]]
    tensor = torch.tensor(numbers(value["tensor"]), dtype=dtype)
    return tensor.reshape(value["shape"]) if "shape" in value else tensor


def value_of(value, precision):
    """A value of the file as the argument it stands for (a builder needs the other arguments, see `built`)."""
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensor_of(value, precision)
    if "tensors" in value:
        return [tensor_of(item, precision).requires_grad_() for item in value["tensors"]]
    if "number" in value:
        return float(value["number"])
    if "items" in value:
        return tuple(value_of(item, precision) for item in value["items"])
    fields = value.get("fields", value)  # a builder keeps its word beside its tensors
    return SimpleNamespace(**{name: value_of(item, precision) for name, item in fields.items()})


def built(spec, arguments):
    if spec.builder == "matrix":
        return lambda vector_D: spec.matrix @ vector_D
    if spec.builder == "quadratic":
        return lambda theta_D: quadratic(spec, theta_D)
    assert spec.builder == "softmax_kl"
    weight, bias = arguments["parameters"]
    old = spec.old_logits.log_softmax(-1)
    return (old.exp() * (old - (spec.features @ weight + bias).log_softmax(-1))).sum(-1).mean()


def quadratic(spec, theta_D):
    """A loss that decreases along `slope` and bends, and a KL that is a quadratic form, both around `start`."""
    moved_D = theta_D - spec.start
    improvement = spec.slope @ moved_D - moved_D @ spec.bend @ moved_D / 2
    return improvement.item(), (moved_D @ spec.fisher @ moved_D / 2).item()


def arguments_of(case, precision):
    arguments = {name: value_of(value, precision) for name, value in case["inputs"].items()}
    for name in list(arguments):
        if hasattr(arguments[name], "builder"):
            arguments[name] = built(arguments[name], arguments)
    for name in [*case.get("grad", ()), *case.get("constant", ())]:
        arguments[name].requires_grad_()
    return arguments


def assert_same(found, expected, rtol, atol, where):
    if isinstance(expected, Tensor):
        assert isinstance(found, Tensor), where
        assert found.shape == expected.shape, where
        torch.testing.assert_close(
            found.detach(), expected, rtol=rtol, atol=atol, equal_nan=True, msg=lambda text: f"{where}: {text}"
        )
    elif isinstance(expected, SimpleNamespace):
        for name, item in vars(expected).items():
            assert_same(getattr(found, name), item, rtol, atol, f"{where}.{name}")
    elif isinstance(expected, tuple):
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_same(one, other, rtol, atol, f"{where}[{index}]")
    elif isinstance(expected, bool):
        assert found is expected, where
    else:
        assert math.isclose(found, expected, rel_tol=rtol, abs_tol=atol), f"{where}: {found} is not {expected}"


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["id"])
def test_golden_case(case, precision):
    if precision == "float32" and case.get("float32") is False:
        pytest.skip("single precision cannot hold the number")
    function, tolerance, dtype = function_of(case), VECTORS["tolerance"][precision], DTYPES[precision]
    arguments = arguments_of(case, dtype)
    if "raises" in case:
        assert case["raises"] == "ValueError"
        with pytest.raises(ValueError, match=r"\w"):
            function(**arguments)
        return
    result = function(**arguments)
    rtol, atol = tolerance["rtol"], max(tolerance["atol"], case.get("atol", 0.0))
    assert_same(result, value_of(case["expected"], dtype), rtol, atol, case["id"])
    assert_gradients(case, arguments, result, tolerance, dtype)


def assert_gradients(case, arguments, result, tolerance, dtype):
    leaves = [item for item in (result if isinstance(result, tuple) else (result,)) if isinstance(item, Tensor)]
    if "grad" in case:
        (result * value_of(case["upstream"], dtype)).sum().backward()
    elif any(leaf.requires_grad for leaf in leaves):
        sum(leaf.sum() for leaf in leaves if leaf.requires_grad).backward()
    for name, expected in case.get("grad", {}).items():
        found, expected = arguments[name].grad, value_of(expected, dtype)
        found = torch.zeros_like(expected) if found is None else found
        assert_same(found, expected, tolerance["grad_rtol"], tolerance["grad_atol"], f"{case['id']} d/d{name}")
    for name in case.get("constant", ()):
        assert arguments[name].grad is None or not arguments[name].grad.any(), f"{case['id']}: {name} got a gradient"


def test_no_case_and_no_function_is_missing():
    assert len(VECTORS["cases"]) == VECTORS["count"] == 379
    assert sorted(Counter(case["function"] for case in VECTORS["cases"])) == sorted(VECTORS["functions"])


def test_every_public_function_has_cases():
    def public(name):
        module = importlib.import_module(f"accord.losses.{name}")
        return {f"{name}.{word}" for word in module.__all__ if word[0].islower()}

    modules = ["advantages", "kl", "likelihood", "listwise", "policy", "preference", "reward"]
    assert set().union(*map(public, modules)) == set(VECTORS["functions"])
