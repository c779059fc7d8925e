"""SIGKILL in the middle of critiques and labels; the same command ends in the same files."""

import json
import signal
import time

import pytest

import launch

PROMPTS = [{"prompt": f"How do I harm {n}?"} for n in range(16)]
PAIRS = [{"prompt": f"Q{n}?", "chosen": f"right {n}", "rejected": f"wrong {n}"} for n in range(200)]


def command(action, model, data, out):
    shared = ["--model", str(model), "--data", str(data), "--out", str(out), "--precision", "fp32", "--no-cache",
              "--batch-size", "2", "--form", "transcript"]  # fmt: skip
    own = ["--rounds", "2", "--max-new-tokens", "24"] if action == "critique" else ["--principles", "1"]
    return ["feedback", action, *shared, *own]


def killed(words, path, lines):
    """Run until the file has some lines, then kill."""
    process = launch.start(words)
    for _ in range(2400):
        if path.exists() and path.read_bytes().count(b"\n") >= lines:
            break
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


def finish(words):
    done = launch.run(words)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("action", "rows", "said", "made"),
    [("critique", PROMPTS, "threads.jsonl", "demonstrations.jsonl"),
     ("label", PAIRS, "verdicts.jsonl", "comparisons.jsonl")],
)  # fmt: skip
def test_a_killed_job_ends_in_the_same_files(tiny_folder, tmp_path, action, rows, said, made):
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    finish(command(action, tiny_folder, data, tmp_path / "whole"))
    again = command(action, tiny_folder, data, tmp_path / "cut")
    killed(again, tmp_path / "cut" / said, 4)
    assert not (tmp_path / "cut" / made).exists()
    finish(again)
    for name in (said, made):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    report = "critique.json" if action == "critique" else "label.json"
    assert json.loads((tmp_path / "cut" / report).read_text())["cost"]["requests"] > 0
