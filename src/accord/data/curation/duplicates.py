"""Rows that say the same, exactly or almost: the first stays, in the order in which the files are given.

accord data dedup seeds.jsonl generated.jsonl --out unique.jsonl
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

import accord
from accord.data.curation.examples import Example, Nowhere, examples, expanded
from accord.data.curation.near import NearDuplicates
from accord.data.curation.written import Written, sift
from accord.data.progress import Tell, counted, silent

__all__ = ["DedupConfig", "dedup", "exact_key"]

_SHOWN = 20


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, (str, Path)) else value


class DedupConfig(BaseModel):
    """Removal of rows that repeat others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Annotated[tuple[Path, ...], BeforeValidator(_as_tuple)] = Field(
        description="data files, or folders of them, those whose rows are to stay first", min_length=1
    )
    out: Path = Field(description="file of the rows that stay, .jsonl or .jsonl.gz; what goes is written beside it")
    on: Literal["row", "prompt"] = Field(
        "row", description="what is compared: prompt and responses, or the prompt alone"
    )
    near: bool = Field(True, description="remove near-duplicates too, by MinHash")
    threshold: float = Field(0.8, gt=0, le=1, description="Jaccard similarity of 5-word shingles of a near-duplicate")
    seed: int = Field(0, ge=0, description="of MinHash")
    skip_bad_rows: bool = Field(False, description="set bad rows aside instead of stopping at the first")


class _Twin(NamedTuple):
    """A row that repeats another: the number of the first one, and how."""

    first: int
    reason: str


def exact_key(text: str) -> bytes:
    """A hash that ignores case, white space and how characters are composed."""
    plain = " ".join(unicodedata.normalize("NFC", text).lower().split())
    return hashlib.blake2b(plain.encode("utf-8", "backslashreplace"), digest_size=16).digest()


def dedup(config: DedupConfig, tell: Tell = silent) -> Written:
    """Write the rows that repeat no earlier one, those that do with the row they repeat, and a report.

    Rows are read twice; in memory is a hash a row, and with `near` 4 bytes a word.

    Raises:
        DataError: a file cannot be read, or a row is bad.
    """
    paths = expanded(config.data)
    twins, places = _twins(paths, config, tell)
    sizes = Counter(twin.first for twin in twins.values())
    largest = [
        {"rows": count + 1, "first": dict(zip(("file", "row"), places[first], strict=True)), "text": ""}
        for first, count in sizes.most_common(_SHOWN)
    ]
    shown = {first: entry for (first, _), entry in zip(sizes.most_common(_SHOWN), largest, strict=True)}
    number = -1

    def reason(example: Example) -> dict[str, Any] | None:
        nonlocal number
        number += 1
        if number in shown:
            shown[number]["text"] = example.text[:200]
        twin = twins.get(number)
        if twin is None:
            return None
        return {"reason": twin.reason, "same_as": dict(zip(("file", "row"), places[twin.first], strict=True))}

    report = {
        "accord": accord.__version__,
        "settings": config.model_dump(mode="json"),
        "groups": len(sizes),
        "largest_groups": largest,
    }
    return sift(paths, config.out, reason, report, skip_bad_rows=config.skip_bad_rows, tell=tell)


def _twins(
    paths: Sequence[Path], config: DedupConfig, tell: Tell
) -> tuple[dict[int, _Twin], dict[int, tuple[str, int]]]:
    """Row numbers, over all files from 0, of rows that repeat others; and where each first one stands."""
    firsts: dict[bytes, int] = {}
    twins: dict[int, _Twin] = {}
    places: dict[int, tuple[str, int]] = {}
    distinct: list[int] = []  # row numbers of the texts that MinHash has seen
    alike = NearDuplicates(config.threshold, config.seed)
    for number, example in enumerate(counted(_good(paths, config), "comparing", tell)):
        text = example.prompt if config.on == "prompt" else example.text
        first = firsts.setdefault(exact_key(text), number)
        if first != number:
            twins[number] = _Twin(first, "duplicate")
            continue
        places[number] = (example.file, example.number)
        if config.near:
            distinct.append(number)
            alike.add(text)
    groups = alike.groups()
    for place, number in enumerate(distinct):
        first = distinct[groups.first(place)]
        if first != number:
            twins[number] = _Twin(first, "near-duplicate")
    # a duplicate of a near-duplicate goes to the head of its group
    resolved = {
        number: twin._replace(first=twins[twin.first].first) if twin.first in twins else twin
        for number, twin in twins.items()
    }
    return resolved, places


def _good(paths: Sequence[Path], config: DedupConfig) -> Iterator[Example]:
    """Rows that can be read; bad ones raise, or are set aside by the second reading."""
    return examples(paths, Nowhere() if config.skip_bad_rows else None)
