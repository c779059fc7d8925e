"""Keep freed memory in the process instead of giving it back to the system between two uses; keep few kernels.

glibc takes large blocks (over 32 MB always, over 128 kB at first) fresh from the system and gives them back when they
are freed; the system then clears each page anew. A training step frees and takes the same tensors again and again: a
quarter of its time on a CPU went into that (docs/log.md). And it cannot use a freed block again for an aligned one of
the same size, which is what PyTorch asks for: a small allocator of ours, compiled for the PyTorch that is installed
(`kernels/allocator.cpp`), asks for plain blocks. A user's own choice of allocator or of its settings stands.

Matrix products in bfloat16 are compiled for their shapes, two caches keep 1024 of them, half a megabyte each, and every
pack of another length has twenty: a process grew by a gigabyte in 400 packs. Making one takes a millisecond.
"""

from __future__ import annotations

import ctypes
import os
import sys

import torch

from accord.models.kernels.build import allocator

__all__ = ["keep_few_kernels", "keep_freed_memory", "memory_available"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of mallopt(3)
_KERNELS = {"LRU_CACHE_CAPACITY": "128", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128"}  # of ideep, of oneDNN
_CHOICES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_freed_memory() -> bool:
    """Set the allocator once per process; False where it is not glibc's, or the user has made a choice."""
    if sys.platform != "linux" or any(os.environ.get(name) for name in _CHOICES):
        return False
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl
        return False
    kept = bool(set_option(_TRIM_THRESHOLD, -1))  # never, however much is free
    # glibc before 2.35 refuses more than 32 MiB.
    kept = kept and any(bool(set_option(_MMAP_THRESHOLD, size)) for size in (2**30, 2**25))
    huge = os.environ.get("THP_MEM_ALLOC_ENABLE") == "1"  # a choice too, which is PyTorch's own allocator's
    if kept and not huge and not torch.cuda.is_available() and (ours := allocator()) is not None:
        ours.install()
    return kept


def keep_few_kernels() -> None:
    """Bound both caches of kernels; to be called before the first product of a process, a user's own choice stands."""
    for name, capacity in _KERNELS.items():
        os.environ.setdefault(name, capacity)


def memory_available(device: torch.device) -> int:
    """Bytes that are free on a device; what PyTorch keeps in reserve on an accelerator counts as free."""
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    import psutil

    return int(psutil.virtual_memory().available)
