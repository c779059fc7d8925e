"""Command-line flags generated from a configuration class, and their union with a YAML file.

The flag of a field is its name with dashes, its help the description, the limits and the default. Values reach
pydantic as written, from a flag and from YAML alike (see `accord.pipelines.settings`).
"""

from __future__ import annotations

import argparse
import inspect
import re
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.text import Text

from accord.cli.console import output_console
from accord.pipelines.settings import (
    MissingSettings,
    Setting,
    SettingsError,
    Shape,
    build,
    did_you_mean,
    read_yaml,
    settings_of,
    shapes_of,
    show,
)
from accord.train.configs import TrainConfig

__all__ = ["Parser", "add_config_arguments", "config_from", "flag_of", "of_module"]

Config = TypeVar("Config", bound=BaseModel)


class HelpFormatter(argparse.HelpFormatter):
    """argparse's own, with a wide column of flags, at most 100 columns in all, and paragraphs kept apart."""

    def __init__(self, prog: str) -> None:
        width = min(shutil.get_terminal_size().columns, 100)
        super().__init__(prog, max_help_position=32, width=width)
        self._action_max_length = 16  # argparse forgets the indent of subcommands when it measures them

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = inspect.cleandoc(text).split("\n\n")
        return "\n\n".join(textwrap.fill(" ".join(part.split()), width, initial_indent=indent) for part in paragraphs)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one-line exceptions and name the nearest right flag.

    Args:
        fill: adds the arguments, when they are read or shown for the first time: of the subcommands of a command all
            but one are never asked, and their modules and flags take longer than the rest of a start.
        keywords: of argparse's own.
    """

    color = False  # Python 3.14 would colour the help itself

    def __init__(self, *, fill: Callable[[Parser], None] | None = None, **keywords: Any) -> None:
        super().__init__(**{"formatter_class": HelpFormatter, "allow_abbrev": False, **keywords, "add_help": False})
        self.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
        self._fill = fill

    def filled(self) -> Parser:
        """This parser, with its arguments."""
        fill, self._fill = self._fill, None
        if fill is not None:
            fill(self)
        return self

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and leaving."""
        missing = message.removeprefix("the following arguments are required: ")
        if missing != message:
            message = f"missing {missing}; `{self.prog} --help` shows what is needed"
        raise SettingsError(message.removeprefix("argument "))

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Refuse what is not known here, where the flags of a subcommand can still be named."""
        self.filled()
        known, extra = super().parse_known_args(args, namespace)
        if not extra:
            return known, extra
        flags = [word.split("=")[0] for word in extra if word.startswith("-")]
        if flags:
            self.error(f'unknown flag "{flags[0]}"{did_you_mean(flags[0], self._option_string_actions)}')
        return self.error(f'unexpected argument "{extra[0]}"; `{self.prog} --help` shows what is understood')

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Name the nearest subcommand, where argparse would print all of them in Python's notation."""
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            name = action.metavar or action.dest
            self.error(f'{name} is "{value}"; expected one of {", ".join(known)}{did_you_mean(str(value), known)}')

    def format_help(self) -> str:
        """The help, with the arguments."""
        self.filled()
        return super().format_help()

    def print_help(self, file: Any = None) -> None:
        """Print the help, with colours on a terminal."""
        text = Text(self.format_help().rstrip())
        text.highlight_regex(r"(?m)^[A-Za-z][^\n]*:$", "bold")
        text.highlight_regex(r"(?<![\w-])--?[a-z][\w-]*", "cyan")
        text.highlight_regex(r"\(default [^)]*\)|\(required\)", "dim")
        output_console().print(text, soft_wrap=True)


def of_module(load: Callable[[], ModuleType]) -> Callable[[Parser], None]:
    """What fills a parser from a module with `add_arguments`: its arguments, and its docstring as description."""

    def fill(parser: Parser) -> None:
        module = load()
        parser.description = module.__doc__
        module.add_arguments(parser)

    return fill


def flag_of(name: str) -> str:
    """The flag of a field: `learning_rate` is `--learning-rate`."""
    return "--" + name.replace("_", "-")


def add_config_arguments(
    parser: argparse.ArgumentParser, config: type[BaseModel], words: str | None = None, *, config_flag: bool = False
) -> None:
    """Add an optional YAML file and one flag per field of a configuration class.

    Required fields come first, then the fields of the class itself, then those it shares with its relatives. With
    `words`, what stands without a flag is the value of that field, but for a name that ends in .yaml: the file of
    settings. With `config_flag` that name is a value too, and the file of settings is given by --config.
    """
    if words is None:
        parser.add_argument_group("a file of settings").add_argument(
            "recipe", nargs="?", type=Path, metavar="FILE.yaml", help="one `name: value` a line; flags win over it"
        )
    else:
        what = _metavar(words, shapes_of(config)[words])
        either = "" if config_flag else "; or FILE.yaml, a file of settings"
        parser.add_argument("words", nargs="*", metavar=what, help=f"as {flag_of(words)}{either}")
        if config_flag:
            parser.add_argument("--config", dest="recipe", type=Path, metavar="FILE.yaml", help="a file of settings")
        parser.set_defaults(words_field=words)
    shapes, fields = shapes_of(config), config.model_fields
    relatives = [base for base in config.__mro__ if issubclass(base, BaseModel) and "shared_by" in vars(base)]
    inherited = {name for base in relatives for name in base.model_fields}
    required = [name for name in fields if fields[name].is_required()]
    optional = [name for name in fields if name not in required]
    own = [name for name in optional if name not in inherited]
    shared = [name for name in optional if name in inherited]
    kind = getattr(config, "shared_by", "job")
    own_title = "settings of its own" if kind != "job" else "settings of this job" if shared else "settings"
    groups = {"needed, here or in the file": required, own_title: own, f"settings of every {kind}": shared}
    for title, names in groups.items():
        group = parser.add_argument_group(title) if names else None
        for name in names:
            assert group is not None
            _add_flag(group, name, fields[name], shapes[name], _defaults(config, name))
    needed = [_usage(name, shapes[name], fields[name]) for name in required if name != words]
    file = "[--config FILE.yaml]" if config_flag else "[FILE.yaml]"
    first = f"%(prog)s {file}" if words is None else f"%(prog)s {what} ... {file}"
    parser.usage = " ".join([first, *needed, "[--setting VALUE ...]"])


def _usage(name: str, shape: Shape, info: FieldInfo) -> str:
    return f"{flag_of(name)} {_metavar(name, shape, info.description or '')}" + (" ..." if shape.many else "")


def _metavar(name: str, shape: Shape, description: str = "") -> str:
    if shape.kind == "choice":
        return "{" + ",".join(map(str, shape.choices)) + "}"
    if name == "runs":
        return "RUN"
    path = "FOLDER" if "folder" in re.split(r"[;,]", description)[0] and not shape.many else "FILE"
    return {"int": "N", "float": "X", "text": name.upper(), "path": path, "bool": ""}[shape.kind]


def _add_flag(group: Any, name: str, info: FieldInfo, shape: Shape, by_method: Mapping[str, Any]) -> None:
    common = {"dest": name, "default": argparse.SUPPRESS, "help": _help(info, shape, by_method)}
    if shape.kind == "bool" and not shape.many:
        group.add_argument(flag_of(name), action=argparse.BooleanOptionalAction, **common)
    elif shape.many:
        group.add_argument(flag_of(name), nargs="+", action="extend", metavar=_metavar(name, shape), **common)
    else:
        group.add_argument(flag_of(name), metavar=_metavar(name, shape, info.description or ""), **common)


def _defaults(config: type[BaseModel], name: str) -> dict[str, Any]:
    """Default by method of a setting that not every method of a job reads; empty for all other settings."""
    if not issubclass(config, TrainConfig):
        return {}
    return {method.name: method.reads[name] for method in config.methods().values() if name in method.reads}


def _help(info: FieldInfo, shape: Shape, by_method: Mapping[str, Any]) -> str:
    description = (info.description or "").replace("%", "%%")
    if info.is_required():
        return description
    if by_method:
        words = {method: _words(value, shape) for method, value in by_method.items()}
        groups = [
            f"{word} for {', '.join(m for m in words if words[m] == word)}" for word in dict.fromkeys(words.values())
        ]
        return f"{description} (default {'; '.join(groups)})"
    default = info.get_default(call_default_factory=True, validated_data={})
    return f"{description} (default {_words(default, shape)})"


def _words(default: Any, shape: Shape) -> str:
    if shape.kind == "bool":
        return "yes" if default else "no"
    if shape.many and default:
        return " ".join(map(str, default))
    return str(default) if shape.kind in ("choice", "text", "path") and default else show(default)


def config_from(config: type[Config], arguments: argparse.Namespace) -> Config:
    """The configuration of parsed arguments: the YAML file first, flags over it.

    Raises:
        SettingsError: one line; see `accord.pipelines.settings.build`.
    """
    given: dict[str, Setting] = {}
    recipe, words = _recipe_and_words(arguments)
    if recipe is not None:
        given |= settings_of(read_yaml(_yaml_path(recipe)), recipe)
    if words:
        given[arguments.words_field] = _words_setting(config, arguments.words_field, words)
    given |= _settings_of_flags(config, vars(arguments))
    try:
        return build(config, given)
    except MissingSettings as missing:
        plural = "s" if len(missing.names) > 1 else ""
        flags = ", ".join(map(flag_of, missing.names))
        where = f" (or in {recipe})" if recipe else ""
        raise SettingsError(f"missing required setting{plural} {flags}{where}") from None


def _recipe_and_words(arguments: argparse.Namespace) -> tuple[Path | None, list[str]]:
    """The file of settings, and the other words that stand without a flag."""
    if not hasattr(arguments, "words_field"):
        return arguments.recipe, []
    if hasattr(arguments, "recipe"):
        return arguments.recipe, arguments.words
    files = [word for word in arguments.words if Path(word).suffix in (".yaml", ".yml")]
    if len(files) > 1:
        raise SettingsError(f"{files[0]} and {files[1]}: expected one file of settings")
    return (Path(files[0]) if files else None), [word for word in arguments.words if word not in files]


def _words_setting(config: type[BaseModel], name: str, words: list[str]) -> Setting:
    """Words without a flag as the setting they stand for."""
    if not shapes_of(config)[name].many and len(words) > 1:
        raise SettingsError(f'unexpected "{words[1]}" behind "{words[0]}"; expected one {name}')
    return Setting(words if shapes_of(config)[name].many else words[0], f'"{words[0]}"', name)


def _settings_of_flags(config: type[BaseModel], arguments: Mapping[str, Any]) -> dict[str, Setting]:
    names = [name for name in config.model_fields if name in arguments]
    return {name: Setting(arguments[name], flag_of(name), flag_of(name)) for name in names}


def _yaml_path(path: Path) -> Path:
    if path.suffix not in (".yaml", ".yml"):
        raise SettingsError(f"{path}: expected a .yaml file of settings here; data goes to --data")
    return path
