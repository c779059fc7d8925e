"""Compiling the C++ beside this file: once for a processor, a compiler and a version of its text, in Accord's cache."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from accord.models.cache import cache_folder

__all__ = ["MARK", "allocator", "library", "threads_for"]

MARK = "accord.kernel."
"""Before the name of a kernel in a profile; behind a space the FLOP of its products, if it has any."""
GRAIN = 16384  # numbers that a thread is woken for

logger = logging.getLogger("accord")

HERE = Path(__file__).parent
TORCH = Path(torch.__file__).parent
HEADERS = ("vector.h", "product.h", "attention.h")
SOURCES = (
    "pointwise.cpp",
    "attention.cpp",
    "attention_tiles.cpp",
    "linear.cpp",
    "head.cpp",
    "decoding.cpp",
    "adamw.cpp",
)
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math")
OF_TORCH = ("-std=c++20", "-O2", f"-I{TORCH / 'include'}", f"-L{TORCH / 'lib'}", "-lc10")
LIMIT = 300.0  # seconds; it takes some


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None where there are none to be had, which is said once unless it was asked for."""
    # Linked first of all with the OpenMP that torch has loaded: two of them would keep a team of threads each.
    return _loaded((*HEADERS, *SOURCES), lambda: ((*FLAGS, "-Wl,--as-needed", *_openmp()), _processor()))


@functools.cache
def allocator() -> ctypes.CDLL | None:
    """The compiled allocator; None as for `library`."""
    return _loaded(("allocator.cpp",), lambda: (OF_TORCH, torch.__version__))


def _loaded(files: Sequence[str], how: Callable[[], tuple[Sequence[str], str]]) -> ctypes.CDLL | None:
    """Compile and open; `how` gives the compiler's flags and what else the result depends on."""
    if os.environ.get("ACCORD_KERNELS") == "0" or sys.platform != "linux":
        return None
    wanted = shlex.split(os.environ.get("CXX", ""))
    compiler = wanted or list(filter(None, map(shutil.which, ("c++", "g++", "clang++"))))[:1]
    if not compiler:
        _warn("there is no C++ compiler (c++, g++, clang++; CXX names another)")
        return None
    try:
        path = _compiled(compiler, files, *how())
        found = ctypes.CDLL(str(path))
        if path.parent != cache_folder() / "kernels":
            shutil.rmtree(path.parent, ignore_errors=True)  # open files stay
        return found
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        _warn(f"{' '.join(compiler)} could not compile {files[-1]} ({' '.join(str(said).split())[:300]})")
        return None


def threads_for(numbers: int) -> int:
    """As many as have some work each: to wake one takes longer than a small sum, and a forked process has none."""
    return max(1, min(torch.get_num_threads(), numbers // GRAIN))


@functools.cache
def _warn(why: str) -> None:
    """Once."""
    logger.warning("nothing compiled for this CPU: %s; going on without: slower, same results", why)


def _compiled(compiler: Sequence[str], files: Sequence[str], flags: Sequence[str], depends: str) -> Path:
    """Path of the shared library, compiled now if it is not there."""
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=True, timeout=LIMIT).stdout
    facts = [*((HERE / name).read_bytes() for name in files), version, *(x.encode() for x in (*flags, depends))]
    path = cache_folder() / "kernels" / (hashlib.sha256(b"\0".join(facts)).hexdigest()[:16] + ".so")
    if path.exists():
        return path
    logger.info("compiling %s for this machine, once", files[-1])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(dir=path.parent)
    except OSError:  # a cache that cannot be written is no reason to go without
        folder = tempfile.mkdtemp(prefix="accord-kernels-")
        path = Path(folder) / path.name
    made = Path(folder) / "made.so"
    sources = [str(HERE / name) for name in files if name.endswith(".cpp")]
    words = [*compiler, "-shared", "-fPIC", *sources, "-o", str(made), *flags]
    try:
        subprocess.run(words, capture_output=True, check=True, timeout=LIMIT, text=True)
        os.replace(made, path)  # whole or not at all, whoever else compiles at the same time
    finally:
        if Path(folder) != path.parent or not path.exists():
            shutil.rmtree(folder, ignore_errors=True)
    return path


def _processor() -> str:
    """What `-march=native` depends on: a cache may be shared by machines."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return "\n".join([platform.machine(), *sorted({x for x in lines if x.startswith(("flags", "Features", "model"))})])


def _openmp() -> list[str]:
    """Path of torch's OpenMP library, or nothing; other packages may have loaded one of their own."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    paths = {line.split(maxsplit=5)[-1] for line in maps if "libgomp" in line}
    return sorted(paths, key=lambda path: (not Path(path).is_relative_to(TORCH), path))[:1]
