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

from accord.cli import main
from accord.protocols import Sampling, Unavailable
from accord.records import Message
from accord.servers import ServerModel

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


@pytest.fixture(scope="module")
def server(tiny_folder):
    """(process, URL with the model)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [COMMAND, "serve", str(tiny_folder), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
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
        yield process, f"{url}/v1", str(tiny_folder)
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


def test_a_killed_server_is_unavailable(server):
    process, url, name = server
    model = ServerModel(url, name, patience=2)
    model([CHAT], 1, Sampling(max_new_tokens=2))
    process.kill()
    process.wait()
    with pytest.raises(Unavailable, match="same command again"):
        model([CHAT], 1, Sampling(max_new_tokens=2))
