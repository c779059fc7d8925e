"""An instance as a Demonstration, in one of several layouts, so that a model learns the task and not the layout."""

from __future__ import annotations

from accord.data.draws import draw
from accord.data.self_instruct.seeds import Instance

__all__ = ["WITHOUT_INPUT", "WITH_INPUT", "prompt_of"]

WITH_INPUT = (
    "{instruction}\nInput: {input}\n\nOutput:",
    "{instruction}\n\nInput: {input}\n\nOutput:",
    "Task: {instruction}\nInput: {input}\n\nOutput:",
    "{instruction}\n\n{input}\n\nOutput:",
    "{instruction}\n\n{input}",
    "{input}\n\n{instruction}",
    "Task: {instruction}\n\n{input}",
)
WITHOUT_INPUT = (
    "{instruction} Output:",
    "{instruction}\nOutput:",
    "{instruction}\n\nOutput:",
    "{instruction}",
    "Task: {instruction}",
    "Task: {instruction}\n\nOutput:",
)


def prompt_of(instruction: str, instance: Instance, *key: object) -> str:
    """The prompt in a layout drawn for `key`; half of them with single line ends for double ones."""
    generator = draw("layout", *key)
    layout = generator.choice(WITH_INPUT if instance.input else WITHOUT_INPUT)
    if generator.random() < 0.5:
        layout = layout.replace("\n\n", "\n")
    return layout.format(instruction=instruction, input=instance.input)
