"""Freed memory stays in the process: the same block is not fetched from the system again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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
