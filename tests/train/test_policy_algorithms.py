"""Every policy algorithm through the entry point of its job: learns, goes on bit for bit, reads its settings."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from accord.train import loop, policy
from accord.train.configs import PpoConfig
from accord.train.experience import WORST_GAP
from accord.train.methods import method
from accord.train.policy import plan_rollouts
from accord.train.progress import Quiet
from accord.train.rewards import FunctionReward
from train.data import many_a, metrics, prompts, write
from train.test_loop import count_a

ALGORITHMS = ["ppo-clip", "ppo-penalty", "trpo", "reinforce", "rloo", "grpo"]
FAST = {"precision": "fp32", "learning_rate": 3e-3, "max_length": 128, "micro_tokens": 512, "reward": "r"}


@pytest.fixture(scope="module")
def undecided(tiny_folder, tmp_path_factory):
    from train.test_learning import train_undecided

    return train_undecided(tiny_folder, tmp_path_factory.mktemp("undecided"))


# -- learning ----------------------------------------------------------------------------------------------------------

LEARNING = {
    "ppo-clip": {},
    "ppo-clip critic": {"critic": "separate", "clip_high": 0.28, "dual_clip": 3.0, "average": "sequence"},
    "ppo-penalty": {"penalty": 0.5, "penalty_target": 0.02, "seed": 1},  # with 0 one letter in four stays, or not
    # Where all is learned, steps of the whole KL follow noise: of five seeds one ends below what it had reached.
    "trpo": {"max_kl": 0.05, "damping": 0.01, "cg_iterations": 5, "learning_rate": 1e-3, "seed": 1},
    "trpo adapters": {
        "max_kl": 0.05,
        "damping": 0.01,
        "cg_iterations": 5,
        "lora_rank": 8,
        "fisher_share": 0.5,
        "critic": "separate",
    },
    "reinforce": {},
    "reinforce mean": {"baseline": "mean", "whiten_advantages": True},
    "reinforce none": {"baseline": "none", "average": "constant"},
    "rloo": {},
    "rloo both": {"kl_place": "both", "kl_estimator": "exact"},
    "grpo": {},
    "grpo Dr.": {"average": "constant", "scale_advantages": False, "kl_place": "reward", "kl_estimator": "k1"},
}


@pytest.mark.parametrize("case", LEARNING)
def test_it_learns_what_it_is_paid_for(case, undecided, tmp_path):
    """A policy that answers "aa", "mm" or "zz", each a third of the time, is paid for the letter a."""
    settings = {**FAST, "batch_size": 8, "samples": 4, "max_new_tokens": 4, "epochs": 4, "schedule": "constant"}
    algorithm = case.split()[0]
    if algorithm == "trpo":
        settings["epochs"] = 2
    config = PpoConfig(
        model=str(undecided), data=[prompts(tmp_path / "prompts.jsonl")], out=tmp_path / "run", algorithm=algorithm,
        **{**settings, **LEARNING[case]},
    )  # fmt: skip
    rows = metrics(policy.run(config, Quiet(), FunctionReward("many_a", many_a)))
    first, last = rows[0], rows[-3:]
    assert first["reward/mean"] < 0.45
    assert sum(row["reward/mean"] for row in last) / 3 > (0.7 if algorithm == "trpo" else 0.8)
    assert abs(first["kl/reference"]) < 1e-5  # the reference is where it started
    assert last[-1]["kl/reference"] > 0.3
    assert max(row["sampler/gap"] for row in rows) < 1e-4 < WORST_GAP
    assert ("value/explained" in first) == (algorithm in ("ppo-clip", "ppo-penalty", "trpo") or case == "reinforce")
    if algorithm == "trpo":
        assert all(row["trpo/kl"] <= 0.05 for row in rows)
        assert sum(row["trpo/accepted"] for row in rows) >= 0.8 * len(rows)
        assert all(row["trpo/improvement"] > 0 for row in rows if row["trpo/accepted"])


@pytest.mark.parametrize("place", ["reward", "loss", "both"])
@pytest.mark.parametrize("algorithm", ["reinforce", "rloo", "grpo"])
def test_a_strong_penalty_holds_the_policy_at_the_reference(algorithm, place, undecided, tmp_path):
    """Unscaled: divided by the deviation of scores that are mostly KL, the penalty would lose its strength."""
    estimator, ends = {"reward": "k1", "loss": "k2", "both": "exact"}[place], {}
    extra = {"scale_advantages": False} if algorithm == "grpo" else {}
    for beta in (0.0, 3.0):
        config = PpoConfig(
            model=str(undecided), data=[prompts(tmp_path / "prompts.jsonl")], out=tmp_path / f"run{beta}",
            algorithm=algorithm, batch_size=8, samples=4, max_new_tokens=4, epochs=2, kl_beta=beta, kl_place=place,
            kl_estimator=estimator, **extra, **{**FAST, "learning_rate": 1e-3},
        )  # fmt: skip
        rows = metrics(policy.run(config, Quiet(), FunctionReward("many_a", many_a)))
        ends[beta] = sum(row["kl/reference"] for row in rows[-3:]) / 3
    assert ends[3.0] < 0.3 * ends[0.0]


def test_an_adaptive_penalty_holds_its_target(undecided, tmp_path):
    """KL(old || new) of a rollout's updates, with a weight that starts far too small."""
    moved = {}
    for name, extra in {"fixed": {}, "adaptive": {"penalty_target": 0.003}}.items():
        config = PpoConfig(
            model=str(undecided), data=[prompts(tmp_path / "prompts.jsonl")], out=tmp_path / name, penalty=0.1,
            algorithm="ppo-penalty", batch_size=4, samples=4, max_new_tokens=4, epochs=2, **extra, **FAST,
        )  # fmt: skip
        rows = metrics(policy.run(config, Quiet(), FunctionReward("many_a", many_a)))
        moved[name] = rows
    weights = [row["kl/penalty"] for row in moved["adaptive"]]
    assert weights[0] == 0.1
    for before, after, row in zip(weights, weights[1:], moved["adaptive"], strict=False):
        factor = 0.5 if row["kl/moved"] < 0.002 else 2 if row["kl/moved"] > 0.0045 else 1
        assert after == pytest.approx(before * factor)
    assert {row["kl/penalty"] for row in moved["fixed"]} == {0.1}
    assert all("kl/moved" not in row for row in moved["fixed"])
    assert max(weights) > 0.5


# -- the plan ----------------------------------------------------------------------------------------------------------


def plan_of(count: int, **extra):
    return plan_rollouts(count, PpoConfig(model="m", data=["d"], out="o", reward="r", **extra))


@pytest.mark.parametrize(
    ("count", "extra", "ends"),
    [
        (24, {"batch_size": 4}, [4, 8, 12]),  # rollouts of 8, two passes of two steps
        (18, {"batch_size": 4}, [4, 8, 10]),  # the last has 2 prompts: two passes of one step
        (18, {"batch_size": 4, "epochs": 2}, [4, 8, 10, 14, 18, 20]),
        (13, {"batch_size": 4, "minibatches": 3, "ppo_epochs": 1}, [3, 4]),
        (18, {"batch_size": 4, "max_steps": 9}, [4, 8, 9]),
        (18, {"batch_size": 4, "max_steps": 8}, [4, 8]),
        (18, {"batch_size": 4, "max_steps": 3}, [3]),
        (10, {"batch_size": 4, "algorithm": "rloo"}, [1, 2, 3]),
        (10, {"batch_size": 4, "algorithm": "trpo", "max_steps": 2}, [1, 2]),
        (10, {"batch_size": 4, "algorithm": "reinforce"}, [1, 2, 3]),
        (9, {"batch_size": 4, "algorithm": "grpo"}, [4, 6]),
    ],
)
def test_steps_are_counted_as_they_are_taken(count, extra, ends):
    plan = plan_of(count, **extra)
    assert plan.ends == ends
    assert [plan.finished(step) for step in (0, *ends)] == list(range(len(ends) + 1))
    assert plan.total == ends[-1]
    assert [step for number in range(len(ends)) for step in plan.steps(number)] == list(range(plan.total))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_planned_steps_are_taken(algorithm, tiny_folder, tmp_path, monkeypatch):
    taken, rates = [], []
    step = loop.optimise

    def optimise(optimiser, rate, *rest):
        taken.append(1)
        rates.append(rate)
        return step(optimiser, rate, *rest)

    monkeypatch.setattr(loop, "optimise", optimise)
    config = run_config(algorithm, tiny_folder, tmp_path, count=10, warmup=0.0)
    rows = metrics(policy.run(config, Quiet(), FunctionReward("count_a", count_a)))
    ends = plan_rollouts(10, config).ends
    assert [row["step"] for row in rows] == ends
    assert len(taken) == (5 * len(ends) if algorithm == "trpo" else ends[-1])  # value updates
    falls = rates[::5] if algorithm == "trpo" else rates
    assert all(before > after for before, after in pairwise(falls))


# -- going on ----------------------------------------------------------------------------------------------------------


class Stop(Exception):
    """As if the process had been killed."""


class StopAfter(Quiet):
    def __init__(self, step: int) -> None:
        self.last = step

    def update(self, step, figures):
        if step >= self.last:
            raise Stop


def run_config(algorithm: str, model: Path, folder: Path, name: str = "run", count: int = 14, **extra) -> PpoConfig:
    data = folder / f"prompts-{count}.jsonl"
    settings = {"batch_size": 4, "samples": 2, "max_new_tokens": 4, **FAST, **extra}
    return PpoConfig(
        model=str(model), data=[data if data.exists() else prompts(data, count)], out=folder / name,
        algorithm=algorithm, **settings,
    )  # fmt: skip


def outcome(folder: Path):
    rows = metrics(folder)
    weights = load_file(next((folder / "model").glob("*.safetensors")))
    heads = (folder / "model" / "value_head.safetensors",)
    for path in heads:
        weights |= load_file(path) if path.exists() else {}
    timed = ("seconds", "tokens_per_second")
    return weights, [{name: value for name, value in row.items() if not name.startswith(timed)} for row in rows]


STATE = {  # whatever adapts or has a state
    "ppo-clip": {"kl_target": 1.0, "entropy_coefficient": 0.01, "stop_kl": 0.05, "critic": "separate"},
    "ppo-penalty": {"penalty_target": 0.001, "kl_target": 1.0},
    "trpo": {"kl_target": 1.0, "fisher_share": 0.5, "max_kl": 0.03},
    "reinforce": {"whiten_advantages": True},
    "rloo": {"kl_place": "loss", "kl_estimator": "k2", "kl_target": 1.0, "lora_rank": 4},
    "grpo": {"kl_estimator": "exact", "kl_target": 1.0},
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_run_that_was_cut_ends_at_the_same_weights(algorithm, tiny_folder, tmp_path):
    reward, extra = FunctionReward("count_a", count_a), {**STATE[algorithm], "epochs": 2, "save_every": 1}
    if algorithm != "trpo":
        extra["ptx_data"] = [write(tmp_path / "text.jsonl", [{"text": "the cat sat on the mat"}, {"text": "a dog"}])]
        extra["ptx_batch_size"] = 1
    whole = policy.run(run_config(algorithm, tiny_folder, tmp_path, "whole", **extra), Quiet(), reward)
    cut, ends = run_config(algorithm, tiny_folder, tmp_path, "cut", **extra), []
    for number in (0, 2):  # in the first rollout, before a checkpoint; and in the third
        ends.append(plan_rollouts(14, cut).ends[number])
        with pytest.raises(Stop):
            policy.run(cut, StopAfter(ends[-1]), reward)
    policy.run(cut, Quiet(), reward)
    (weights, rows), (cut_weights, cut_rows) = outcome(whole), outcome(tmp_path / "cut")
    assert weights.keys() == cut_weights.keys()
    assert all(torch.equal(weights[name], cut_weights[name]) for name in weights)
    assert rows == cut_rows
    if "kl_target" in extra:
        assert len({row["kl/coefficient"] for row in rows}) > 2
    if "penalty_target" in extra:
        assert len({row["kl/penalty"] for row in rows}) > 1


# -- settings ----------------------------------------------------------------------------------------------------------

CHANGES = {
    "gamma": 0.5, "lam": 0.5, "critic": "separate", "value_learning_rate": 1e-4, "value_coefficient": 3.0,
    "value_clip": 0.01, "entropy_coefficient": 0.1, "kl_beta": 0.7, "kl_target": 0.1, "kl_place": "loss",
    "kl_estimator": "k2", "clip": 0.01, "clip_high": 0.01, "dual_clip": 1.001, "penalty": 9.0, "penalty_target": 1e-6,
    "max_kl": 0.001, "cg_iterations": 2, "damping": 10.0, "backtracks": 1, "fisher_share": 0.4, "value_updates": 1,
    "baseline": "mean", "whiten_advantages": None, "scale_advantages": False, "average": None, "stop_kl": 1e-6,
    "ppo_epochs": 1, "minibatches": 1, "ptx_data": None,
}  # fmt: skip
COMMON = {"samples": 3, "max_new_tokens": 5, "temperature": 0.7, "score_clip": 0.5, "missing_eos_penalty": 2.0}
BESIDES = {"kl_place": {"kl_estimator": "k2"}, "baseline": {}}
"""What else has to be given for a change to be a configuration."""


def changed(algorithm: str, name: str, folder: Path) -> dict:
    reads = method("ppo", algorithm).reads
    if name == "whiten_advantages":
        return {name: not reads[name]}
    if name == "average":
        return {name: "sequence" if reads[name] == "token" else "token"}
    if name == "kl_place" and reads["kl_place"] == "loss":
        return {name: "reward", "kl_estimator": "k1"}
    if name == "ptx_data":
        return {name: [write(folder / "text.jsonl", [{"text": "the cat sat on the mat"}])]}
    return {name: CHANGES[name], **BESIDES.get(name, {})}


@pytest.mark.parametrize(
    "algorithm", [pytest.param(name, marks=pytest.mark.slow if name == "trpo" else ()) for name in ALGORITHMS]
)
def test_every_setting_an_algorithm_reads_changes_its_result(algorithm, undecided, tmp_path):
    reward, outcomes = FunctionReward("count_a", count_a), {}
    shared = {"max_steps": 7, "temperature": 1.5}  # responses of several lengths, some cut off
    if algorithm == "trpo":
        shared |= {"max_steps": 2, "max_kl": 0.3}  # the full step is refused at first: the line search counts

    def weights_of(name: str, **extra) -> torch.Tensor:
        settings = {**shared, **extra}
        config = run_config(algorithm, undecided, tmp_path, name, count=16, **settings)
        return torch.cat([w.flatten() for w in outcome(policy.run(config, Quiet(), reward))[0].values()])

    whole = weights_of("as it is")
    assert torch.equal(whole, weights_of("once more"))
    for name in method("ppo", algorithm).reads.keys() - ({"kl_place"} if algorithm == "trpo" else set()):
        outcomes[name] = weights_of(name, **changed(algorithm, name, tmp_path))
    for name, value in COMMON.items():
        outcomes[name] = weights_of(name, **{name: value})
    same = {name for name, weights in outcomes.items() if weights.shape == whole.shape and torch.equal(weights, whole)}
    assert not same


def test_whatever_the_algorithm_no_setting_is_read_that_it_does_not_have(tiny_folder, tmp_path):
    """`None` means that a method does not read a setting: a run gets by without it."""
    for algorithm in ALGORITHMS:
        reads = method("ppo", algorithm).reads
        config = run_config(algorithm, tiny_folder, tmp_path, algorithm, max_steps=1)
        foreign = set(CHANGES) - set(reads)
        assert all(getattr(config, name) is None for name in foreign)
        assert metrics(policy.run(config, Quiet(), FunctionReward("count_a", count_a)))[-1]["updates"] >= 0
