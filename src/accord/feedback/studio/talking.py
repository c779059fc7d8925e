"""Asking models for turns of a conversation: one reply, or two candidates, blind, whose sides a keyed hash decides.

Turns of the store are never changed, so candidates are written once one is picked. Until then the page carries them,
signed: nobody can put words into a model's mouth, and nothing is lost when the server stops.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from accord.feedback.store.order import display_order
from accord.protocols import Generate, Reply, Sampling, Unavailable
from accord.records import Message

__all__ = ["Candidate", "candidates", "opened", "sealed"]

_one_at_a_time = threading.Lock()  # a local model computes one batch at a time


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What a model said, not yet a turn."""

    model: str
    text: str
    finish: str
    seconds: float


def candidates(
    models: Mapping[str, Generate],
    messages: Sequence[Message],
    *,
    secret: str,
    conversation_id: str,
    max_new_tokens: int,
) -> list[Candidate]:
    """Ask one model, or the first two there are, for the next turn.

    Args:
        models: name -> model.
        messages: the conversation so far, which a person ended.
        secret: of the campaign; decides the sides of two.
        conversation_id: of the conversation.
        max_new_tokens: of a turn.

    Raises:
        ValueError: a model does not answer; the person's turn is kept and can be sent again.
    """
    names = list(models)[:2]
    turn = len(messages)
    order = display_order(secret, conversation_id, f"{turn:08d}", names) if len(names) > 1 else names
    sampling = Sampling(temperature=1.0, max_new_tokens=max_new_tokens, seed=turn)
    return [_ask(models[name], name, messages, sampling) for name in order]


def _ask(model: Generate, name: str, messages: Sequence[Message], sampling: Sampling) -> Candidate:
    try:
        with _one_at_a_time:
            reply: Reply = model([tuple(messages)], 1, sampling)[0][0]
    except Unavailable:
        raise ValueError("the model cannot be reached at the moment; what you wrote is kept, try again later") from None
    if reply.finish == "error":
        raise ValueError("the model did not answer; what you wrote is kept, try again")
    return Candidate(model=name, text=reply.text.strip(), finish=reply.finish, seconds=reply.seconds)


def sealed(found: Sequence[Candidate], *, secret: str, conversation_id: str, parent: str) -> tuple[str, str]:
    """Candidates as text for a form, and the signature that binds them to the turn they answer."""
    text = json.dumps([asdict(one) for one in found], ensure_ascii=False)
    return text, _signature(text, secret, conversation_id, parent)


def _signature(text: str, secret: str, conversation_id: str, parent: str) -> str:
    return hmac.new(secret.encode(), f"{conversation_id}{parent}{text}".encode(), hashlib.sha256).hexdigest()


def opened(text: str, signature: str, *, secret: str, conversation_id: str, parent: str) -> list[Candidate]:
    """The candidates of a form.

    Raises:
        ValueError: they are not what the page was given.
    """
    text = text.replace("\r\n", "\n")
    if not hmac.compare_digest(_signature(text, secret, conversation_id, parent).encode(), signature.encode()):
        raise ValueError("these replies are not the ones that were shown; load the page and ask again")
    rows: list[Any] = json.loads(text)
    return [Candidate(**row) for row in rows]
