"""Compiling the kernels: once for a processor, a compiler and a version of their text, in Accord's cache."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from accord.models.cache import cache_folder

__all__ = ["library"]

logger = logging.getLogger("accord")

HERE = Path(__file__).parent
SOURCES, HEADER = ("pointwise.cpp", "attention.cpp", "decoding.cpp", "head.cpp"), "vector.h"
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math")
LIMIT = 300.0  # seconds; it takes two


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None where there are none to be had, which is said once unless it was asked for."""
    if os.environ.get("ACCORD_KERNELS") == "0" or sys.platform != "linux":
        return None
    compilers = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    compiler = next(filter(None, map(shutil.which, compilers)), None)
    if compiler is None:
        logger.warning("no C++ compiler (%s): training on this CPU takes longer without kernels", ", ".join(compilers))
        return None
    try:
        return ctypes.CDLL(str(_compiled(compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        logger.warning(
            "%s could not compile the kernels (%s); going on without them: slower, same results",
            compiler,
            " ".join(said.split())[:300],
        )
        return None


def _compiled(compiler: str) -> Path:
    """Path of the shared library, compiled now if it is not there."""
    texts = [(HERE / name).read_bytes() for name in (HEADER, *SOURCES)]
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=LIMIT).stdout
    facts = [*texts, version, " ".join(FLAGS).encode(), _processor().encode(), _openmp().encode()]
    name = hashlib.sha256(b"\0".join(facts)).hexdigest()[:16]
    path = cache_folder() / "kernels" / f"{name}.so"
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(dir=path.parent)
    except OSError:  # a cache that cannot be written is no reason to go without
        folder = tempfile.mkdtemp(prefix="accord-kernels-")
        path = Path(folder) / path.name
    made = Path(folder) / "kernels.so"
    # First of all the OpenMP that torch has loaded: two of them would keep a team of threads each.
    words = [compiler, *FLAGS, *(str(HERE / name) for name in SOURCES), "-o", str(made), "-Wl,--as-needed", _openmp()]
    subprocess.run([word for word in words if word], capture_output=True, check=True, timeout=LIMIT, text=True)
    os.replace(made, path)  # whole or not at all, whoever else compiles at the same time
    if Path(folder) != path.parent:
        os.rmdir(folder)
    return path


def _processor() -> str:
    """What `-march=native` depends on: a cache may be shared by machines."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return "\n".join([platform.machine(), *sorted({x for x in lines if x.startswith(("flags", "Features", "model"))})])


def _openmp() -> str:
    """Path of the OpenMP library in this process, or nothing."""
    import torch  # noqa: F401  # loads it

    paths = {line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "gomp" in line}
    return next(iter(sorted(paths)), "")
