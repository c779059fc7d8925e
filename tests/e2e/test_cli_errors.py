"""Bad input through the real command: one line on standard error, exit code 2, no traceback, nothing written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import launch

SFT = ["train", "sft", "--model", "MODEL", "--data", "good.jsonl", "--out", "run", "--max-steps", "1"]
GOOD = '{"prompt": "2+2=", "response": "4"}\n'

FILES = {
    "good.jsonl": GOOD,
    "typo.yaml": "model: m\ndata: good.jsonl\nout: run\nlearning_rat: 1e-5\n",
    "type.yaml": "model: m\ndata: good.jsonl\nout: run\nlearning_rate: fast\n",
    "range.yaml": "model: m\ndata: good.jsonl\nout: run\nepochs: 0\n",
    "twice.yaml": "model: m\ndata: good.jsonl\nmodel: n\n",
    "broken.yaml": "model: m\n data: good.jsonl\n",
    "stages.yaml": 'out: run\nstages:\n- {name: a, job: sft, model: "{b}", data: good.jsonl}\n',
    "job.yaml": "out: run\nstages:\n- {name: a, job: sfft, model: m, data: good.jsonl}\n",
    "nojson.jsonl": GOOD + '{"prompt": "a", \n',
    "field.jsonl": GOOD + '{"prompt": "a", "respnse": "b"}\n',
    "empty.jsonl": "",
}

BAD = [
    (["trian"], 'unknown command "trian"; did you mean "train"?'),
    (["train", "dop"], 'JOB is "dop"; expected one of sft, reward, dpo, ppo; did you mean "dpo"?'),
    (["train", "dpo", "--learning-rat", "1e-4"], 'unknown flag "--learning-rat"; did you mean "--learning-rate"?'),
    (["train", "dpo", "--beta", "0.2"], "missing required settings --model, --data, --out"),
    (["train", "sft", "typo.yaml"], 'typo.yaml, line 4: unknown setting "learning_rat"; did you mean "learning_rate"?'),
    (["train", "sft", "type.yaml"], 'type.yaml, line 4: "learning_rate" is "fast"; expected a number greater than 0'),
    (["train", "sft", "range.yaml"], 'range.yaml, line 4: "epochs" is 0; expected a whole number of at least 1'),
    (["train", "sft", "twice.yaml"], 'twice.yaml, line 3: "model" is given twice (first in line 1); keep one'),
    (["train", "sft", "broken.yaml"], "broken.yaml, line 2: not valid YAML: mapping values are not allowed here"),
    (["train", "sft", "gone.yaml"], "gone.yaml: no such file or directory"),
    (["train", "sft", "good.jsonl"], "good.jsonl: expected a .yaml file of settings here; data goes to --data"),
    (
        [*SFT, "--schedule", "cosin"],
        '--schedule is "cosin"; expected one of cosine, linear, constant; did you mean "cosine"?',
    ),
    ([*SFT, "--data", "god.jsonl"], "god.jsonl: no such file or folder; did you mean good.jsonl?"),
    ([*SFT, "--data", "empty.jsonl"], "empty.jsonl: the file is empty"),
    (["run", "stages.yaml"], 'stages.yaml, line 3: stage "a" refers to {b}, which is missing'),
    (
        ["run", "job.yaml"],
        'job.yaml, line 3: "job" is "sfft"; expected one of sft, reward, dpo, ppo, critique, compare, '
        'label, sample; did you mean "sft"?',
    ),
    (["run", "type.yaml"], 'type.yaml, line 1: unknown key "model"; a recipe has out, defaults, stages'),
    (["data", "inspect", "good.jsonl"], "missing --model; `accord data inspect --help` shows what is needed"),
    (
        ["data", "insect"],
        'ACTION is "insect"; expected one of inspect, explore, convert, tasks, mix, dedup, decontaminate, clean, '
        'self-instruct; did you mean "inspect"?',
    ),
    (["sample", "--data", "good.jsonl"], "missing required settings --model, --out"),
    (["sample", *SFT[2:8], "--finished-only"], '"finished_only" is read only with a reward; give that, or remove it'),
    (["sample", *SFT[2:8], "--ensemble", "min"], '"ensemble" is read only with a reward; give that, or remove it'),
    (
        ["sample", *SFT[2:8], "--reward", "a", "b", "--reward-weights", "1"],
        "reward_weights has 1 numbers for 2 rewards; one for each",
    ),
    (["sample", *SFT[2:8], "--temperature", "0"], "temperature 0 gives the same response 8 times; raise it"),
    (["sample", *SFT[2:8], "--epochs", "2"], 'unknown flag "--epochs"'),
    (["train", "sample"], 'JOB is "sample"; expected one of sft, reward, dpo, ppo'),
    (["quickstart", "--fats"], 'unknown flag "--fats"; did you mean "--fast"?'),
]

SLOWER = [  # these import torch before they see what is wrong
    ([*SFT, "--data", "nojson.jsonl"], "nojson.jsonl, row 2: "),
    ([*SFT, "--data", "field.jsonl"], "field.jsonl, row 2: "),
    (["train", "sft", "--model", "nowhere/none", *SFT[4:]], "nowhere/none"),
    (["sample", *SFT[2:8], "--reward", "MODEL,nowhere"], "ensemble 'MODEL,nowhere'"),
    (["sample", *SFT[2:8], "--reward", "nowhere"], "reward 'nowhere' is no folder here"),
    (["chat", "nowhere"], "nowhere"),
    (["report", "nowhere"], "nowhere"),
]


def accord(folder: Path, words: list[str], model: Path | None = None) -> launch.Done:
    """The command where torch is loaded: in a process that has it."""
    return launch.run([str(model) if word == "MODEL" else word for word in words], cwd=folder)


def accord_anew(folder: Path, words: list[str], model: Path | None = None) -> subprocess.CompletedProcess[str]:
    words = [str(model) if word == "MODEL" else word for word in words]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "accord", *words]
    return subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words[:3]) for words, _ in BAD])
def test_bad_input_is_one_line(folder: Path, tiny_folder: Path, words: list[str], message: str) -> None:
    result = accord_anew(folder, words, tiny_folder)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith(f"error: {message}")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert not (folder / "run").exists()


@pytest.mark.parametrize(("words", "message"), SLOWER, ids=[" ".join(words[-2:]) for words, _ in SLOWER])
def test_bad_input_a_job_meets_is_one_line(folder: Path, tiny_folder: Path, words: list[str], message: str) -> None:
    result = accord(folder, words, tiny_folder)
    assert result.returncode == 2, result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"error: {message}")
    assert "Traceback" not in result.stderr


def test_debug_shows_where_it_was_raised(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCORD_DEBUG", "1")
    result = accord_anew(folder, ["train", "sft", "typo.yaml"])
    assert result.returncode == 2
    assert "Traceback" in result.stderr


def test_training_prints_its_plan_the_model_and_what_to_try(folder: Path, tiny_folder: Path) -> None:
    result = accord(folder, SFT, tiny_folder)
    assert result.returncode == 0, result.stderr
    words = " ".join(result.stdout.split())
    for part in ("supervised fine-tuning", "good.jsonl", "at most 1 steps", "run/model", "accord chat run"):
        assert part in words
    assert (folder / "run" / "done.json").exists()
    again = accord(folder, SFT, tiny_folder)
    assert again.returncode == 0, again.stderr
    assert "(finished before)" in again.stdout


def test_ctrl_c_ends_a_run_with_130_and_says_how_to_go_on(folder: Path, tiny_folder: Path) -> None:
    words = ["train", "sft", "--model", str(tiny_folder), "--data", "good.jsonl", "--out", "run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "accord", *words, "--epochs", "5000", "--save-every", "1"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # A test run in the background ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    metrics = folder / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "stopped; the same command continues the run"
    assert "Traceback" not in errors
