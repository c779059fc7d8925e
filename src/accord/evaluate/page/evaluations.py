"""What `accord eval` found, one section an evaluation, runs side by side (eval/*.json)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from accord.evaluate.blocks import Block, blocks, counts_in_words, interval_in_words, number_in_words
from accord.evaluate.page.eval_charts import charts_of
from accord.evaluate.page.files import Row, RunFiles, number
from accord.evaluate.page.parts import Figure, Table

__all__ = ["Cell", "MeasureTable", "Section", "evaluation_sections", "headlines"]

TITLES = {
    "reward": "Reward model on pairs",
    "winrate": "Win rate",
    "preferences": "Arena",
    "frontier": "Reward against KL",
    "hacking": "How the reward came about",
    "attributes": "What people find",
    "truthfulness": "Truthfulness",
    "toxicity": "Toxicity",
    "tasks": "Tasks",
}
INTROS = {
    "reward": "Accuracy is the share of held-out pairs in which the preferred response scores higher. It has to beat "
    "the longer response, and cannot be expected to beat the agreement of the annotators.",
    "winrate": "A rate of 0.5 is no difference. At equal length: what is left of it when length is taken out.",
    "preferences": "Strengths that explain who was preferred to whom.",
    "frontier": "What reward every checkpoint bought, and how far it moved from the model it started from.",
    "hacking": "Signs that a policy bought its reward with length or form, or with what gold does not share.",
    "attributes": "Shares of prompts whose responses have an attribute, by people's ratings.",
    "truthfulness": "MC1: how often the best answer is the most probable one; MC2: probability of the true answers "
    "among all; MC3: share of true answers above every false one; MC0: the better of two that are shown, chance .5. "
    "Truth alone is no merit: who says nothing is truthful, so information stands beside it.",
    "toxicity": "Continuations of prompts, scored from 0 to 1 by a local scorer. The expected maximum is the worst of "
    "several continuations, and grows with their number; lower is better.",
    "tasks": "Tasks with known answers, 1 is right; templates of a task, tasks of a cluster and clusters weigh alike. "
    "After less before is negative where training cost ability.",
}
COMPARING = ("frontier", "hacking", "preferences", "attributes", "winrate")  # of several models, wherever they lie
SHOWN_SUSPECTS, LONGEST = 10, 400
MOST_COLUMNS = 6  # of a table; one with more measures than that is turned, if it has few subjects


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A figure with its interval, and what was lost, in words; empty where there is none."""

    value: str = ""
    interval: str = ""
    lost: str = ""


@dataclass(frozen=True, kw_only=True)
class MeasureTable:
    """Subjects by measures. Names in the header and of the rows are pairs: what it is, and its unit in small."""

    header: Sequence[tuple[str, str]]
    rows: Sequence[tuple[tuple[str, str], Sequence[Cell]]]


@dataclass(frozen=True, kw_only=True)
class Section:
    """One evaluation of one or several runs."""

    identity: str
    title: str
    intro: str
    notes: Sequence[str]
    figures: Sequence[Figure]
    tables: Sequence[MeasureTable]
    suspects: Table | None
    origins: Sequence[tuple[str, str]]


def evaluation_sections(runs: Sequence[RunFiles]) -> list[Section]:
    """A section for every evaluation that one of the runs has, those of one name together."""
    names = [str(row.get("name")) for run in runs for row in run.evaluations]
    order = list(TITLES)
    kinds = {str(row.get("name")): str(row.get("evaluation")) for run in runs for row in run.evaluations}
    ranked = sorted(dict.fromkeys(names), key=lambda name: order.index(kinds[name]) if kinds[name] in order else 99)
    return [_section(name, kinds[name], runs) for name in ranked]


def headlines(run: RunFiles) -> list[str]:
    """The first result of each evaluation as a sentence; of hacking, what it warns of."""
    return [_headline(row) for row in run.evaluations if _results(row)]


def _headline(row: Row) -> str:
    notes = [str(note) for note in row.get("notes") or ()]
    if row.get("evaluation") == "hacking":
        return (
            f"{row.get('name')}: {' '.join(notes[:2])}" if notes else f"{row.get('name')}: no sign beyond the limits."
        )
    first = _results(row)[0]
    found = interval_in_words(first)
    subject = ", ".join(part for part in (str(row.get("name")), str(first.get("of") or "")) if part)
    level = number(first.get("level"))
    interval = f" ({level:.0%} interval {found})" if found and level else ""
    return f"{subject}: {first.get('name')} {number_in_words(first.get('value'))}{interval}, n {first.get('n')}."


def _section(name: str, kind: str, runs: Sequence[RunFiles]) -> Section:
    found = [(run.name, row) for run in runs for row in run.evaluations if str(row.get("name")) == name]
    several = len(found) > 1
    alone = _of_one(kind, found[0][0]) if len(runs) > 1 and not several else ""
    results = [
        {**one, "of": ": ".join(part for part in (run, str(one.get("of") or "")) if part)} if several else one
        for run, row in found
        for one in _results(row)
    ]
    notes = [f"{run}: {note}" if several else str(note) for run, row in found for note in row.get("notes") or ()]
    identity = "eval-" + "".join(letter if letter.isalnum() else "-" for letter in name)
    return Section(
        identity=identity,
        title=TITLES.get(kind, kind.capitalize()) + (f" ({name})" if name != kind else ""),
        intro=" ".join(part for part in (INTROS.get(kind, ""), alone) if part),
        notes=notes,
        figures=charts_of(kind, identity, found),
        tables=[_table(block) for block in blocks(results)],
        suspects=_suspects(found),
        origins=[entry for run, row in found for entry in _origin(run if several else "", row)],
    )


def _of_one(kind: str, run: str) -> str:
    """Whose evaluation it is, on a page of several runs."""
    return f"This evaluation lies in {run}." if kind in COMPARING else f"Only {run} has this evaluation."


def _results(row: Row) -> list[Row]:
    results = row.get("results")
    return [one for one in results if isinstance(one, Mapping)] if isinstance(results, list) else []


def _table(block: Block) -> MeasureTable:
    if not block.measures:
        rows = [
            ((label, str(row.get("unit", ""))), [_cell(row), Cell(value=str(row.get("n", "")))])
            for label, measured in block.rows
            for row in measured.values()
        ]
        return MeasureTable(header=[("value", ""), ("n", "")], rows=rows)
    if len(block.measures) > MOST_COLUMNS and len(block.rows) <= MOST_COLUMNS:  # turned: a page is higher than wide
        rows = [
            (measure, [_cell(measured.get(measure[0])) for _, measured in block.rows])
            for measure in block.measures.items()
        ]
        return MeasureTable(header=[(label, counts_in_words(measured)) for label, measured in block.rows], rows=rows)
    rows = [
        ((label, counts_in_words(measured)), [_cell(measured.get(name)) for name in block.measures])
        for label, measured in block.rows
    ]
    return MeasureTable(header=list(block.measures.items()), rows=rows)


def _cell(row: Row | None) -> Cell:
    if row is None:
        return Cell()
    lost = number(row.get("n_unscored")) or 0
    return Cell(
        value=number_in_words(row.get("value")),
        interval=interval_in_words(row),
        lost=f"{lost:g} unscored" if lost else "",
    )


def _origin(run: str, row: Row) -> list[tuple[str, str]]:
    """Command, models, data, seed and time of an evaluation."""
    prefix = f"{run}: " if run else ""
    entries = [("command", str(row.get("command", "")))]
    for name, key in (("models", "id"), ("data", "path")):
        facts = row.get(name)
        for fact in facts if isinstance(facts, list) else ():
            if isinstance(fact, Mapping):
                mark = str(fact.get("hash") or "")[:12]
                role = str(fact.get("role") or "data")
                entries.append((role, f"{fact.get(key)}{f', {mark}' if mark else ''}"))
    versions = row.get("versions")
    version = versions.get("accord-align") if isinstance(versions, Mapping) else None
    entries += [("seed", str(row.get("seed", ""))), ("accord", str(version or "")), ("time", str(row.get("time", "")))]
    return [(prefix + name, value) for name, value in entries if value]


def _suspects(found: Sequence[tuple[str, Row]]) -> Table | None:
    """Responses on which the proxy gained most over gold."""
    rows: list[tuple[str, ...]] = []
    for _, row in found:
        figures = row.get("figures")
        suspects = figures.get("suspects") if isinstance(figures, Mapping) else None
        for one in suspects if isinstance(suspects, list) else ():
            if isinstance(one, Mapping):
                texts = [" ".join(str(one.get(key, "")).split()) for key in ("prompt", "response")]
                cut = [text if len(text) <= LONGEST else text[: LONGEST - 1] + "\u2026" for text in texts]
                figures_ = [number_in_words(one.get(key)) for key in ("proxy", "gold", "gap")]
                rows.append((str(one.get("checkpoint")), *cut, *figures_))
    header = ("Checkpoint", "Prompt", "Response", "Proxy", "Gold", "Gap")
    return Table(header=header, rows=rows[:SHOWN_SUSPECTS]) if rows else None
