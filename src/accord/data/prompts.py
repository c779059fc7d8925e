"""The prompt of a row, under the names other people give it: prompt, ShareGPT's conversations, Alpaca's instruction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from accord.data import chats
from accord.records import Conversation, Message

__all__ = ["Row", "from_transcript", "instruction", "prompt", "sharegpt", "turns"]

Row: TypeAlias = Mapping[str, Any]


def prompt(row: Row) -> Conversation | None:
    """Return the prompt that stands in a field of its own, or None if no such field is there."""
    if "prompt" in row:
        return chats.conversation(row["prompt"], "prompt")
    if "conversations" in row:
        return sharegpt(row)
    return instruction(row) if "instruction" in row else None


def turns(row: Row, field: str) -> Conversation:
    """Return the messages of a field that cannot be a plain text."""
    if not isinstance(row[field], list):
        raise ValueError(f"`{field}`: found {type(row[field]).__name__}; expected a list of messages; correct the row")
    return chats.conversation(row[field], field)


def sharegpt(row: Row) -> Conversation:
    """Return the turns of ShareGPT's `conversations`, after LLaMA-Factory's `system` text."""
    return _system(row) + turns(row, "conversations")


def instruction(row: Row) -> Conversation:
    """Return Alpaca's instruction and input (Dolly: context), with LLaMA-Factory's system text and earlier rounds."""
    parts = [chats.text(row[name], name) for name in ("instruction", "input", "context") if name in row]
    asked = "\n\n".join(part for part in parts if part.strip())
    return (*_system(row), *_history(row.get("history", [])), Message(role="user", content=asked))


def _system(row: Row) -> Conversation:
    text = chats.text(row.get("system", ""), "system")
    return (Message(role="system", content=text),) if text else ()


def _history(rounds: Any) -> Conversation:
    if not isinstance(rounds, list) or any(not isinstance(pair, list) or len(pair) != 2 for pair in rounds):
        raise ValueError("`history`: expected a list of rounds, [question, answer] each; correct the row")
    return tuple(
        Message(role="assistant" if number else "user", content=chats.text(said, "history"))
        for pair in rounds
        for number, said in enumerate(pair)
    )


def from_transcript(row: Row) -> bool:
    """Tell whether the prompt is an HH-RLHF dialogue: then the responses begin with a blank that is not theirs."""
    return isinstance(row.get("prompt"), str) and chats.is_transcript(row["prompt"])
