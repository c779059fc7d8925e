"""`accord eval` as people type it: words without flags, settings in a file, errors of one line, where results go."""

import json

import pytest

from accord.cli.app import main
from accord.cli.eval import EVALUATIONS
from pipelines.evaluating import write_rows


@pytest.fixture
def world(tmp_path, monkeypatch):
    meta = {"models": ["new", "old"], "annotators": ["p1"]}
    rows = [
        {"prompt": f"q{i}", "responses": ["yes", "no"], "ranks": [1, 2 if i % 4 else 1], "meta": meta} for i in range(8)
    ]
    write_rows(tmp_path / "judgments.jsonl", rows)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_words_without_flags_and_a_file_of_settings_mean_the_same(world, capsys):
    assert main(["eval", "winrate", "new", "old", "--judgments", "judgments.jsonl", "--out", "a"]) == 0
    (world / "rate.yaml").write_text("models: [new, old]\njudgments: judgments.jsonl\nout: b\n", encoding="utf8")
    assert main(["eval", "winrate", "rate.yaml"]) == 0
    values = [
        json.loads((world / out / "eval/winrate.json").read_text(encoding="utf8"))["results"][0]["value"]
        for out in "ab"
    ]
    assert values == [0.875, 0.875]
    printed = capsys.readouterr().out
    assert "win rate" in printed
    assert "0.875" in printed
    assert (world / "a/report.html").exists()


def test_a_report_of_two_evaluated_folders(world):
    for out, models in (("a", ["new", "old"]), ("b", ["old", "new"])):
        main(["eval", "winrate", *models, "--judgments", "judgments.jsonl", "--out", out])
    assert main(["report", "a", "b"]) == 0
    page = (world / "a/report.html").read_text(encoding="utf8")
    assert "0.875" in page
    assert "0.125" in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["winrat"], 'did you mean "winrate"?'),
        (["winrate", "new", "--judgments", "judgments.jsonl"], "as the last, the baseline"),
        (["winrate", "new", "old", "--judgments", "judgments.jsonl"], "give --out FOLDER"),
        (
            ["winrate", "new", "old", "--judgments", "judgments.jsonl", "--replicats", "3"],
            'did you mean "--replicates"?',
        ),
        (["reward", "x", "y", "--data", "judgments.jsonl"], 'unexpected "y" behind "x"'),
        (["reward", "--data", "judgments.jsonl"], "missing required setting --reward"),
        (["preferences", "judgments.jsonl"], "missing --out"),
        (["preferences", "none.jsonl", "--out", "o"], "no such file"),
        (["frontier", "runs/x", "--data", "judgments.jsonl"], "a frontier needs a reward"),
        (["winrate", "a.yaml", "b.yaml"], "expected one file of settings"),
    ],
)
def test_what_is_wrong_is_one_line(world, words, said, capsys):
    assert main(["eval", *words]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert said in line


def test_every_evaluation_has_help(capsys):
    for evaluation in EVALUATIONS:
        assert main(["eval", evaluation.name, "--help"]) == 0
    assert capsys.readouterr().out.count("usage: accord eval") == len(EVALUATIONS)
