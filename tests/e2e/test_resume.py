"""kill -9 at random moments, the same command again: the same weights, bit for bit. field: R1, R2"""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

import launch
from train.data import comparisons, demonstrations, metrics, prompts

KILLS = int(os.environ.get("ACCORD_TEST_KILLS", "1"))  # kills of each job; 20 for a long check
SETTINGS = "--precision fp32 --learning-rate 3e-3 --max-length 128 --micro-tokens 256 --batch-size 4 --save-every 3"


ALGORITHMS = {  # what has a state of its own, or another way of stepping
    "ppo-clip": "--kl-target 1 --entropy-coefficient 0.01",
    "ppo-penalty": "--penalty-target 0.001 --kl-target 1 --critic separate",
    "trpo": "--kl-target 1 --fisher-share 0.5 --max-kl 0.03",
    "reinforce": "--whiten-advantages",
    "rloo": "--kl-place both --kl-estimator exact --kl-target 1",
    "grpo": "--kl-target 1 --clip-high 0.28",
}


JOBS = ["sft", "reward", "dpo", *(f"ppo:{name}" for name in ALGORITHMS)]


def command(job: str, model: Path, folder: Path, out: Path) -> list[str]:
    job, _, algorithm = job.partition(":")
    make = {"sft": demonstrations, "ppo": prompts}.get(job, comparisons)
    data = make(folder / f"{job}.jsonl", 24)
    extra = {
        "sft": "--epochs 6",
        "reward": "--epochs 6",
        "dpo": "--epochs 6",
        "ppo": f"--epochs 4 --reward train.data:many_a --max-new-tokens 6 --algorithm {algorithm}",
    }[job] + f" {ALGORITHMS.get(algorithm, '')}"
    base = ["train", job, "--model", str(model), "--data", str(data), "--out", str(out)]
    return base + SETTINGS.split() + extra.split()


def finish(words: list[str]) -> None:
    done = launch.run(words)
    assert done.returncode == 0, done.stderr[-2000:]


def start_and_kill(words: list[str], out: Path, moment: random.Random) -> bool:
    """Kill the job some time after it took its next step; False if it was done before that."""
    log = out / "metrics.jsonl"
    before = log.stat().st_mtime_ns if log.exists() else 0
    process = launch.start(words)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if log.exists() and log.stat().st_mtime_ns > before:
            time.sleep(moment.uniform(0, 0.8 / (1 + KILLS)))  # many kills of a short job are a step or two apart
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    return process.wait() == -signal.SIGKILL


@pytest.fixture(scope="module")
def whole(tiny_folder, tmp_path_factory):
    """Folders of all jobs, never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    runs = {job: folder / job.replace(":", "-") for job in JOBS}
    for job, out in runs.items():
        finish(command(job, tiny_folder, folder, out))
    return runs


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_a_killed_run_ends_at_the_same_weights(job, whole, tiny_folder, tmp_path):
    out = tmp_path / "cut"
    words = command(job, tiny_folder, tmp_path, out)
    moment = random.Random(job)
    kills = sum(start_and_kill(words, out, moment) for _ in range(KILLS))
    assert kills >= max(1, KILLS // 2)  # it may be done before the last
    finish(words)
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (whole[job], out))
    assert first.keys() == second.keys()
    assert all(bool((first[name] == second[name]).all()) for name in first)
    first, second = ([(row["step"], row["loss"]) for row in metrics(folder)] for folder in (whole[job], out))
    assert first == second  # every step once, none missing


@pytest.mark.slow
def test_a_finished_run_is_left_alone_and_another_configuration_is_refused(whole, tiny_folder):
    words = command("sft", tiny_folder, whole["sft"].parent, whole["sft"])
    weights = (whole["sft"] / "model" / "model.safetensors").stat().st_mtime_ns
    finish(words)
    assert (whole["sft"] / "model" / "model.safetensors").stat().st_mtime_ns == weights
    other = launch.run([*words, "--seed", "5"])
    assert other.returncode == 2
    assert "seed = 0, asked for is 5" in " ".join(other.stderr.split())
    assert "Traceback" not in other.stderr
