"""What the model is given to continue in each step, and how its reply is read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from accord.data.self_instruct.examples import CLASSIFIED, INPUT_FIRST, OUTPUT_FIRST
from accord.data.self_instruct.seeds import Instance, Seed

__all__ = [
    "ALPACA_STOP",
    "INSTANCE_STOP",
    "STOP",
    "Task",
    "alpaca_prompt",
    "classification_prompt",
    "instance_prompt",
    "instruction_prompt",
    "read_alpaca",
    "read_instances",
    "read_instructions",
    "tidy",
]

STOP = ("\n\n", "\n16", "16.", "16 .")
INSTANCE_STOP = ("\n\nTask:", "\nTask:")
ALPACA_STOP = ("\n21", "21.")
_NUMBER = re.compile(r"(?m)^\s*(\d+)\s*[.:)]\s*")
_EXAMPLE = re.compile(r"(?mi)^\s*example\s+\d+\s*[.:]?\s*$")
_OUTPUT = re.compile(r"(?mi)^\s*output\s*:\s*")
_LABEL = re.compile(r"(?mi)^\s*class label\s*:\s*")
_NO_INPUT = {"", "n/a", "na", "none", "<noinput>", "no input", "(none)", "nothing"}


class Task(NamedTuple):
    """An instruction with its only instance, as Alpaca's form has them."""

    instruction: str
    instance: Instance


def tidy(instruction: str) -> str:
    """White space collapsed, a colon at the end cut, the first letter raised; the rest stays ("USA", names, code)."""
    text = " ".join(instruction.split()).rstrip(":").strip()
    return text[:1].upper() + text[1:]


# -- step 1: instructions


def instruction_prompt(context: Sequence[str], *, classification: bool = False) -> str:
    """A numbered list of instructions that breaks off at the next number."""
    head = (
        "Come up with a series of classification tasks. Try to specify the possible output labels when possible."
        if classification
        else "Come up with a series of tasks:"
    )
    lines = [f"{number}. {tidy(text)}" for number, text in enumerate(context, 1)]
    return "\n".join([head, *lines, f"{len(context) + 1}."])


def read_instructions(reply: str, first: int, *, cut: bool) -> list[str]:
    """The instructions of a reply: the first goes up to the line that begins with the next number, and so on.

    Args:
        reply: what came after the prompt, whose last line is the number `first`.
        first: number of the first instruction.
        cut: the reply was cut off by length, so its last instruction is not finished and is left out.
    """
    found, expected, start = [], first + 1, 0
    for mark in _NUMBER.finditer(reply):
        if int(mark[1]) == first and not reply[: mark.start()].strip():
            start = mark.end()  # chat models say the number again that the prompt ends with
        elif int(mark[1]) == expected:
            found.append(reply[start : mark.start()])
            expected, start = expected + 1, mark.end()
    if not cut:
        found.append(reply[start:])
    return [text for text in map(tidy, found) if text]


# -- step 3: classification?


def classification_prompt(instruction: str) -> str:
    """Examples, the instruction, and the question; the continuation is " Yes" or " No"."""
    head = "Can the following task be regarded as a classification task with a finite set of output labels?"
    shots = [f"Task: {task}\nIs it classification? {'Yes' if yes else 'No'}" for task, yes in CLASSIFIED]
    return "\n\n".join([head, *shots, f"Task: {instruction}\nIs it classification?"])


# -- step 4: instances


def instance_prompt(instruction: str, *, classification: bool) -> str:
    """Examples of tasks with instances, and the instruction."""
    if classification:
        head = (
            "Given the classification task definition and the class labels, generate an input that corresponds to each "
            "of the class labels. If the task doesn't require input, just generate the correct class label."
        )
        return "\n\n".join([head, *OUTPUT_FIRST, f"Task: {instruction}\n"])
    head = (
        "Come up with examples for the following tasks. Try to generate multiple examples when possible. If the task "
        "doesn't require additional input, you can generate the output directly."
    )
    return "\n\n".join([head, *INPUT_FIRST, f"Task: {instruction}\n"])


def read_instances(reply: str, *, classification: bool, cut: bool) -> list[Instance]:
    """The instances of a reply; the last one is left out if the reply was cut off by length."""
    pieces = _labelled(reply) if classification else _by_example(reply)
    return pieces[:-1] if cut else pieces


def _labelled(reply: str) -> list[Instance]:
    found = []
    for piece in _LABEL.split(reply)[1:]:
        label, _, given = piece.partition("\n")
        found.append(Instance(_input(given), label.strip()))
    return found


def _by_example(reply: str) -> list[Instance]:
    found = []
    pieces = _EXAMPLE.split(reply)
    for piece in pieces[1:] if len(pieces) > 1 else pieces:
        parts = _OUTPUT.split(piece, maxsplit=1)
        if len(parts) == 2:
            found.append(Instance(_input(parts[0]), parts[1].strip()))
        elif len(pieces) == 1 and piece.strip():  # no form at all: the reply is the output
            found.append(Instance("", piece.strip()))
        else:
            found.append(Instance(_input(piece), ""))
    return found


def _input(text: str) -> str:
    plain = re.sub(r"(?i)^\s*input\s*:\s*", "", text).strip()
    return "" if plain.lower() in _NO_INPUT else plain


# -- Alpaca's form

_ALPACA_HEAD = """\
You are asked to come up with a set of 20 different tasks. They will be given to a language model, which is then judged
on how well it does them.

What the tasks should be like:
1. Use different verbs, and mix questions with commands, so that no two tasks begin alike.
2. Cover different kinds of work: open questions, classification, editing, explaining, planning, writing, arithmetic.
3. A language model must be able to do them: nothing with pictures or sound, nothing that needs the web or a calendar.
4. Write in English, one or two sentences for an instruction.
5. The input is a concrete text that the instruction works on, below 100 words; where none is needed write <noinput>.
6. The output is a good answer to the instruction and the input, below 100 words.

List of 20 tasks:"""


def alpaca_prompt(seeds: Sequence[Seed]) -> str:
    """Requirements and numbered whole tasks; breaks off at the next one."""
    blocks = []
    for number, seed in enumerate(seeds, 1):
        given, output = seed.instances[0]
        blocks.append(
            f"###\n{number}. Instruction: {tidy(seed.instruction)}\n{number}. Input:\n{given.strip() or '<noinput>'}\n"
            f"{number}. Output:\n{output.strip()}"
        )
    return "\n".join([_ALPACA_HEAD, *blocks, f"###\n{len(seeds) + 1}. Instruction:"])


def read_alpaca(reply: str, first: int, *, cut: bool) -> list[Task | None]:
    """The tasks of a reply; None for a block without the three parts. The last one goes if the reply was cut off."""
    blocks = [block for block in f"{first}. Instruction:{reply}".split("###") if block.strip()]
    blocks = blocks[:-1] if cut else blocks
    return [_alpaca_task(block) for block in blocks]


def _alpaca_task(block: str) -> Task | None:
    parts = re.split(r"(?m)^\s*\d+\s*\.\s*(Instruction|Input|Output):", block)
    named = dict(zip(parts[1::2], parts[2::2], strict=True))
    if not {"Instruction", "Input", "Output"} <= named.keys():
        return None
    return Task(tidy(named["Instruction"]), Instance(_input(named["Input"]), named["Output"].strip()))
