"""The commands on data, from task file to clean training data, and what they say when something is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from accord.cli import main
from accord.data import read
from accord.data.curation.rules import RULES
from fakes import Scripted

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the recipes in it."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(words, capsys):
    code = main(words.split())
    return code, capsys.readouterr()


def test_the_walk_through_of_the_documentation(here, capsys):
    page = (ROOT / "docs/instruction-data.md").read_text(encoding="utf8")
    lines = page.split("```sh\n")[1].split("```")[0].splitlines()
    for line in lines[:-1]:  # the last one trains
        words = [part.strip() for part in line.split('"')]
        arguments = [word for n, part in enumerate(words) for word in ([part] if n % 2 else part.split())]
        assert main(arguments[1:]) == 0, capsys.readouterr().err
    assert len(read(here / "clean.jsonl", "demonstration").records) == 18
    said = capsys.readouterr().out
    assert "12 examples of 1 task" in said
    assert "3 removed" in said


def test_a_preview_writes_nothing(here, capsys):
    code, said = run("data convert recipes/tasks/colours.yaml --preview", capsys)
    assert code == 0
    assert "name-it (inverted)" in said.out
    assert "→ yes" in said.out
    assert [path.name for path in here.iterdir()] == ["recipes"]


def test_settings_of_a_conversion_come_from_a_file_too(here, capsys):
    (here / "s.yaml").write_text("tasks: recipes/tasks/colours.yaml\nout: o\ntemplates_per_row: 5\n")
    code, said = run("data convert --config s.yaml --seed 3", capsys)
    assert code == 0
    assert "55 examples" in said.out  # 12 rows, 4 ways each, and the inverted one for the 7 rows that it fits
    manifest = json.loads((here / "o/manifest.json").read_text())
    assert (manifest["settings"]["seed"], manifest["settings"]["templates_per_row"]) == (3, 5)


def test_a_mixture_from_a_file_of_settings(here, capsys):
    (here / "m.yaml").write_text(
        "sources:\n  - recipes/data/demonstrations.jsonl weight=2\n  - recipes/data/feedback.jsonl\nrows: 12\n"
    )
    code, said = run("data mix m.yaml --out mix.jsonl", capsys)
    assert code == 2
    assert "feedback rows, where recipes/data/demonstrations.jsonl has demonstration rows" in said.err
    (here / "m.yaml").write_text("sources: recipes/data/demonstrations.jsonl weight=2 name=mine\nrows: 30\n")
    code, said = run("data mix m.yaml --out mix.jsonl", capsys)
    assert code == 0
    assert "mine" in said.out
    assert "30 rows of 1 source" in said.out
    assert "name them with --against" in said.out


def test_a_mixture_is_checked_against_what_its_conversion_held_back(here, capsys):
    """Against a test set of three rows the words of the templates count: it is far too small to tell them."""
    assert run("data convert recipes/tasks/colours.yaml --out i", capsys)[0] == 0
    code, said = run("data mix i/train --out mix.jsonl", capsys)
    assert code == 0
    assert "rows left out because they give one of 1 evaluation sets away" in said.out
    assert str(Path("i/test/colours.jsonl")) in "".join(
        json.loads(Path("mix.manifest.json").read_text())["evaluation_sets"]
    )


def test_lists(capsys):
    code, said = run("data tasks", capsys)
    assert code == 0
    assert "strategyqa" in said.out
    assert "CC BY-NC" in said.out
    code, said = run("data clean --rules", capsys)
    assert all(rule.name in said.out for rule in RULES)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("data convert rte --out o", "task rte: superglue_nli/rte_train.csv: no such file or folder"),
        ("data convert nothing --out o", "neither a file nor a task of the package"),
        ("data convert rte --out o --shots 9", "expected numbers from 0 to 5"),
        ("data convert rte", "missing required setting --out"),
        ("data clean recipes/data/demonstrations.jsonl --out o.jsonl --without cutt", 'no rule is called "cutt"'),
        ("data clean recipes/data/demonstrations.jsonl --out o.jsonl --toxicity nomod:f", "expected module:function"),
        ("data dedup recipes/data/demonstrations.jsonl --out o.csv", "expected .jsonl or .jsonl.gz"),
        ("data dedup nothing.jsonl --out o.jsonl", "no such file"),
        ("data mix recipes/data/demonstrations.jsonl --out o.jsonl --temprature 2", 'did you mean "--temperature"'),
        ("data self-instruct --model m --seeds none.jsonl --target 3 --out o", "error:"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(here, capsys, words, message):
    code, said = run(words, capsys)
    assert code == 2
    assert message in said.err
    assert said.err.count("\n") == 1


def test_self_instruct_prints_its_yield(here, capsys, monkeypatch):
    def model(prompt, texts=None):
        if texts:
            return [-2.0, -1.0]
        if prompt.startswith("Come up with a series"):
            return " Compare a river with a road.\n10. Draw a picture of it.\n11. Tell how bread is made at home."
        return "Output: done."

    monkeypatch.setattr("accord.pipelines.language_models.open_language_model", lambda *_, **__: Scripted(model))
    words = "data self-instruct --model m --seeds recipes/data/seeds.jsonl --target 5 --max-requests 8 --out o"
    code, said = run(words, capsys)
    assert code == 0
    assert "2 of 5 instructions from 8 requests" in said.out
    assert "blocked word" in said.out
    assert "too close to a known one" in said.out
    assert "46 %" in said.out
    assert "stopped at --max-requests 8" in said.err
    assert len(read(here / "o/demonstrations.jsonl", "demonstration").records) == 2


def test_no_torch_is_needed():
    modules = "accord.data.tasks, accord.data.curation.mix, accord.data.curation.quality, accord.data.self_instruct"
    check = (
        f"import sys, {modules}, accord.cli.data_convert; assert not sys.modules.keys() & {{'torch', 'transformers'}}"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
