"""Preferences with their origin: what a row says of prompt group, annotators, models and display, beside its record.

Rows are Comparisons, Rankings, and what other people write in their place; `meta` is what `export_campaign` puts
beside them. A file that an export split is named NAME.SPLIT.jsonl, and its rows belong to that split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accord.data import files
from accord.data.files import Broken, DataError
from accord.data.formats import parse
from accord.pipelines.evaluation import data_facts
from accord.records import Comparison, Conversation, RankedPair, Ranking, ResponseSet, pairs_from_ranks

__all__ = ["Judged", "JudgedData", "prompt_hash", "read_judged", "read_response_sets", "split_of"]

SPLITS = ("train", "held_out_prompts", "held_out_annotators", "held_out_both")


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A prompt, K responses and what was said of them.

    Example: `Judged(prompt=..., responses=("4", "5"), ranks=(1, 2), split="held_out_prompts", annotators=("p7",))`.

    Attributes:
        prompt: what was asked.
        responses: K texts.
        ranks: 1 is best, equal numbers tie, None failed; a set nobody judged has all equal.
        finished: False where a response was cut off by length; None: all finished.
        probability: of a comparison, P(the first is better); None: certain.
        models: who said each response, None where unknown.
        first: how often each response was shown first, or None.
        split: part of an export the row is of; else the file it stands in.
        group: prompt group, or what `group_by` names; "" without one.
        annotators: pseudonyms behind the verdict.
        agreement: of the item's annotators on its pairs, 0..1, or None.
    """

    prompt: Conversation
    responses: tuple[str, ...]
    ranks: tuple[int | None, ...]
    finished: tuple[bool, ...] | None = None
    probability: float | None = None
    models: tuple[str | None, ...] | None = None
    first: tuple[int, ...] | None = None
    split: str = ""
    group: str = ""
    annotators: tuple[str, ...] = ()
    agreement: float | None = None

    @property
    def prompt_id(self) -> str:
        """The prompt as a cluster."""
        return prompt_hash(self.prompt)

    def pairs(self, ties: bool = False) -> list[RankedPair]:
        """Pairs (better, worse, P(better)); those nobody could decide only with `ties`."""
        if self.probability is None:
            return pairs_from_ranks(self.ranks, ties="half" if ties else "drop")
        if self.probability == 0.5 and not ties:
            return []
        first_wins = self.probability >= 0.5
        share = self.probability if first_wins else 1 - self.probability
        return [RankedPair(0, 1, share) if first_wins else RankedPair(1, 0, share)]

    def gap(self, pair: RankedPair) -> int | None:
        """Places apart; None where one failed, or the row is no ranking."""
        better, worse = self.ranks[pair.winner], self.ranks[pair.loser]
        return None if better is None or worse is None else worse - better


@dataclass(frozen=True, kw_only=True)
class JudgedData:
    """What some files held: the sets, facts of the files for a result, and how many rows were bad."""

    sets: list[Judged]
    facts: list[dict[str, Any]]
    bad_rows: int


def prompt_hash(prompt: Conversation) -> str:
    """A conversation by its content."""
    text = "\x1e".join(f"{message.role}\x1f{message.content}" for message in prompt)
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:16]


def read_judged(paths: Sequence[Path], group_by: str = "group", skip_bad_rows: bool = False) -> JudgedData:
    """Read Comparisons and Rankings with their origin.

    Args:
        paths: JSONL (.gz too), JSON or Parquet files.
        group_by: field of a row, or of its `meta`, whose values are prompt groups.
        skip_bad_rows: leave bad rows out, counted, instead of raising at the first.

    Raises:
        DataError: a file cannot be used, or a row is bad.
    """
    sets: list[Judged] = []
    facts, bad = [], 0
    for path in paths:
        files.check_path(path)
        before, split = len(sets), split_of(path)
        for number, row in files.rows(path):
            try:
                sets.append(_judged(row, split, group_by))
            except ValueError as error:
                if not skip_bad_rows:
                    raise DataError(
                        f"{path}, row {number}: {error} (or leave such rows out: --skip-bad-rows)"
                    ) from None
                bad += 1
        if len(sets) == before:
            raise DataError(f"{path}: no row is a comparison or a ranking; expected at least one")
        facts.append(data_facts(path, len(sets) - before, files.sha256(path)))
    return JudgedData(sets=sets, facts=facts, bad_rows=bad)


def read_response_sets(paths: Sequence[Path]) -> JudgedData:
    """Read response sets, what `accord sample` writes, as sets that nobody judged.

    Raises:
        DataError: a file cannot be used, or a row is bad.
    """
    from accord.data.readers import read

    result = read(list(paths), "response_set")
    facts = [data_facts(report.file, report.rows, report.sha256) for report in result.files]
    return JudgedData(sets=[_unjudged(record) for record in result.records], facts=facts, bad_rows=0)


def _unjudged(record: ResponseSet) -> Judged:
    ends = [(one.sampling or {}).get("finish", "stop") == "stop" for one in record.responses]
    return Judged(
        prompt=record.prompt,
        responses=tuple(one.text for one in record.responses),
        ranks=(1,) * len(record.responses),
        finished=tuple(ends),
        models=tuple(one.model for one in record.responses),
    )


def _judged(row: Any, split: str, group_by: str) -> Judged:
    if isinstance(row, Broken):
        raise ValueError(row.message)
    record, _ = parse(row, "preference")
    meta = row.get("meta") if isinstance(row.get("meta"), Mapping) else {}
    group = row.get(group_by, meta.get(group_by))
    about: dict[str, Any] = {
        "split": split,
        "group": "" if group is None else str(group),
        "annotators": tuple(map(str, meta.get("annotators") or ())),
        "agreement": meta.get("agreement"),
        "models": _models(meta, record),
    }
    if isinstance(record, Comparison):
        shown = [place for place in meta.get("position") or () if isinstance(place, int)]
        first = (sum(place == 0 for place in shown), sum(place != 0 for place in shown)) if shown else None
        return Judged(
            prompt=record.prompt,
            responses=(record.chosen, record.rejected),
            ranks=(1, 1 + (meta.get("gap") or 1)),
            probability=record.probability,
            first=first,
            **about,
        )
    assert isinstance(record, Ranking)
    return Judged(
        prompt=record.prompt, responses=record.responses, ranks=record.ranks, finished=record.finished, **about
    )


def _models(meta: Mapping[str, Any], record: Comparison | Ranking) -> tuple[str | None, ...] | None:
    """Who said each response, where the export says so."""
    named = meta.get("models")
    count = 2 if isinstance(record, Comparison) else len(record.responses)
    return tuple(named) if isinstance(named, list) and len(named) == count else None


def split_of(path: Path) -> str:
    """`held_out_prompts` of pairs.held_out_prompts.jsonl; the name of a file that no export split."""
    stem = path.name.removesuffix(".gz").rsplit(".", 1)[0]
    last = stem.replace("-", "_").rsplit(".", 1)[-1]
    return last if last in SPLITS else stem
