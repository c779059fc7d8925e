"""Talk to a run, or to any model, in the terminal.

Ctrl-C stops a response, Ctrl-D leaves. /reset starts anew, /undo takes back the last exchange, /exit leaves.
With --prompt, or with questions on standard input (one a line, each on its own), it answers and exits.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from accord.cli.console import WordWrap, escaped, output_console, waiting
from accord.pipelines.settings import did_you_mean
from accord.records import Message

if TYPE_CHECKING:
    from accord.rollouts.native import NativeSampler
    from accord.text import Template

__all__ = ["Chat", "add_arguments", "run"]

LEAST_ROOM = 16
COMMANDS = {
    "/reset": "start a new conversation",
    "/undo": "take back the last question and its response",
    "/help": "show these commands",
    "/exit": "leave (Ctrl-D too)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model and how to sample from it."""
    parser.add_argument("model", metavar="RUN", help="run folder, or any name a model has: hub id, folder, wheel:NAME")
    parser.add_argument("--prompt", metavar="TEXT", help="answer this and exit")
    parser.add_argument("--system", metavar="TEXT", help="system message (default: what the chat template puts there)")
    parser.add_argument(
        "--max-new-tokens", type=_at_least(1, int), default=256, metavar="N", help="tokens of a response (default 256)"
    )
    parser.add_argument(
        "--temperature", type=_at_least(0, float), default=0.7, metavar="X", help="0 takes the likeliest (default 0.7)"
    )
    parser.add_argument("--seed", type=_at_least(0, int), default=0, metavar="N", help="of the sampling (default 0)")


def _at_least(least: int, kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        value = kind(text)
        if not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f'is "{text}"; expected a number of at least {least}')
        return value

    parse.__name__ = "whole number" if kind is int else "number"
    return parse


class Chat:
    """A conversation with a model: what was said, and how to go on.

    Args:
        sampler: of the model.
        template: of its tokenizer.
        room: tokens the model can see at once.
        arguments: of the command: system, max_new_tokens, temperature, seed.

    Attributes:
        messages: what was said so far.
        cut_off: the last response reached the most tokens it may have.
    """

    def __init__(self, sampler: NativeSampler, template: Template, room: int, arguments: argparse.Namespace) -> None:
        self.sampler, self.template, self.room, self.arguments = sampler, template, room, arguments
        self.messages: list[Message] = []
        self.cut_off = False
        self.reset()

    def reset(self) -> None:
        """Forget everything but the system message."""
        system = self.arguments.system
        self.messages = [Message(role="system", content=system)] if system else []

    def undo(self) -> bool:
        """Take back the last question and its response; False if there is none."""
        asked = [place for place, message in enumerate(self.messages) if message.role == "user"]
        if asked:
            del self.messages[asked[-1] :]
        return bool(asked)

    def answer(self, question: str) -> Generator[str, None, None]:
        """Ask, and yield the response in pieces as it is sampled. Closed early, what was said so far is kept.

        Raises:
            ValueError: the question alone is longer than the model can see.
        """
        from accord.rollouts import Sampling

        self.messages.append(Message(role="user", content=question))
        said, self.cut_off = "", False
        try:
            prompt, room = self._fitted_prompt()
            sampling = Sampling(
                max_new_tokens=min(room, self.arguments.max_new_tokens),
                temperature=self.arguments.temperature,
                seed=self.arguments.seed + len(self.messages),
            )
            tokens: list[int] = []
            for token in self.sampler.stream(prompt, sampling):
                tokens.append(token)
                text = self.template.decode(tokens)
                if not text.endswith("\ufffd"):  # half a character: the rest comes with the next token
                    yield text[len(said) :]
                    said = text
            self.cut_off = tokens[-1] not in self.template.end_ids
        finally:
            if said.strip():
                self.messages.append(Message(role="assistant", content=said))
            else:
                self.messages.pop()

    def _fitted_prompt(self) -> tuple[tuple[int, ...], int]:
        """The prompt and the room behind it; the oldest turns are forgotten when there is too little."""
        while True:
            prompt = self.template.prompt(tuple(self.messages))
            room = self.room - len(prompt)
            if room >= LEAST_ROOM:
                return prompt, room
            asked = [place for place, message in enumerate(self.messages) if message.role == "user"]
            if len(asked) < 2:
                raise ValueError(f"the question has {len(prompt)} tokens, the model sees {self.room}; make it shorter")
            del self.messages[asked[0] : asked[1]]


def run(arguments: argparse.Namespace) -> int:
    """Load the model, then answer --prompt, or the lines of standard input, or talk."""
    with waiting(f"loading {arguments.model}"):
        chat = load(arguments)
    if arguments.prompt is not None:
        print_answer(chat, arguments.prompt)
    elif not sys.stdin.isatty():
        for line in filter(None, map(str.strip, sys.stdin)):
            chat.reset()
            print_answer(chat, line)
    else:
        talk(chat, output_console(), arguments.model)
    return 0


def load(arguments: argparse.Namespace) -> Chat:
    """Load the model of the arguments, its weights in the precision the device is fast at."""
    import torch

    from accord.models.load import load_policy
    from accord.rollouts.native import NativeSampler
    from accord.text import Template
    from accord.train.loop import Precision

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if Precision("auto", device).name == "bf16" else torch.float32
    model, tokenizer = load_policy(arguments.model, device=device)
    model = model.to(dtype)  # after an adapter was merged: its small changes would vanish in bf16
    template = Template(tokenizer)
    sampler = NativeSampler(model, end_ids=template.end_ids)
    room = getattr(model.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize
    return Chat(sampler, template, room, arguments)


def print_answer(chat: Chat, question: str) -> None:
    """Stream one answer to standard output, plain."""
    for piece in chat.answer(question):
        sys.stdout.write(escaped(piece))
        sys.stdout.flush()
    sys.stdout.write("\n")


# -- the terminal ------------------------------------------------------------------------------------------------------


def talk(chat: Chat, console: Console, name: str) -> None:
    """Read, answer, until the user leaves."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives input() editing and a history
    console.print(Text.assemble(("accord chat", "bold green"), f" with {name}"))
    console.print(f"{', '.join(COMMANDS)}; Ctrl-C stops a response, Ctrl-D leaves\n", style="dim")
    while True:
        try:
            line = ask(console).strip()
        except KeyboardInterrupt:
            console.print("\n(Ctrl-D leaves)", style="dim")
            continue
        except EOFError:
            console.print()
            return
        if line == "/exit":
            return
        if line.startswith("/"):
            obey(line, chat, console)
        elif line:
            respond(chat, console, line)


def ask(console: Console) -> str:
    """Read a line; the prompt's colours are marked as invisible, so that editing a long line works."""
    return input("\001\033[1;36m\002you> \001\033[0m\002" if console.color_system else "you> ")


def obey(line: str, chat: Chat, console: Console) -> None:
    """Carry out a command."""
    if line == "/reset":
        chat.reset()
        console.print("new conversation", style="dim")
    elif line == "/undo":
        console.print("taken back" if chat.undo() else "nothing to take back", style="dim")
    elif line == "/help":
        for command, meaning in COMMANDS.items():
            console.print(Text.assemble((command.ljust(8), "cyan"), meaning))
    else:
        console.print(f'unknown command "{line}"{did_you_mean(line, COMMANDS)}', style="yellow", markup=False)


def respond(chat: Chat, console: Console, line: str) -> None:
    """Stream a response; Ctrl-C ends it."""
    pieces = chat.answer(line)
    console.print(Text("model> ", "bold green"), end="")
    wrap = WordWrap(console.file.write, console.width, column=len("model> "))
    try:
        for piece in pieces:
            wrap(escaped(piece))
            console.file.flush()
        wrap.flush()
        note = f" (cut off after {chat.arguments.max_new_tokens} tokens)" if chat.cut_off else ""
        console.print(Text(f"{note}\n", "dim"))
    except KeyboardInterrupt:
        pieces.close()
        wrap.flush()
        console.print(Text(" (stopped)\n", "dim"))
    except ValueError as error:
        console.print(Text(str(error), "yellow"))
