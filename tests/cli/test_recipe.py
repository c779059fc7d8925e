"""Recipes: read, checked as a whole, finished stages skipped. Jobs only write their folder here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from accord.cli import main
from accord.data import read
from accord.pipelines.jobs import JOBS, Job, check_data
from accord.pipelines.recipe import read_recipe
from accord.pipelines.settings import SettingsError, build, read_yaml, settings_of
from accord.train.configs import DpoConfig, JobConfig, PpoConfig, RewardConfig, SampleConfig, SftConfig

ROOT = Path(__file__).parents[2]

GOOD = """\
out: OUT
defaults:
  batch_size: 4
stages:
  - name: first
    job: sft
    model: base
    data: DATA
    learning_rate: 1e-5
  - name: judge
    job: reward
    model: "{first}"
    data: DATA
    batch_size: 8
  - name: second
    job: ppo
    model: "{first}"
    reward: "{judge}"
    data: [DATA, "{first}/samples.jsonl"]
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a recipe; OUT and DATA become paths that exist."""
    (tmp_path / "rows.jsonl").write_text("{}\n")

    def writer(text: str = GOOD) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(text.replace("OUT", str(tmp_path / "runs")).replace("DATA", str(tmp_path / "rows.jsonl")))
        return path

    return writer


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Jobs write what a run leaves behind, and are counted here instead of trained."""
    names: list[str] = []

    def finish(job: Job, config: JobConfig) -> Path:
        names.append(config.out.name)
        config.out.mkdir(parents=True, exist_ok=True)
        resolved = {"job": job.name, **config.model_dump(mode="json")}
        (config.out / "config.yaml").write_text(yaml.safe_dump(resolved, sort_keys=False))
        (config.out / "manifest.json").write_text(json.dumps({"job": job.name}))
        (config.out / "done.json").write_text(json.dumps({"config": resolved}))
        return config.out

    monkeypatch.setattr(Job, "run", finish)
    return names


def test_references_defaults_and_folders_are_resolved(write: Callable[..., Path], tmp_path: Path) -> None:
    first, judge, second = read_recipe(write()).stages
    runs = tmp_path / "runs"
    assert isinstance(first.config, SftConfig)
    assert (first.config.batch_size, first.config.learning_rate, first.config.out) == (4, 1e-5, runs / "first")
    assert isinstance(judge.config, RewardConfig)
    assert (judge.config.batch_size, judge.config.model) == (8, str(runs / "first"))
    assert isinstance(second.config, PpoConfig)
    assert (second.config.reward, second.config.data[1]) == ((str(runs / "judge"),), runs / "first" / "samples.jsonl")
    assert (first.needs, judge.needs, second.needs) == ((), ("first",), ("first", "judge"))


def test_a_default_reaches_only_the_jobs_that_have_it(write: Callable[..., Path]) -> None:
    dpo = (
        GOOD.replace("stages:", "  beta: 0.3\nstages:") + '  - {name: direct, job: dpo, model: "{first}", data: DATA}\n'
    )
    config = read_recipe(write(dpo)).stages[-1].config
    assert isinstance(config, DpoConfig)
    assert config.beta == 0.3


def test_another_out_moves_everything(write: Callable[..., Path], tmp_path: Path) -> None:
    stages = read_recipe(write(), tmp_path / "elsewhere").stages
    assert [stage.config.out.parent for stage in stages] == [tmp_path / "elsewhere"] * 3
    assert stages[1].config.model == str(tmp_path / "elsewhere" / "first")


BAD = [
    (GOOD.replace("job: reward", "job: rewards"), 'line 11: "job" is "rewards"; expected one of sft, reward, dpo, '),
    (GOOD.replace("learning_rate", "learning_rat"), 'line 9: unknown setting "learning_rat"; did you mean "learning'),
    (GOOD.replace("1e-5", "fast"), 'line 9: "learning_rate" is "fast"; expected a number greater than 0'),
    (GOOD.replace("name: judge", "name: first"), 'line 10: a second stage "first"; give each its own name'),
    (GOOD.replace("{judge}", "{judg}"), 'stage "second" refers to {judg}, which is missing; did you mean "judge"?'),
    (GOOD.replace('model: "{first}"\n    data: DATA\n    b', 'model: "{second}"\n    data: DATA\n    b'),
     'stage "judge" refers to {second}, which comes later; order the stages so that it is earlier'),
    (GOOD.replace("model: base", 'model: "{first}"'), 'stage "first" refers to {first}, which is this one'),
    (GOOD.replace('"{judge}"', '"{first}"'), "reward is {first}, a run of sft; expected a reward run"),
    (GOOD.replace('model: "{first}"\n    reward', 'model: "{judge}"\n    reward'), "model is {judge}, a reward m"),
    (GOOD.replace('"{judge}"', "{judge}"), 'is {judge} without quotes, which YAML misreads; write "{judge}"'),
    (GOOD.replace("    model: base\n", ""), 'stage "first": missing required setting model'),
    (GOOD.replace("batch_size: 4", "batch_sise: 4"), 'line 3: unknown setting "batch_sise" in defaults; did you mean'),
    (GOOD.replace("batch_size: 4", "batch_size: four"), 'line 3: "batch_size" is "four"; expected a whole number'),
    (GOOD.replace("batch_size: 4", "name: x"), 'line 3: unknown setting "name" in defaults'),
    (GOOD.replace("out: OUT", "oud: OUT"), 'line 1: unknown key "oud"; did you mean "out"?'),
    (GOOD.replace("out: OUT\n", ""), "missing `out`, the folder of the runs, for example `out: runs/recipe`"),
    (GOOD.replace("  - name: first\n    job", "  - job"), "line 5: a stage without a name; add `name:`"),
    (GOOD.replace("    job: sft\n", ""), "line 5: a stage without a job; add `job:`, one of sft, reward, dpo, ppo"),
    (GOOD.replace("name: first", "name: a/b"), 'line 5: "name" is "a/b"; expected letters, digits, - and _'),
    (GOOD.replace("    learning_rate: 1e-5", "    out: x"), 'line 9: "out" of a stage follows from the recipe\'s'),
    (GOOD.replace("data: DATA\n    l", "data: nowhere.jsonl\n    l"), 'stage "first": nowhere.jsonl: no such file'),
    ("model: x\n", 'line 1: unknown key "model"; a recipe has out, defaults, stages'),
    ("out: x\n", "no stages; expected `stages:` with a list"),
    ("out: x\nstages: []\n", "line 2: stages is none; expected a list"),
    ("out: x\nstages: [sft]\n", 'stage 1 is "sft"; expected settings, "name: value"'),
    ("out: x\ndefaults: 3\nstages: [{name: a}]\n", 'defaults is 3; expected settings, "name: value"'),
]  # fmt: skip


SAMPLED = """\
out: OUT
stages:
  - {name: said, job: sample, model: base, data: DATA, reward: "m:f"}
  - {name: tuned, job: sft, model: base, data: "{said}/best.jsonl"}
  - {name: direct, job: dpo, model: "{tuned}", data: ["{said}/rankings.jsonl", DATA]}
"""


def test_what_a_stage_has_sampled_is_data_of_later_ones(write: Callable[..., Path], tmp_path: Path) -> None:
    said, tuned, direct = read_recipe(write(SAMPLED)).stages
    assert isinstance(said.config, SampleConfig)
    assert tuned.config.data == (tmp_path / "runs" / "said" / "best.jsonl",)
    assert (said.needs, tuned.needs, direct.needs) == ((), ("said",), ("tuned", "said"))


BAD += [
    (SAMPLED.replace("best.jsonl", "bset.jsonl"),
     'reads bset.jsonl of {said}, which makes responses.jsonl, rankings.jsonl, best.jsonl; did you mean "best.jsonl"?'),
    (SAMPLED.replace(', reward: "m:f"', ""),
     "reads best.jsonl of {said}, which makes responses.jsonl; rankings.jsonl and best.jsonl need a reward there"),
    (SAMPLED.replace("model: base, data: \"", 'model: "{said}", data: "'),
     "model is {said}, a run of sample; expected one that makes a model"),
    (SAMPLED.replace('reward: "m:f"', "epochs: 2"), 'unknown setting "epochs"'),
    (SAMPLED.replace('"m:f"', '"m:f", finished: true'), 'unknown setting "finished"; did you mean "finished_only"?'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_a_bad_recipe_is_one_line_before_anything_runs(
    write: Callable[..., Path], ran: list[str], capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    path = write(text)
    with pytest.raises(SettingsError) as caught:
        read_recipe(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert main(["run", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert ran == []


def test_stages_run_in_order_and_finished_ones_are_skipped(
    write: Callable[..., Path], ran: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = write()
    assert main(["run", str(path), "--dry-run"]) == 0
    assert ran == []
    assert capsys.readouterr().out.count("to do") == 3
    assert main(["run", str(path)]) == 0
    assert ran == ["first", "judge", "second"]
    (tmp_path / "runs" / "second" / "done.json").unlink()
    (tmp_path / "runs" / "second" / "checkpoints").mkdir()
    (tmp_path / "runs" / "second" / "checkpoints" / "step-00000002.pt").touch()
    capsys.readouterr()
    assert main(["run", str(path)]) == 0
    assert ran == ["first", "judge", "second", "second"]
    printed = capsys.readouterr().out
    plan = printed[: printed.index("results in")]
    assert (plan.count("done"), plan.count("continues")) == (2, 1)
    assert "accord chat" in printed


def test_a_changed_setting_of_a_finished_stage_is_named(write: Callable[..., Path], ran: list[str]) -> None:
    main(["run", str(write())])
    with pytest.raises(SettingsError, match='"first" has a run with learning_rate 1e-5, the recipe now says 2e-5; put'):
        read_recipe(write(GOOD.replace("1e-5", "2e-5")))
    read_recipe(write(GOOD.replace("1e-5", "1e-5\n    save_every: 3")))


def test_a_run_whose_source_is_gone_is_named(write: Callable[..., Path], ran: list[str], tmp_path: Path) -> None:
    main(["run", str(write())])
    (tmp_path / "runs" / "first" / "done.json").unlink()
    with pytest.raises(SettingsError, match='"judge" has a run, but "first", which it starts from, is not finished'):
        read_recipe(write())


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_are_right(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    if "stages" in yaml.safe_load(path.read_text()):
        assert read_recipe(path, Path("/nonexistent")).stages
    else:
        check_data(build(JOBS[path.stem].config, settings_of(read_yaml(path), path)))


@pytest.mark.parametrize(
    ("name", "kind"), [("demonstrations", "demonstration"), ("comparisons", "preference"), ("prompts", "prompts")]
)
def test_shipped_rows_are_good(name: str, kind: str) -> None:
    assert len(read(ROOT / "recipes" / "data" / f"{name}.jsonl", kind).records) >= 8  # type: ignore[call-overload]
