"""Flags, YAML files and their union, against the real configurations and a small one made for the purpose."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_validator

from accord.cli.options import Parser, add_config_arguments, config_from, flag_of
from accord.pipelines.evaluation_configs import TasksConfig, ToxicityConfig
from accord.pipelines.settings import SettingsError, did_you_mean, read_yaml, shapes_of, show
from accord.train.configs import DpoConfig, PpoConfig, RewardConfig, SampleConfig, SftConfig

NEEDED = ["--model", "m", "--data", "a.jsonl", "--out", "runs/x"]


class Small(BaseModel):
    """One field of every kind a flag can have."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="required text")
    steps: int = Field(3, ge=1, le=9, description="a count, 100% of it")
    rate: float | None = Field(None, gt=0, description="a rate; none: off")
    fast: bool = Field(False, description="a switch")
    slow: bool = Field(True, description="a switch that is on")
    kind: Literal["a", "b"] = Field("a", description="a choice")
    level: Literal[1, 2] = Field(1, description="a choice of numbers")
    files: tuple[Path, ...] = Field((), description="paths")

    @field_validator("name")
    @classmethod
    def _no_spaces(cls, value: str) -> str:
        if " " in value:
            raise ValueError("a name has no spaces")
        return value


def parse(config: type[BaseModel], words: list[str]) -> Any:
    parser = Parser(prog="accord train dpo")
    add_config_arguments(parser, config)
    return config_from(config, parser.parse_args(words))


LIMITS = "expected a whole number of at least 1 and at most 9"


def error_of(config: type[BaseModel], words: list[str]) -> str:
    with pytest.raises(SettingsError) as caught:
        parse(config, words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write(folder: Path, text: str) -> str:
    (folder / "r.yaml").write_text(text)
    return str(folder / "r.yaml")


def test_flags_give_the_config_python_gives() -> None:
    words = [*NEEDED, "b.jsonl", "--beta", "0.2", "--max-steps", "7", "--loss", "ipo", "--gradient-checkpointing"]
    words = ["--model", "m", "--data", "a.jsonl", "b.jsonl", "--out", "runs/x", *words[7:]]
    assert parse(DpoConfig, words) == DpoConfig(
        model="m",
        data=(Path("a.jsonl"), Path("b.jsonl")),
        out=Path("runs/x"),
        beta=0.2,
        max_steps=7,
        loss="ipo",
        gradient_checkpointing=True,
    )


def test_a_repeated_flag_adds_up_and_replaces_what_the_file_says(tmp_path: Path) -> None:
    file = write(tmp_path, "name: n\nfiles: [a, b]\n")
    assert parse(Small, [file]).files == (Path("a"), Path("b"))
    assert parse(Small, [file, "--files", "c", "--files", "d", "e"]).files == (Path("c"), Path("d"), Path("e"))


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "name: n\nsteps: 4\nfast: true\nslow: no\nrate: 1e-5\nkind: b\n")
    assert parse(Small, [file]) == Small(name="n", steps=4, fast=True, slow=False, rate=1e-5, kind="b")
    changed = parse(Small, [file, "--steps", "5", "--no-fast", "--slow", "--rate", "none", "--kind", "a"])
    assert changed == Small(name="n", steps=5)


def test_one_path_needs_no_list_in_yaml(tmp_path: Path) -> None:
    assert parse(Small, [write(tmp_path, "name: n\nfiles: a\n")]).files == (Path("a"),)


@pytest.mark.parametrize("text", ["1e-5", "1.0e-5", "0.00001", '"1e-5"', "1E-05", "10e-6"])
def test_every_spelling_of_a_number_means_it(tmp_path: Path, text: str) -> None:
    assert parse(Small, [write(tmp_path, f"name: n\nrate: {text}\n")]).rate == 1e-5
    assert parse(Small, ["--name", "n", "--rate", text.strip('"')]).rate == 1e-5


def test_a_choice_of_numbers_from_a_flag_and_from_yaml(tmp_path: Path) -> None:
    assert parse(Small, ["--name", "n", "--level", "2"]).level == 2
    assert parse(Small, [write(tmp_path, "name: n\nlevel: 2\n")]).level == 2


BAD_FLAGS = [
    (["--steps", "0"], f'--steps is "0"; {LIMITS}'),
    (["--steps", "1.5"], f'--steps is "1.5"; {LIMITS}'),
    (["--steps", "many"], f'--steps is "many"; {LIMITS}'),
    (["--rate", "nan"], '--rate is "nan"; expected a number greater than 0 or none'),
    (["--rate", "inf"], '--rate is "inf"; expected a number greater than 0 or none'),
    (["--kind", "bb"], '--kind is "bb"; expected one of a, b; did you mean "b"?'),
    (["--name", "a b"], "--name: a name has no spaces"),
    (["--stepz", "3"], 'unknown flag "--stepz"; did you mean "--steps"?'),
    (["--stepz=3"], 'unknown flag "--stepz"; did you mean "--steps"?'),
    (["--xyzzy", "3"], 'unknown flag "--xyzzy"'),
    (["--steps"], "--steps: expected one argument"),
    (["a.yaml", "b.yaml"], 'unexpected argument "b.yaml"; `accord train dpo --help` shows what is understood'),
    (["rows.jsonl"], "rows.jsonl: expected a .yaml file of settings here; data goes to --data"),
    (
        ["--steps", "0", "--kind", "c"],
        f'--steps is "0"; {LIMITS} (and 1 more)',
    ),
]


@pytest.mark.parametrize(("words", "message"), BAD_FLAGS, ids=[" ".join(words) for words, _ in BAD_FLAGS])
def test_a_bad_flag_is_one_line(words: list[str], message: str) -> None:
    assert error_of(Small, words if "--name" in words else ["--name", "n", *words]) == message


BAD_YAML = [
    ("name: n\nstepz: 3\n", 'FILE, line 2: unknown setting "stepz"; did you mean "steps"?'),
    (
        "name: n\nsteps: three\n",
        f'FILE, line 2: "steps" is "three"; {LIMITS}',
    ),
    ("steps: true\nname: n\n", f'FILE, line 1: "steps" is true; {LIMITS}'),
    ("name: n\nsteps: 4.5\n", f'FILE, line 2: "steps" is 4.5; {LIMITS}'),
    ("name: n\nsteps:\n", f'FILE, line 2: "steps" is none; {LIMITS}'),
    ("name: 5\n", 'FILE, line 1: "name" is 5; expected text'),
    ("name: n\nrate: -1\n", 'FILE, line 2: "rate" is -1; expected a number greater than 0 or none'),
    ("name: n\nrate: .nan\n", 'FILE, line 2: "rate" is nan; expected a number greater than 0 or none'),
    ("name: n\nfast: maybe\n", 'FILE, line 2: "fast" is "maybe"; expected true or false'),
    ("name: n\nfiles: [a, 3]\n", 'FILE, line 2: "files" is 3; expected a list, each a path'),
    ("name: n\nfiles: {a: 3}\n", 'FILE, line 2: "files" is {"a": 3}; expected a list, each a path'),
    ("name: n\nname: m\n", 'FILE, line 2: "name" is given twice (first in line 1); keep one'),
    ("name: n\nsteps: 1\nfiles: [a,\n", "FILE, line 4: not valid YAML: "),
    ("- name\n- steps\n", 'FILE: expected settings, one "name: value" a line; found a list'),
    ("name\n", 'FILE: expected settings, one "name: value" a line; found "name"'),
    ("steps: 3\n", "missing required setting --name (or in FILE)"),
    ("", "missing required setting --name (or in FILE)"),
    ("<<: {name: n}\n", 'FILE, line 1: unknown setting "<<"'),
    ("name: &a\n  x: *a\n", "FILE: an anchor refers to itself"),
]


@pytest.mark.parametrize(("text", "message"), BAD_YAML, ids=[text.replace("\n", "|") for text, _ in BAD_YAML])
def test_a_bad_file_is_one_line_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path, text)
    assert error_of(Small, [file]).startswith(message.replace("FILE", file))


def test_a_binary_file_is_not_yaml(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x00")
    assert error_of(Small, [str(tmp_path / "r.yaml")]).endswith("not a text file; expected YAML in UTF-8")


def test_all_missing_settings_are_named_as_flags() -> None:
    assert error_of(DpoConfig, ["--beta", "0.2"]) == "missing required settings --model, --data, --out"


def test_the_help_has_every_field_with_its_default() -> None:
    parser = Parser(prog="accord train x")
    add_config_arguments(parser, Small)
    text = " ".join(parser.format_help().split())
    assert "--steps N a count, 100% of it (default 3)" in text
    assert "--fast, --no-fast a switch (default no)" in text
    assert "--slow, --no-slow a switch that is on (default yes)" in text
    assert "--rate X a rate; none: off (default none)" in text
    assert "--kind {a,b} a choice (default a)" in text
    assert "--name NAME required text" in text
    assert "--files FILE [FILE ...] paths (default none)" in text


@pytest.mark.parametrize("config", [SftConfig, RewardConfig, DpoConfig, PpoConfig, SampleConfig])
def test_every_field_of_every_job_is_a_documented_flag(config: type[BaseModel]) -> None:
    parser = Parser(prog="accord train x")
    add_config_arguments(parser, config)
    text = " ".join(parser.format_help().split())
    for name, info in config.model_fields.items():
        assert f"{flag_of(name)} " in text or f"{flag_of(name)}," in text
        assert info.description
        assert info.description.split(";")[0] in text.replace("held- out", "held-out")


# -- a YAML file and flags mean the same -------------------------------------------------------------------------------

words = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8).filter(
    lambda text: text.lower() not in ("none", "null")
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "model": words,
    "data": st.lists(words, min_size=1, max_size=3),
    "out": words,
    "epochs": st.integers(1, 50),
    "max_steps": st.none() | st.integers(1, 10**9),
    "learning_rate": st.floats(1e-12, 10, allow_nan=False),
    "warmup": st.floats(0, 0.99),
    "schedule": st.sampled_from(["cosine", "linear", "constant"]),
    "gradient_checkpointing": st.booleans(),
    "kl_target": st.none() | st.floats(1e-6, 1e6),
    "reward": words,
    "gamma": st.floats(0, 1),
}
REQUIRED = ("model", "data", "out", "reward")


@st.composite
def given_settings(draw: st.DrawFn) -> dict[str, Any]:
    chosen = draw(st.sets(st.sampled_from(sorted(set(VALUES) - set(REQUIRED)))))
    return {name: draw(VALUES[name]) for name in [*REQUIRED, *sorted(chosen)]}


def as_flags(values: dict[str, Any]) -> list[str]:
    flags: list[str] = []
    for name, value in values.items():
        if isinstance(value, bool):
            flags.append(flag_of(name) if value else flag_of("no_" + name))
        else:
            flags += [flag_of(name), *map(str, value if isinstance(value, list) else [value])]
    return flags


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=given_settings(), data=st.data())
def test_a_file_and_flags_mean_the_same_however_they_are_split(
    tmp_path: Path, values: dict[str, Any], data: st.DataObject
) -> None:
    in_file = data.draw(st.sets(st.sampled_from(sorted(values))))
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump({name: value for name, value in values.items() if name in in_file}))
    flags = as_flags({name: value for name, value in values.items() if name not in in_file})
    python = PpoConfig(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    assert parse(PpoConfig, [str(file), *flags]) == parse(PpoConfig, as_flags(values)) == python


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_is_read_or_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(text, encoding="utf-8", errors="replace")
    message = ""
    try:
        read_yaml(file)
    except SettingsError as error:
        message = str(error)
    assert "\n" not in message


# -- small parts -------------------------------------------------------------------------------------------------------


def test_shapes_come_from_the_schema() -> None:
    shapes = shapes_of(Small)
    assert shapes["steps"].expected == "a whole number of at least 1 and at most 9"
    assert shapes["rate"].expected == "a number greater than 0 or none"
    assert shapes["kind"].expected == "one of a, b"
    assert shapes["files"].many


def test_values_are_shown_as_people_write_them() -> None:
    assert [show(value) for value in (1e-5, 2e-5, 0.1, 5.0, 1e10, None, (), "a", True)] == [
        "1e-5",
        "2e-5",
        "0.1",
        "5",
        "1e10",
        "none",
        "none",
        '"a"',
        "true",
    ]
    assert len(show("x" * 500)) == 60


def test_the_nearest_name_ignores_dashes_and_case() -> None:
    assert did_you_mean("Learning-Rat", ["learning_rate", "warmup"]) == '; did you mean "learning_rate"?'
    assert did_you_mean("zzz", ["learning_rate", "warmup"]) == ""


def test_an_unknown_subcommand_is_named_with_the_nearest() -> None:
    parser = Parser(prog="accord train")
    parser.add_subparsers(dest="job", metavar="JOB", required=True).add_parser("dpo")
    with pytest.raises(SettingsError, match='JOB is "dpp"; expected one of dpo; did you mean "dpo"'):
        parser.parse_args(["dpp"])
    with pytest.raises(SettingsError, match="missing JOB; `accord train --help` shows what is needed"):
        parser.parse_args([])
    assert parser.parse_args(["dpo"]) == argparse.Namespace(job="dpo")


def test_a_setting_that_takes_a_file_does_not_ask_for_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="accord", formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser, ToxicityConfig)
    said = parser.format_help()
    for flag in ("--data FILE", "--check-scorer FILE", "--train-scorer FILE [FILE ...]", "--out FOLDER"):
        assert flag in said


def test_too_many_entries_are_counted() -> None:
    parser = Parser(prog="accord")
    add_config_arguments(parser, TasksConfig, words="models")
    with pytest.raises(SettingsError, match=r'models.* has 3 entries \("a", "b", "c"\); expected at most 2'):
        config_from(TasksConfig, parser.parse_args(["a", "b", "c", "--data", "x.jsonl"]))
