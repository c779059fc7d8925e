"""An evaluation killed by SIGKILL and given again ends in the rows and figures of one that nobody stopped."""

import json
import os
import signal
import subprocess
import sys

import pytest

import launch
from pipelines.evaluating import write_rows


@pytest.fixture
def command(tmp_path, monkeypatch):
    rows = [{"prompt": f"q{i}", "chosen": "a" * (1 + i % 3), "rejected": "b" * (1 + i % 4)} for i in range(80)]
    data = write_rows(tmp_path / "pairs.jsonl", rows)
    mark = tmp_path / "kill"
    monkeypatch.setenv("ACCORD_TEST_KILL", str(mark))
    words = ["eval", "reward", "pipelines.rewards_of_tests:dies", "--data", str(data), "--replicates", "100", "--out"]

    def run(out, killed):
        mark.touch() if killed else mark.unlink(missing_ok=True)
        done = launch.run([*words, str(out)])
        return done.returncode, done.stderr

    return run


def figures(folder):
    content = json.loads((folder / "eval/reward.json").read_text(encoding="utf8"))
    free = ("command", "time", "settings", "results")
    results = [{k: v for k, v in row.items() if k not in ("command", "time")} for row in content["results"]]
    return {name: value for name, value in content.items() if name not in free}, results


def test_a_killed_evaluation_ends_like_a_whole_one(command, tmp_path):
    assert command(tmp_path / "cut", killed=True)[0] == -signal.SIGKILL
    measured = (tmp_path / "cut/eval/reward.jsonl").read_bytes().count(b"\n")
    assert 0 < measured < 80
    assert not (tmp_path / "cut/eval/reward.json").exists()
    for out in ("cut", "whole"):
        code, errors = command(tmp_path / out, killed=False)
        assert code == 0, errors
    rows = [(tmp_path / out / "eval/reward.jsonl").read_bytes() for out in ("cut", "whole")]
    assert rows[0] == rows[1]
    assert figures(tmp_path / "cut") == figures(tmp_path / "whole")


def test_what_people_said_is_counted_without_torch(tmp_path):
    meta = {"models": ["new", "old"], "annotators": ["p1"]}
    rows = [{"prompt": f"q{i}", "responses": ["yes", "no"], "ranks": [1, 2], "meta": meta} for i in range(4)]
    data, out = str(write_rows(tmp_path / "judgments.jsonl", rows)), str(tmp_path / "out")
    words = [["winrate", "new", "old", "--judgments", data], ["preferences", data]]
    code = f"""
import sys
from accord.cli.app import main
codes = [main(["eval", *one, "--out", {out!r}]) for one in {words!r}]
assert codes == [0, 0], codes
assert not sys.modules.keys() & {{"torch", "transformers"}}
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
