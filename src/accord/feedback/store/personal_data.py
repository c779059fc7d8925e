"""Personal data found by pattern and replaced by placeholders.

It misses cases, and says so: names and addresses have no pattern; give `find` a detector of your own (`extra`).
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = ["Detector", "Find", "Numbers", "find", "moved", "numbered", "report", "scrub", "without"]


@dataclass(frozen=True, kw_only=True)
class Find:
    """A passage that looks personal. Example: `Find(type="EMAIL", start=3, end=10, rule="e-mail")`.

    Attributes:
        type: what the placeholder says: EMAIL, PHONE, IP, CARD, IBAN, NATIONAL_ID, SECRET, URL.
        start: first character.
        end: the one after the last.
        rule: name of the rule that found it.
    """

    type: str
    start: int
    end: int
    rule: str


Detector = Callable[[str], Iterable[Find]]


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)


def luhn(text: str) -> bool:
    """Whether 13 to 19 digits pass the check of payment cards (ISO/IEC 7812)."""
    digits = [int(digit) for digit in _digits(text)]
    doubled = [digit if place % 2 == 0 else sum(divmod(2 * digit, 10)) for place, digit in enumerate(reversed(digits))]
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and sum(doubled) % 10 == 0


def iban(text: str) -> bool:
    """Whether an account number is 1 modulo 97 with its first four characters moved to the end (ISO 13616)."""
    packed = text.replace(" ", "").upper()
    moved = packed[4:] + packed[:4]
    return 15 <= len(packed) <= 34 and int("".join(str(int(one, 36)) for one in moved)) % 97 == 1


def _address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return text not in ("::", "0.0.0.0", "127.0.0.1", "::1")


_DATE = re.compile(r"\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{2,4}")


def _telephone(text: str) -> bool:
    """8 to 15 digits that begin like a telephone number, or are grouped like one, and are no date."""
    looks = text.startswith(("+", "00", "0", "(")) or re.fullmatch(r"\d{3}[-. ]\d{3}[-. ]\d{4}", text)
    return bool(looks) and 8 <= len(_digits(text)) <= 15 and not _DATE.match(text) and not text.isdigit()


def _always(text: str) -> bool:
    return True


# Earlier rules win where two find the same characters.
_PRIVATE_KEY = r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
_TOKEN = (
    r"\b(?:sk-[\w-]{16,}|gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|AKIA[0-9A-Z]{16}|AIza[\w-]{30,}"
    r"|xox[abprs]-[\w-]{10,}|hf_[A-Za-z0-9]{20,}|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]+)"
)
_SOCIAL_SECURITY = r"\b(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}\b"
_NATIONAL_INSURANCE = r"\b[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]\b"
_IPV6 = r"(?<![\w:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])"
_RULES: tuple[tuple[str, str, str, Callable[[str], bool]], ...] = (
    ("SECRET", "private key", _PRIVATE_KEY, _always),
    ("SECRET", "key or token", _TOKEN, _always),
    ("URL", "credentials in an address", r"\b[a-z][a-z0-9+.-]*://[^\s/:@]+:[^\s/@]+@[^\s]+", _always),
    ("EMAIL", "e-mail", r"[\w.+%-]+@(?:[\w-]+\.)+[A-Za-z]{2,}", _always),
    ("IBAN", "account number", r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{2,4}){3,8}\b", iban),
    ("CARD", "payment card", r"\b\d(?:[ -]?\d){12,18}\b", luhn),
    ("NATIONAL_ID", "US social security", _SOCIAL_SECURITY, _always),
    ("NATIONAL_ID", "UK national insurance", _NATIONAL_INSURANCE, _always),
    ("IP", "IPv4", r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.]*\d)", _address),
    ("IP", "IPv6", _IPV6, _address),
    ("PHONE", "telephone", r"(?<![\w.+(/-])(?:\+|\()?\d[\d ()./-]{6,}\d(?!\w)", _telephone),
)
_COMPILED = tuple((kind, rule, re.compile(pattern), check) for kind, rule, pattern, check in _RULES)


def find(text: str, extra: Sequence[Detector] = ()) -> list[Find]:
    """Return what looks personal in a text, in order, without overlaps."""
    taken: list[Find] = []
    candidates = [
        Find(type=kind, start=match.start(), end=match.end(), rule=rule)
        for kind, rule, pattern, check in _COMPILED
        for match in pattern.finditer(text)
        if check(match.group())
    ]
    for candidate in [*candidates, *(found for detector in extra for found in detector(text))]:
        if all(candidate.end <= other.start or other.end <= candidate.start for other in taken):
            taken.append(candidate)
    return sorted(taken, key=lambda found: found.start)


Numbers: TypeAlias = dict[tuple[str, str], int]  # (type, value) -> the number in its placeholder


def numbered(texts: Sequence[str], known: Numbers) -> Numbers:
    """What is `known`, and of placeholders in texts that were scrubbed elsewhere the numbers that are taken."""
    taken = {(kind, f"taken {number}"): int(number) for text in texts for kind, number in _PLACEHOLDER.findall(text)}
    return {**taken, **known}


_PLACEHOLDER = re.compile(r"\[([A-Z_]+)_([0-9]{1,6})\]")


def scrub(
    texts: Sequence[str], extra: Sequence[Detector] = (), *, numbers: Numbers | None = None
) -> tuple[list[str], list[list[Find]]]:
    """Replace what looks personal in the texts of one conversation by `[EMAIL_1]` and the like.

    The same value has the same number in all of them, so who is meant can still be followed. `numbers` has those that
    earlier texts were given, and is added to.

    Returns: the texts, and the finds in each, by the positions in the text as it came.
    """
    numbers = {} if numbers is None else numbers
    counts: Counter[str] = Counter()
    for (kind, _), number in numbers.items():
        counts[kind] = max(counts[kind], number)
    scrubbed, all_finds = [], []
    for text in texts:
        finds = find(text, extra)
        parts, end = [], 0
        for found in finds:
            value = _value(text, found)
            if value not in numbers:
                counts[found.type] += 1
                numbers[value] = counts[found.type]
            parts += [text[end : found.start], _placeholder(text, found, numbers)]
            end = found.end
        scrubbed.append("".join([*parts, text[end:]]))
        all_finds.append(finds)
    return scrubbed, all_finds


def _value(text: str, found: Find) -> tuple[str, str]:
    return found.type, text[found.start : found.end].lower()


def _placeholder(text: str, found: Find, numbers: Numbers) -> str:
    return f"[{found.type}_{numbers[_value(text, found)]}]"


def moved(text: str, finds: Sequence[Find], numbers: Numbers, start: int, end: int) -> tuple[int, int]:
    """Where a passage of a text is after `scrub`; one that has a part of a find has all of its placeholder then.

    Args:
        text: as it was.
        finds: in it, in order.
        numbers: of the placeholders, as `scrub` left them.
        start: first character of the passage.
        end: the one after its last.
    """
    longer = [(found, len(_placeholder(text, found, numbers)) - (found.end - found.start)) for found in finds]
    cut = [found for found in finds if found.start < end and start < found.end]
    start, end = min([start, *(found.start for found in cut)]), max([end, *(found.end for found in cut)])
    before = sum(by for found, by in longer if found.end <= start)
    return start + before, end + sum(by for found, by in longer if found.end <= end)


def without(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A judgment's payload with what looks personal replaced in what a person wrote."""
    written = [name for name in ("text", "tried", "reason") if isinstance(payload.get(name), str)]
    scrubbed, _ = scrub([payload[name] for name in written])
    return {**payload, **dict(zip(written, scrubbed, strict=True))}


def report(finds: Iterable[Find]) -> str:
    """A line for people: counts by type, and what the screen cannot do."""
    counts = Counter(found.type for found in finds)
    listed = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "nothing"
    return f"personal data: {listed} found by pattern; automatic removal misses cases, names and addresses above all"
