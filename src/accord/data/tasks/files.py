"""Task files: YAML of our own, PromptSource's YAML, and those that come with the package. Errors name the line."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from accord.data.files import DataError
from accord.data.tasks.task import Source, Task, Template

__all__ = ["read_task", "read_tasks", "shipped"]

_SHIPPED = Path(__file__).parent / "shipped"
_MODELS: dict[str, type[BaseModel]] = {"": Task, "source": Source, "templates": Template}


def shipped() -> dict[str, Path]:
    """The task files of the package by name of the task."""
    return {path.stem: path for path in sorted(_SHIPPED.glob("*.yaml"))}


def read_tasks(names: Sequence[str | Path]) -> list[Task]:
    """Read task files.

    Args:
        names: a .yaml file, a folder of them, the name of a task of the package, or "all" of those.

    Raises:
        DataError: one cannot be read or is no task file, or two tasks have the same name.
    """
    tasks: dict[str, Task] = {}
    files = [path for name in names for path in _files_of(str(name))]
    for path in dict.fromkeys(files):
        task = read_task(path)
        if task.task in tasks:
            raise DataError(f'{path}: a second task "{task.task}"; expected one of each name; rename it')
        tasks[task.task] = task
    return list(tasks.values())


def _files_of(name: str) -> list[Path]:
    known, path = shipped(), Path(name)
    if name == "all":
        return list(known.values())
    if name in known and not path.exists():
        return [known[name]]
    if path.is_dir():
        found = sorted([*path.glob("*.yaml"), *path.glob("*.yml")])
        if not found:
            raise DataError(f"{path}: a folder without task files; expected .yaml files in it")
        return found
    if path.exists() or path.suffix in (".yaml", ".yml"):
        return [path]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f'did you mean "{close[0]}"?' if close else "`accord data tasks` lists the tasks of the package"
    raise DataError(f"{name}: neither a file nor a task of the package; {hint}")


def read_task(path: Path) -> Task:
    """Read one task file.

    Raises:
        DataError: it is no YAML, or not what a task file holds; with the line.
        OSError: it cannot be read.
    """
    node = _compose(path)
    values = _value(node, path)
    if not isinstance(values, dict):
        raise DataError(f"{path}: expected `name: value` lines (task, cluster, source, templates, ...)")
    if isinstance(values.get("templates"), str):
        values["templates"] = _promptsource(path.parent / values["templates"])
    try:
        return Task.model_validate(values)
    except ValidationError as error:
        raise DataError(_problem(error, node, path)) from None


def _compose(path: Path) -> yaml.Node | None:
    try:
        return yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a text file; expected YAML in UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise DataError(f"{path}{line}: no valid YAML: {problem}; quote texts that hold : or {{") from None


def _value(node: yaml.Node | None, path: Path) -> Any:
    """The value of a node; a key given twice is an error, tags of other programs (!Template) are passed over."""
    if isinstance(node, yaml.MappingNode):
        values: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = _value(key_node, path)
            if key in values:
                raise DataError(f'{path}, line {key_node.start_mark.line + 1}: "{key}" is given twice; keep one')
            values[key] = _value(value_node, path)
        return values
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, path) for item in node.value]
    return None if node is None else yaml.SafeLoader("").construct_object(node, deep=True)


def _problem(error: ValidationError, node: yaml.Node | None, path: Path) -> str:
    problems = error.errors(include_url=False)
    # a misspelt key is also a missing one: the misspelling says more
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    # Branches of a union ("str", "dict[str,str]") stand in the place of an error like keys; no key looks like them.
    place = [part for part in first["loc"] if isinstance(part, int) or _is_key(part)]
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    where = f"{path}, line {_line(node, place)}"
    if first["type"] == "extra_forbidden":
        model = _MODELS.get(str(place[0]) if len(place) > 1 else "", Task)
        close = difflib.get_close_matches(str(place[-1]), model.model_fields, n=1)
        return f"{where}: unknown key `{name}`" + (f"; did you mean `{close[0]}`?" if close else "; remove it")
    if first["type"] == "missing":
        return f"{where}: `{name}` is missing; add it"
    if first["type"] == "value_error":
        return f"{where}: {first['ctx']['error']}"
    return f"{where}: `{name}` is {str(first['input'])[:60]!r}; {first['msg'].replace('Input should be', 'expected')}"


def _is_key(part: str) -> bool:
    return part not in ("str", "float", "constrained-str") and not part.startswith(("dict[", "tuple[", "function-"))


def _line(node: yaml.Node | None, place: Sequence[str | int]) -> int:
    """The line of an entry, or of the nearest thing around it that is there."""
    line = 1 if node is None else node.start_mark.line + 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            entry = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if entry is None:
                break
            line, node = entry[0].start_mark.line + 1, entry[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def _promptsource(path: Path) -> list[dict[str, Any]]:
    """The templates of a PromptSource file (Bach et al. 2022, arXiv:2202.01279): `prompt ||| target` in Jinja."""
    values = _value(_compose(path), path)
    entries = values.get("templates") if isinstance(values, dict) else None
    if not isinstance(entries, dict) or not entries:
        raise DataError(f"{path}: no `templates` in it; expected a templates.yaml of PromptSource")
    return [_promptsource_template(entry, name, path) for name, entry in entries.items()]


def _promptsource_template(entry: Any, name: str, path: Path) -> dict[str, Any]:
    jinja = entry.get("jinja") if isinstance(entry, Mapping) else None
    if not isinstance(jinja, str) or "|||" not in jinja:
        raise DataError(f"{path}: template {name} has no `jinja: prompt ||| target`; expected PromptSource's format")
    prompt, response = (part.strip() for part in jinja.split("|||", 1))
    choices, metadata = entry.get("answer_choices"), entry.get("metadata") or {}
    return {
        "id": str(entry.get("name") or name),
        "prompt": prompt,
        "response": response,
        "inverted": metadata.get("original_task") is False,
        "option_texts": choices or None,
    }
