"""Published sets with several responses: OpenAssistant trees, UltraFeedback, AlpacaEval."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from accord.data.chats import ROLES
from accord.data.collections.collected import UNKNOWN_TIME, Collected, Row, field, text_of
from accord.records import Judgment, Message, Model, Response, ResponseSet

__all__ = ["alpaca_annotation", "alpaca_outputs", "content_id", "oasst", "places", "ultrafeedback"]


def content_id(*parts: str) -> str:
    """An id made of content: the same texts have the same id in every file."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:32]


def places(scores: Sequence[float]) -> list[int]:
    """Places of scores, 1 for the highest; equal scores tie: [7, 9, 7] is [2, 1, 2]."""
    order = sorted(set(scores), reverse=True)
    return [1 + order.index(score) for score in scores]


# --- OpenAssistant


def oasst(row: Row) -> Iterator[Collected]:
    """A tree of messages: each message of the person becomes a prompt, with the replies to it. Rank 0 is best.

    Replies that were deleted are left out; ranks are kept where all remaining replies have one.
    """
    root = field(row, "prompt", Mapping, "the first message of the tree")
    yield from _replies(root, (), 1)


def _replies(node: Row, before: tuple[Message, ...], depth: int) -> Iterator[Collected]:
    role = ROLES.get(str(node.get("role", "")).lower())
    if role not in ("user", "assistant"):
        raise ValueError(
            f"`role` of a message at depth {depth}: found {node.get('role')!r}; expected prompter, assistant"
        )
    here = (*before, Message(role=role, content=text_of(node, "text")))
    children = [child for child in node.get("replies") or [] if not child.get("deleted")]
    if role == "user" and children:
        yield _set_of(node, here, children)
    for child in children:
        yield from _replies(child, here, depth + 1)


def _set_of(node: Row, prompt: tuple[Message, ...], children: Sequence[Row]) -> Collected:
    responses = tuple(
        Response(id=str(child["message_id"]), text=text_of(child, "text"), model=child.get("model_name"))
        for child in children
    )
    ranks = {str(child["message_id"]): child.get("rank") for child in children}
    ranked = len(children) > 1 and all(isinstance(rank, int) for rank in ranks.values())
    return Collected(
        record=ResponseSet(id=str(node["message_id"]), prompt=prompt, responses=responses),
        ranks={name: rank + 1 for name, rank in ranks.items() if isinstance(rank, int)} if ranked else None,
        language=node.get("lang"),
    )


# --- UltraFeedback


def ultrafeedback(row: Row) -> Iterator[Collected]:
    """An instruction, completions of several models, and what GPT-4 thought of them.

    A completion's score is `fine-grained_score`, the mean rating of its aspects, or `overall_score`, in this order:
    the published `overall_score` has rows with 10 where 1 was meant.
    """
    asked = text_of(row, "instruction")
    completions = field(row, "completions", list, "a list of completions")
    names = [str(one.get("model") or f"response {number}") for number, one in enumerate(completions, 1)]
    ids = [name if names.count(name) == 1 else f"{name}#{number}" for number, name in enumerate(names, 1)]
    responses = tuple(
        Response(id=one_id, text=text_of(one, "response"), model=one.get("model"))
        for one_id, one in zip(ids, completions, strict=True)
    )
    name = content_id(asked, *(response.text for response in responses))
    scores = [_score(one) for one in completions]
    judgments: tuple[Judgment, ...] = ()
    if len(scores) > 1 and None not in scores:
        judged = [score for score in scores if score is not None]
        judgments = (_of_model("gpt-4", "UltraFeedback", name, dict(zip(ids, places(judged), strict=True))),)
    yield Collected(
        record=ResponseSet(id=name, prompt=asked, responses=responses), judgments=judgments, group=row.get("source")
    )


def _score(completion: Row) -> float | None:
    if _number(completion.get("fine-grained_score")) is not None:
        return _number(completion["fine-grained_score"])
    aspects = completion.get("annotations") or {}
    ratings = [_number(aspect.get("Rating")) for aspect in aspects.values() if isinstance(aspect, Mapping)]
    known = [rating for rating in ratings if rating is not None]
    return sum(known) / len(known) if known and len(known) == len(ratings) else _number(completion.get("overall_score"))


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):  # "N/A", or nothing
        return None


def _of_model(name: str, form: str, response_set: str, ranks: Mapping[str, int | None]) -> Judgment:
    return Judgment(
        annotator=Model(name=name, revision="unknown", prompt=form),
        response_set=response_set,
        display_order=tuple(ranks),
        ranks=dict(ranks),
        submitted_at=UNKNOWN_TIME,
        guideline=form,
    )


# --- AlpacaEval


def alpaca_annotation(row: Row) -> Iterator[Collected]:
    """A row of annotations.json: two outputs and an annotator's preference, 1 for the first to 2 for the second.

    1.5 is a tie; null or 0 could not be parsed, and is no judgment.
    """
    asked = text_of(row, "instruction")
    names = [str(row.get(f"generator_{place}") or f"output_{place}") for place in (1, 2)]
    names = names if names[0] != names[1] else [f"{name}#{place}" for place, name in enumerate(names, 1)]
    texts = [field(row, f"output_{place}", str, "a text") for place in (1, 2)]
    name = content_id(asked, *texts)
    responses = tuple(
        Response(id=one, text=text, model=row.get(f"generator_{place}"))
        for place, (one, text) in enumerate(zip(names, texts, strict=True), 1)
    )
    preference = _number(row.get("preference"))
    judgments: tuple[Judgment, ...] = ()
    if preference is not None and 1 <= preference <= 2:
        ranks = (1, 1) if preference == 1.5 else (1, 2) if preference < 1.5 else (2, 1)
        annotator = str(row.get("annotator") or "unknown")
        judgments = (_of_model(annotator, "AlpacaEval", name, dict(zip(names, ranks, strict=True))),)
    record = ResponseSet(id=name, prompt=asked, responses=responses)
    yield Collected(record=record, judgments=judgments, group=row.get("dataset"))


def alpaca_outputs(rows: Sequence[tuple[int, Row]]) -> Iterator[Collected]:
    """Rows of model_outputs.json, of any number of models: one set per instruction."""
    by_instruction: dict[str, dict[str, Row]] = {}
    for _, row in rows:
        by_instruction.setdefault(text_of(row, "instruction"), {}).setdefault(text_of(row, "generator"), row)
    for asked, outputs in by_instruction.items():
        responses = tuple(
            Response(id=name, text=field(row, "output", str, "a text"), model=name) for name, row in outputs.items()
        )
        group = next(iter(outputs.values())).get("dataset")
        yield Collected(record=ResponseSet(id=content_id(asked), prompt=asked, responses=responses), group=group)
