"""Where the one step of a rollout scores it, nothing but time is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from accord.train import experience, policy, updates
from accord.train.algorithms import scores_with_its_step
from accord.train.configs import PpoConfig
from accord.train.methods import METHODS
from accord.train.progress import Quiet
from accord.train.rewards import FunctionReward
from train.data import metrics, prompts, write
from train.test_loop import count_a

ONE = {"ppo_epochs": 1, "minibatches": 1}
FAST = {"precision": "fp32", "learning_rate": 3e-3, "max_length": 128, "micro_tokens": 64, "reward": "r"}
CASES: dict[str, dict[str, Any]] = {
    "grpo": ONE,
    "grpo exact": {**ONE, "kl_estimator": "exact", "kl_target": 1.0, "entropy_coefficient": 0.01},
    "rloo in the loss": {"kl_place": "loss", "kl_estimator": "k2", "kl_target": 0.5},
    "rloo without": {"kl_beta": 0.0},
    "reinforce mean": {"baseline": "mean", "kl_place": "loss", "kl_estimator": "k3", "lora_rank": 4},
    "grpo bf16 with text": {**ONE, "precision": "bf16", "ptx": True},
    "grpo adapters": {**ONE, "lora_rank": 4, "kl_estimator": "exact"},
    "ppo-clip critic": {**ONE, "critic": "separate", "kl_place": "loss", "kl_estimator": "k3"},
}


def run_config(folder: Path, tiny_folder: Path, name: str, case: str, **extra: Any) -> PpoConfig:
    size = {"batch_size": 4, "samples": 3, "max_new_tokens": 5, "epochs": 2, "temperature": 0.7}
    settings = {**FAST, **size, **CASES[case], **extra}
    if settings.pop("ptx", False):
        settings["ptx_data"] = [write(folder / "text.jsonl", [{"text": "the cat sat on the mat"}, {"text": "a dog"}])]
    return PpoConfig(
        model=str(tiny_folder),
        data=[prompts(folder / "prompts.jsonl")],
        out=folder / name,
        algorithm=case.split()[0],
        **settings,
    )


@pytest.mark.parametrize("case", CASES)
def test_the_run_is_the_same(case: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for name in ("one", "two"):
        config = run_config(tmp_path, tiny_folder, name, case)
        passes, real = [], experience.response_scores
        with monkeypatch.context() as patch:
            patch.setattr(experience, "response_scores", lambda *a, **k: (passes.append(1), real(*a, **k))[1])  # noqa: B023
            if name == "two":
                patch.setattr(experience, "scores_with_its_step", lambda _: False)
            out = policy.run(config, Quiet(), FunctionReward("count_a", count_a))
        assert bool(passes) == (name == "two")
        found[name] = metrics(out), load_file(out / "model" / _weights(out))
    near = 1e-2 if "bf16" in case else 1e-3
    (rows, weights), (other_rows, other) = found["one"], found["two"]
    assert len(rows) == len(other_rows) > 4
    for row, other_row in zip(rows, other_rows, strict=True):
        assert row.keys() == other_row.keys()
        for key in row:
            if "second" in key or key in ("time", "memory"):
                continue
            assert row[key] == pytest.approx(other_row[key], rel=near, abs=near), key
    assert rows[-1]["kl/reference"] != 0
    for key, weight in weights.items():
        assert_close(weight, other[key], rtol=near, atol=near)


def _weights(out: Path) -> str:
    return next(path.name for path in (out / "model").glob("*.safetensors"))


def test_a_sampler_of_other_weights_is_found_before_a_step(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accord.rollouts import Rollout
    from accord.rollouts.native import NativeSampler

    sample, steps = NativeSampler.sample, []

    def lie(self: Any, *args: Any) -> Any:
        return [
            [Rollout(**{**vars(r), "sampling_logprob": tuple(x - 2.0 for x in r.sampling_logprob)}) for r in row]
            for row in sample(self, *args)
        ]

    monkeypatch.setattr(NativeSampler, "sample", lie)
    monkeypatch.setattr(updates.loop, "optimise", lambda *_: steps.append(1))
    with pytest.raises(ValueError, match="sampler and trainer disagree by"):
        policy.run(run_config(tmp_path, tiny_folder, "run", "grpo"), Quiet(), FunctionReward("count_a", count_a))
    assert not steps


def test_held_out_prompts_are_scored_all_the_same(tiny_folder: Path, tmp_path: Path) -> None:
    held_out = [prompts(tmp_path / "held-out.jsonl")]
    config = run_config(tmp_path, tiny_folder, "run", "grpo", eval_data=held_out, eval_every=1)
    rows = metrics(policy.run(config, Quiet(), FunctionReward("count_a", count_a)))
    assert rows[0]["eval/kl/reference"] != 0  # behind the step
    assert torch.isfinite(torch.tensor([row["eval/kl/reference"] for row in rows])).all()


@pytest.mark.parametrize("algorithm", [entry.name for entry in METHODS if entry.job == "ppo"])
def test_whatever_needs_them_before_has_them(algorithm: str) -> None:
    def asked(**extra: Any) -> bool:
        reads = next(entry.reads for entry in METHODS if (entry.job, entry.name) == ("ppo", algorithm))
        settings = {name: value for name, value in extra.items() if name in reads}
        config = PpoConfig(model="m", data=["d"], out="o", reward="r", samples=2, algorithm=algorithm, **settings)
        return scores_with_its_step(config)

    assert not asked()
    if algorithm == "trpo":  # has the KL in its reward alone
        return
    assert not asked(**ONE, kl_place="reward", kl_estimator="k1")
    loss = {**ONE, "kl_place": "loss", "kl_estimator": "k3"}
    value = {"baseline": "value"} if algorithm == "reinforce" else {}
    assert asked(**loss, **value, critic="separate")
    assert asked(**loss, **value) == (algorithm in ("rloo", "grpo"))
    assert asked(**loss, baseline="mean") == (algorithm in ("reinforce", "rloo", "grpo"))
    assert asked(**{**loss, "ppo_epochs": 2}) == (algorithm == "rloo")
    assert asked(**{**loss, "minibatches": 2}) == (algorithm == "rloo")
    if algorithm == "ppo-penalty":  # compares with them behind the step
        assert not asked(**loss, critic="separate", penalty_target=0.1)
