"""Freed memory stays in the process: the same block is not fetched from the system again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

PROGRAM = """
import resource, sys
from accord.models.allocation import keep_freed_memory
import torch
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for i in range(30):  # memalign spreads the first blocks out
    torch.ones(3 * 2**22)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for i in range(20):
    torch.ones(3 * 2**22)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str, **environment: str) -> int:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        env=os.environ | {"THP_MEM_ALLOC_ENABLE": "0"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(result.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_blocks_are_used_again() -> None:
    assert faults("keep") < 0.1 * faults("plain")


def test_a_choice_of_the_user_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    from accord.models.allocation import keep_freed_memory

    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "100000")
    assert not keep_freed_memory()


KERNELS = """
import sys, psutil
from accord.models.allocation import keep_few_kernels
import torch
if sys.argv[1] == "few":
    keep_few_kernels()
torch.set_num_threads(1)
weights = [torch.zeros(size, 64, dtype=torch.bfloat16, requires_grad=True) for size in (64, 96, 128, 192)]
def step(tokens):
    for weight in weights:
        x = torch.zeros(tokens, 64, dtype=torch.bfloat16, requires_grad=True)
        torch.nn.functional.linear(x, weight).sum().backward()
step(10)
before = psutil.Process().memory_info().rss
for tokens in range(11, 131):
    step(tokens)
print((psutil.Process().memory_info().rss - before) // 2**20)
"""


def growth(how: str, **environment: str) -> int:
    # Whoever loaded a model in this process has set them.
    given = {name: value for name, value in os.environ.items() if not name.endswith("_CACHE_CAPACITY")} | environment
    words = [sys.executable, "-c", KERNELS, how]
    return int(subprocess.run(words, env=given, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="no bfloat16 products here")
def test_kernels_of_other_lengths_are_forgotten() -> None:
    """120 lengths, four layers, three products each: megabytes that the process has grown by."""
    many, few = growth("many"), growth("few")
    assert few < 0.5 * many
    assert growth("few", LRU_CACHE_CAPACITY="1024", ONEDNN_PRIMITIVE_CACHE_CAPACITY="1024") > 2 * few  # a user's choice


BLOCKS = """
import ctypes, gc, resource, sys
from accord.models import allocation
import numpy, torch
early = [torch.ones(1000 + i) for i in range(50)]  # of PyTorch's own allocator, freed behind the change
storage = torch.UntypedStorage(64)
assert allocation.keep_freed_memory()
made = [torch.zeros(2**20 + 4 * i) for i in range(16)]  # 16 bytes more each: all ways to lie in memory
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(6):  # each freed block lies between two that stay: none becomes a part of a larger one
    made[::2] = [None] * 8
    made[::2] = [torch.zeros(2**20 + 4 * i) for i in range(0, 16, 2)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
storage.resize_(10**6)
del storage, early
for size in (0, 1, 63, 64, 65, 10**6):
    for x in (torch.empty(size, dtype=torch.uint8), torch.zeros(size), torch.from_numpy(numpy.zeros(size))):
        assert x.numel() == size
    x = torch.empty(size, dtype=torch.uint8)
    assert size == 0 or x.data_ptr() % 64 == 0
    if size:
        x.untyped_storage().resize_(2 * size)
        assert x.untyped_storage().data_ptr() % 64 == 0
    assert torch.equal(torch.arange(size).clone(), torch.arange(size))
try:
    torch.empty(2**60, dtype=torch.uint8)
except RuntimeError as error:
    assert "allocate" in str(error), error
else:
    raise AssertionError
"""


@pytest.mark.skipif(sys.platform != "linux" or torch.cuda.is_available(), reason="glibc's allocator, on a CPU")
def test_a_block_of_the_same_size_is_used_again() -> None:
    from accord.models.kernels.build import allocator

    if allocator() is None:
        pytest.skip("no C++ compiler")
    done = subprocess.run([sys.executable, "-c", BLOCKS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1024  # pages of new memory; one block has 1,024, PyTorch's own allocator takes 6,144
