"""The feedback commands as people type them: in, figures, out, and what is said when something is wrong."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from accord.cli.app import main
from feedback.explore.test_explorer import chats


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def printed(capsys):
    """What was printed, without the padding of tables."""
    return " ".join(capsys.readouterr().out.split())


def votes(path, items=12):
    rows = [
        {
            "id": f"q{n}",
            "prompt": f"question {n}",
            "responses": [{"id": "a", "text": f"yes {n}"}, {"id": "b", "text": "no"}],
        }
        for n in range(items)
    ]
    said = [
        {"annotator": {"kind": "person", "id": who}, "response_set": f"q{n}", "display_order": ["a", "b"],
         "ranks": {"a": 1, "b": 2} if who != "cyd" or n % 3 else {"a": 2, "b": 1},
         "submitted_at": f"2026-01-01T00:{n:02}:00Z", "guideline": "v1"}
        for n in range(items) for who in ("ada", "bob", "cyd")
    ]  # fmt: skip
    lines(path, *rows, *said)


def test_in_agreement_out_and_forgotten(workplace, capsys):
    votes(workplace / "votes.jsonl")
    assert main(["feedback", "import", "votes.jsonl", "--campaign", "p/first"]) == 0
    said = printed(capsys)
    assert "campaign p/first" in said
    assert "new judgments 36" in said
    assert main(["feedback", "status"]) == 0
    assert "p/first" in printed(capsys)

    assert main(["feedback", "agreement", "first", "--out", "report"]) == 0
    said = printed(capsys)
    # ada and bob always agree, cyd differs on 4 of 12 items: 8 items of 3/3, 4 of 1/3, mean 7/9; kappa 5/9.
    assert "Two people prefer the same response in 78%" in said
    assert "kappa 0.56" in said
    assert json.loads((workplace / "report/agreement.json").read_text())["main"] == "preference"
    assert (workplace / "report/agreement.html").exists()
    assert len((workplace / "report/consensus.jsonl").read_text().splitlines()) == 12

    assert main(["feedback", "export", "first", "--as", "comparisons", "--unit", "share", "--out", "out"]) == 0
    rows = [json.loads(line) for line in (workplace / "out/train.jsonl").read_text().splitlines()]
    assert sorted({round(row.get("probability", 1.0), 3) for row in rows}) == [0.667, 1.0]

    assert main(["feedback", "prioritise", "first", "--by", "disagreement"]) == 0
    assert "12: " in printed(capsys)
    rewards = [{"item": f"q{n}", "rewards": {"a": 1.0, "b": 0.5 * (n % 4)}} for n in range(12)]
    lines(workplace / "rm.jsonl", *rewards)
    uncertain = ["feedback", "prioritise", "first", "--by", "uncertainty", "--scores", "rm.jsonl"]
    assert main(uncertain) == 0
    assert "24 of rm" in printed(capsys)
    assert main([*uncertain, "--reward-model", "judge@2"]) == 0
    assert "24 of judge@2" in printed(capsys)
    lines(workplace / "rm.jsonl", *rewards[:1], {"item": "q1", "rewards": {"a": 1.0, "z": 0.5}})
    assert main(uncertain) == 2
    assert "rm.jsonl, item 'q1': `rewards` names 'z'" in capsys.readouterr().err
    assert main(["feedback", "agreement", "first"]) == 0
    assert "judge@2" in printed(capsys)
    assert main(["feedback", "retention"]) == 0

    assert main(["feedback", "forget", "cyd"]) == 2
    assert "--yes" in capsys.readouterr().err
    assert main(["feedback", "forget", "cyd", "--yes"]) == 0
    assert main(["feedback", "forget", "cyd", "--yes"]) == 2
    assert "no person of the name 'cyd'" in capsys.readouterr().err
    export = ["feedback", "export", "first", "--as", "judgments", "--out", "later"]
    assert main(export) == 0
    assert "cyd" not in (workplace / "later/train.jsonl").read_text()


def test_bad_rows_stop_the_import_or_are_written_aside(workplace, capsys):
    lines(workplace / "rows.jsonl", {"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a", "chosen": "b"})
    command = ["feedback", "import", "rows.jsonl", "--campaign", "p/c"]
    assert main(command) == 2
    assert "rows.jsonl, row 2" in capsys.readouterr().err
    assert main([*command, "--skip-bad-rows"]) == 0
    (aside,) = (workplace / "rows.jsonl.bad.jsonl").read_text().splitlines()
    assert json.loads(aside)["row"] == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["agreement", "none"], "there is no campaign 'none'"),
        (["agreement", "none", "--database", "mysql://x/y"], "expected sqlite or postgresql"),
        (["agreement", "none", "--database", "nonsense"], "expected sqlite:///FILE or postgresql"),
        (["import", "none.jsonl", "--campaign", "c"], "no such file"),
        (["import", "--campain", "c"], "did you mean"),
        (["export", "none"], "missing required setting --out"),
        (["prioritise", "none", "--by", "taste"], "one of disagreement, uncertainty, diversity, scores"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(workplace, capsys, words, says):
    assert main(["feedback", *words]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_a_yaml_file_means_what_the_flags_mean(workplace, capsys):
    votes(workplace / "votes.jsonl", 3)
    (workplace / "import.yaml").write_text("files: [votes.jsonl]\ncampaign: p/c\noverlap: 5\n")
    assert main(["feedback", "import", "import.yaml"]) == 0
    assert main(["feedback", "import", "votes.jsonl", "--campaign", "p/c", "--overlap", "5"]) == 0
    assert "new judgments 0" in printed(capsys)


def test_logs_become_a_page_and_a_campaign(workplace, capsys):
    lines(workplace / "chats.jsonl", *({"id": one.id, "prompt": one.first} for one in chats()))
    command = [
        "data",
        "explore",
        "chats.jsonl",
        "--clusters",
        "3",
        "--campaign",
        "p/map",
        "--pick",
        "0",
        "2",
        "--items",
        "10",
    ]
    assert main(command) == 0
    said = printed(capsys)
    assert "explore/explore.html" in said
    assert "campaign p/map" in said
    assert "items 10" in said
    assert main([*command[:-5], "--campaign", "p/other", "--pick", "7"]) == 2
    assert "--pick 7: there is no such cluster" in capsys.readouterr().err


def test_help_of_the_feedback_commands_needs_no_database_and_no_torch():
    code = (
        "import sys\nfrom accord.cli.app import main\n"
        "main(['feedback', '--help'])\nmain(['data', 'explore', '--help'])\n"
        "assert not sys.modules.keys() & {'torch', 'sqlalchemy', 'sklearn', 'transformers'}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_explorer_and_analysis_need_no_torch():
    code = (
        "import sys, accord.feedback.analysis.page, accord.feedback.explore, accord.pipelines.feedback_sampling\n"
        "assert not sys.modules.keys() & {'torch', 'transformers'}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
