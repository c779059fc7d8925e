"""Between the fields of a form and the payload of a judgment, both ways. Pure.

A form's fields are also its draft: what is typed is kept as it stands, complete or not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from accord.feedback.studio.label_texts import ATTRIBUTES, FLAGS, QUESTIONS, SCALES
from accord.feedback.studio.wording import letter_of

__all__ = ["FAILED", "RESERVED", "fields_of", "payload_of"]

FAILED = "F"  # the place of a failed response in a form
TIE, BOTH_FAILED = "tie", "failed"
RESERVED = frozenset({"csrf", "version", "revision", "active_ms", "pasted", "skip", "skip_text", "payload"})

Fields = Mapping[str, str]


def payload_of(
    task_type: str,
    fields: Fields,
    responses: Sequence[str],
    conversation: str | None = None,
    *,
    describes: bool = False,
) -> dict[str, Any]:
    """The payload of a filled form.

    Args:
        task_type: of the campaign.
        fields: as they came in.
        responses: ids in the order they were shown, for what is said when something is missing.
        conversation: id of the conversation that is rated, in chat and redteam tasks.
        describes: a ranking comes with attributes of each response.

    Raises:
        ValueError: something is missing or is no answer; says which response by its letter.
    """
    found = _READERS[task_type](fields, responses, conversation)
    return {**found, "attributes": _attributes(fields, responses, None)["responses"]} if describes else found


def _missing(what: str, places: Sequence[int]) -> ValueError:
    letters = ", ".join(letter_of(place) for place in places)
    return ValueError(f"{what} is missing for {letters}; answer it, then submit again")


def _rank(fields: Fields, responses: Sequence[str], _: str | None) -> dict[str, Any]:
    said = {response: fields.get(f"rank.{response}", "") for response in responses}
    missing = [place for place, response in enumerate(responses) if not said[response]]
    if missing:
        raise _missing("a place", missing)
    ranks = {response: None if value == FAILED else _number(value, "a place") for response, value in said.items()}
    reason = fields.get("reason", "").strip()
    marked = sorted({value for name, value in fields.items() if name.startswith("span.") and value})
    spans = [_span(value, responses) for value in marked]
    spans.sort(key=lambda span: (responses.index(span["response"]), span["start"], span["end"], span["tag"]))
    return {"ranks": ranks, **({"reason": reason} if reason else {}), **({"spans": spans} if spans else {})}


def _span(value: str, responses: Sequence[str]) -> dict[str, Any]:
    """A marked passage: "RESPONSE:START:END:TAG"."""
    response, _, rest = value.partition(":")
    start, _, rest = rest.partition(":")
    end, _, tag = rest.partition(":")
    known = response in responses and all(one.isascii() and one.isdigit() and len(one) < 8 for one in (start, end))
    if not known or not tag.strip():
        raise ValueError("a marked passage is not one of these responses; take it out, then submit again")
    return {"response": response, "start": int(start), "end": int(end), "tag": tag.strip()}


def _number(value: str, what: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 3:
        raise ValueError(f"{what} is {value!r}; expected a number; choose one of those shown")
    return int(value)


def _pair(fields: Fields, responses: Sequence[str], _: str | None) -> dict[str, Any]:
    choice = fields.get("choice", "")
    if choice in ("", None):
        raise ValueError("no answer is chosen; choose A, B, a tie or both failed")
    if choice in (TIE, BOTH_FAILED):
        return {"choice": None, "both_failed": choice == BOTH_FAILED}
    strength = fields.get("strength", "")
    return {"choice": choice, **({"strength": _number(strength, "the strength")} if strength else {})}


def _attributes(fields: Fields, responses: Sequence[str], _: str | None) -> dict[str, Any]:
    unrated = [place for place, one in enumerate(responses) if not fields.get(f"{one}.quality")]
    if unrated:
        raise _missing("the quality", unrated)
    for label in (one for one in ATTRIBUTES if one.maybe):
        open_ = [place for place, one in enumerate(responses) if not fields.get(f"{one}.{label.name}")]
        if open_:
            raise _missing(f"“{label.words}”", open_)
    return {"responses": {one: _attributes_of(fields, one) for one in responses}}


def _attributes_of(fields: Fields, response: str) -> dict[str, Any]:
    found: dict[str, Any] = {"quality": _number(fields[f"{response}.quality"], "the quality")}
    for label in ATTRIBUTES:
        value = fields.get(f"{response}.{label.name}", "")
        found[label.name] = "n/a" if value == "n/a" else value in ("yes", "on")
    return found


def _labels(fields: Fields, responses: Sequence[str], _: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for label in QUESTIONS:
        if fields.get(label.name) not in ("yes", "no"):
            raise ValueError(f"“{label.words}” is not answered; choose yes or no")
        found[label.name] = fields[label.name] == "yes"
    for label in FLAGS:
        found[label.name] = fields.get(label.name) in ("yes", "on")
    for label in SCALES:
        value = fields.get(label.name, "")
        found[label.name] = (_number(value, label.words) - 1) / 4 if value else None
    return found


def _demonstrate(fields: Fields, responses: Sequence[str], _: str | None) -> dict[str, Any]:
    text = fields.get("text", "").replace("\r\n", "\n")
    if not text.strip():
        raise ValueError("the response is empty; write it, or skip the task")
    return {"text": text}


def _chat(fields: Fields, responses: Sequence[str], conversation: str | None) -> dict[str, Any]:
    if not fields.get("rating"):
        raise ValueError("no rating is chosen; choose 1 to 5")
    return {"conversation_id": conversation or "", "rating": _number(fields["rating"], "the rating")}


def _redteam(fields: Fields, responses: Sequence[str], conversation: str | None) -> dict[str, Any]:
    if not fields.get("success"):
        raise ValueError("how far it got is not chosen; choose 0 to 4")
    tags = [name.removeprefix("tag.") for name, value in fields.items() if name.startswith("tag.") and value]
    tried = fields.get("tried", "").strip()
    return {
        "conversation_id": conversation or "",
        "success": _number(fields["success"], "success"),
        "harm_tags": sorted(tags),
        **({"tried": tried} if tried else {}),
    }


def _review(fields: Fields, responses: Sequence[str], _: str | None) -> dict[str, Any]:
    reason = fields.get("reason", "").strip()
    if fields.get("decision") not in ("accept", "reject") or not reason:
        raise ValueError("a decision and a reason are needed; choose and write them")
    return {"decision": fields["decision"], "reason": reason}


_READERS: dict[str, Callable[[Fields, Sequence[str], str | None], dict[str, Any]]] = {
    "rank": _rank,
    "pairwise": _pair,
    "winrate": _pair,
    "attributes": _attributes,
    "labels": _labels,
    "demonstrate": _demonstrate,
    "chat": _chat,
    "redteam": _redteam,
    "review": _review,
}


def fields_of(payload: Mapping[str, Any], words: str | None) -> dict[str, str]:
    """The fields of a form that say what a kept payload says: a task opened again starts from its last answer."""
    if "skip" in payload:
        return {}
    if "ranks" in payload:
        ranks = {f"rank.{one}": FAILED if rank is None else str(rank) for one, rank in payload["ranks"].items()}
        for number, one in enumerate(payload.get("spans", ())):
            ranks[f"span.{number}"] = f"{one['response']}:{one['start']}:{one['end']}:{one['tag']}"
        for one, said in (payload.get("attributes") or {}).items():
            ranks |= _fields_of_attributes(one, said)
        return {**ranks, **({"reason": words} if words else {})}
    if "choice" in payload:
        nobody = BOTH_FAILED if payload.get("both_failed") else TIE
        strength = payload.get("strength")
        return {"choice": payload["choice"] or nobody, **({"strength": str(strength)} if strength else {})}
    if "responses" in payload:
        return {k: v for one, said in payload["responses"].items() for k, v in _fields_of_attributes(one, said).items()}
    if "spam" in payload:
        return _fields_of_labels(payload)
    found = {name: str(payload[name]) for name in ("rating", "success", "decision") if name in payload}
    found |= {f"tag.{tag}": "on" for tag in payload.get("harm_tags", ())}
    written = {"decision": "reason", "success": "tried"}
    name = next((field for known, field in written.items() if known in payload), "text")
    return {**found, **({name: words} if words else {})}


def _fields_of_attributes(response: str, said: Mapping[str, Any]) -> dict[str, str]:
    found = {f"{response}.quality": str(said["quality"])}
    for label in ATTRIBUTES:
        value = said[label.name]
        if label.maybe:
            found[f"{response}.{label.name}"] = "n/a" if value == "n/a" else "yes" if value else "no"
        elif value:
            found[f"{response}.{label.name}"] = "on"
    return found


def _fields_of_labels(payload: Mapping[str, Any]) -> dict[str, str]:
    found = {label.name: "yes" if payload[label.name] else "no" for label in QUESTIONS}
    found |= {label.name: "on" for label in FLAGS if payload.get(label.name)}
    scales = {label.name: payload.get(label.name) for label in SCALES}
    return found | {name: str(round(4 * value) + 1) for name, value in scales.items() if value is not None}
