"""Asking models for turns of a conversation: one reply, or two candidates, blind, whose sides a keyed hash decides.

Turns of the store are never changed, so candidates are written once one is picked. Until then the page carries them,
sealed: nobody can read there which model said what, nobody can put words into a model's mouth, and nothing is lost when
the server stops.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

from accord.feedback.store.order import display_order
from accord.feedback.studio.writing import Writing
from accord.protocols import Generate, LanguageModel, Reply, Sampling, Unavailable
from accord.records import Conversation, Message
from accord.servers import ServerModel

__all__ = ["Candidate", "candidates", "opened", "sampled", "sealed", "written"]

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
    draws: int = 0,
) -> list[Candidate]:
    """Ask one model, or the first two there are, for the next turn.

    Args:
        models: name -> model.
        messages: the conversation so far, which a person ended.
        secret: of the campaign; decides the sides of two.
        conversation_id: of the conversation.
        max_new_tokens: of a turn.
        draws: replies to this turn that were turned down, so that another try is not the same again.

    Raises:
        ValueError: a model does not answer; the person's turn is kept and can be sent again.
    """
    names = list(models)[:2]
    turn = len(messages)
    order = display_order(secret, conversation_id, f"{turn:08d}", names) if len(names) > 1 else names
    sampling = Sampling(temperature=1.0, max_new_tokens=max_new_tokens, seed=turn + 1000 * draws)
    return [_ask(models[name], name, messages, sampling) for name in order]


def _ask(model: Generate, name: str, messages: Sequence[Message], sampling: Sampling) -> Candidate:
    with _answering(), _turn_of(model):
        return _candidate(name, model([tuple(messages)], 1, sampling)[0][0])


def sampled(model: Generate, name: str, messages: Conversation, count: int, *, max_new_tokens: int) -> list[str]:
    """Replies of one model to one prompt.

    Raises:
        ValueError: the model does not answer.
    """
    sampling = Sampling(temperature=1.0, max_new_tokens=max_new_tokens)
    with _answering(), _turn_of(model):
        return [_candidate(name, reply).text for reply in model([messages], count, sampling)[0]]


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except Unavailable:
        raise ValueError("the model cannot be reached at the moment; what you wrote is kept, try again later") from None


def _candidate(name: str, reply: Reply) -> Candidate:
    if reply.finish == "error":
        raise ValueError("the model did not answer; what you wrote is kept, try again")
    return Candidate(model=name, text=reply.text.strip(), finish=reply.finish, seconds=reply.seconds)


def written(
    model: Generate, name: str, messages: Sequence[Message], writing: Writing, *, max_new_tokens: int
) -> Candidate | None:
    """Ask one model and show what it says as it says it; None: stopped before the first word.

    Args:
        model: that answers; without `stream` it is shown at the end.
        name: of it.
        messages: the conversation so far, which a person ended.
        writing: what is shown.
        max_new_tokens: of the turn.

    Raises:
        ValueError: the model does not answer; the person's turn is kept and can be sent again.
    """
    sampling = Sampling(temperature=1.0, max_new_tokens=max_new_tokens, seed=len(messages))
    last: Candidate | None = None
    with _answering(), _turn_of(model), closing(_growing(model, tuple(messages), sampling)) as replies:
        if writing.stopped:  # while others had their turn
            return None
        for reply in replies:
            last = _candidate(name, reply)
            writing.text = last.text
            if writing.stopped and reply.finish == "length":
                last = replace(last, finish="stopped")
                break
    return last if last is not None and (last.text or last.finish != "stopped") else None


def _growing(model: Generate, messages: Conversation, sampling: Sampling) -> Generator[Reply]:
    if isinstance(model, LanguageModel):
        yield from model.stream(messages, sampling)
    else:
        yield model([messages], 1, sampling)[0][0]


def _turn_of(model: Generate) -> AbstractContextManager[Any]:
    """A model in this process answers one at a time; a server sees to that by itself."""
    return nullcontext() if isinstance(model, ServerModel) else _one_at_a_time


def sealed(found: Sequence[Candidate], *, secret: str, conversation_id: str, parent: str) -> tuple[str, str]:
    """Candidates as text for a form that only we can read, and the signature that binds it to the turn they answer."""
    nonce = secrets.token_bytes(16)
    plain = json.dumps([asdict(one) for one in found]).encode()
    text = base64.b64encode(nonce + _veiled(plain, secret, nonce)).decode()
    return text, _signature(text, secret, conversation_id, parent)


def _veiled(data: bytes, secret: str, nonce: bytes) -> bytes:
    """Data under a key stream of the campaign's secret and a nonce used once; the same again lifts it."""
    stream = hashlib.shake_256(b"sealed" + secret.encode() + nonce).digest(len(data))
    return bytes(a ^ b for a, b in zip(data, stream, strict=True))


def _signature(text: str, secret: str, conversation_id: str, parent: str) -> str:
    return hmac.new(secret.encode(), f"{conversation_id}{parent}{text}".encode(), hashlib.sha256).hexdigest()


def opened(text: str, signature: str, *, secret: str, conversation_id: str, parent: str) -> list[Candidate]:
    """The candidates of a form.

    Raises:
        ValueError: they are not what the page was given.
    """
    if not hmac.compare_digest(_signature(text, secret, conversation_id, parent).encode(), signature.encode()):
        raise ValueError("these replies are not the ones that were shown; load the page and ask again")
    kept = base64.b64decode(text)
    rows: list[Any] = json.loads(_veiled(kept[16:], secret, kept[:16]))
    return [Candidate(**row) for row in rows]
