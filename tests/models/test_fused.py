"""Compiled kernels on the CPU's compiler: the numbers of the plain functions, and a clean way back where it fails."""

from __future__ import annotations

import logging
import shutil

import pytest
import torch
import torch._dynamo.testing
from torch.testing import assert_close

from accord.models import fused as module
from accord.models import gates, logits, norms, rotation
from accord.models import head as head_module
from accord.models.fused import fused

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, when its compiler is imported


@pytest.fixture
def compiling(monkeypatch):
    """Compile for a CPU, as if it were a GPU."""
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs g++ on a CPU")
    for where in (module, head_module):
        monkeypatch.setattr(where, "fuses", lambda device, *functions: not module._failed)
    monkeypatch.setattr(module, "_failed", set())
    with torch.no_grad():
        yield
    assert not module._failed


def plain(function, *args):
    return function.__wrapped__(*args)


def fresh(function):
    """Compiled for this test alone."""
    return fused(tokens=0)(function.__wrapped__)


def half(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


@pytest.mark.slow
def test_norms_gates_and_rotations(compiling):
    normal, gradients, product = fresh(norms.normal), fresh(norms._gradients), fresh(gates._product)
    for rows in (5, 9):  # one kernel for every length
        x, weight, grad = half(rows, 16).float() * 3, half(16, seed=1).float(), half(rows, 16, seed=2)
        y, r = plain(norms.normal, x, weight, 1e-5, torch.bfloat16)
        found_y, found_r = normal(x, weight, 1e-5, torch.bfloat16)
        assert_close(found_r, r)
        assert_close(found_y, y, rtol=8e-3, atol=1e-3)
        assert_close(gradients(grad, x, weight, r, True), plain(norms._gradients, grad, x, weight, r, True))
        gate, up = half(rows, 24), half(rows, 24, seed=3)
        assert_close(product(gate, up), plain(gates._product, gate, up), rtol=1e-2, atol=1e-2)
    turned = fresh(rotation._turned)
    q, k, angle = half(7, 4, 8), half(7, 2, 8, seed=1), half(7, 1, 4).float()
    args = (q, k, angle.cos(), angle.sin(), torch.bfloat16)
    for ours, theirs in zip(turned(*args), plain(rotation._turned, *args), strict=True):
        assert_close(ours, theirs, rtol=8e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize(("scale", "softcap", "temperature"), [(1.0, None, 1.0), (0.5, 3.0, 0.7)])
def test_log_probabilities_and_their_gradient(compiling, entropy, scale, softcap, temperature):
    read, to_gradient = fresh(logits.read), fresh(logits.to_gradient)
    for rows in (5, 9):
        raw, token = half(rows, 50) * 3, torch.arange(rows) * 4
        how = (scale, softcap, temperature)
        found, expected = (f(raw, token, *how, entropy) for f in (read, logits.read.__wrapped__))
        for a, b in zip(found, expected, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                assert_close(a, b)
        grads = (torch.linspace(-1, 1, rows), torch.linspace(0.5, -1, rows) if entropy else None)
        ours, theirs = raw.clone(), raw.clone()
        bias = to_gradient(ours, token, *grads, *how, rows == 5)
        expected = logits.to_gradient.__wrapped__(theirs, token, *grads, *how, rows == 5)
        assert len(bias) == (50 if rows == 5 else 0)
        assert_close(bias, expected)
        assert_close(ours, theirs, rtol=8e-3, atol=1e-3)
        assert not torch.equal(ours, raw)


def test_what_does_not_compile_runs_as_it_is_written(monkeypatch, caplog):
    monkeypatch.setattr(module, "_failed", set())
    monkeypatch.setattr(module, "fuses", lambda device, *functions: not module._failed)

    def compile_of_no_use(function, **settings):
        def broken(*args):
            raise RuntimeError("no compiler here")

        return broken

    monkeypatch.setattr(torch, "compile", compile_of_no_use)
    doubled = fused(tokens=0)(lambda x: x * 2)
    with torch.no_grad(), caplog.at_level(logging.WARNING, logger="accord"):
        assert doubled(torch.ones(2)).tolist() == [2, 2]
        assert doubled(torch.ones(3)).tolist() == [2, 2, 2]
    assert caplog.text.count("no compiler here") == 1


def test_second_derivatives_take_the_plain_function(monkeypatch):
    monkeypatch.setattr(module, "fuses", lambda device, *functions: True)
    monkeypatch.setattr(torch, "compile", lambda *args, **kwargs: pytest.fail("compiled"))
    assert fused(tokens=0)(lambda x: x * 2)(torch.ones(2, requires_grad=True)).requires_grad


def test_one_kernel_for_all_lengths(compiling, monkeypatch):
    counter, compile_ = torch._dynamo.testing.CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **settings: compile_(function, backend=counter, **settings))
    doubled = fused(tokens=0)(lambda x, y: x * 2 + y)
    for rows in (5, 9, 17):
        assert doubled(torch.ones(rows, 3), torch.ones(3)).shape == (rows, 3)
    assert counter.frame_count == 1
    doubled(torch.ones(5, 4), torch.ones(4))
    assert counter.frame_count == 2


def test_a_function_that_does_not_compile_takes_no_namesake_with_it(monkeypatch):
    fuses = module.fuses
    monkeypatch.setattr(module, "_failed", set())
    monkeypatch.setattr(module, "_has_compiler", lambda: True)
    monkeypatch.setattr(module, "fuses", lambda device, *functions: fuses(torch.device("cuda"), *functions))

    def times(factor):
        def scaled(x):
            return x * factor

        return fused(tokens=0)(scaled)

    def no_compiler(function, **settings):
        raise RuntimeError("no compiler here")

    first, second = times(2), times(3)
    monkeypatch.setattr(torch, "compile", lambda function, **settings: no_compiler)
    with torch.no_grad():
        assert first(torch.ones(2)).tolist() == [2, 2]
    cuda = torch.device("cuda")
    assert (fuses(cuda, first), fuses(cuda, second), fuses(cuda, first, second)) == (False, True, False)
