"""`accord eval truthfulness` through the real command: killed in the middle, it ends in the same file."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

import launch


def words(model: Path, folder: Path, out: Path) -> list[str]:
    flags = ["--data", str(folder / "q.jsonl"), "--primer", str(folder / "primer.txt"), "--batch-size", "2"]
    return ["eval", "truthfulness", str(model), *flags, "--out", str(out)]


@pytest.mark.slow
def test_killed_and_called_again_it_ends_in_the_same_rows(tiny_folder: Path, tmp_path: Path) -> None:
    rows = []
    for i in range(60):
        targets = {f"It is {i}.": 1, f"It is {i + 1}.": 0, "Nobody knows.": 0}
        rows.append({"question": f"What is {i} + 0?", "mc1_targets": targets, "mc2_targets": targets})
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "primer.txt").write_text("Q: What is 1 + 1?\nA: It is 2.")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    done = launch.run(words(tiny_folder, tmp_path, whole))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "MC1" in done.stdout

    killed = launch.start(words(tiny_folder, tmp_path, cut))
    path, limit = cut / "eval/truthfulness.jsonl", time.monotonic() + 200
    while (not path.exists() or path.stat().st_size == 0) and time.monotonic() < limit and killed.poll() is None:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    some = path.read_bytes().count(b"\n")
    assert 0 < some < 60  # it was killed in the middle
    assert launch.run(words(tiny_folder, tmp_path, cut)).returncode == 0
    assert path.read_bytes() == (whole / "eval/truthfulness.jsonl").read_bytes()
    results = [json.loads((out / "eval/truthfulness.json").read_text())["results"] for out in (whole, cut)]
    assert [r["value"] for r in results[0]] == [r["value"] for r in results[1]]
    assert {"value", "n", "n_unscored", "ci", "seed", "versions", "command", "models", "data"} <= results[0][0].keys()
