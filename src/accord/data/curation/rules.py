"""The rules that tell bad rows, their settings, and what they have to know. They see form, not truth."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from accord.data.curation.examples import Example
from accord.data.files import DataError
from accord.overlap import words

__all__ = ["RULES", "CleanConfig", "Context", "Rule", "Scorer", "beginning"]

Scorer = Callable[[Sequence[str]], Sequence[float | None]]
"""Texts to one number each; None where there is no answer."""

_END = re.compile(r"[.!?…。！？;:)\]}\"'”’»`*_|>]$|\d$")  # noqa: RUF001
_LISTED = re.compile(r"^\s*([-*•]|\d+[.)])\s")
_REFUSAL = re.compile(
    r"(?i)\bas an? (?:AI|artificial intelligence|(?:large )?language model)\b"
    r"|\bI(?:'m| am) (?:just )?an? (?:AI|language model)\b"
    r"|^(?:I(?:'m| am) )?(?:sorry|afraid),? (?:but )?I (?:can't|cannot|can not|am unable|am not able|won't)\b"
    r"|^I (?:can't|cannot|can not|won't|am unable to|am not able to)"
    r" (?:help|assist|provide|answer|fulfil|do|create|write)"
)
_HARM = re.compile(
    r"(?i)\b(?:kill|murder|bomb|weapon|poison|suicide|self-harm|steal|hack|malware|drug|explosive|abuse|rape|racis\w*|"
    r"hate|threat\w*|illegal|terroris\w*|torture|stalk\w*|porn\w*|fraud|scam|launder\w*|forge|blackmail|naked)\w*"
)
_URL = re.compile(r"(?:https?://|www\.)\S+")


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, (str, Path)) else value


class CleanConfig(BaseModel):
    """Removal of bad rows by rules."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Annotated[tuple[Path, ...], BeforeValidator(_as_tuple)] = Field(
        description="data files, or folders of them", min_length=1
    )
    out: Path = Field(description="file of the rows that stay, .jsonl or .jsonl.gz; what goes is written beside it")
    without: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = Field(
        (), description="rules that are switched off"
    )
    language: str | None = Field(None, description="two letters: rows in another language go; none: any language")
    min_words: int = Field(1, ge=0, description="shortest response, words")
    max_words: int = Field(2000, ge=1, description="longest response, words")
    max_repetition: float = Field(0.3, gt=0, le=1, description="share of 4-word runs that came before in the response")
    max_beginning: float = Field(0.02, gt=0, le=1, description="share of the set that may begin with the same 4 words")
    toxicity: str | None = Field(
        None, description="module:function from texts to numbers 0 to 1; rows at the limit or above go"
    )
    max_toxicity: float = Field(0.5, gt=0, le=1, description="limit of that number")
    reward: str | None = Field(
        None, description="module:function from texts (prompt, blank line, response) to numbers, higher is better"
    )
    drop_lowest: float = Field(
        0.1, gt=0, lt=1, description="share of the set with the lowest of those numbers that goes"
    )
    skip_bad_rows: bool = Field(False, description="set bad rows aside instead of stopping at the first")

    @field_validator("without")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known = [rule.name for rule in RULES]
        for name in names:
            if name not in known:
                raise ValueError(f'no rule is called "{name}"; the rules are {", ".join(known)}')
        return names


class Context(NamedTuple):
    """What rules know besides the row: settings, common beginnings, and what was given to them.

    Attributes:
        config: the settings.
        common: first 4 words that too many responses have.
        personal: finds personal data in a text; none: not looked for.
        toxicity: a scorer; none: not scored.
        lowest: numbers of the rows with the lowest rewards.
    """

    config: CleanConfig
    common: frozenset[str] = frozenset()
    personal: Callable[[str], Sequence[Any]] | None = None
    toxicity: Scorer | None = None
    lowest: frozenset[tuple[str, int]] = frozenset()


class Rule(NamedTuple):
    """A rule: its name, what it removes, and what it finds in a row (None: nothing)."""

    name: str
    removes: str
    find: Callable[[Example, Context], str | None]


def _each(check: Callable[[str, Context], str | None]) -> Callable[[Example, Context], str | None]:
    """A rule on every response of a row."""

    def find(example: Example, context: Context) -> str | None:
        return next(filter(None, (check(response, context) for response in example.responses)), None)

    return find


def _language(example: Example, context: Context) -> str | None:
    wanted = context.config.language
    if wanted is None or len(words(example.text, "unicode")) < 5:  # too short to tell
        return None
    found = _identify(example.text)
    return f"looks like {found}" if found != wanted else None


def _identify(text: str) -> str:
    try:
        import py3langid
    except ImportError:
        raise DataError("`language` needs py3langid; pip install 'accord-align[clean]'") from None
    found: str = py3langid.classify(text)[0]
    return found


def _length(text: str, context: Context) -> str | None:
    count = len(words(text, "unicode")) or len(text.split())  # "+" is an answer too
    config = context.config
    return None if config.min_words <= count <= config.max_words else f"{count} words"


def _echo(example: Example, context: Context) -> str | None:
    same = any(response.split() == example.prompt.split() for response in example.responses)
    return "the response is the prompt" if same else None


def _cut(text: str, context: Context) -> str | None:
    """Prose of a dozen words whose last line stops without a mark; lists, tables and code end as they like."""
    last = text.rstrip().rsplit("\n", 1)[-1]
    if len(words(text, "unicode")) < 12 or _LISTED.match(last) or _END.search(last) or "```" in text:
        return None
    return f"ends in {last[-20:]!r}"


def _repetition(text: str, context: Context) -> str | None:
    found = words(text, "unicode")
    runs = [tuple(found[start : start + 4]) for start in range(len(found) - 3)]
    if len(runs) < 10:
        return None
    share = 1 - len(set(runs)) / len(runs)
    return f"{share:.0%} of 4-word runs are repeats" if share > context.config.max_repetition else None


def _refusal(example: Example, context: Context) -> str | None:
    if _HARM.search(example.prompt):
        return None
    found = next(filter(None, (_REFUSAL.search(response) for response in example.responses)), None)
    return f"{found.group()!r} to a prompt without a word of harm" if found else None


def _boilerplate(text: str, context: Context) -> str | None:
    found = beginning(text)
    return f"begins with {found!r}" if found in context.common else None


def beginning(text: str) -> str | None:
    """The first 4 words of a text that has more."""
    found = words(text, "unicode")
    return " ".join(found[:4]) if len(found) > 4 else None


def _fences(text: str, context: Context) -> str | None:
    return "a code fence is open" if len(re.findall(r"(?m)^\s*```", text)) % 2 else None


def _urls(text: str, context: Context) -> str | None:
    only = bool(_URL.search(text)) and not words(_URL.sub(" ", text), "unicode")
    return "nothing but addresses" if only else None


def _personal(example: Example, context: Context) -> str | None:
    if context.personal is None:
        return None
    found = context.personal(example.text)
    return ", ".join(sorted({find.type for find in found})) or None if found else None


def _toxicity(example: Example, context: Context) -> str | None:
    if context.toxicity is None or not example.responses:
        return None
    scores = [score for score in context.toxicity(example.responses) if score is not None]
    return f"toxicity {max(scores):.2f}" if scores and max(scores) >= context.config.max_toxicity else None


def _reward(example: Example, context: Context) -> str | None:
    return "among the lowest rewards" if (example.file, example.number) in context.lowest else None


RULES = (
    Rule("language", "text in another language than asked for", _language),
    Rule("length", "responses that are too short or too long", _each(_length)),
    Rule("echo", "responses that repeat the prompt", _echo),
    Rule("cut", "prose that stops without a mark", _each(_cut)),
    Rule("repetition", "responses that go round in circles", _each(_repetition)),
    Rule("refusal", "refusals and self-reference where the prompt is harmless", _refusal),
    Rule("boilerplate", "beginnings that too many responses share", _each(_boilerplate)),
    Rule("fences", "code fences that do not close", _each(_fences)),
    Rule("urls", "responses that are addresses only", _each(_urls)),
    Rule("personal", "personal data, by pattern", _personal),
    Rule("toxicity", "responses that a scorer finds toxic", _toxicity),
    Rule("reward", "the responses with the lowest rewards", _reward),
)
