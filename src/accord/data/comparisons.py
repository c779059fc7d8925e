r"""Rows with `chosen` and `rejected` -> prompt and two responses, in the four ways such rows are written.

named prompt         {"prompt": ..., "chosen": ..., "rejected": ...}; ShareGPT and Alpaca name it otherwise
whole conversations  chosen and rejected are message lists; the turns they share are the prompt
HH-RLHF transcripts  chosen and rejected are "\n\nHuman: ...\n\nAssistant: ..."; likewise
shared beginning     chosen and rejected are texts; what both begin with is the prompt (TRL's implicit prompt)
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

from accord.data import chats
from accord.data.prompts import Row, from_transcript, prompt
from accord.records import Comparison, Conversation, Message

__all__ = ["SPLITS", "comparison", "split"]

Parts = tuple[Conversation, str, str]


def comparison(row: Row, name: str) -> Comparison:
    """Return the comparison of a row that is written in the way `name` of SPLITS."""
    _check_names(row, ("probability", "margin"))
    if "finished" in row:
        raise ValueError(
            "`finished` is not read beside `chosen` and `rejected`; write the row as a ranking of two, with "
            "`responses`, `ranks` [1, 2] and `finished`, one mark for each"
        )
    asked, chosen, rejected = SPLITS[name][1](row)
    optional = {field: row[field] for field in ("probability", "margin") if field in row}
    return Comparison.model_validate({"prompt": asked, "chosen": chosen, "rejected": rejected, **optional})


def split(row: Row) -> Parts:
    """Return prompt, chosen and rejected of a row in any of the ways."""
    return next(parts(row) for matches, parts in SPLITS.values() if matches(row))


def _is_whole(row: Row) -> bool:
    return all(isinstance(row[name], list) and len(row[name]) > 1 for name in ("chosen", "rejected"))


def _whole(row: Row) -> Parts:
    """A `prompt` beside whole conversations (UltraFeedback) has to be a part of what they share."""
    chosen, rejected = (chats.conversation(row[name], name) for name in ("chosen", "rejected"))
    shared, *replies = chats.shared_turns(chosen, rejected)
    if "prompt" in row:
        named = chats.conversation(row["prompt"], "prompt")
        if named not in (shared[-len(named) :], shared[: len(named)]):
            raise ValueError(
                "`prompt` is not what `chosen` and `rejected` begin with; expected the same turns, or one assistant "
                "turn each in `chosen` and `rejected`; correct or remove `prompt`"
            )
    return shared, replies[0], replies[1]


def _is_named(row: Row) -> bool:
    return any(name in row for name in ("prompt", "conversations", "instruction"))


def _named(row: Row) -> Parts:
    asked = prompt(row)
    assert asked is not None
    chosen, rejected = (chats.reply(row[name], name) for name in ("chosen", "rejected"))
    return (asked, chosen.strip(), rejected.strip()) if from_transcript(row) else (asked, chosen, rejected)


def _are_transcripts(row: Row) -> bool:
    return all(isinstance(row[name], str) and chats.is_transcript(row[name]) for name in ("chosen", "rejected"))


def _transcripts(row: Row) -> Parts:
    return chats.shared_turns(chats.transcript(row["chosen"]), chats.transcript(row["rejected"]))


def _beginning(row: Row) -> Parts:
    if not isinstance(row["chosen"], str) or not isinstance(row["rejected"], str):
        raise ValueError("`prompt` is missing, and `chosen` and `rejected` are not whole conversations; add the prompt")
    text, chosen, rejected = chats.split_text(row["chosen"], row["rejected"])
    return (Message(role="user", content=text),), chosen, rejected


SPLITS: dict[str, tuple[Callable[[Row], bool], Callable[[Row], Parts]]] = {
    "whole conversations": (_is_whole, _whole),
    "named prompt": (_is_named, _named),
    "HH-RLHF transcripts": (_are_transcripts, _transcripts),
    "shared beginning": (lambda row: True, _beginning),
}


def _check_names(row: Row, optional: tuple[str, ...]) -> None:
    """Other people's columns are left alone, but a misspelt field of ours would be lost silently."""
    for name in row:
        close = difflib.get_close_matches(name.lower(), optional, n=1, cutoff=0.8)
        if close and close[0] not in row:
            raise ValueError(f"`{name}` is not a field of a comparison; did you mean `{close[0]}`? Rename the field")
