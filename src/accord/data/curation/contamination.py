"""Training rows that give evaluation questions away, by shared runs of words (Brown et al. 2020, arXiv:2005.14165).

A row goes when its text, prompt or response, shares 13 words in a row with an evaluation prompt. Prompts of 8 to 12
words: 8 words in a row, and `rouge_l` f1 above 0.6 with the prompt or a response of the row. Shorter prompts: the
prompt or a response says the same words. Letters and digits count, in lower case; punctuation does not.

    accord data decontaminate mixture.jsonl --against truthfulqa.jsonl --out clean.jsonl
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

import accord
from accord.data import files
from accord.data.curation.examples import Example, examples, expanded
from accord.data.curation.written import Written, sift
from accord.data.files import DataError
from accord.data.progress import Tell, counted, silent
from accord.overlap import Tokens, rouge_l, words

__all__ = ["DecontaminateConfig", "Find", "Index", "decontaminate", "evaluation_index"]

LONG, SHORT, CLOSE = 13, 8, 0.6


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, (str, Path)) else value


Paths = Annotated[tuple[Path, ...], BeforeValidator(_as_tuple)]


class DecontaminateConfig(BaseModel):
    """Removal of rows that give evaluation sets away."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Paths = Field(description="data files, or folders of them", min_length=1)
    against: Paths = Field(description="evaluation sets: files, or folders of them", min_length=1)
    fields: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = Field(
        (),
        description="columns that hold the prompt of evaluation rows in a format of their own; the first that is there",
    )
    out: Path = Field(description="file of the rows that stay, .jsonl or .jsonl.gz; what goes is written beside it")
    tokens: Literal["unicode", "ascii"] = Field(
        "unicode", description="what a word is: of any script, or runs of a-z and 0-9 as in English-only work"
    )
    skip_bad_rows: bool = Field(False, description="set bad rows aside instead of stopping at the first")


class Find(NamedTuple):
    """Why a row goes: the evaluation file and row, the shared text, and which rule saw it."""

    file: str
    number: int
    shared: str
    rule: str


class _Prompt(NamedTuple):
    file: str
    number: int
    text: str
    length: int


class Index:
    """The runs of words of evaluation prompts; in memory by hash, 8 bytes and a number for each.

    Args:
        tokens: what a word is, see `accord.overlap.words`.
    """

    def __init__(self, tokens: Tokens = "unicode") -> None:
        self._tokens: Tokens = tokens
        self._prompts: list[_Prompt] = []
        self._runs: dict[int, dict[int, int]] = {LONG: {}, SHORT: {}}  # length -> hash of the run -> prompt
        self._whole: dict[int, int] = {}

    def __len__(self) -> int:
        """How many prompts are in it."""
        return len(self._prompts)

    def add(self, file: str, number: int, prompt: str) -> None:
        """Take an evaluation prompt; of equal runs the first prompt is named."""
        found = words(prompt, self._tokens)
        place = len(self._prompts)
        self._prompts.append(_Prompt(file, number, prompt, len(found)))
        if len(found) >= SHORT:
            size = LONG if len(found) >= LONG else SHORT
            for run, _ in _runs(found, size):
                self._runs[size].setdefault(run, place)
        elif found:
            self._whole.setdefault(hash(tuple(found)), place)

    def find(self, example: Example) -> Find | None:
        """The first thing a row gives away, or None."""
        for text in (example.prompt, *example.responses):
            found = words(text, self._tokens)
            place = self._whole.get(hash(tuple(found))) if len(found) < SHORT else None
            if place is not None:
                return self._found(place, " ".join(found), "the whole prompt")
            for run, start in _runs(found, LONG):
                place = self._runs[LONG].get(run)
                if place is not None:
                    return self._found(place, " ".join(found[start : start + LONG]), f"{LONG} words")
            close = self._close(text, found)
            if close is not None:
                return close
        return None

    def _close(self, text: str, found: list[str]) -> Find | None:
        if not self._runs[SHORT]:
            return None
        seen: set[int] = set()
        for run, start in _runs(found, SHORT):
            place = self._runs[SHORT].get(run)
            if place is not None and place not in seen:
                seen.add(place)
                alike = rouge_l(text, self._prompts[place].text, self._tokens).f1
                if alike > CLOSE:
                    shared = " ".join(found[start : start + SHORT])
                    return self._found(place, shared, f"{SHORT} words and ROUGE-L {alike:.2f}")
        return None

    def _found(self, place: int, shared: str, rule: str) -> Find:
        prompt = self._prompts[place]
        return Find(prompt.file, prompt.number, shared, rule)


def _runs(found: Sequence[str], size: int) -> Iterator[tuple[int, int]]:
    """Hash and start of each run of `size` words."""
    for start in range(len(found) - size + 1):
        yield hash(tuple(found[start : start + size])), start


def evaluation_index(
    paths: Sequence[Path], tokens: Tokens = "unicode", fields: Sequence[str] = (), tell: Tell = silent
) -> Index:
    """The index of the prompts of evaluation files.

    Args:
        paths: files, or folders of them.
        tokens: what a word is.
        fields: columns to look for the prompt in; a row without any of them is read as training data are.
        tell: progress.

    Raises:
        DataError: a file cannot be read, or a row has no prompt.
    """
    index = Index(tokens)
    for path in expanded(paths):
        named = {name for _, row in itertools.islice(files.rows(path), 1) if isinstance(row, Mapping) for name in row}
        field = next((name for name in fields if name in named), None)
        prompts = (
            ((example.number, example.prompt) for example in examples([path]))
            if field is None
            else _column(path, field)
        )
        for number, prompt in counted(prompts, "evaluation sets", tell):
            index.add(str(path), number, prompt)
    return index


def _column(path: Path, field: str) -> Iterator[tuple[int, str]]:
    for number, row in files.rows(path):
        value = row.get(field) if isinstance(row, Mapping) else None
        if not isinstance(value, str):
            raise DataError(f"{path}, row {number}: no text in `{field}`; expected the prompt there; mend the row")
        yield number, value


def decontaminate(config: DecontaminateConfig, tell: Tell = silent) -> Written:
    """Write the rows that give nothing away, those that do with what they share, and a report.

    Raises:
        DataError: a file cannot be read, or a row is bad.
    """
    index = evaluation_index(config.against, config.tokens, config.fields, tell)
    by_set: Counter[str] = Counter()

    def reason(example: Example) -> dict[str, Any] | None:
        find = index.find(example)
        if find is None:
            return None
        by_set[find.file] += 1
        evaluation = {"file": find.file, "row": find.number}
        return {"reason": find.rule, "evaluation": evaluation, "shared": find.shared, "action": "removed"}

    report = {
        "accord": accord.__version__,
        "settings": config.model_dump(mode="json"),
        "evaluation_prompts": len(index),
        "evaluation_sets": {str(path): files.sha256(path) for path in expanded(config.against)},
        "removed_by_set": by_set,
    }
    return sift(expanded(config.data), config.out, reason, report, skip_bad_rows=config.skip_bad_rows, tell=tell)
