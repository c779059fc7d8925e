"""Conversations in the shapes other people store them in: message lists, ShareGPT turns, HH-RLHF transcripts.

Everything here takes parsed JSON and returns `Message`s, or raises ValueError with a sentence about the field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from accord.records import Conversation, Message, Role

__all__ = [
    "ROLES",
    "conversation",
    "is_transcript",
    "message",
    "reply",
    "shared_turns",
    "split_text",
    "text",
    "transcript",
]

# Names of speakers in the wild: OpenAI's, ShareGPT's, LLaMA-Factory's (its function_call is written by the model).
ROLES: dict[str, Role] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function"), "tool"),
}
_TURN = re.compile(r"(?:^\s*|\n\n)(Human|Assistant):")
_OPENING = re.compile(r"\s*Human:")


def conversation(value: Any, field: str) -> Conversation:
    """Return the messages of a field: a text is one user message, or the turns of a transcript left open."""
    if isinstance(value, str):
        if is_transcript(value) and value.rstrip().endswith("\n\nAssistant:"):
            return transcript(value)[:-1]
        return (Message(role="user", content=value),)
    if not isinstance(value, list):
        raise ValueError(f"`{field}`: found {_short(value)}; expected a text or a list of messages; correct the row")
    return tuple(message(item, f"{field}[{number}]") for number, item in enumerate(value))


def message(value: Any, field: str) -> Message:
    """Return one message, `{"role", "content"}` or ShareGPT's `{"from", "value"}`; further keys are not read."""
    if not isinstance(value, Mapping):
        raise ValueError(f'`{field}`: found {_short(value)}; expected {{"role": ..., "content": ...}}; correct the row')
    role_key, text_key = ("from", "value") if "from" in value and "role" not in value else ("role", "content")
    for key in (role_key, text_key):
        if key not in value:
            raise ValueError(f"`{field}.{key}` is missing, found {sorted(map(str, value))}; add or rename it")
    role = value[role_key]
    if not isinstance(role, str) or role.lower() not in ROLES:
        raise ValueError(f"`{field}.{role_key}`: found {_short(role)}; expected one of {', '.join(ROLES)}; rename it")
    if value.get("tool_calls"):
        raise ValueError(f"`{field}.tool_calls`: calls of tools are not read; write the call into `{text_key}`")
    return Message(role=ROLES[role.lower()], content=text(value[text_key], f"{field}.{text_key}"))


def text(value: Any, field: str) -> str:
    """Return a text; of OpenAI's list of content parts, their texts put together."""
    if isinstance(value, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in value):
        return "".join(text(part.get("text"), field) for part in value)
    if not isinstance(value, str):
        raise ValueError(f"`{field}`: found {_short(value)}; expected a text; correct the row")
    return value


def reply(value: Any, field: str) -> str:
    """Return the text of one assistant turn: a text, a message, or a list of one message."""
    if isinstance(value, str):
        return value
    turns = conversation([value] if isinstance(value, Mapping) else value, field)
    if len(turns) != 1 or turns[0].role != "assistant":
        found = ", ".join(turn.role for turn in turns) or "no turn"
        raise ValueError(f"`{field}` has the turns {found}; expected one assistant turn; move the others to `prompt`")
    return turns[0].content


def is_transcript(text: str) -> bool:
    r"""Tell whether a text is a dialogue of HH-RLHF: "\n\nHuman: ...\n\nAssistant: ...", as all of its texts begin."""
    return bool(_OPENING.match(text)) and "\n\nAssistant:" in text


def transcript(text: str) -> Conversation:
    """Return the turns of an HH-RLHF dialogue, white space around them removed.

    Two turns in a row by one speaker (1 row in 150 of the data) become one turn with a blank line between: chat
    templates know no second turn, and left as text the marker "Assistant:" would be taught to the model.
    """
    parts = _TURN.split(text)[1:]
    turns: list[Message] = []
    for name, content in zip(parts[::2], parts[1::2], strict=True):
        role = ROLES["human" if name == "Human" else "assistant"]
        if turns and turns[-1].role == role:
            content = turns.pop().content + "\n\n" + content.strip()
        turns.append(Message(role=role, content=content.strip()))
    return tuple(turns)


def shared_turns(chosen: Conversation, rejected: Conversation) -> tuple[Conversation, str, str]:
    """Split two whole conversations into the prompt they share and the last turn of each.

    Raises:
        ValueError: They share no turn, or differ in more than one assistant turn: the responses would answer
            different prompts, and cannot be compared.
    """
    count = 0
    while count < min(len(chosen), len(rejected)) - 1 and chosen[count] == rejected[count]:
        count += 1
    rest = (chosen[count:], rejected[count:])
    if count == 0 or any(len(turns) != 1 or turns[0].role != "assistant" for turns in rest):
        raise ValueError(
            f"`chosen` and `rejected` share their first {count} turns, then they have {_roles(rest[0])} and "
            f"{_roles(rest[1])}; expected one assistant turn each after a shared prompt; cut both after the first "
            "response that differs, or remove the row"
        )
    return chosen[:count], rest[0][0].content, rest[1][0].content


def split_text(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Split two texts where TRL does: after their common beginning, its last space counted to the responses.

    Raises:
        ValueError: They begin differently.
    """
    count = 0
    while count < min(len(chosen), len(rejected)) and chosen[count] == rejected[count]:
        count += 1
    if count and chosen[count - 1] == " ":
        count -= 1
    if not chosen[:count].strip():
        raise ValueError("`prompt` is missing, and `chosen` and `rejected` share no beginning; add the prompt")
    return chosen[:count], chosen[count:], rejected[count:]


def _roles(turns: Conversation) -> str:
    return "[" + ", ".join(turn.role for turn in turns) + "]"


def _short(value: Any, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
