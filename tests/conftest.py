"""Fixtures every test may use."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as the command sets it, before torch is loaded
if "ACCORD_CACHE" not in os.environ:  # converted models are shared with the user's cache, the rest is thrown away
    kept = Path.home() / ".cache" / "accord"
    thrown_away = tempfile.TemporaryDirectory(prefix="accord-tests-")
    for name in ("models", "hashes", "locks"):
        (kept / name).mkdir(parents=True, exist_ok=True)
        (Path(thrown_away.name) / name).symlink_to(kept / name)
    os.environ["ACCORD_CACHE"] = thrown_away.name

import pytest
from hypothesis import settings

from fakes import tiny_llama, tiny_tokenizer

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")


def pytest_collection_modifyitems(items):
    """Files with slow tests first: two processes then end together, none waits for the last file of the other."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A random two-layer Llama with a byte tokenizer, saved as transformers saves models."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model = tiny_llama(hidden=64)
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def compiled() -> None:
    """The kernels of this CPU are there, where they can be."""
    from accord.models.kernels import build

    if os.environ.get("ACCORD_KERNELS") == "0":
        pytest.skip("ACCORD_KERNELS=0")
    if sys.platform != "linux" or not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("no C++ compiler")
    assert build.library() is not None


@pytest.fixture
def tiles() -> None:
    """Skip where the processor has no matrix units, or the system keeps them."""
    from accord.models import kernels

    if not kernels.has_tiles():
        pytest.skip("no matrix units here")


@pytest.fixture(params=[1, 2, 5])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """So many threads of PyTorch and of the kernels."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
