import subprocess
import sys

import pytest

from accord.cli.app import main
from evaluate.fake_run import training_run


def test_writes_the_report_and_says_where(tmp_path, capsys):
    run = training_run(tmp_path / "run")
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert (run / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_several_runs_go_into_the_first(tmp_path):
    first, second = training_run(tmp_path / "first"), training_run(tmp_path / "second", seed=1)
    assert main(["report", str(first), str(second)]) == 0
    assert "second" in (first / "report.html").read_text(encoding="utf-8")
    assert not (second / "report.html").exists()


@pytest.mark.parametrize("words", [["nowhere"], []])
def test_what_is_no_run_is_one_line_and_code_2(tmp_path, capsys, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *words]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert error.strip()


def test_needs_no_torch(tmp_path):
    run = training_run(tmp_path / "run")
    code = (
        "import sys; from accord.cli.app import main; "
        f"assert main(['report', {str(run)!r}]) == 0; assert not sys.modules.keys() & {{'torch', 'transformers'}}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
