"""The table of methods, the configurations, the losses and the recipes say the same."""

import importlib
from pathlib import Path
from typing import get_args

import pytest
import yaml

from accord.cli.methods_page import recipe_of
from accord.pipelines.jobs import JOBS
from accord.pipelines.settings import Setting, SettingsError, build, read_yaml, settings_of
from accord.train.methods import METHODS, defaults_of, method

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted([*ROOT.glob("recipes/*.yaml"), *ROOT.glob("recipes/methods/*.yaml")])
SINGLE = [path for path in RECIPES if "stages" not in yaml.safe_load(path.read_text())]


def job_of(path: Path) -> str:
    return path.stem.split("-")[0]


def config_of(path: Path):
    return build(JOBS[job_of(path)].config, settings_of(read_yaml(path), path))


@pytest.mark.parametrize("entry", METHODS, ids=lambda entry: f"{entry.job}-{entry.name}")
def test_a_method_has_a_loss_a_recipe_and_known_settings(entry):
    module, name = entry.function.split(".")
    assert callable(getattr(importlib.import_module(f"accord.losses.{module}"), name))
    config = JOBS[entry.job].config
    assert entry.reads.keys() <= config.model_fields.keys()
    made = config_of(ROOT / recipe_of(entry))
    assert config.choice is None or getattr(made, config.choice) == entry.name
    for words in (entry.title, entry.formula, entry.paper, entry.when):
        assert words
        assert "|" not in entry.title


@pytest.mark.parametrize("job", ["reward", "dpo", "ppo"])
def test_the_choices_of_a_job_are_its_methods(job):
    config = JOBS[job].config
    choices = get_args(config.model_fields[config.choice].annotation)
    assert list(choices) == list(config.methods()) == [entry.name for entry in METHODS if entry.job == job]
    assert config.job == job


@pytest.mark.parametrize("job", ["reward", "dpo", "ppo"])
def test_defaults_are_filled_in_and_written_with_the_run(job):
    config = JOBS[job].config
    needed = {"model": "m", "data": ["d"], "out": "o"} | ({"reward": "r"} if job == "ppo" else {})
    every = {name for entry in METHODS if entry.job == job for name in entry.reads}
    for name, entry in config.methods().items():
        made = config(**needed, **{config.choice: name})
        dumped = made.model_dump(mode="json")
        for setting in every:
            assert dumped[setting] == (entry.reads.get(setting)), setting
        assert config(**dumped) == made  # what config.yaml holds makes the same job
        assert made.reads == dict(entry.reads)


def test_without_a_value_function_its_settings_are_none_and_stay_so():
    made = JOBS["ppo"].config(model="m", data=["d"], out="o", reward="r", algorithm="reinforce", baseline="mean")
    assert (made.critic, made.value_coefficient, made.value_learning_rate) == (None, None, None)
    assert JOBS["ppo"].config(**made.model_dump(mode="json")) == made


def test_lookups():
    assert method("dpo", "ipo").reads == {"beta": 0.1, "reduction": "sum"}
    assert defaults_of("dpo", "gamma") == {"simpo": 1.0}
    assert defaults_of("dpo", "epochs") == {}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"algorithm": "rloo", "critic": "shared"}, '"critic" is not read with algorithm rloo'),
        ({"algorithm": "grpo", "lam": 0.9}, '"lam" is not read with algorithm grpo; remove it, or choose: ppo-clip'),
        ({"algorithm": "grpo", "samples": 1}, "grpo compares the responses to a prompt"),
        ({"kl_place": "loss"}, "kl_estimator k1 in the loss"),
        ({"kl_estimator": "exact"}, "exact in the reward alone"),
        ({"kl_place": "both", "kl_estimator": "k3"}, "kl_place both is right with kl_estimator exact only"),
        ({"kl_beta": 0, "kl_target": 1.0}, "kl_beta must start above 0"),
        ({"algorithm": "ppo-penalty", "penalty": 0, "penalty_target": 0.01}, "penalty must start above 0"),
        ({"algorithm": "trpo", "precision": "bf16"}, "use precision fp32"),
        ({"algorithm": "trpo", "kl_place": "loss", "kl_estimator": "k3"}, "natural gradient of the surrogate alone"),
        ({"algorithm": "trpo", "ptx_data": ["t.jsonl"]}, '"ptx_data" is not read with algorithm trpo'),
        ({"algorithm": "reinforce", "baseline": "mean", "critic": "separate"}, "read only with baseline value"),
        ({"algorithm": "reinforce", "baseline": "none", "critic": "shared"}, "read only with baseline value"),
        ({"ptx_coefficient": 1.0}, "read only with ptx_data"),
        ({"reward_weights": [1.0, 2.0]}, "2 numbers for 1 rewards"),
        ({"ensemble": "min"}, "ensemble needs a reward of several folders"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        JOBS["ppo"].config(model="m", data=["d"], out="o", reward="r", **settings)
    JOBS["ppo"].config(model="m", data=["d"], out="o", reward="r")


def test_a_list_of_methods_is_explained():
    place = Setting(["dpo", "ipo"], "r.yaml, line 1", 'r.yaml, line 1: "loss"')
    given = {name: Setting("x", "--x", "--x") for name in ("model", "data", "out")}
    with pytest.raises(SettingsError, match="expected one of dpo"):
        build(JOBS["dpo"].config, given | {"loss": place})


@pytest.mark.slow
@pytest.mark.parametrize("path", SINGLE, ids=lambda path: path.stem)
def test_a_recipe_runs(path, tiny_folder, tmp_path, monkeypatch):
    """As it stands, on the tiny model, for one optimiser step, with a reward function for the reward model."""
    monkeypatch.chdir(ROOT)
    config, job = config_of(path), JOBS[job_of(path)]
    changes = {"model": str(tiny_folder), "out": str(tmp_path / "run"), "max_steps": 1, "precision": "fp32"}
    if job.name == "ppo":
        changes |= {"reward": ["train.data:many_a"], "max_new_tokens": 4}
    run = job.run(type(config)(**config.model_dump(mode="json") | changes))
    assert (run / "done.json").exists()
