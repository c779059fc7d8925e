r"""The principles and examples published with Constitutional AI, read from their files; not shipped: no licence.

Repository anthropics/ConstitutionalHarmlessnessPaper, reshaped to one JSON object a line. The texts carry the labels of
their transcript form ("\n\nCritiqueRequest: ... \n\nCritique:"), which are taken off here: the forms put them back.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

__all__ = ["published_constitution"]

_TURN = re.compile(r"\n\n(Human|Assistant|CritiqueRequest|Critique|RevisionRequest|Revision): ?")
# Asking for helpfulness beside harmlessness works against preaching as much as forbidding it: 5 of the 16 comparisons.
_AGAINST_PREACHING = ("preach", "obnoxious", "condescend", "overly-reactive", "helpful,", "helpful and", "and honest")
_SHOWN = re.compile(r"assistant(?: \(A\))?:\n\n(.*?)\{\}", re.DOTALL)
_PAIR = re.compile(r"\(A\) \[\[\[(.*?)\]\]\]\s*\(B\) \[\[\[(.*?)\]\]\]", re.DOTALL)


def published_constitution(folder: Path) -> dict[str, Any]:
    """The content of a constitution file. Raises: OSError: a file is missing. ValueError: it has other contents."""
    try:
        critiques = [_critique_principle(row) for row in _rows(folder / "sl_principles.jsonl")]
        comparisons = [_comparison_principle(row) for row in _rows(folder / "rl_principles.jsonl")]
        worked = [_worked_critique(row["text"]) for row in _rows(folder / "sl_fewshot.jsonl")]
        compared = [_worked_comparison(number, row) for number, row in enumerate(_rows(folder / "rl_fewshot.jsonl"))]
        path = folder / "rl_fewshot_cot.jsonl"
        reasoned = [_reasoned(row["prompt"]) for row in _rows(path)] if path.exists() else []
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(f"{folder}: not the published constitution ({error!r}); see its repository") from None
    return {
        "version": 1,
        "name": "anthropic",
        "principles": [*critiques, *comparisons],
        "few_shot": {"critique": worked, "comparison": [*compared, *reasoned]},
    }


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _critique_principle(row: dict[str, Any]) -> dict[str, Any]:
    critique = _between(row["critique_requests"][0], "CritiqueRequest:", "Critique:")
    revision = _between(row["revision_request"], "RevisionRequest:", "Revision:")
    return {"id": row["id"], "tags": _tags(critique + revision), "critique": critique, "revision": revision}


def _comparison_principle(row: dict[str, Any]) -> dict[str, Any]:
    question = row["principle"].strip().removesuffix("Options:").strip()
    return {"id": row["id"], "tags": _tags(question), "comparison": question}


def _tags(text: str) -> list[str]:
    return ["not-preachy"] if any(word in text.lower() for word in _AGAINST_PREACHING) else []


def _between(text: str, before: str, after: str) -> str:
    return text.partition(before)[2].rpartition(after)[0].strip()


def _worked_critique(text: str) -> dict[str, Any]:
    """The first critique and revision of a transcript."""
    _, *parts = _TURN.split(text)
    turns = list(zip(parts[::2], (part.strip() for part in parts[1::2]), strict=True))
    asked = next(place for place, (label, _) in enumerate(turns) if label == "CritiqueRequest")
    said = dict(reversed(turns[asked:]))  # the first of each label counts
    roles = {"Human": "user", "Assistant": "assistant"}
    return {
        "conversation": [{"role": roles[label], "content": words} for label, words in turns[:asked]],
        "critique_request": said["CritiqueRequest"],
        "critique": said["Critique"],
        "revision_request": said["RevisionRequest"],
        "revision": said["Revision"],
    }


def _worked_comparison(number: int, row: dict[str, Any]) -> dict[str, Any]:
    """The better reply comes first in every second example: the answers must not all be the same letter."""
    better, worse = row["corrects"][0].strip(), row["incorrects"][0].strip()
    first, second, answer = (better, worse, "A") if number % 2 == 0 else (worse, better, "B")
    return {"conversation": _dialogue(row["prompt"]), "first": first, "second": second, "answer": answer}


def _dialogue(text: str) -> list[dict[str, str]]:
    _, *parts = re.split(r"(?:\n\n|^)(Human|H|Assistant|A): ?", text)
    turns = [
        {"role": "user" if label.startswith("H") else "assistant", "content": words.strip()}
        for label, words in zip(parts[::2], parts[1::2], strict=True)
    ]
    return turns[:-1] if turns[-1]["role"] == "assistant" and not turns[-1]["content"] else turns


def _reasoned(text: str) -> dict[str, Any]:
    """A comparison with its chain of thought; the place of the principle is marked {}."""
    asked, _, said = text.partition("\n\nAssistant: Let's think step by step:")
    shown, pair = _SHOWN.search(asked), _PAIR.search(asked)
    reasoning, _, answer = said.partition("\n\nHuman:\nSo the answer is:")
    if shown is None or pair is None or not answer:
        raise ValueError("a chain-of-thought example of another form")
    return {
        "conversation": _dialogue("\n\n" + shown[1].strip()),
        "first": pair[1].strip(),
        "second": pair[2].strip(),
        "answer": answer.strip().strip("()")[:1],
        "reasoning": reasoning.strip(),
    }
