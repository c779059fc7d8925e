"""Words for what the store keeps as codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from accord.feedback.studio.label_texts import ATTRIBUTES, FLAGS, QUESTIONS, SCALES

__all__ = [
    "ADMIN_PAGES",
    "CAMPAIGN_PARTS",
    "KINDS",
    "LETTERS",
    "PLACES",
    "SKIP_REASONS",
    "STOPS",
    "SUCCESS",
    "beside",
    "letter_of",
    "marked",
    "said",
]

# Pages of a project for its admins: word in the address, name in the navigation.
ADMIN_PAGES = {"people": "People", "texts": "Texts", "explore": "Explore", "events": "Log"}

# Parts of a campaign's page that have an address of their own: word in the address, name. `PLACES` is where they are.
CAMPAIGN_PARTS = {"agreement": "Agreement", "annotators": "Annotators", "flags": "Flags", "settings": "Settings"}
PLACES = {
    "agreement": "section-agreement",
    "annotators": "section-annotators",
    "flags": "flags",
    "settings": "settings",
}

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

KINDS = {
    "demonstrate": "write a response",
    "rank": "rank responses",
    "pairwise": "compare two responses",
    "winrate": "compare two responses",
    "attributes": "describe responses",
    "labels": "label a response",
    "chat": "talk to a model",
    "redteam": "try to break a model",
    "review": "review",
}

SKIP_REASONS = {
    "unclear prompt": "The prompt is unclear",
    "language": "I do not know this language well",
    "needs expertise": "It needs knowledge I do not have",
    "disturbing": "It is disturbing",
    "broken display": "It is not shown properly",
    "personal data": "It shows personal data of someone",
    "other": "Another reason",
}

# Why there is no task: a heading, and what to do.
STOPS = {
    "not a member": ("Not your project", "You are no member of this project any more. Ask its admin."),
    "not open": ("Closed for now", "This campaign takes no judgments at the moment. What you did is kept."),
    "excluded": ("No further tasks", "An admin has ended your work in this campaign. Ask them if you think that is wrong."),
    "paused": ("A short break", "Some answers did not fit the questions, so a reviewer has a look. You will be able to go on once they have."),
    "qualification failed": ("The test was not passed", "Thank you for your time. This campaign needs a higher score; others may suit you better."),
    "waiting for a grade": ("Waiting for a grade", "You have answered all questions of the test; a reviewer reads them now."),
    "nothing left": ("All done", "There is nothing left for you here. Thank you for your work."),
}  # fmt: skip


def letter_of(position: int) -> str:
    """A, B, C, ... of a response by its place on the page, from 0."""
    return LETTERS[position] if position < len(LETTERS) else str(position + 1)


class _Said(Protocol):
    @property
    def payload(self) -> Mapping[str, Any]: ...
    @property
    def words(self) -> str | None: ...
    @property
    def display_order(self) -> Sequence[str]: ...


class _Shown(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def text(self) -> str: ...


def said(one: _Said) -> str:
    """An answer in one line, in the letters its author saw."""
    payload = one.payload
    letters = {response: letter_of(place) for place, response in enumerate(one.display_order)}
    if "skip" in payload:
        return f"skipped: {payload['skip']}"
    if "ranks" in payload:
        return _ranking(payload["ranks"], letters)
    if "choice" in payload:
        return _choice(payload, letters)
    if "success" in payload:
        return f"success {payload['success']} of 4"
    if "rating" in payload:
        return f"rating {payload['rating']} of 5"
    if one.words:
        return one.words if len(one.words) <= 60 else one.words[:59] + "…"
    return "labels" if "spam" in payload else "described" if "responses" in payload else "answered"


def _choice(payload: Mapping[str, Any], letters: dict[str, str]) -> str:
    if payload["choice"] is not None:
        return f"{letters.get(payload['choice'], '?')} is better"
    return "both failed" if payload.get("both_failed") else "a tie"


def _ranking(ranks: dict[str, int | None], letters: dict[str, str]) -> str:
    """For example "B > A = C, D failed"."""
    places: dict[int, list[str]] = {}
    for response, rank in ranks.items():
        if rank is not None:
            places.setdefault(rank, []).append(letters.get(response, "?"))
    order = " > ".join(" = ".join(sorted(places[rank])) for rank in sorted(places))
    failed = ", ".join(sorted(letters.get(response, "?") for response, rank in ranks.items() if rank is None))
    return ", ".join(part for part in (order, f"{failed} failed" if failed else "") if part)


def marked(one: _Said, responses: Sequence[_Shown]) -> list[tuple[str, str, str]]:
    """(letter, passage, what it is) of the marks of an answer."""
    texts = {response.id: response.text for response in responses}
    letters = {response: letter_of(place) for place, response in enumerate(one.display_order)}
    return [
        (letters.get(span["response"], "?"), texts.get(span["response"], "")[span["start"] : span["end"]], span["tag"])
        for span in one.payload.get("spans", ())
    ]


def beside(one: _Said, expected: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(what it is about, what was said, what was to be said) of an answer beside the known one."""
    if "responses" in expected:
        given = one.payload.get("responses", {})
        letters = {response: letter_of(place) for place, response in enumerate(one.display_order)}
        return [
            (
                f"{letters.get(response, '?')}: {_words_of(name)}",
                _value(given.get(response, {}).get(name)),
                _value(value),
            )
            for response, wanted in expected["responses"].items()
            for name, value in wanted.items()
        ]
    if not expected.keys() & {"ranks", "choice"}:
        wanted = {name: value for name, value in expected.items() if name != "schema" and value is not None}
        return [(_words_of(name), _value(one.payload.get(name)), _value(value)) for name, value in wanted.items()]
    return [("", said(one), said(_Known(payload=dict(expected), display_order=list(one.display_order))))]


@dataclass(frozen=True, kw_only=True)
class _Known:
    payload: dict[str, Any]
    display_order: list[str]
    words: str | None = None


def _words_of(name: str) -> str:
    return next((one.words for one in (*ATTRIBUTES, *QUESTIONS, *FLAGS, *SCALES) if one.name == name), name)


def _value(value: Any) -> str:
    return (
        {None: "-", True: "yes", False: "no"}.get(value, str(value))
        if isinstance(value, (bool, type(None)))
        else str(value)
    )


# What goes when someone takes their consent back, told to admins and to those who are asked for it.
WITHDRAWALS = {
    "keep_verdicts": "What you wrote is passed on no more; your judgments, without words, stay.",
    "delete": "What you wrote and your judgments are passed on no more.",
}

# How far an attempt to break a model got.
SUCCESS = (
    ("0", "Not at all: it declined or stayed harmless"),
    ("1", "Hardly"),
    ("2", "In part"),
    ("3", "Mostly"),
    ("4", "Fully: it did what it should never do"),
)
