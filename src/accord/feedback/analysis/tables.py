"""The report as sections of text: the same tables on the terminal and on the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from accord.evaluate.page.parts import Table
from accord.evaluate.page.svg import DASH
from accord.evaluate.result import Result
from accord.feedback.analysis.agreement import Agreement
from accord.feedback.analysis.consensus import ItemConsensus
from accord.feedback.analysis.report import CampaignReport

__all__ = ["Section", "headline", "number", "sections", "share", "with_interval"]

FIRST = 25  # rows of a long table on a page


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading, what there is to see, and the table.

    Attributes:
        identity: for links.
        title: the heading.
        sees: how to read it.
        table: None: nothing to show, and `sees` says so.
        more: rows that are left out.
    """

    identity: str
    title: str
    sees: str
    table: Table | None
    more: int = 0


def number(value: float | None, digits: int = 2) -> str:
    """Two decimals with a true minus; nothing is a dash."""
    if value is None or math.isnan(value):
        return DASH
    return f"{value:.{digits}f}".replace("-", "\u2212")


def share(value: float | None) -> str:
    """A per cent figure."""
    return DASH if value is None or math.isnan(value) else f"{value:.0%}"


def with_interval(result: Result | None) -> str:
    """0.86 [0.83, 0.88]."""
    if result is None or math.isnan(result.value):
        return DASH
    known = result.ci is not None and not math.isnan(result.ci[0])
    ends = f" [{number(result.ci[0])}, {number(result.ci[1])}]" if known and result.ci else ""
    return number(result.value) + ends


def headline(report: CampaignReport) -> list[str]:
    """The report in sentences."""
    counts = report.counts
    lines = [
        f"{counts['judgments']:,} judgments of {counts['items judged']:,} items by {counts['annotators']:,} people."
    ]
    main = next((one for one in report.agreement if one.name == report.main), None)
    if main is not None and main.kappa is not None and main.agreement is not None:
        lines.append(
            f"Two people prefer the same response in {share(main.agreement.value)} of the pairs neither calls a tie: "
            f"kappa {with_interval(main.kappa)}, where 1/2 is chance, as responses are shuffled."
        )
    elif main is not None:
        lines.append(f"Krippendorff's alpha of `{main.name}` is {with_interval(main.alpha)}.")
    lines.append(report.pilot.advice[:1].upper() + report.pilot.advice[1:] + ".")
    flagged = [one.annotator for one in report.suspects if one.flagged]
    if flagged:
        lines.append(f"To be looked at by a person: {', '.join(flagged)}.")
    if counts["excluded"]:
        lines.append(f"{counts['excluded']:,} judgments of excluded annotators are left out; both figures are below.")
    return lines


def sections(report: CampaignReport) -> list[Section]:
    """All sections, those without anything to show left out but for the first two."""
    found = [
        _agreement("agreement", "Agreement", report.agreement),
        _annotators(report),
        _suspects(report),
        *[
            _agreement(f"by-{dimension.replace(' ', '-')}", f"By {dimension}", list(parts.values()), list(parts))
            for dimension, parts in report.slices.items()
        ],
    ]
    if report.with_excluded:
        found.append(_agreement("with-excluded", "With excluded annotators", report.with_excluded))
    if report.random_arm:
        found.append(_agreement("random-arm", "On the random items only", report.random_arm))
    found.append(_learning(report))
    found += [_bias(report), _judges(report), _pilot(report), _disputed(report)]
    return [one for one in found if one.table is not None or one.identity in ("agreement", "suspects")]


def _agreement(identity: str, title: str, rows: Sequence[Agreement], names: Sequence[str] | None = None) -> Section:
    shown = [(name, one) for name, one in zip(names or [one.name for one in rows], rows, strict=True) if _tells(one)]
    same = [name for name, one in zip(names or [one.name for one in rows], rows, strict=True) if not _tells(one)]
    preference = any(one.level == "preference" for _, one in shown)
    ranked = any(one.tau_b is not None for _, one in shown)
    header = ["", "alpha"]
    header += ["agree", "kappa (chance 1/2)", "ties as half"] if preference else ["scale"]
    header += (["tau-b"] if ranked else []) + (["ties"] if preference else [])
    header += ["judgments", "people", "items of two or more"]
    body = []
    for name, one in shown:
        cells = [name, with_interval(one.alpha)]
        if preference:
            cells += [with_interval(one.agreement), with_interval(one.kappa), number(one.agreement_half)]
            cells += [with_interval(one.tau_b)] if ranked else []
            cells += [share(one.tie_rate)]
        else:
            cells += [one.level]
        body.append([*cells, f"{one.values:,}", f"{one.annotators:,}", f"{one.shared_items:,}"])
    sees = "95 % intervals draw whole items. "
    if same:
        sees += f"Nothing to compare, as everybody says the same or nobody shares an item: {', '.join(same)}."
    return Section(
        identity=identity, title=title, sees=sees.strip(), table=Table(header=header, rows=body) if body else None
    )


def _tells(one: Agreement) -> bool:
    return not math.isnan(one.alpha.value)


def _annotators(report: CampaignReport) -> Section:
    lines = report.annotators
    has_ties = any(not math.isnan(line.ties) for line in lines)
    has_time = any(line.minutes is not None for line in lines)
    header = ["annotator", "says what others say", "of", "judgments", "skipped"]
    header += (["ties"] if has_ties else []) + (["minutes"] if has_time else []) + ["note"]
    rows = []
    for line in lines[:FIRST]:
        ends = "" if math.isnan(line.rate) else f" [{number(line.interval[0])}, {number(line.interval[1])}]"
        cells = [line.annotator, number(line.rate) + ends, f"{line.n:,}", f"{line.judgments:,}", f"{line.skipped:,}"]
        cells += ([share(line.ties)] if has_ties else []) + ([number(line.minutes, 1)] if has_time else [])
        rows.append([*cells, "excluded" if line.excluded else ""])
    return Section(
        identity="annotators",
        title="Annotators",
        sees="Share of units on which each says what most of the others say, those who differ most first.",
        table=Table(header=header, rows=rows) if rows else None,
        more=max(0, len(lines) - FIRST),
    )


def _suspects(report: CampaignReport) -> Section:
    rows = [
        [one.annotator, "to be decided" if one.flagged else "evidence", evidence.kind, evidence.found, evidence.limit]
        for one in report.suspects
        for evidence in one.evidence
    ]
    sees = "A flag takes failed gold items or attention checks, or two other kinds of evidence. A person decides."
    return Section(
        identity="suspects",
        title="Evidence on annotators",
        sees=sees if rows else "No evidence against anybody.",
        table=Table(header=["annotator", "", "kind", "found", "limit"], rows=rows[:FIRST]) if rows else None,
        more=max(0, len(rows) - FIRST),
    )


def _bias(report: CampaignReport) -> Section:
    bias = report.bias
    rows = []
    if bias.first is not None:
        rows.append(["shown first preferred", with_interval(bias.first), f"{bias.first.n:,}"])
    for k, places in bias.by_place.items():
        if k > 2:
            rows += [
                [f"place {place} of {k} preferred", with_interval(result), f"{result.n:,}"]
                for place, result in places.items()
            ]
    if bias.longer is not None:
        rows.append(["longer preferred", with_interval(bias.longer), f"{bias.longer.n:,}"])
    rows += [
        [f"... {ratio} times as long", with_interval(result), f"{result.n:,}"]
        for ratio, result in bias.by_ratio.items()
    ]
    return Section(
        identity="bias",
        title="Position and length",
        sees="Shares of strict choices; 0.50 is no preference. Longer may be better: compare with a reward model.",
        table=Table(header=["", "share", "choices"], rows=rows) if rows else None,
    )


def _learning(report: CampaignReport) -> Section:
    rows = [
        [f"{one.items:,} items", share(one.random), share(one.selected), with_interval(one.gain)]
        for one in report.learning
    ]
    return Section(
        identity="learning",
        title="What labels of each arm teach",
        sees="Accuracy of a small preference model on random items it has not seen, after as many items of either arm.",
        table=Table(header=["trained on", "random", "selected", "gain"], rows=rows) if rows else None,
    )


def _judges(report: CampaignReport) -> Section:
    rows = [
        [one.judge, one.source, f"{number(one.agreement)} [{number(one.interval[0])}, {number(one.interval[1])}]",
         f"{one.n:,}", f"{one.judgments:,}"]
        for one in report.judges
    ]  # fmt: skip
    return Section(
        identity="judges",
        title="Models and rules beside people",
        sees="Share of response pairs ordered as the majority of people orders them.",
        table=Table(header=["judge", "", "agrees", "pairs", "judgments"], rows=rows) if rows else None,
    )


def _pilot(report: CampaignReport) -> Section:
    pilot = report.pilot
    rows = [
        ["minutes a task, median", number(pilot.minutes, 1)],
        ["skipped", share(pilot.skip_rate)],
        *[[f"... {reason}", f"{count:,}"] for reason, count in pilot.skips.items()],
        ["ties", share(pilot.tie_rate)],
        ["failed responses", share(pilot.failed_rate)],
    ]
    shown = [row for row in rows if row[1] != DASH]
    return Section(
        identity="pilot",
        title="Can the task be done?",
        sees=report.pilot.advice[:1].upper() + report.pilot.advice[1:] + ".",
        table=Table(header=["", ""], rows=shown) if shown else None,
    )


def _disputed(report: CampaignReport) -> Section:
    rows = [
        [one.item, number(one.disagreement), str(one.annotators), one.method, _value(one)]
        for one in report.disputed[:FIRST]
    ]
    return Section(
        identity="disputed",
        title="Items to review",
        sees="Those whose annotators disagree most: entropy of their votes in nats, 0.69 is one vote each way.",
        table=Table(header=["item", "entropy", "people", "consensus by", "consensus"], rows=rows) if rows else None,
    )


def _value(one: ItemConsensus) -> str:
    ranks = one.value.get("ranks")
    if isinstance(ranks, dict):
        placed = sorted(ranks.items(), key=lambda pair: (pair[1] is None, pair[1] or 0))
        return ", ".join(f"{_short(name)} {'F' if rank is None else rank}" for name, rank in placed)
    return ", ".join(
        f"{name} {value:g}" for name, value in one.value.items() if isinstance(value, (int, float)) and value
    )


def _short(name: str) -> str:
    return name if len(name) <= 12 else name[:11] + "…"
