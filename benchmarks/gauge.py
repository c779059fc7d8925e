"""Clock and memory of a run, on the CPU or a CUDA GPU. Peers import it too, so nothing of Accord is imported here."""

from __future__ import annotations

import time
from typing import Any

import torch

__all__ = ["card", "memory", "now"]

DATASHEET = {"H100": 989.0, "H200": 989.0, "A100": 312.0}
"""TFLOP/s of dense bf16 products by the maker, by a part of the card's name (SXM)."""


def now() -> float:
    """Seconds; on a GPU after all that was asked of it is done."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def memory(host_gb: float) -> dict[str, float]:
    """Peak memory: of the process, or where a GPU was used of its tensors, what was reserved for them beside it."""
    if not torch.cuda.is_initialized():
        return {"peak_gb": host_gb}
    return {
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
        "peak_reserved_gb": torch.cuda.max_memory_reserved() / 1e9,
        "peak_host_gb": host_gb,
    }


def card() -> dict[str, Any]:
    """The GPU's name and its bf16 matrix products in TFLOP/s: measured (8192^3, random numbers), and its maker's."""
    torch.cuda.empty_cache()
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    for _ in range(3):
        torch.mm(a, b, out=out)
    start = now()
    for _ in range(10):
        torch.mm(a, b, out=out)
    seconds = (now() - start) / 10
    name = torch.cuda.get_device_name()
    return {
        "name": name,
        "tflops": 2 * 8192**3 / seconds / 1e12,
        "datasheet_tflops": next((rate for part, rate in DATASHEET.items() if part in name), None),
        "memory_gb": torch.cuda.get_device_properties(0).total_memory / 1e9,
        "cuda": torch.version.cuda,
    }
