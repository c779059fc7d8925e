"""The `accord` command: a table of commands, and what becomes of their errors.

A command is a module with `add_arguments(parser)` and `run(arguments) -> exit code`, imported when it is chosen.
Exit codes: 0 done, 1 unexpected error (with its traceback), 2 something the user can put right (one line),
75 paused because a model server is away (the same command continues), 130 stopped by Ctrl-C. ACCORD_DEBUG=1 shows
tracebacks always.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.text import Text

import accord
from accord.cli.console import error_console, output_console, print_error
from accord.cli.options import Parser
from accord.pipelines.settings import SettingsError, did_you_mean
from accord.protocols import Unavailable

__all__ = ["COMMANDS", "EXAMPLES", "Command", "main", "parser_of"]

PAUSED = 75  # EX_TEMPFAIL of sysexits.h: try again later
TRAIN_EXTRA = frozenset({"torch", "transformers", "peft", "safetensors", "accelerate", "huggingface_hub", "gguf"})


@dataclass(frozen=True)
class Command:
    """A row of the table.

    Attributes:
        name: what the user types.
        module: of `accord.cli`, imported when the command is chosen.
        help: one line.
        group: the heading it stands under in `accord --help`.
        resumes: the same command continues a run that was stopped.
    """

    name: str
    module: str
    help: str
    group: str
    resumes: bool = False


COMMANDS = (
    Command(
        "quickstart", "quickstart", "the whole loop on a small real model; ends in a report", "Start", resumes=True
    ),
    Command("train", "train", "train one model: sft, reward, dpo or ppo", "Train", resumes=True),
    Command("sample", "sample", "sample responses and rank them: best-of-n, rejection sampling", "Train", resumes=True),
    Command("run", "run", "run a recipe: stages that feed each other, finished ones skipped", "Train", resumes=True),
    Command("data", "data", "look at data, make instructions of it, mix and clean it", "Data and models"),
    Command("feedback", "feedback", "collect and make feedback, from people and from models", "Feedback", resumes=True),
    Command("models", "models", "list and fetch starting models", "Data and models"),
    Command("reproduce", "reproduce", "run a published result again, in small: evidence", "Results", resumes=True),
    Command("chat", "chat", "talk to a run, or to any model", "Results"),
    Command("eval", "eval", "measure models, reward models and judges, with intervals", "Results", resumes=True),
    Command("report", "report", "write the report of a run: one HTML file", "Results"),
)

EXAMPLES = (
    ("accord quickstart", "see the whole loop work"),
    ("accord data inspect pairs.jsonl --model ID", "what is trained on, in colour"),
    ("accord train dpo recipes/dpo.yaml --beta 0.2", "a file of settings, one changed"),
    ("accord sample --reward runs/reward ...", "rank responses, keep the best"),
    ("accord run recipes/rlhf.yaml", "SFT, reward model, then PPO"),
    ("accord chat runs/dpo", "talk to the result"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: words after `accord`; none: those of the process.

    Returns:
        The exit code.
    """
    # Read when torch is loaded, later. GNU OpenMP's threads spin for long while they wait for each other: with another
    # process on the same cores each spins away the other's time. Not to spin at all makes small operations slow, so
    # they spin for some microseconds, then sleep (docs/decisions/0015-brief-spinning.md).
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print_overview()
        return 0
    if words[0] in ("-V", "--version"):
        output_console().print(f"accord {accord.__version__}")
        return 0
    try:
        command = find(words[0])
    except SettingsError as error:
        print_error(str(error))
        return 2
    return execute(command, words[1:])


def find(name: str) -> Command:
    """The command of that name; an unknown one is an error that names the nearest."""
    for command in COMMANDS:
        if command.name == name:
            return command
    hint = did_you_mean(name, [command.name for command in COMMANDS])
    raise SettingsError(f'unknown command "{name}"{hint or "; `accord --help` lists them"}')


def parser_of(command: Command) -> Parser:
    """Import the module of a command and build its parser."""
    module = importlib.import_module(f"accord.cli.{command.module}")
    parser = Parser(prog=f"accord {command.name}", description=module.__doc__)
    module.add_arguments(parser)
    parser.set_defaults(run_command=module.run)
    return parser


def execute(command: Command, words: Sequence[str]) -> int:
    """Run one command and turn what goes wrong into a line and an exit code."""
    try:
        arguments = parser_of(command).parse_args(words)
        with notices_shown():
            code: int = arguments.run_command(arguments)
        sys.stdout.flush()
        return code
    except SystemExit as leaving:  # argparse leaves this way after --help
        return leaving.code if isinstance(leaving.code, int) else 0
    except Unavailable as waiting:
        print_error(str(waiting))
        return PAUSED
    except KeyboardInterrupt:
        error_console().print("stopped" + ("; the same command continues the run" if command.resumes else ""))
        return 130
    except BrokenPipeError:  # the reader of a pipe has left: `accord data inspect FILE | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in TRAIN_EXTRA:
            return report_exception(error)
        print_error(f"`accord {command.name}` needs {missing} here; pip install 'accord-align[train]'")
        return 2
    except Exception as error:
        return report_exception(error)


@contextlib.contextmanager
def notices_shown() -> Iterator[None]:
    """Notices of the library (a model is converted once, another process is waited for) go to standard error."""
    logger = logging.getLogger("accord")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("  %(message)s"))
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def report_exception(error: Exception) -> int:
    """One line and 2 for what the user can put right; the traceback and 1 for what is ours to repair."""
    if os.environ.get("ACCORD_DEBUG") == "1":
        traceback.print_exception(error)
        return 2 if is_for_the_user(error) else 1
    if is_for_the_user(error):
        print_error(message_of(error))
        return 2
    traceback.print_exception(error)
    print_error("this is a defect of accord or of a library it uses; the traceback above belongs into a bug report")
    return 1


def is_for_the_user(error: Exception) -> bool:
    """Whether the message was written for the user: files and networks (OSError), and ValueErrors raised in accord."""
    if isinstance(error, OSError):
        return True
    return isinstance(error, ValueError) and _raised_in_accord(error.__traceback__)


def _raised_in_accord(trace: TracebackType | None) -> bool:
    last = None
    while trace is not None:
        last, trace = trace.tb_frame.f_code.co_filename, trace.tb_next
    return last is not None and Path(last).is_relative_to(Path(accord.__file__).parent)


def message_of(error: Exception) -> str:
    """The message of an error; for a file error `path: what happened` instead of `[Errno 2] ...`."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
    return str(error) or type(error).__name__


def print_overview() -> None:
    """Print `accord --help`."""
    console = output_console()
    console.print(
        Text.assemble(("accord", "bold green"), ": align a language model end to end, on one machine or many\n")
    )
    console.print("[bold]usage:[/bold] accord COMMAND ...")
    for group in dict.fromkeys(command.group for command in COMMANDS):
        _print_section(console, group, [(command.name, command.help) for command in COMMANDS if command.group == group])
    _print_section(console, "Examples", EXAMPLES)
    console.print("\n`accord COMMAND --help` says more; ACCORD_DEBUG=1 shows tracebacks.", style="dim")


def _print_section(console: Console, title: str, rows: Sequence[tuple[str, str]]) -> None:
    width = max(12, *(len(left) for left, _ in rows))
    console.print(f"\n[bold]{title}[/bold]")
    for left, right in rows:
        console.print(Text.assemble("  ", (left.ljust(width + 2), "cyan"), right), soft_wrap=True)
