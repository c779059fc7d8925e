"""Exports of annotation tools: Label Studio's JSON tasks and Argilla's records, with who said what.

Neither says which of its fields is the prompt: it is the first of `PROMPT_FIELDS` that is there. Responses are the
other texts a task names, or the entries of its list of answers. A ranking, a choice, ratings of the responses or a text
are read; other questions are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from accord.data import chats
from accord.data.collections.collected import UNKNOWN_TIME, Asked, Collected, Opinion, Row, field
from accord.data.collections.published import content_id, places
from accord.records import Conversation, Model, Person, Response, ResponseSet

__all__ = ["PROMPT_FIELDS", "argilla", "is_argilla", "is_label_studio", "label_studio"]

PROMPT_FIELDS = ("prompt", "instruction", "question", "messages", "chat", "conversation", "dialogue", "input", "text")
_LISTS = ("answers", "responses", "items", "completions")
_TIE = ("tie", "equal", "both", "same", "none", "neither")


# --- what both need


def _prompt_of(data: Row) -> tuple[str, Conversation]:
    for name in PROMPT_FIELDS:
        if data.get(name):
            return name, chats.conversation(data[name], name)
    expected = ", ".join(f"`{name}`" for name in PROMPT_FIELDS)
    raise ValueError(
        f"found the fields {sorted(map(str, data))[:12]}; expected a prompt in one of {expected}; rename it"
    )


def _responses_of(data: Row, prompt: str) -> dict[str, str]:
    """Response id -> text: a list of answers, or the other fields that hold a text."""
    for name in _LISTS:
        if isinstance(data.get(name), list):
            return {_entry_id(one, number): _entry_text(one, name) for number, one in enumerate(data[name], 1)}
    named = {name: text for name, text in data.items() if isinstance(text, str) and text.strip() and name != prompt}
    numbered = {name: text for name, text in named.items() if re.search(r"\d$|_[a-z]$", name)}
    return numbered or {name: text for name, text in named.items() if name in ("response", "answer", "completion")}


def _entry_id(entry: Any, number: int) -> str:
    found = entry.get("id") if isinstance(entry, Mapping) else None
    return str(number if found is None else found)


def _entry_text(entry: Any, name: str) -> str:
    if isinstance(entry, Mapping):
        entry = next((entry[key] for key in ("body", "text", "html", "content", "title") if key in entry), None)
    if not isinstance(entry, str):
        raise ValueError(f"`{name}`: found {entry!r:.60}; expected texts, or objects with a `body`; correct the row")
    return entry


def _record(name: str, prompt: Conversation, texts: Mapping[str, str]) -> ResponseSet | Asked:
    responses = tuple(Response(id=one, text=text) for one, text in texts.items())
    return ResponseSet(id=name, prompt=prompt, responses=responses) if responses else Asked(id=name, prompt=prompt)


def _of_choice(choice: str, texts: Mapping[str, str]) -> dict[str, int | None] | None:
    """Ranks of "response 1 is better": 1 for it, 2 for the others; of a tie all 1; None: the choice names neither."""
    if choice in texts:
        return {one: 1 if one == choice else 2 for one in texts}
    return dict.fromkeys(texts, 1) if choice.lower() in _TIE else None


def _time(value: Any) -> datetime:
    try:
        found = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError:
        return UNKNOWN_TIME
    return found if found.tzinfo else found.replace(tzinfo=UTC)


# --- Label Studio


def is_label_studio(row: Row) -> bool:
    """Whether a row is a task of Label Studio's JSON export."""
    return isinstance(row.get("data"), Mapping) and isinstance(row.get("annotations", row.get("completions")), list)


def label_studio(row: Row) -> Iterator[Collected]:
    """A task: `pairwise`, `ranker`, `choices`, `rating` of each response, or `textarea` results are read."""
    data = field(row, "data", Mapping, "the task's data")
    at, prompt = _prompt_of(data)
    texts = _responses_of(data, at)
    name = f"label-studio-{row['id']}" if "id" in row else content_id(str(prompt), *texts.values())
    said = [
        _studio_opinion(annotation, name, texts)
        for annotation in row.get("annotations", row.get("completions")) or []
        if isinstance(annotation, Mapping)
    ]
    said += [
        _studio_opinion(prediction, name, texts, model=str(prediction.get("model_version") or "unknown"))
        for prediction in row.get("predictions") or []
        if isinstance(prediction, Mapping)
    ]
    judgments = tuple(one for one in said if one is not None)
    yield Collected(record=_record(name, prompt, texts), judgments=judgments)


def _studio_opinion(annotation: Row, name: str, texts: Mapping[str, str], model: str | None = None) -> Opinion | None:
    results = [one for one in annotation.get("result") or [] if isinstance(one, Mapping)]
    payload: Mapping[str, Any] | None = {"skip": "other", "text": "cancelled"}
    if not annotation.get("was_cancelled"):
        payload = _studio_payload(results, texts)
    if payload is None:
        return None
    by = annotation.get("completed_by")
    who = by.get("email") or by.get("id") if isinstance(by, Mapping) else by
    at = _time(annotation.get("created_at"))
    spent = annotation.get("lead_time")
    shown = at - timedelta(seconds=float(spent)) if isinstance(spent, (int, float)) and at != UNKNOWN_TIME else None
    return Opinion(
        annotator=Person(id=f"label-studio-{who}")
        if model is None
        else Model(name=model, revision="unknown", prompt=""),
        response_set=name,
        payload=payload,
        display_order=tuple(texts),
        shown_at=shown,
        submitted_at=at,
        guideline="Label Studio",
    )


def _studio_payload(results: Sequence[Row], texts: Mapping[str, str]) -> Mapping[str, Any] | None:
    ratings: dict[str, float] = {}
    for result in results:
        kind, value = str(result.get("type", "")).lower(), result.get("value") or {}
        ranks = None
        if kind == "pairwise" and len(texts) == 2:
            left, right = texts
            side = {"left": left, "right": right}.get(str(value.get("selected")), "tie")
            ranks = _of_choice(side, texts)
        elif kind == "ranker":
            ranks = _of_order(value.get("ranker"), texts)
        elif kind == "choices":
            ranks = _of_choice(str((value.get("choices") or [""])[0]), texts)
        elif kind == "rating" and result.get("to_name") in texts:
            ratings[str(result["to_name"])] = float(value["rating"])
        elif kind == "textarea" and not texts:
            return {"text": "\n".join(value.get("text") or [])}
        if ranks is not None:
            return {"ranks": ranks}
    if ratings and ratings.keys() == texts.keys():
        return {"ranks": dict(zip(ratings, places(list(ratings.values())), strict=True))}
    return None


def _of_order(order: Any, texts: Mapping[str, str]) -> dict[str, int | None] | None:
    """Of a ranker's list of ids, best first; of its buckets the one that is not the pool."""
    if isinstance(order, Mapping):
        order = next((ids for bucket, ids in order.items() if bucket != "_" and isinstance(ids, list)), None)
    if not isinstance(order, list) or {str(one) for one in order} != texts.keys():
        return None
    return {str(one): place for place, one in enumerate(order, 1)}


# --- Argilla


def is_argilla(row: Row) -> bool:
    """Whether a row is a record of Argilla: `fields` and `responses`, as its API and `to_json` write them."""
    return isinstance(row.get("fields"), Mapping) and isinstance(row.get("responses", {}), (Mapping, list))


def argilla(row: Row) -> Iterator[Collected]:
    """A record: ranking, label, rating and text questions; suggestions become judgments of their agent."""
    fields = field(row, "fields", Mapping, "the record's fields")
    at, prompt = _prompt_of(fields)
    texts = _responses_of(fields, at)
    name = f"argilla-{row['id']}" if row.get("id") is not None else content_id(str(prompt), *texts.values())
    said: list[Opinion] = []
    for user, values, status, time in _argilla_people(row):
        skipped = {"skip": "other", "text": "discarded"} if status == "discarded" else None
        payload = skipped or _argilla_payload(values, texts)
        if payload is not None and status != "draft":
            said.append(_argilla_opinion(Person(id=user), name, payload, texts, time))
    for agent, values in _argilla_agents(row).items():
        payload = _argilla_payload(values, texts)
        if payload is not None:
            model = Model(name=agent, revision="unknown", prompt="")
            said.append(_argilla_opinion(model, name, payload, texts, UNKNOWN_TIME))
    yield Collected(record=_record(name, prompt, texts), judgments=tuple(said))


def _argilla_opinion(
    annotator: Person | Model, name: str, payload: Mapping[str, Any], texts: Mapping[str, str], time: datetime
) -> Opinion:
    return Opinion(
        annotator=annotator,
        response_set=name,
        payload=payload,
        display_order=tuple(texts),
        submitted_at=time,
        guideline="Argilla",
    )


def _argilla_people(row: Row) -> Iterator[tuple[str, dict[str, Any], str, datetime]]:
    """(user, question -> value, status, time): a list per user (API), or a list per question (`to_json`)."""
    responses = row.get("responses") or {}
    if isinstance(responses, list):
        for one in responses:
            values = {name: _value(answer) for name, answer in (one.get("values") or {}).items()}
            yield str(one.get("user_id")), values, str(one.get("status")), _time(one.get("updated_at"))
        return
    by_user: dict[str, dict[str, Any]] = {}
    status: dict[str, str] = {}
    for question, answers in responses.items():
        for answer in answers or []:
            user = str(answer.get("user_id"))
            by_user.setdefault(user, {})[question] = answer.get("value")
            status[user] = str(answer.get("status", "submitted"))
    for user, values in by_user.items():
        yield user, values, status[user], UNKNOWN_TIME


def _argilla_agents(row: Row) -> dict[str, dict[str, Any]]:
    """Agent -> question -> value of the suggestions."""
    found: dict[str, dict[str, Any]] = {}
    suggestions = row.get("suggestions") or {}
    listed = (
        [{"question_name": name, **one} for name, one in suggestions.items() if isinstance(one, Mapping)]
        if isinstance(suggestions, Mapping)
        else suggestions
    )
    for one in listed:
        found.setdefault(str(one.get("agent") or "suggestion"), {})[str(one.get("question_name"))] = one.get("value")
    return found


def _value(answer: Any) -> Any:
    return answer.get("value") if isinstance(answer, Mapping) else answer


def _argilla_payload(values: Mapping[str, Any], texts: Mapping[str, str]) -> Mapping[str, Any] | None:
    ratings: dict[str, float] = {}
    for question, value in values.items():
        if isinstance(value, list) and value and all(isinstance(one, Mapping) and "rank" in one for one in value):
            ranks = {str(one["value"]): one["rank"] for one in value}
            if ranks.keys() == texts.keys():
                return {"ranks": ranks}
        if isinstance(value, str) and (chosen := _of_choice(value, texts)) is not None and len(texts) > 1:
            return {"ranks": chosen}
        if isinstance(value, str) and not texts:
            return {"text": value}
        rated = next((one for one in texts if one in question), None)
        if rated is not None and isinstance(value, (int, float)):
            ratings[rated] = float(value)
    if ratings and ratings.keys() == texts.keys() and len(texts) > 1:
        return {"ranks": dict(zip(ratings, places(list(ratings.values())), strict=True))}
    return None
