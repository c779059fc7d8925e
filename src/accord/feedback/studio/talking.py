"""Asking models for turns of a conversation: one reply, or two candidates, blind, whose sides a keyed hash decides.

Two are written side by side: whichever is behind goes on, and `lockstep` decides what of both is shown when.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from accord.feedback.store.order import display_order
from accord.feedback.store.queries.candidates import Candidate
from accord.feedback.studio.lockstep import Lockstep
from accord.feedback.studio.writing import Writing
from accord.protocols import Generate, LanguageModel, Reply, Sampling, Unavailable
from accord.records import Conversation, Message
from accord.servers import ServerModel

__all__ = ["both_stream", "candidates", "sampled", "written", "written_side_by_side"]

_one_at_a_time = threading.Lock()  # a local model computes one batch at a time


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
    order = _sides(models, len(messages), secret, conversation_id)
    sampling = _sampling(messages, max_new_tokens, draws)
    return [_ask(models[name], name, messages, sampling) for name in order]


def _sides(models: Mapping[str, Generate], turn: int, secret: str, conversation_id: str) -> list[str]:
    """The names of the models in the order they are shown."""
    names = list(models)[:2]
    return display_order(secret, conversation_id, f"{turn:08d}", names) if len(names) > 1 else names


def _sampling(messages: Sequence[Message], max_new_tokens: int, draws: int = 0) -> Sampling:
    return Sampling(temperature=1.0, max_new_tokens=max_new_tokens, seed=len(messages) + 1000 * draws)


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
    sampling = _sampling(messages, max_new_tokens)
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


def both_stream(models: Mapping[str, Generate]) -> bool:
    """Whether the first two models can both be watched. One that comes in a single piece would stand out."""
    return len(models) > 1 and all(isinstance(one, LanguageModel) for one in list(models.values())[:2])


def written_side_by_side(
    models: Mapping[str, Generate],
    messages: Sequence[Message],
    writing: Writing,
    *,
    secret: str,
    conversation_id: str,
    max_new_tokens: int,
    draws: int = 0,
) -> list[Candidate]:
    """Ask the first two models and show what both say in step; nothing: stopped before the first words.

    The arguments are those of `candidates`, with `writing`, which was begun for two. Who stops it keeps what was shown,
    not what the faster model had in store.

    Raises:
        ValueError: a model does not answer; the person's turn is kept and can be sent again.
    """
    order = _sides(models, len(messages), secret, conversation_id)
    sampling = _sampling(messages, max_new_tokens, draws)
    shared = any(not isinstance(models[name], ServerModel) for name in order)
    assert writing.both is not None
    with _answering(), ExitStack() as stack:
        stack.enter_context(_one_at_a_time if shared else nullcontext())
        streams = [stack.enter_context(closing(_growing(models[name], tuple(messages), sampling))) for name in order]
        last = _write_both(order, streams, writing, writing.both)
    if not writing.stopped:
        writing.wait_until(writing.both.last())
    parts = writing.both.until(writing.shown() if writing.stopped else sys.maxsize)
    if writing.stopped and not any(text for text, _ in parts):
        return []
    return [
        replace(found, text=text, finish=found.finish if whole else "stopped")
        for found, (text, whole) in zip(last, parts, strict=True)
    ]


def _write_both(
    order: Sequence[str], streams: Sequence[Generator[Reply]], writing: Writing, both: Lockstep
) -> list[Candidate]:
    """Let whichever reply is behind go on until both have ended, or nobody wants more; return what there is of each."""
    last = [Candidate(model=name, text="", finish="stop", seconds=0.0) for name in order]
    while not writing.stopped:
        side = both.behind()
        if side is None:
            break
        reply = next(streams[side], None)
        if reply is None:
            both.ended(side, now=time.monotonic())
            continue
        last[side] = _candidate(order[side], reply)
        both.grew(side, last[side].text, now=time.monotonic())
    return last


def _growing(model: Generate, messages: Conversation, sampling: Sampling) -> Generator[Reply]:
    if isinstance(model, LanguageModel):
        yield from model.stream(messages, sampling)
    else:
        yield model([messages], 1, sampling)[0][0]


def _turn_of(model: Generate) -> AbstractContextManager[Any]:
    """A model in this process answers one at a time; a server sees to that by itself."""
    return nullcontext() if isinstance(model, ServerModel) else _one_at_a_time
