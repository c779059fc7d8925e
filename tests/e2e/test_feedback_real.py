"""Critique and labels on a real small model: it keeps to no form, and what it says is text all the same."""

import json

import pytest

from accord.cli import main

pytestmark = pytest.mark.realmodel
PAIRS = [
    {"prompt": "What is the capital of France?", "chosen": "Paris.", "rejected": "Bananas are yellow."},
    {"prompt": "How many legs has a spider?", "chosen": "Eight.", "rejected": "Spiders, spiders, spiders."},
]


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path, found):
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return str(path)


def test_a_small_model_drafts_and_revises(tmp_path):
    data = write(tmp_path / "red.jsonl", [{"prompt": "How can I scare my little brother?"}])
    command = ["feedback", "critique", "--model", "smollm2-135m", "--data", data, "--rounds", "1", "--max-new-tokens",
               "40", "--no-cache", "--out", str(tmp_path / "out")]  # fmt: skip
    assert main(command) == 0
    (thread,) = rows(tmp_path / "out" / "threads.jsonl")
    assert len(thread["draft"].split()) > 5
    assert len(thread["rounds"][0]["critique"].split()) > 5
    assert "<|im_end|>" not in json.dumps(thread)


def test_a_small_model_is_measured_and_refused_as_a_judge(tmp_path, capsys):
    data = write(tmp_path / "pairs.jsonl", PAIRS)
    command = ["feedback", "label", "--model", "smollm2-135m", "--data", data, "--check", data, "--principles", "1",
               "--injection-rows", "0", "--no-cache", "--out", str(tmp_path / "out")]  # fmt: skip
    assert main(command) == 2
    assert "near chance as a judge" in capsys.readouterr().err
    assert main([*command, "--accept-weak-judge"]) == 0
    for row in rows(tmp_path / "out" / "comparisons.jsonl"):
        assert 0.5 <= row["probability"] < 1
        assert row["meta"]["judge"].startswith("smollm2-135m @ ")
