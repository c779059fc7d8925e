"""Verdicts -> rows that trainers read: demonstrations, rankings, comparisons, judgments, conversations.

Each row is a record of `accord.records` and `meta`: where it comes from. All of it is a pure function of what was
read, so the same store and options give the same bytes.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, Field

from accord.evaluate.agreement import ranking_agreement
from accord.evaluate.consensus import preference_share, ranked_pairs
from accord.feedback.store.payloads import ranks_of
from accord.feedback.store.queries.verdicts import Content, Verdict
from accord.feedback.store.splits import held_out, split_names
from accord.records import (
    Comparison,
    Demonstration,
    Judgment,
    Model,
    Person,
    Ranking,
    pairs_from_ranks,
    to_row,
)

__all__ = ["Export", "ExportOptions", "check", "export_rows"]

Row: TypeAlias = dict[str, Any]


class ExportOptions(BaseModel, frozen=True, extra="forbid"):
    """What to export of a campaign, and how."""

    form: Literal["demonstrations", "rankings", "comparisons", "judgments", "conversations"] = "rankings"
    unit: Literal["annotator", "share", "consensus"] = Field(
        "annotator", description="a row per judgment, per share of the annotators (comparisons), or per item"
    )
    ties: Literal["drop", "half"] = Field("drop", description="a tie gives no pair, or one of probability 1/2")
    failed: Literal["last", "drop"] = Field("last", description="a failed response loses, or is left out")
    guideline: str | None = Field(None, description="only judgments under this version")
    min_annotators: int = Field(1, ge=1, description="items with fewer are left out")
    min_agreement: float | None = Field(
        None, description="items whose pairwise agreement is lower, or unknown, are left out"
    )
    agreed_only: bool = Field(False, description="only pairs that all annotators of the item put in the same order")
    include_excluded: bool = Field(False, description="judgments of excluded annotators too, marked in `meta`")
    all_revisions: bool = Field(False, description="earlier revisions of judgments too; else the latest ones")
    held_out_prompts: float = Field(
        0.0, ge=0, lt=1, description="share of prompts kept apart, near-duplicates together"
    )
    held_out_annotators: float = Field(0.0, ge=0, lt=1, description="share of annotators kept apart")
    hash_annotators: bool = Field(False, description="pseudonyms become keyed hashes, which no other campaign shares")
    seed: str = Field("accord", description="of the split")


@dataclass(frozen=True, kw_only=True)
class Export:
    """Rows by split ("train", "held_out_prompts", ...), and what was left out, by reason."""

    rows: Mapping[str, list[Row]]
    left_out: Counter[str]


def export_rows(
    verdicts: Sequence[Verdict],
    contents: Mapping[str, Content],
    options: ExportOptions,
    *,
    task_type: str,
    adjudicated: Mapping[str, Mapping[str, Any]] | None = None,
) -> Export:
    """Turn the verdicts on a campaign's items into rows.

    Args:
        verdicts: latest revisions; excluded ones among them are left out or marked, as the options say.
        contents: texts by item.
        options: what and how.
        task_type: of the campaign.
        adjudicated: item -> a reviewer's payload; in unit consensus it wins over the annotators.

    Raises:
        ValueError: the form has no such unit.
    """
    check(options)
    left_out: Counter[str] = Counter()
    kept = [verdict for verdict in verdicts if _is_wanted(verdict, contents, options, left_out)]
    parts = _split(kept, contents, options)
    rows: dict[str, list[Row]] = {}
    for name, part in parts.items():
        maker = _Maker(contents, options, task_type, adjudicated or {}, left_out)
        rows[name] = maker.rows(part)
    return Export(rows=rows, left_out=left_out)


def check(options: ExportOptions) -> None:
    """Raise ValueError unless the options go together."""
    if options.unit == "share" and options.form != "comparisons":
        raise ValueError(f"unit share goes with comparisons, not with {options.form}; choose another unit")
    if options.unit == "consensus" and options.form not in ("comparisons", "rankings"):
        raise ValueError(f"unit consensus goes with rankings and comparisons, not with {options.form}")
    if options.all_revisions and options.form != "judgments":
        raise ValueError(f"all revisions go with judgments, not with {options.form}, or each would count as one more")
    if options.form == "conversations":
        _check_conversations(options)


_OF_CONVERSATIONS = {
    "form", "include_excluded", "hash_annotators", "seed", "held_out_prompts", "held_out_annotators"
}  # fmt: skip


def _check_conversations(options: ExportOptions) -> None:
    """A conversation is whole: what selects among judgments or makes pairs of them does nothing for it."""
    given = options.model_dump(exclude=_OF_CONVERSATIONS)
    idle = [name for name, value in given.items() if value != type(options).model_fields[name].default]
    if idle:
        raise ValueError(f"`{idle[0]}` does nothing for conversations; leave it out")


def _is_wanted(
    verdict: Verdict, contents: Mapping[str, Content], options: ExportOptions, left_out: Counter[str]
) -> bool:
    demonstrates = options.form == "demonstrations"
    reasons = {
        "consent withdrawn": verdict.withdrawn == "verdict" or (demonstrates and verdict.withdrawn == "words"),
        "no consent to training": demonstrates and not verdict.trains,
        "excluded annotator": verdict.excluded and not options.include_excluded,
        "other guideline": options.guideline is not None and verdict.guideline != options.guideline,
        "skipped": "skip" in verdict.payload and options.form != "judgments",
        "forgotten": verdict.item_id not in contents or None in contents[verdict.item_id].responses.values(),
    }
    reason = next((name for name, holds in reasons.items() if holds), None)
    left_out.update([reason] if reason else [])
    return reason is None


def _split(
    verdicts: Sequence[Verdict], contents: Mapping[str, Content], options: ExportOptions
) -> dict[str, list[Verdict]]:
    """Verdicts by split. What is held out by both rules is a part of its own, so that each measures one thing."""
    people = held_out(options.seed, [verdict.annotator for verdict in verdicts], options.held_out_annotators)
    prompts: frozenset[str] = frozenset()
    if options.held_out_prompts:
        # All items, judged or not, from the oldest prompt on: what is judged or added later changes no name.
        items = sorted(contents, key=lambda item: (contents[item].prompt_id, contents[item].prompt_hash, item))
        texts = ["\n".join(message.content for message in contents[item].prompt) for item in items]
        names = split_names([contents[item].prompt_hash for item in items], texts)
        drawn = held_out(options.seed, names, options.held_out_prompts)
        prompts = frozenset(item for item, name in zip(items, names, strict=True) if name in drawn)
    parts: dict[str, list[Verdict]] = {"train": []}
    for verdict in verdicts:
        by_prompt, by_annotator = verdict.item_id in prompts, verdict.annotator in people
        both = "held_out_both" if by_prompt and by_annotator else None
        name = both or ("held_out_prompts" if by_prompt else "held_out_annotators" if by_annotator else "train")
        parts.setdefault(name, []).append(verdict)
    return parts


# Judgments it rests on, better and worse response by position, P(better), places apart.
_Pair: TypeAlias = tuple[list[Verdict], int, int, float, int | None]


@dataclass(frozen=True)
class _Maker:
    """Makes the rows of one split."""

    contents: Mapping[str, Content]
    options: ExportOptions
    task_type: str
    adjudicated: Mapping[str, Mapping[str, Any]]
    left_out: Counter[str]

    def rows(self, verdicts: Sequence[Verdict]) -> list[Row]:
        """All rows; those of one prompt stand together, in an order that depends on content only."""
        by_item: dict[str, list[Verdict]] = defaultdict(list)
        for verdict in verdicts:
            by_item[verdict.item_id].append(verdict)
        items = sorted(by_item, key=lambda item: (self.contents[item].prompt_hash, item))
        made = [row for item in items for row in self._of_item(self.contents[item], by_item[item])]
        pairs = Counter(row["meta"]["prompt_id"] for row in made)
        if self.options.form == "comparisons":
            for row in made:
                row["meta"]["weight"] = 1 / pairs[row["meta"]["prompt_id"]]
        return made

    def _of_item(self, content: Content, verdicts: list[Verdict]) -> Iterable[Row]:
        verdicts = sorted(verdicts, key=lambda verdict: (verdict.annotator, verdict.revision, verdict.judgment_id))
        if len({verdict.annotator for verdict in verdicts}) < self.options.min_annotators:
            self.left_out["too few annotators"] += 1
            return []
        ranked = [verdict for verdict in verdicts if verdict.ranks is not None]
        table = [[verdict.ranks[one] for one in content.responses] for verdict in ranked if verdict.ranks is not None]
        agreement = _agreement(table)
        if self.options.min_agreement is not None and not (agreement or 0.0) >= self.options.min_agreement:
            self.left_out["agreement"] += 1
            return []
        if self.options.form == "judgments":
            return [self._judgment(content, verdict) for verdict in verdicts]
        if self.options.form == "demonstrations":
            return self._demonstrations(content, verdicts)
        make = self._rankings if self.options.form == "rankings" else self._comparisons
        return make(content, ranked, table, agreement)

    def _units(
        self, content: Content, ranked: list[Verdict], table: list[list[int | None]]
    ) -> list[tuple[list[Verdict], list[int | None]]]:
        """(judgments, ranks) of each unit: one per judgment, or one for all of them."""
        if self.options.unit == "annotator" or not ranked:
            return [([verdict], ranks) for verdict, ranks in zip(ranked, table, strict=True)]
        decided = self.adjudicated.get(content.item_id)
        ranks = None if decided is None else ranks_of(self.task_type, decided, list(content.responses))
        if ranks is not None:
            return [(ranked, [ranks[one] for one in content.responses])]
        return [(ranked, _consensus(table))]

    def _rankings(
        self, content: Content, ranked: list[Verdict], table: list[list[int | None]], agreement: float | None
    ) -> Iterable[Row]:
        texts = tuple(text or "" for text in content.responses.values())
        for verdicts, ranks in self._units(content, ranked, table):
            try:
                record = Ranking(prompt=content.prompt, responses=texts, ranks=tuple(ranks))
            except ValueError:  # fewer than two, or one text at two places
                self.left_out["no ranking of distinct texts"] += 1
                continue
            models = [content.models[response] for response in content.responses]
            yield to_row(record) | {"meta": self._meta(content, verdicts, agreement) | {"models": models}}

    def _comparisons(
        self, content: Content, ranked: list[Verdict], table: list[list[int | None]], agreement: float | None
    ) -> Iterable[Row]:
        if self.options.unit == "share":
            pairs = self._share_pairs(ranked, table)
        else:
            pairs = [
                (verdicts, pair.winner, pair.loser, pair.probability, _gap(ranks, pair.winner, pair.loser))
                for verdicts, ranks in self._units(content, ranked, table)
                for pair in pairs_from_ranks(ranks, self.options.ties, self.options.failed)
            ]
        for verdicts, winner, loser, probability, gap in pairs:
            if self.options.agreed_only and len({_sign(ranks, winner, loser) for ranks in table}) != 1:
                self.left_out["not agreed"] += 1
                continue
            chosen, rejected = list(content.responses)[winner], list(content.responses)[loser]
            try:
                record = Comparison(
                    prompt=content.prompt,
                    chosen=content.responses[chosen] or "",
                    rejected=content.responses[rejected] or "",
                    probability=None if probability == 1 else probability,
                )
            except ValueError:  # no text, or one text twice
                self.left_out["no pair of distinct texts"] += 1
                continue
            meta = self._meta(content, verdicts, agreement) | {
                "n": len(verdicts),
                "gap": gap,
                "position": [
                    verdict.display_order.index(chosen) for verdict in verdicts if chosen in verdict.display_order
                ],
                "models": [content.models[chosen], content.models[rejected]],
            }
            yield to_row(record) | {"meta": meta}

    def _share_pairs(self, ranked: list[Verdict], table: list[list[int | None]]) -> list[_Pair]:
        return [(ranked, i, j, p, None) for i, j, p in self._shares(table)] if ranked else []

    def _shares(self, table: list[list[int | None]]) -> Iterable[tuple[int, int, float]]:
        """(better, worse, share of the annotators) of each pair that someone did not fail on both sides."""
        if self.options.failed == "drop":
            kept = [place for place in range(len(table[0])) if all(ranks[place] is not None for ranks in table)]
        else:
            kept = list(range(len(table[0])))
        share_KK = preference_share(table)
        for i, j in combinations(kept, 2):
            if all(ranks[i] is None and ranks[j] is None for ranks in table):
                continue
            p = float(share_KK[i, j])
            if p != 0.5 or self.options.ties == "half":
                yield (i, j, p) if p >= 0.5 else (j, i, 1 - p)

    def _demonstrations(self, content: Content, verdicts: list[Verdict]) -> Iterable[Row]:
        for verdict in verdicts:
            if not verdict.words:
                self.left_out["forgotten"] += 1
                continue
            record = Demonstration(prompt=content.prompt, response=verdict.words)
            yield to_row(record) | {"meta": self._meta(content, [verdict], None)}

    def _judgment(self, content: Content, verdict: Verdict) -> Row:
        """A `Judgment` where the task has ranks or was skipped; else its fields with the payload in their place."""
        name = content.names
        row: Row = {
            "annotator": _annotator(verdict).model_dump(mode="json"),
            "response_set": content.name,
            "display_order": [name[response] for response in verdict.display_order],
            "ranks": {name[response]: rank for response, rank in (verdict.ranks or {}).items()},
            "shown_at": _time(verdict.started_at),
            "submitted_at": _time(verdict.submitted_at),
            "guideline": verdict.guideline or "none",
        }
        if "skip" in verdict.payload:
            row["skipped"] = verdict.words if verdict.payload["skip"] == "other" else verdict.payload["skip"]
            row["skipped"] = row["skipped"] or "other"
        if row["display_order"] and (verdict.ranks is not None or "skip" in verdict.payload):
            row = to_row(Judgment.model_validate(row))
        else:
            del row["ranks"]
        extra = {"source": verdict.source, "revision": verdict.revision, "payload": dict(verdict.payload)}
        extra |= {"models": dict(content.models)}  # by the response ids that the payload has
        extra |= {"words": verdict.words, "active_ms": verdict.active_ms, "counted": verdict.counted}
        return row | {"meta": self._meta(content, [verdict], None) | extra}

    def _meta(self, content: Content, verdicts: list[Verdict], agreement: float | None) -> Row:
        guidelines = sorted({verdict.guideline for verdict in verdicts if verdict.guideline is not None})
        return {
            "item": content.name,
            "prompt_id": content.prompt_id,
            "group": content.group,
            "annotators": [verdict.annotator for verdict in verdicts],
            "guidelines": guidelines,
            "agreement": agreement,
            "arm": verdicts[0].arm,
            "excluded": any(verdict.excluded for verdict in verdicts),
        }


def _agreement(table: Sequence[Sequence[int | None]]) -> float | None:
    """Share of response pairs that two annotators order alike, where both order them; None: nothing to compare."""
    found = ranking_agreement(table).agreement if len(table) > 1 else float("nan")
    return None if math.isnan(found) else found


def _consensus(table: Sequence[Sequence[int | None]]) -> list[int | None]:
    """Ranked pairs; a response that all annotators failed has failed."""
    failed = [all(ranks[place] is None for ranks in table) for place in range(len(table[0]))]
    rank_K = ranked_pairs(table).rank_K.tolist()
    return [None if bad else rank for bad, rank in zip(failed, rank_K, strict=True)]


def _gap(ranks: Sequence[int | None], winner: int, loser: int) -> int | None:
    """How many places apart; None: one of them failed."""
    better, worse = ranks[winner], ranks[loser]
    return None if better is None or worse is None else worse - better


def _sign(ranks: Sequence[int | None], i: int, j: int) -> int:
    a, b = (float("inf") if ranks[one] is None else float(ranks[one] or 0) for one in (i, j))
    return (a < b) - (a > b)


def _annotator(verdict: Verdict) -> Person | Model:
    if verdict.judge is None:
        return Person(id=verdict.annotator)
    name, revision, prompt = verdict.judge
    return Model(name=name, revision=revision or "unknown", prompt=prompt)


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat()
