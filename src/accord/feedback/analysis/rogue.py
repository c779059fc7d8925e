"""Annotators a person should look at, with the evidence: what was found, what the limit is, where to see it.

A flag needs failed gold items or attention checks, or any two other kinds of evidence. It is no verdict: a person
decides, and the exclusion keeps what that person saw (`evidence_of`). The limits are those of docs/feedback.md.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from accord.evaluate.annotators import low_agreement
from accord.evaluate.intervals import benjamini_hochberg, binomial_test, wilson
from accord.feedback.analysis.agreement import AnnotatorLine, annotator_lines, time_of
from accord.feedback.analysis.bias import ends_pair, strict_pairs
from accord.feedback.analysis.material import Material
from accord.feedback.analysis.measures import measures_of
from accord.feedback.store.grading import must_pause
from accord.feedback.store.queries.verdicts import Verdict
from accord.overlap import rouge_l

__all__ = ["Evidence", "Suspect", "evidence_of", "suspects"]

SURE = ("gold", "attention")  # one of these is enough for a flag; of the others it takes two
EXAMPLES = 5
SHARE_FAST, LEAST_MS, PART_OF_MEDIAN = 0.2, 3000, 0.2
BURST_TASKS, BURST_MS = 10, 60_000
SAME_PATTERN, PATTERN_MARGIN, LONGER = 0.6, 0.1, 0.95
MINIMUM_TASKS, MINIMUM_CHOICES, MINIMUM_GOLD = 20, 30, 10
COPIED, SHORT_TEXT = 0.7, 8  # words: below, like texts prove nothing


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One thing found.

    Attributes:
        kind: agreement, gold, attention, speed, burst, position, length, pattern, copied.
        found: the figure in a sentence.
        limit: what it is held against.
        value: the figure.
        n: tasks, choices or items behind it.
        examples: ids of judgments to look at, at most five.
    """

    kind: str
    found: str
    limit: str
    value: float
    n: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """An annotator with evidence. `flagged`: enough of it for a person to decide."""

    annotator: str
    evidence: tuple[Evidence, ...]

    @property
    def flagged(self) -> bool:
        """Gold or attention failed, or two other kinds."""
        kinds = {one.kind for one in self.evidence} - {"pasted"}  # which people do with drafts of their own
        return bool(kinds & set(SURE)) or len(kinds) >= 2


def suspects(material: Material) -> list[Suspect]:
    """Everyone there is evidence on, flagged ones first: people only, and excluded ones too, in case of a reversal."""
    verdicts = material.human(excluded=True)
    by_person: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        by_person[verdict.annotator].append(verdict)
    lines = annotator_lines(measures_of(verdicts, material.contents), verdicts, [])
    found: dict[str, list[Evidence]] = defaultdict(list)
    for collect in (_agreement, _known, _speed, _bursts, _positions, _patterns, _copies, _pastes):
        for who, evidence in collect(material, by_person, lines):
            found[who].append(evidence)
    people = [Suspect(annotator=who, evidence=tuple(evidence)) for who, evidence in found.items()]
    return sorted(people, key=lambda one: (not one.flagged, -len(one.evidence), one.annotator))


def evidence_of(suspect: Suspect) -> dict[str, Any]:
    """What an exclusion keeps of a suspect: figures, limits and examples as they were seen."""
    return {"evidence": [asdict(one) for one in suspect.evidence], "flagged": suspect.flagged}


Found = list[tuple[str, Evidence]]
People = Mapping[str, Sequence[Verdict]]


def _agreement(material: Material, people: People, lines: Sequence[AnnotatorLine]) -> Found:
    rates = [line.rate for line in lines]
    flags = low_agreement(rates, [line.n for line in lines])
    usual = [line.rate for line in lines if line.n >= MINIMUM_TASKS and not math.isnan(line.rate)]
    return [
        (
            line.annotator,
            Evidence(
                kind="agreement",
                found=f"says what the others say on {line.rate:.0%} of {line.n} (at most {line.interval[1]:.0%})",
                limit=f"the median annotator does on {median(usual):.0%}; ten points below it is a flag",
                value=line.rate,
                n=line.n,
            ),
        )
        for line, flag in zip(lines, flags.tolist(), strict=True)
        if flag
    ]


def _known(material: Material, people: People, lines: Sequence[AnnotatorLine]) -> Found:
    """Gold items and attention checks."""
    found: Found = []
    for (who, kind), answers in material.answers.items():
        right, n = answers.count(True), len(answers)
        if kind == "gold" and n >= MINIMUM_GOLD and wilson(right, n).high < 0.7:
            limit = f"{MINIMUM_GOLD} or more, and surely under 70 % right"
            words = f"{right} of {n} gold items right (at most {wilson(right, n).high:.0%})"
            found.append((who, Evidence(kind="gold", found=words, limit=limit, value=right / n, n=n)))
        window, failures = material.settings.attention_window, material.settings.attention_failures
        if kind == "attention" and must_pause(answers, window, failures):
            words = f"{answers[-window:].count(False)} of the last {min(n, window)} attention checks failed"
            limit = f"{failures} of the last {window}"
            found.append((who, Evidence(kind="attention", found=words, limit=limit, value=right / n, n=n)))
    return found


def _speed(material: Material, people: People, lines: Sequence[AnnotatorLine]) -> Found:
    """Tasks done in less time than reading takes, against what others need for texts of that length."""
    every = [(one, time_of(one), _length(material, one)) for verdicts in people.values() for one in verdicts]
    timed = [(one, spent, length) for one, spent, length in every if spent is not None]
    if not timed:
        return []
    edges = np.quantile([length for _, _, length in timed], (0.25, 0.5, 0.75))
    by_bin: dict[int, list[int]] = defaultdict(list)
    for _, spent, length in timed:
        by_bin[int(np.searchsorted(edges, length))].append(spent)
    least = {number: max(LEAST_MS, PART_OF_MEDIAN * median(spent)) for number, spent in by_bin.items()}
    fast: dict[str, list[str]] = defaultdict(list)
    for one, spent, length in timed:
        if spent < least[int(np.searchsorted(edges, length))]:
            fast[one.annotator].append(one.judgment_id)
    total = Counter(one.annotator for one, _, _ in timed)
    return [
        (
            who,
            Evidence(
                kind="speed",
                found=f"{len(ids)} of {total[who]} tasks faster than 3 s or a fifth of the usual time for the length",
                limit="20 % of the tasks",
                value=len(ids) / total[who],
                n=total[who],
                examples=tuple(ids[:EXAMPLES]),
            ),
        )
        for who, ids in fast.items()
        if total[who] >= MINIMUM_TASKS and len(ids) / total[who] > SHARE_FAST
    ]


def _length(material: Material, verdict: Verdict) -> int:
    content = material.contents.get(verdict.item_id)
    if content is None:
        return 0
    return sum(len(turn.content) for turn in content.prompt) + sum(
        len(text or "") for text in content.responses.values()
    )


def _bursts(material: Material, people: People, lines: Sequence[AnnotatorLine]) -> Found:
    """Ten tasks within a minute from one login or token; judgments of which none is known count together."""
    found: Found = []
    for who, verdicts in people.items():
        sessions: dict[str | None, list[tuple[int, str]]] = defaultdict(list)
        for one in verdicts:
            if time_of(one) is not None:
                sessions[one.session].append((one.submitted_at, one.judgment_id))
        fastest = {session: burst for session, times in sessions.items() if (burst := _burst(sorted(times)))}
        if fastest:
            spent, examples = min(fastest.values())
            known = set(sessions) - {None}
            words = f"{BURST_TASKS} tasks submitted within {spent / 1000:.0f} s"
            if known and fastest.get(None) != (spent, examples):
                words += f" from one login or token; such bursts in {len(known & set(fastest))} of {len(known)} of them"
            limit = f"{BURST_TASKS} within {BURST_MS // 1000} s"
            n = sum(map(len, sessions.values()))
            evidence = Evidence(kind="burst", found=words, limit=limit, value=spent / 1000, n=n, examples=examples)
            found.append((who, evidence))
    return found


def _burst(times: Sequence[tuple[int, str]]) -> tuple[int, tuple[str, ...]] | None:
    """(milliseconds, judgments to look at) of the fastest ten in a row, if they took less than a minute."""
    rows = [times[start : start + BURST_TASKS] for start in range(len(times) - BURST_TASKS + 1)]
    spent, row = min(((row[-1][0] - row[0][0], row) for row in rows), default=(BURST_MS, []))
    return (spent, tuple(one for _, one in row[:EXAMPLES])) if spent < BURST_MS else None


def _positions(material: Material, people: People, lines: Sequence[AnnotatorLine]) -> Found:
    """First shown preferred, and longer preferred: binomial tests of both, the p-values through Benjamini-Hochberg."""
    trials: list[tuple[str, str, int, int, float]] = []
    for who, verdicts in people.items():
        first = [ends for one in verdicts if (ends := ends_pair(one)) is not None]
        longer = [one.longer_won for one in strict_pairs(verdicts, material.contents) if one.longer_won is not None]
        for kind, outcomes in (("position", first), ("length", longer)):
            if len(outcomes) >= MINIMUM_CHOICES:
                won = outcomes.count(True)
                trials.append((who, kind, won, len(outcomes), binomial_test(won, len(outcomes))))
    passed = benjamini_hochberg([p for *_, p in trials]).tolist() if trials else []
    found: Found = []
    for (who, kind, won, n, p), significant in zip(trials, passed, strict=True):
        if not significant or (kind == "length" and won / n < LONGER):
            continue
        what = "the response shown first" if kind == "position" else "the longer response"
        limit = "chance is 50 %, tested at q = 0.05" if kind == "position" else "95 % of the choices, q = 0.05"
        words = f"{what} preferred in {won} of {n} strict choices ({won / n:.0%}, p = {p:.2g})"
        found.append((who, Evidence(kind=kind, found=words, limit=limit, value=won / n, n=n)))
    return found


def _patterns(material: Material, people: People, lines: Sequence[AnnotatorLine]) -> Found:
    """One answer again and again, far more than others give it: ranks by place on the screen, or attributes."""
    patterns = {who: [(_pattern(one), one.judgment_id) for one in verdicts] for who, verdicts in people.items()}
    counts = {who: Counter(pattern for pattern, _ in found if pattern) for who, found in patterns.items()}
    total: Counter[str] = sum(counts.values(), Counter())
    found: Found = []
    for who, mine in counts.items():
        n, others = sum(mine.values()), sum(total.values()) - sum(mine.values())
        if n < MINIMUM_TASKS or not others:
            continue
        pattern, k = mine.most_common(1)[0]
        usual = (total[pattern] - k) / others
        if k / n > SAME_PATTERN and wilson(k, n).low > usual + PATTERN_MARGIN:
            examples = tuple(one for same, one in patterns[who] if same == pattern)[:EXAMPLES]
            words = f"{pattern} in {k} of {n} tasks ({k / n:.0%}); others give it in {usual:.0%}"
            limit = "60 % of the tasks, and surely ten points more than others"
            found.append((who, Evidence(kind="pattern", found=words, limit=limit, value=k / n, n=n, examples=examples)))
    return found


def _pattern(verdict: Verdict) -> str | None:
    """What was answered, as the screen showed it: "places 1, 2, F", or attributes that are set."""
    if verdict.ranks is not None:
        ranks = [verdict.ranks.get(one) for one in verdict.display_order]
        return "places " + ", ".join("F" if rank is None else str(rank) for rank in ranks)
    if "skip" in verdict.payload or verdict.words is not None:
        return None
    said = verdict.payload.get("responses", {"": verdict.payload})
    vectors = [_set(attributes) for attributes in said.values() if isinstance(attributes, Mapping)]
    return "; ".join(vectors) if vectors else None


def _set(attributes: Mapping[str, Any]) -> str:
    parts = [f"{name} {value}" for name, value in sorted(attributes.items()) if name != "schema" and value]
    return ", ".join(parts) or "no attribute"


def _copies(material: Material, people: People, lines: Sequence[AnnotatorLine]) -> Found:
    """Demonstrations that are another's, or a model's: longest common subsequence of words, F > 0.7."""
    texts: dict[str, list[tuple[str, str, str]]] = defaultdict(list)  # prompt -> (whose, judgment, text)
    for who, verdicts in people.items():
        for one in verdicts:
            if material.task_type == "demonstrate" and one.words and one.item_id in material.contents:
                texts[material.contents[one.item_id].prompt_id].append((who, one.judgment_id, one.words))
    known: dict[str, list[str]] = defaultdict(list)
    for content in material.contents.values():
        known[content.prompt_id] += [text for text in content.responses.values() if text]
    copied: dict[str, list[str]] = defaultdict(list)
    for prompt, written in texts.items():
        # Ids sort by age: whoever came later has copied.
        earlier: list[tuple[str, str]] = [("", text) for text in known[prompt]]
        for who, judgment, text in sorted(written, key=lambda one: one[1]):
            if len(text.split()) >= SHORT_TEXT and _is_copy(text, [other for by, other in earlier if by != who]):
                copied[who].append(judgment)
            earlier.append((who, text))
    return [
        (
            who,
            Evidence(
                kind="copied",
                found=f"{len(ids)} texts are nearly those of another person or of a model",
                limit=f"overlap (ROUGE-L) over {COPIED}, of texts of {SHORT_TEXT} words or more",
                value=float(len(ids)),
                n=len(people[who]),
                examples=tuple(ids[:EXAMPLES]),
            ),
        )
        for who, ids in copied.items()
    ]


def _pastes(material: Material, people: People, lines: Sequence[AnnotatorLine]) -> Found:
    """Texts that came in large pieces at once: noted, and no reason to decide anything by itself."""
    found: Found = []
    for who, verdicts in people.items():
        pasted = [one for one in verdicts if one.judgment_id in material.pasted]
        if pasted:
            characters = sum(material.pasted[one.judgment_id] for one in pasted)
            words = f"{characters:,} characters pasted into {len(pasted)} of {len(verdicts)} texts"
            examples = tuple(one.judgment_id for one in pasted[:EXAMPLES])
            share = len(pasted) / len(verdicts)
            limit = "more than 200 at once; a draft of their own looks the same"
            evidence = Evidence(
                kind="pasted", found=words, limit=limit, value=share, n=len(verdicts), examples=examples
            )
            found.append((who, evidence))
    return found


def _is_copy(text: str, others: Sequence[str]) -> bool:
    return any(rouge_l(text, other, tokens="unicode").f1 > COPIED for other in others)
