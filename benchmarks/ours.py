"""One timed run of Accord, in a process of its own: reads a specification, prints one line of JSON.

    python -m benchmarks.ours SPEC.json

Seconds run from the loaded model to the last optimiser step: reading and encoding the rows, reference passes, sampling
and reward are inside, as they are for a peer; loading the model and writing results are not.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from accord.train.progress import Quiet
from benchmarks import gauge, workload


class Clock(Quiet):
    """A display that times the job: the first note comes when the model is loaded."""

    def __init__(self) -> None:
        self.start = 0.0
        self.phases: list[list[float]] = []  # when each began, and when each of its steps was done

    def begin(self, title: str, total: int, done: int = 0) -> None:
        """A phase begins: reference passes, or training."""
        self.phases.append([gauge.now()])

    def update(self, done: int, figures: dict[str, float]) -> None:
        """A step is done."""
        self.phases[-1].append(gauge.now())

    def note(self, text: str) -> None:
        """The first note says what is trained."""
        self.start = self.start or gauge.now()

    def seconds(self) -> list[float]:
        """What each step of the last phase took."""
        return [after - before for before, after in pairwise(self.phases[-1])]


def in_training_order(rows: list[Any], batch_size: int, seed: int = 0) -> list[Any]:
    """Rows placed so that a run of one epoch sees them in the order given."""
    from accord.data.batches import step_batches

    placed: list[Any] = [None] * len(rows)
    order = [i for batch in step_batches(len(rows), batch_size, 1, seed) for i in batch]
    for place, row in zip(order, rows, strict=True):
        placed[place] = row
    return placed


def train(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One of the training jobs."""
    from accord.pipelines.jobs import JOBS

    job, size = spec["job"], spec["size"]
    if spec.get("device") == "cuda":
        write_no_weights()
    data = folder / "rows.jsonl"
    common = {"model": spec["model"], "data": [data], "out": folder / "run", "precision": "bf16", "max_length": 1024}
    common |= {"warmup": 0.0, "schedule": "constant", "save_every": 10**6}
    common |= {"micro_tokens": size.get("micro_tokens", 2048), "lora_rank": size.get("lora_rank", 0)}
    if job.startswith("ppo") or job in ("rloo", "grpo"):
        return policy(spec, size, data, common)
    job = job.removesuffix("-lora")
    rows = workload.text_rows(job, spec["texts"])
    workload.write_rows(data, in_training_order(rows, size["batch_size"]))
    common |= {"batch_size": size["batch_size"], "learning_rate": size.get("learning_rate", 5e-6)}
    name = "dpo" if job.startswith("listwise") else job
    if name == "dpo":
        common |= {"loss": "plackett-luce" if job.startswith("listwise") else "dpo", "beta": 0.1}
    clock = Clock()
    if spec.get("rows_only"):
        one_row_per_response()
    out = JOBS[name].trainer()(JOBS[name].config(**common), clock)
    losses = [json.loads(line).get("loss") for line in (out / "metrics.jsonl").read_text().splitlines()]
    reference = clock.phases[0][-1] - clock.phases[0][0] if len(clock.phases) > 1 else 0.0
    return {
        "seconds": clock.phases[-1][-1] - clock.start,
        "losses": losses,
        "step_seconds": clock.seconds(),
        "reference_seconds": reference,
    }


def write_no_weights() -> None:
    """Leave out checkpoint and finished model, gigabytes behind the last step that no figure counts."""
    from accord.train.run import Run

    finish = Run.finish
    Run.save = lambda *_: None  # type: ignore[method-assign]
    Run.finish = lambda self, export=None, **facts: finish(self, **facts)  # type: ignore[method-assign]


def one_row_per_response() -> None:
    """Score as a model family that cannot take trees is scored: every response with its prompt, in a padded row."""
    from accord.models.gates import keep_two
    from accord.models.norms import round_once
    from accord.models.rotation import rotate_once
    from accord.train import loop

    # Norms, gates and rotations are those of a model that takes trees; only the trees are missing.
    loop.prepare = lambda model: (round_once(model), keep_two(model), rotate_once(model), "asked for")[-1]  # type: ignore[assignment]


def policy(spec: dict[str, Any], size: dict[str, Any], data: Path, common: dict[str, Any]) -> dict[str, Any]:
    """Two rollouts of PPO, RLOO or GRPO; the second is timed, so neither side pays for what happens once."""
    from accord.pipelines.jobs import JOBS

    workload.write_rows(data, [{"prompt": row} for row in spec["prompts"]])
    minibatches, epochs = size.get("minibatches", 1), size.get("epochs", 1)
    ppo = spec["job"].startswith("ppo")
    common |= {"algorithm": "ppo-clip" if ppo else spec["job"], "samples": size["samples"]}
    common |= {"max_new_tokens": size["new_tokens"], "batch_size": size["rows"] // minibatches}
    common |= {"reward": [spec["reward"]], "learning_rate": 1e-6}
    if spec["job"] != "rloo":  # which takes one step a rollout and reads neither
        common |= {"minibatches": minibatches, "ppo_epochs": epochs}
    if ppo:  # TRL's value model is a second model; one trunk for both is our default
        common |= {"critic": "separate" if spec["job"] == "ppo" else "shared"}
    clock = Clock()
    out = JOBS["ppo"].trainer()(JOBS["ppo"].config(**common), clock)
    figures = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    parts = {name: figures[-1].get(f"seconds/{name}") for name in ("sample", "score", "update")}
    return {"seconds": clock.seconds()[-1], "losses": [], "parts": parts, "rollout_seconds": clock.seconds()}


def sampling(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    """New tokens per second of the native sampler, end tokens switched off."""
    import torch

    from accord.models.load import load_policy
    from accord.records import Message
    from accord.rollouts import Sampling
    from accord.rollouts.native import NativeSampler
    from accord.text import Template

    size = spec["size"]
    model, tokenizer = load_policy(spec["model"])
    template = Template(tokenizer)
    prompts = [template.prompt((Message(role="user", content=row),)) for row in spec["prompts"]]
    sampler = NativeSampler(
        model,
        end_ids=[],
        max_rows=max(64, spec["rows"]),
        autocast=lambda: torch.autocast(model.device.type, torch.bfloat16),
    )
    plan = Sampling(samples=size["samples"], max_new_tokens=size["new_tokens"], temperature=1.0)
    sampler.sample(prompts[:2], Sampling(max_new_tokens=4))
    start = gauge.now()
    sampler.sample(prompts, plan)
    return {"seconds": gauge.now() - start, "losses": []}


def peak_gb() -> float:
    """Peak memory of this process alone: `ru_maxrss` starts at what the parent had."""
    status = Path("/proc/self/status")
    own = (
        [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        if status.exists()
        else []
    )
    return (int(own[0]) if own else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024 / 1e9


def main() -> None:
    """Run what the specification says."""
    import torch

    spec = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(spec["threads"])
    with tempfile.TemporaryDirectory() as folder:
        result = (sampling if spec["job"].startswith("sampling") else train)(spec, Path(folder))
    result |= gauge.memory(peak_gb())
    if spec.get("device") == "cuda":
        result["card"] = gauge.card()
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main()
