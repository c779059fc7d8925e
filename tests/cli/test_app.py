"""The command table: what is imported, what errors become, what the help says."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

import accord
from accord.cli import app, main
from accord.cli.console import output_console
from accord.cli.docs import reference
from accord.cli.quickstart import print_summary

ROOT = Path(__file__).parents[2]


def python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> object:
    """`accord report` replaced by a command that raises what it is given."""

    def give(error: BaseException) -> None:
        def run(_: object) -> int:
            raise error

        module = SimpleNamespace(__doc__="Fails.", add_arguments=lambda parser: None, run=run)
        monkeypatch.setattr(app.importlib, "import_module", lambda name: module)

    return give


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["train", "dpo", "--help"], ["--version"], []])
def test_help_answers_without_torch_and_hardly_later_than_its_libraries(words: list[str]) -> None:
    code = f"""
import sys, time
from accord.cli import main
assert main({words!r}) == 0
heavy = {{"torch", "transformers", "peft", "numpy", "pyarrow"}} & sys.modules.keys()
assert not heavy, heavy
print(time.process_time(), file=sys.stderr)
"""
    libraries = """
import sys, time
import argparse, importlib.metadata, inspect, json, logging
import pydantic.json_schema, rich.console, rich.progress, yaml
class Model(pydantic.BaseModel):
    field: int = pydantic.Field(1, ge=0)
Model.model_json_schema()
print(time.process_time(), file=sys.stderr)
"""
    # Seconds of the processes, in turn: .28 and .18 on an idle machine, both twice that with a busy neighbour.
    both = [(python("-c", code), python("-c", libraries)) for _ in range(3)]
    assert [result.returncode for pair in both for result in pair] == [0] * 6, both[0][0].stderr
    ours, theirs = (min(float(result.stderr) for result in side) for side in zip(*both, strict=True))
    assert ours < 2 * theirs


@pytest.mark.parametrize("command", app.COMMANDS, ids=lambda command: command.name)
def test_every_command_parses_without_torch(command: app.Command) -> None:
    code = f"""
import sys
from accord.cli import main
assert main([{command.name!r}, "--help"]) == 0
assert not {{"torch", "transformers"}} & sys.modules.keys()
"""
    result = python("-c", code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"usage: accord {command.name}")


def test_overview_has_one_line_per_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    for command in app.COMMANDS:
        assert [line for line in lines if line.split()[:1] == [command.name] and line.endswith(command.help)]
    for example, _ in app.EXAMPLES:
        assert any(line.strip().startswith(example) for line in lines)
    assert max(map(len, lines)) <= 80
    assert not any(line != line.rstrip() for line in lines)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"accord {accord.__version__}\n"


def test_every_example_names_a_command_and_parses() -> None:
    for example, _ in app.EXAMPLES:
        _, name, *words = example.split()
        arguments = app.parser_of(app.find(name)).parse_args(words)
        assert callable(arguments.run_command)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError(2, "No such file or directory", "x.jsonl"), "x.jsonl: no such file or directory"),
        (OSError("two\nlines"), "two lines"),
        (PermissionError(), "PermissionError"),
    ],
)
def test_an_os_error_is_one_line_and_exit_code_2(
    raising, capsys: pytest.CaptureFixture[str], error: Exception, line: str
) -> None:
    raising(error)
    assert main(["report"]) == 2
    assert capsys.readouterr().err == f"error: {line}\n"


def test_a_value_error_is_the_users_only_when_accord_raised_it(raising, capsys: pytest.CaptureFixture[str]) -> None:
    raising(ValueError("from a library"))
    assert main(["report"]) == 1
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert "ValueError: from a library" in error


def test_an_unexpected_error_keeps_its_traceback(raising, capsys: pytest.CaptureFixture[str]) -> None:
    raising(KeyError("gone"))
    assert main(["report"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_debug_shows_the_traceback_of_a_users_error(
    raising, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCORD_DEBUG", "1")
    raising(OSError("disk full"))
    assert main(["report"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "said"), [("train", "stopped; the same command continues the run\n"), ("report", "stopped\n")]
)
def test_ctrl_c_is_130(raising, capsys: pytest.CaptureFixture[str], name: str, said: str) -> None:
    raising(KeyboardInterrupt())
    assert main([name]) == 130
    assert capsys.readouterr().err == said


def test_a_reader_that_left_the_pipe_is_no_error() -> None:
    code = "import sys; from accord.cli import main; sys.exit(main(['train', 'dpo', '--help']))"
    shell = f'set -o pipefail; {sys.executable} -c "{code}" | true'
    result = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in result.stderr
    assert "BrokenPipe" not in result.stderr


def test_the_reference_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf8") == reference(), "make it again: `make docs`"


def test_the_quickstart_ends_with_its_table_and_what_to_try(capsys: pytest.CaptureFixture[str]) -> None:
    policy = {"gold_reward": 0.114, "gold_reward_ci": [0.05, 0.18], "reward_model_score": -0.2, "kl": 3.14159}
    policy |= {"win_rate_vs_base": 0.5, "mean_length": 23.6, "base_perplexity": 12.34, "n": 288}
    summary = {
        "stages": dict.fromkeys(("base", "sft", "ppo", "dpo"), policy),
        "reward_model": {"accuracy": 0.71, "longer_wins_accuracy": 0.52, "n": 148},
        "seconds": {"sft": 61.2, "dpo": 60.1},
        "peak_memory_gb": 3.21,
    }
    print_summary(output_console(), summary, Path("runs/q"))
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if line.split()[:1] == ["ppo"])
    for part in ("0.11", "0.05 to 0.18", "-0.20", "3.1", "50%", "24", "12.3"):
        assert part in row
    for part in (
        "71% of 148",
        "52%",
        "2 min 1 s, 3.2 GB",
        "runs/q/report.html",
        "accord chat runs/q/dpo",
        "YOUR_MODEL",
    ):
        assert part in printed


def test_what_a_missing_torch_costs_is_one_line_that_names_the_extra(tmp_path: Path) -> None:
    without = "import sys; sys.modules.update(dict.fromkeys(('torch', 'transformers'))); "
    words = ["train", "sft", "--model", "smollm2-135m", "--data", str(ROOT / "recipes/data/demonstrations.jsonl")]
    command = f"from accord.cli import main; sys.exit(main({[*words, '--out', str(tmp_path / 'o')]}))"
    done = python("-c", without + command)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install 'accord-align[train]'" in done.stderr


def test_another_missing_package_is_a_defect(raising, capsys: pytest.CaptureFixture[str]) -> None:
    raising(ModuleNotFoundError("No module named 'rich.x'", name="rich.x"))
    assert main(["report"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_the_extra_that_errors_name_is_the_one_that_is_installed() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {name.partition(">")[0] for name in extras["train"]} == app.TRAIN_EXTRA
    studio = " ".join(
        extras["studio"] + tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    )
    assert not any(name in studio for name in app.TRAIN_EXTRA)
