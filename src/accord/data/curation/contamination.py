"""Training rows that give evaluation questions away, by shared runs of words (Brown et al. 2020, arXiv:2005.14165).

A row goes when its text, prompt or response, shares 13 words in a row with an evaluation prompt. Prompts of 8 to 12
words: all of them in a row, as in a template around the question, or 8 in a row and `rouge_l` f1 above 0.6 with the
prompt or a response. Shorter prompts are not looked for: too many rows say the same by chance. Letters and digits
count, in lower case; punctuation does not.

Evaluation prompts made by templates share the words of the template with all training rows of that template. So runs of
5 words that stand in more than 10 evaluation prompts are wording, as GPT-3's filter has it for phrases that collide
often, and do not count; a stretch of them longer than any template, 50 words, is a passage that many questions are
about, and counts.

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

__all__ = ["DecontaminateConfig", "Find", "Index", "Prompt", "decontaminate", "evaluation_index"]

LONG, SHORT, CLOSE = 13, 8, 0.6
WORDING, TEMPLATE = 5, 50  # words of a run that is counted; words of the longest template


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
    wording: int | None = Field(
        10, ge=0, description="5-word runs in more evaluation prompts than this are a template's; none: all count"
    )
    skip_bad_rows: bool = Field(False, description="set bad rows aside instead of stopping at the first")


class Find(NamedTuple):
    """Why a row goes: the evaluation file and row, the shared text, and which rule saw it."""

    file: str
    number: int
    shared: str
    rule: str

    @property
    def listed(self) -> dict[str, Any]:
        """As it stands beside the row that goes."""
        evaluation = {"file": self.file, "row": self.number}
        return {"reason": self.rule, "evaluation": evaluation, "shared": self.shared, "action": "removed"}


class Prompt(NamedTuple):
    """An evaluation prompt and where it stands."""

    file: str
    number: int
    text: str


class Index:
    """The runs of words of evaluation prompts, in memory by hash.

    Args:
        prompts: of the evaluation sets.
        tokens: what a word is, see `accord.overlap.words`.
        wording: runs of 5 words in more than so many prompts do not count; none: all count.
    """

    def __init__(self, prompts: Sequence[Prompt], tokens: Tokens = "unicode", wording: int | None = 10) -> None:
        self._tokens: Tokens = tokens
        self._prompts = prompts
        self._wording = self._common_runs(wording) if wording is not None else frozenset()
        self._runs: dict[int, dict[int, int]] = {LONG: {}, SHORT: {}}  # length -> hash of the run -> prompt
        self._short: dict[int, tuple[str, ...]] = {}  # the words of prompts of 8 to 12
        for place, prompt in enumerate(prompts):
            self._add(place, self._content(prompt.text))

    def __len__(self) -> int:
        """How many prompts are in it."""
        return len(self._prompts)

    def _common_runs(self, most: int) -> frozenset[int]:
        counts: Counter[int] = Counter()
        for prompt in self._prompts:
            counts.update({run for run, _ in _runs(words(prompt.text, self._tokens), WORDING)})
        return frozenset(run for run, count in counts.items() if count > most)

    def _content(self, text: str) -> list[str]:
        """The words of a text without the wording of templates."""
        found = words(text, self._tokens)
        if not self._wording:
            return found
        common = [False] * len(found)
        for run, start in _runs(found, WORDING):
            if run in self._wording:
                common[start : start + WORDING] = [True] * WORDING
        kept: list[str] = []
        for is_common, stretch in itertools.groupby(zip(common, found, strict=True), key=lambda pair: pair[0]):
            inside = [word for _, word in stretch]
            if not is_common or len(inside) > TEMPLATE:
                kept += inside
        return kept

    def _add(self, place: int, found: list[str]) -> None:
        """Take an evaluation prompt; of equal runs the first prompt is named."""
        if len(found) < SHORT:
            return
        size = LONG if len(found) >= LONG else SHORT
        for run, _ in _runs(found, size):
            self._runs[size].setdefault(run, place)
        if size == SHORT:
            self._short[place] = tuple(found)

    def find(self, example: Example) -> Find | None:
        """The first thing a row gives away, or None."""
        for text in (example.prompt, *example.responses):
            found = self._content(text)
            for run, start in _runs(found, LONG):
                place = self._runs[LONG].get(run)
                if place is not None:
                    return self._found(place, " ".join(found[start : start + LONG]), f"{LONG} words")
            close = self._close(found)
            if close is not None:
                return close
        return None

    def _close(self, found: list[str]) -> Find | None:
        """The rules for prompts of 8 to 12 words."""
        seen: set[int] = set()
        for run, start in _runs(found, SHORT) if self._short else ():
            place = self._runs[SHORT].get(run)
            if place is None or place in seen:
                continue
            seen.add(place)
            whole = self._short[place]
            # the run may be any of the prompt's: the prompt began up to 4 words earlier
            if any(
                tuple(found[at : at + len(whole)]) == whole for at in range(max(0, start - LONG + SHORT), start + 1)
            ):
                return self._found(place, " ".join(whole), "the whole prompt")
            alike = rouge_l(" ".join(found), " ".join(whole), self._tokens).f1
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
    paths: Sequence[Path],
    tokens: Tokens = "unicode",
    fields: Sequence[str] = (),
    wording: int | None = 10,
    tell: Tell = silent,
) -> Index:
    """The index of the prompts of evaluation files.

    Args:
        paths: files, or folders of them.
        tokens: what a word is.
        fields: columns to look for the prompt in; a row without any of them is read as training data are.
        wording: see `Index`.
        tell: progress.

    Raises:
        DataError: a file cannot be read, or a row has no prompt.
    """
    prompts: list[Prompt] = []
    for path in expanded(paths):
        named = {name for _, row in itertools.islice(files.rows(path), 1) if isinstance(row, Mapping) for name in row}
        field = next((name for name in fields if name in named), None)
        read = _column(path, field) if field else (Prompt(*one[:2], one.prompt) for one in examples([path]))
        prompts += counted(read, "evaluation sets", tell)
    return Index(prompts, tokens, wording)


def _column(path: Path, field: str) -> Iterator[Prompt]:
    for number, row in files.rows(path):
        value = row.get(field) if isinstance(row, Mapping) else None
        if not isinstance(value, str):
            raise DataError(f"{path}, row {number}: no text in `{field}`; expected the prompt there; mend the row")
        yield Prompt(str(path), number, value)


def decontaminate(config: DecontaminateConfig, tell: Tell = silent) -> Written:
    """Write the rows that give nothing away, those that do with what they share, and a report.

    Raises:
        DataError: a file cannot be read, or a row is bad.
    """
    index = evaluation_index(config.against, config.tokens, config.fields, config.wording, tell)
    by_set: Counter[str] = Counter()

    def reason(example: Example) -> dict[str, Any] | None:
        find = index.find(example)
        if find is None:
            return None
        by_set[find.file] += 1
        return find.listed

    report = {
        "accord": accord.__version__,
        "settings": config.model_dump(mode="json"),
        "evaluation_prompts": len(index),
        "evaluation_sets": {str(path): files.sha256(path) for path in expanded(config.against)},
        "removed_by_set": by_set,
    }
    return sift(expanded(config.data), config.out, reason, report, skip_bad_rows=config.skip_bad_rows, tell=tell)
