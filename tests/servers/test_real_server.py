"""A real OpenAI-compatible server, `transformers serve`, on a tiny model: replies, votes, labels, and its death."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import httpx2
import pytest
import torch

from accord.cli import main
from accord.protocols import Sampling, Unavailable
from accord.records import Message
from accord.servers import ServerModel
from fakes import tiny_neox, tiny_tokenizer

COMMAND = shutil.which("transformers", path=Path(sys.executable).parent) or ""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # a busy machine takes minutes to start the server
    pytest.mark.skipif(
        not COMMAND or any(find_spec(name) is None for name in ("fastapi", "uvicorn", "openai")),
        reason="`transformers serve` is not installed: pip install 'transformers[serving]'",
    ),
]
CHAT = (Message(role="user", content="Hello"),)


WORDS = (
    *("write", "name", "list", "find", "sort", "the", "a", "three", "red", "old"),
    *("river", "garden", "poem", "letter", "about", "with", "two", "of", "day", "winter"),
)


@pytest.fixture(scope="module")
def wordy_folder(tmp_path_factory):
    """A random model that says words instead of bytes, so that what it says has several, varies, and may be kept."""
    tokenizer, model = tiny_tokenizer(), tiny_neox()
    tokenizer.add_tokens([f" {word}" for word in WORDS])
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.config.max_position_embeddings = 8192
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.do_sample = True  # the server samples only where the model's own settings do
    said = torch.full((len(tokenizer),), -30.0)  # logits of the first hidden number, which is always 1
    said[-len(WORDS) :], said[tokenizer.eos_token_id] = 0.0, 0.2  # likely enough to end after some words
    last_norm = model.gpt_neox.final_layer_norm
    with torch.no_grad():
        last_norm.weight[0], last_norm.bias[0] = 0.0, 1.0
        model.get_output_embeddings().weight[:, 0] = said
    folder = tmp_path_factory.mktemp("models") / "wordy"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server(wordy_folder):
    """(process, URL with the model)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [COMMAND, "serve", str(wordy_folder), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, *words], env={**os.environ, "HF_HUB_OFFLINE": "1"}, **quiet)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(1200):
            time.sleep(0.5)
            try:
                if httpx2.get(f"{url}/health", trust_env=False).status_code < 500:
                    break
            except httpx2.TransportError:
                assert process.poll() is None, "the server ended"
        else:
            pytest.fail("the server did not start within ten minutes")
        yield process, f"{url}/v1", str(wordy_folder)
    finally:
        process.kill()
        process.wait()


def test_replies_are_counted_and_repeatable(server):
    _, url, name = server
    model = ServerModel(url, name, concurrency=2)
    greedy = Sampling(temperature=0, max_new_tokens=5)
    first, second = model([CHAT, "once upon"], 2, greedy), model([CHAT, "once upon"], 2, greedy)
    assert [[one.text for one in row] for row in first] == [[one.text for one in row] for row in second]
    assert all(one.error is None and one.new_tokens <= 5 for row in first for one in row)
    assert model.usage.requests == 8


def test_a_server_without_log_probabilities_votes(server):
    _, url, name = server
    model = ServerModel(url, name, concurrency=2)
    (scores,) = model([CHAT], [("(A)", "(B)")])
    assert model.method == "votes"
    assert len(scores) == 2  # a random model says neither: unscored


def test_labels_through_the_command(server, tmp_path, capsys):
    _, url, name = server
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"prompt": "Q?", "chosen": "a", "rejected": "b"}\n')
    command = ["feedback", "label", "--model", f"{url}#{name}", "--data", str(data), "--principles", "1",
               "--no-cache", "--out", str(tmp_path / "out")]  # fmt: skip
    assert main(command) == 0
    counts = json.loads((tmp_path / "out" / "label.json").read_text())["counts"]
    assert counts["labelled"] + counts["unscored"] == counts["given"] == 1
    asked = json.loads((tmp_path / "out" / "verdicts.jsonl").read_text())["asked"]
    assert [one["method"] for one in asked] == ["votes"] * 2


def test_self_instruct_asks_reads_reports_and_goes_on(server, tmp_path, capsys):
    _, url, name = server
    seeds = str(Path(__file__).parents[2] / "recipes" / "data" / "seeds.jsonl")
    out = tmp_path / "out"
    command = ["data", "self-instruct", "--model", f"{url}#{name}", "--seeds", seeds, "--target", "2",
               "--batch", "1", "--out", str(out)]  # fmt: skip
    assert main([*command, "--max-requests", "1"]) == 0
    before = {path.name: path.read_bytes() for path in out.glob("*.jsonl")}
    assert main([*command, "--max-requests", "4"]) == 0
    report = json.loads((out / "report.json").read_text())
    offered = report["instructions"]["accepted"] + sum(report["instructions"]["rejected"].values())
    assert 1 < report["requests"] <= 4
    assert report["instructions"]["accepted"] > 0
    assert offered >= report["requests"]
    for name in ("instructions.jsonl", "rejected.jsonl"):  # the second command went on where the first had stopped
        assert (out / name).read_bytes().startswith(before.get(name, b""))
    rows = {name: (out / f"{name}.jsonl").read_text().splitlines() for name in ("instructions", "classified")}
    assert len(rows["classified"]) == len(rows["instructions"])
    assert {json.loads(row)["method"] for row in rows["classified"]} <= {"score", "text"}
    assert report["instances"]["kept"] + sum(report["instances"]["rejected"].values()) > 0
    assert set(json.loads(rows["instructions"][0])["instruction"].lower().split()) <= set(WORDS)


def test_a_model_the_server_does_not_have_is_told_after_a_few_requests(server, tmp_path, capsys):
    _, url, _ = server
    seeds = str(Path(__file__).parents[2] / "recipes" / "data" / "seeds.jsonl")
    command = ["data", "self-instruct", "--model", f"{url}#another", "--seeds", seeds, "--target", "2",
               "--out", str(tmp_path / "out")]  # fmt: skip
    assert main(command) == 2
    assert "another" in capsys.readouterr().err


def test_a_killed_server_is_unavailable(server):
    process, url, name = server
    model = ServerModel(url, name, patience=2)
    model([CHAT], 1, Sampling(max_new_tokens=2))
    process.kill()
    process.wait()
    with pytest.raises(Unavailable, match="same command again"):
        model([CHAT], 1, Sampling(max_new_tokens=2))
