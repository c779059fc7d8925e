"""Settings from people: YAML files read strictly, values checked against a configuration class, errors in one line.

A setting is a value and the place it was given, so that every message can say where to look. A YAML file and
command-line flags go through the same `build` and therefore mean the same.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

__all__ = [
    "Block",
    "MissingSettings",
    "Setting",
    "SettingsError",
    "Shape",
    "build",
    "did_you_mean",
    "read_yaml",
    "settings_of",
    "shapes_of",
    "show",
]

Config = TypeVar("Config", bound=BaseModel)


class SettingsError(ValueError):
    """A setting that cannot be used: one line for the person who wrote it."""


class MissingSettings(SettingsError):
    """Required settings that nobody gave; `names` lists them."""

    def __init__(self, message: str, names: tuple[str, ...]) -> None:
        super().__init__(message)
        self.names = names


@dataclass(frozen=True)
class Setting:
    """A value and where it was given.

    Example: `Setting("0.2", "--beta", "--beta")`, or
    `Setting(0.2, "recipe.yaml, line 3", 'recipe.yaml, line 3: "beta"')`.

    Attributes:
        value: as the file or the command line has it.
        place: where a reader of a message should look.
        label: the setting at its place, the subject of a message.
    """

    value: Any
    place: str
    label: str


class Block(dict[str, Any]):
    """A YAML mapping that remembers the line of each key, counted from 1."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, int] = {}


@dataclass(frozen=True)
class Shape:
    """What a field of a configuration takes, read from its JSON schema.

    Attributes:
        kind: the value, or one of the values if `many`.
        many: a list of values.
        optional: null is a value.
        choices: for `choice`, what may be written.
        bounds: the limits in words, such as "of at least 1"; empty without limits.
    """

    kind: Literal["bool", "int", "float", "text", "path", "choice"]
    many: bool = False
    optional: bool = False
    choices: tuple[Any, ...] = ()
    bounds: str = ""

    @property
    def expected(self) -> str:
        """What a message says was expected."""
        words = {
            "bool": "true or false",
            "int": "a whole number",
            "float": "a number",
            "text": "text",
            "path": "a path",
        }
        if self.kind == "choice":
            one = ("one of " if len(self.choices) > 1 else "") + ", ".join(map(str, self.choices))
        else:
            one = words[self.kind] + (f" {self.bounds}" if self.bounds else "")
        return ("a list, each " if self.many else "") + one + (" or none" if self.optional else "")


@dataclass
class _StrictLoader:
    """Turns YAML nodes into values; refuses duplicate keys, remembers lines."""

    path: Path
    safe: yaml.SafeLoader = field(repr=False)

    def value(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self.block(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item) for item in node.value]
        return self.safe.construct_object(node)

    def block(self, node: yaml.MappingNode) -> Block:
        block = Block()
        for key_node, value_node in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in block:
                raise SettingsError(
                    f'{self.path}, line {line}: "{key}" is given twice (first in line {block.lines[key]}); keep one'
                )
            block[key] = self.value(value_node)
            block.lines[key] = line
        return block


def read_yaml(path: Path) -> Block:
    """Read a YAML file whose top level is a mapping.

    Raises:
        SettingsError: not YAML, not a mapping, or a key given twice; with the line.
        OSError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: not a text file; expected YAML in UTF-8") from None
    except yaml.YAMLError as error:
        raise SettingsError(_yaml_problem(path, error)) from None
    if node is None:
        return Block()
    if not isinstance(node, yaml.MappingNode):
        raise SettingsError(f'{path}: expected settings, one "name: value" a line; found {_kind_of(node)}')
    try:
        return _StrictLoader(path, loader).block(node)
    except RecursionError:
        raise SettingsError(f"{path}: an anchor refers to itself") from None
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError(_yaml_problem(path, error)) from None


def _kind_of(node: yaml.Node) -> str:
    return "a list" if isinstance(node, yaml.SequenceNode) else show(node.value)


def _yaml_problem(path: Path, error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    line = f", line {mark.line + 1}" if mark else ""
    return f"{path}{line}: not valid YAML: {' '.join(problem.split())}"


def settings_of(block: Block, path: Path) -> dict[str, Setting]:
    """The entries of a YAML mapping as settings that know their file and line."""
    places = {name: f"{path}, line {line}" for name, line in block.lines.items()}
    return {name: Setting(value, places[name], f'{places[name]}: "{name}"') for name, value in block.items()}


def shapes_of(config: type[BaseModel]) -> dict[str, Shape]:
    """What each field of a configuration class takes, in the order of the fields."""
    return {name: _shape(schema) for name, schema in config.model_json_schema()["properties"].items()}


def _shape(schema: Mapping[str, Any]) -> Shape:
    variants = schema.get("anyOf", [schema])
    inner = next(variant for variant in variants if variant.get("type") != "null")
    optional = len(variants) > 1
    many = inner.get("type") == "array"
    if many:
        inner = inner["items"]
    choices = tuple(inner.get("enum", [inner["const"]] if "const" in inner else []))
    if choices:
        return Shape("choice", many, optional, choices)
    kinds: dict[str, Literal["bool", "int", "float", "text"]] = {
        "boolean": "bool",
        "integer": "int",
        "number": "float",
        "string": "text",
    }
    kind = "path" if inner.get("format") == "path" else kinds[inner["type"]]
    return Shape(kind, many, optional, bounds=_bounds(inner))


def _bounds(schema: Mapping[str, Any]) -> str:
    words = {
        "minimum": "of at least",
        "exclusiveMinimum": "greater than",
        "maximum": "at most",
        "exclusiveMaximum": "less than",
    }
    return " and ".join(f"{words[key]} {show(schema[key])}" for key in words if key in schema)


def build(config: type[Config], given: Mapping[str, Setting]) -> Config:
    """Check settings and build the configuration.

    Raises:
        MissingSettings: a required setting was not given.
        SettingsError: an unknown name, a wrong type or a value out of range. One line, the first problem found.
    """
    shapes = shapes_of(config)
    for name, setting in given.items():
        if name not in shapes:
            raise SettingsError(f'{setting.place}: unknown setting "{name}"{did_you_mean(name, shapes)}')
    values = {name: _natural(setting, shapes[name]) for name, setting in given.items()}
    missing = tuple(name for name, info in config.model_fields.items() if info.is_required() and name not in given)
    if missing:
        raise MissingSettings(f"missing required setting{'s' * (len(missing) > 1)} {', '.join(missing)}", missing)
    try:
        return config(**values)
    except ValidationError as error:
        raise SettingsError(_first_problem(error, given, shapes)) from None


def _natural(setting: Setting, shape: Shape) -> Any:
    """The value as pydantic should see it: written-out none, choices by their text, no booleans or nan as numbers."""
    if shape.optional and (setting.value is None or str(setting.value).lower() in ("none", "null")):
        return None
    values = setting.value if isinstance(setting.value, list) else [setting.value]
    if shape.many:
        return tuple(_natural_one(value, shape, setting) for value in values)
    return _natural_one(setting.value, shape, setting)


def _natural_one(value: Any, shape: Shape, setting: Setting) -> Any:
    if shape.kind in ("int", "float") and (isinstance(value, bool) or _is_not_finite(value)):
        raise SettingsError(_mismatch(setting, value, shape))
    if shape.kind == "choice":
        return next((choice for choice in shape.choices if str(choice) == str(value)), value)
    return value


def _is_not_finite(value: Any) -> bool:
    try:
        return not math.isfinite(float(value))
    except (TypeError, ValueError, OverflowError):
        return False


def _mismatch(setting: Setting, found: Any, shape: Shape) -> str:
    hint = did_you_mean(found, map(str, shape.choices)) if shape.kind == "choice" and isinstance(found, str) else ""
    return f"{setting.label} is {show(found)}; expected {shape.expected}{hint}"


def _first_problem(error: ValidationError, given: Mapping[str, Setting], shapes: Mapping[str, Shape]) -> str:
    problems = error.errors(include_url=False)
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    name = str(first["loc"][0]) if first["loc"] else ""
    own_words = first["type"] in ("value_error", "assertion_error")
    if name not in given or own_words:
        subject = f"{given[name].label}: " if name in given else ""
        return subject + first["msg"].removeprefix("Value error, ") + more
    if first["type"] in ("too_long", "too_short"):
        count, context = len(first["input"]), first["ctx"]
        limit = (
            f"at most {context['max_length']}" if first["type"] == "too_long" else f"at least {context['min_length']}"
        )
        return f"{given[name].label} has {count} entries ({show(first['input'])}); expected {limit}" + more
    return _mismatch(given[name], first["input"], shapes[name]) + more


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean "beta"?` for the nearest known name, or nothing when none is near."""
    by_key = {_plain(candidate): candidate for candidate in known}
    near = difflib.get_close_matches(_plain(name), list(by_key), n=1, cutoff=0.55)
    return f'; did you mean "{by_key[near[0]]}"?' if near else ""


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").strip("_")


def show(value: Any) -> str:
    """A value as a person would write it: 1e-5, "text", none, at most 60 characters.

    >>> show(1e-05), show(0.1), show(None), show("a")
    ('1e-5', '0.1', 'none', '"a"')
    """
    if value is None or value == () or value == []:
        return "none"
    if isinstance(value, float):
        return re.sub(r"e([+-])0*", lambda sign: "e" + sign[1].replace("+", ""), f"{value:g}")
    if isinstance(value, (tuple, list)):
        return ", ".join(show(item) for item in value)
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
