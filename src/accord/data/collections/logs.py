"""Chat logs: ShareGPT's `conversations`, WildChat's `conversation`, or `messages`, one conversation a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from accord.data import chats, files, prompts
from accord.data.collections.collected import Row
from accord.data.files import Broken, DataError
from accord.data.readers import BadRow
from accord.records import Conversation, Message

__all__ = ["ChatLog", "LogFile", "chat_log", "is_log", "read_logs"]

_FIELDS = ("conversation", "conversations", "messages", "turns", "prompt", "instruction")
_USERS = ("user_id", "user", "hashed_ip", "conversation_user")


@dataclass(frozen=True, kw_only=True)
class ChatLog:
    """A conversation somebody had with a model.

    Example: `ChatLog(id="3", messages=(Message(role="user", content="Hello"),))`

    Attributes:
        id: of the source, or `FILE:ROW`.
        messages: of the person, the model, and what set both up.
        model: None: unknown.
        language: as the source says; None: it does not.
        user: a key that tells people apart and says nothing else; None: unknown.
        time: ISO text as the source has it.
        toxic: probability or flag of the source; None: not scored.
    """

    id: str
    messages: Conversation
    model: str | None = None
    language: str | None = None
    user: str | None = None
    time: str | None = None
    toxic: float | None = None

    @property
    def first(self) -> str:
        """What the person asked first."""
        return next((turn.content for turn in self.messages if turn.role == "user"), "")


@dataclass(frozen=True, kw_only=True)
class LogFile:
    """Conversations of one or more files, and the rows that are none."""

    logs: tuple[ChatLog, ...]
    bad_rows: tuple[BadRow, ...]


def is_log(row: Row) -> bool:
    """Whether a row looks like a conversation nobody has judged."""
    return any(isinstance(row.get(name), list) for name in ("conversation", "conversations")) and "chosen" not in row


def read_logs(
    paths: Sequence[str | Path], *, skip_bad_rows: bool = False, seen: Callable[[int], object] = lambda count: None
) -> LogFile:
    """Read conversations from .jsonl(.gz), .json or .parquet files.

    Args:
        paths: files, in this order.
        skip_bad_rows: set bad rows aside in `bad_rows` instead of raising at the first.
        seen: called with the number of rows read so far, for a progress bar.

    Raises:
        DataError: a file is missing, empty or damaged, a row is bad, or there is no good one.
    """
    logs: list[ChatLog] = []
    bad: list[BadRow] = []
    for path in map(Path, paths):
        files.check_path(path)
        for number, row in files.rows(path):
            seen(len(logs) + len(bad) + 1)
            try:
                logs.append(_checked(row, f"{path.name}:{number}"))
            except ValueError as error:
                if not skip_bad_rows:
                    hint = "(or set such rows aside: --skip-bad-rows)"
                    raise DataError(f"{path}, row {number}: {error} {hint}") from None
                raw = row.text if isinstance(row, Broken) else row
                bad.append(BadRow(file=str(path), row=number, message=str(error), raw=raw))
    if not logs:
        first = f"; the first of {len(bad)} bad rows: row {bad[0].row}: {bad[0].message}" if bad else ""
        raise DataError(f"{', '.join(map(str, paths))}: no conversation found{first}")
    return LogFile(logs=tuple(logs), bad_rows=tuple(bad))


def _checked(row: Any, name: str) -> ChatLog:
    if isinstance(row, Broken):
        raise ValueError(row.message)
    if not isinstance(row, Mapping):
        raise ValueError(f"found {type(row).__name__}; expected an object; correct the row")
    return chat_log({key: value for key, value in row.items() if value is not None}, name)


def chat_log(row: Row, name: str) -> ChatLog:
    """Return the conversation of a row.

    Raises:
        ValueError: it has none, or nothing the person said.
    """
    messages = _messages(row)
    if not any(turn.role == "user" and turn.content.strip() for turn in messages):
        raise ValueError("no turn of the user has a text; expected at least one; remove the row")
    said = next((row[key] for key in ("conversation_hash", "conversation_id", "id", "uid") if key in row), None)
    user = next((row[key] for key in _USERS if isinstance(row.get(key), (str, int))), None)
    return ChatLog(
        id=name if said is None else str(said),
        messages=messages,
        model=_word(row, "model"),
        language=_word(row, "language") or _word(row, "lang"),
        user=None if user is None else str(user),
        time=None if row.get("timestamp") is None else _time(row["timestamp"]),
        toxic=_toxic(row),
    )


def _messages(row: Row) -> Conversation:
    if "conversation" in row:
        turns = chats.conversation(row["conversation"], "conversation")
    elif "turns" in row and isinstance(row["turns"], list) and all(isinstance(turn, str) for turn in row["turns"]):
        turns = tuple(Message(role="user", content=text) for text in row["turns"])  # questions without their answers
    elif "messages" in row:
        turns = prompts.turns(row, "messages")
    else:
        found = prompts.prompt(row)
        if found is None:
            expected = ", ".join(f"`{field}`" for field in _FIELDS)
            raise ValueError(f"found the fields {sorted(map(str, row))[:12]}; expected one of {expected}; rename it")
        turns = found
    return turns


def _word(row: Row, name: str) -> str | None:
    return row[name] if isinstance(row.get(name), str) and row[name] else None


def _time(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _toxic(row: Row) -> float | None:
    """WildChat's flag of the conversation, or the highest score the source gives a turn."""
    found = row.get("toxic", row.get("toxicity"))
    return float(found) if isinstance(found, (bool, int, float)) else None
