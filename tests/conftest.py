"""Fixtures every test may use."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

from fakes import tiny_llama, tiny_tokenizer


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A random two-layer Llama with a byte tokenizer, saved as transformers saves models."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model = tiny_llama(hidden=64)
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
