"""Tables of the dashboard that are about people's work: pace, known answers, cost, length against a model. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from accord.evaluate.intervals import wilson
from accord.evaluate.page.parts import Table
from accord.evaluate.page.svg import DASH
from accord.feedback.analysis.bias import Bias, bias_of
from accord.feedback.analysis.material import Material
from accord.feedback.analysis.report import CampaignReport, JudgeLine
from accord.feedback.analysis.tables import Section, number, share, with_interval
from accord.feedback.store.queries.verdicts import Verdict

__all__ = ["cost", "known_answers", "length_beside_a_model", "work_tables", "workload"]

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
LEAST_PAIRS = 30  # of a model with the people's majority, before it is held beside them


def work_tables(
    material: Material, report: CampaignReport, work: Sequence[Verdict], *, left: int, now: int
) -> list[Section]:
    """The tables that have something to show.

    Args:
        material: of the campaign.
        report: made of it.
        work: everything people did in it: items of all kinds, skips and revisions too, since all of it took time.
        left: judgments still wanted.
        now: UTC milliseconds.
    """
    rate = material.settings.hourly_rate
    found = [workload(work, rate=rate, now=now), known_answers(material), length_beside_a_model(material, report)]
    if rate:
        found.insert(1, cost(work, rate=rate, left=left))
    return [one for one in found if one.table is not None]


def workload(work: Sequence[Verdict], *, rate: float, now: int) -> Section:
    """What each annotator does in an hour: of the clock, of the last day, and of active work."""
    people: dict[str, list[Verdict]] = defaultdict(list)
    for one in work:
        people[one.annotator].append(one)
    rows = []
    for who, done in sorted(people.items(), key=lambda one: (-len(one[1]), one[0])):
        timed = [one.active_ms for one in done if one.active_ms]
        lately = [sum(now - one.submitted_at < span for one in done) for span in (HOUR_MS, DAY_MS)]
        row = [who, f"{lately[0]:,}", f"{lately[1]:,}", f"{len(done):,}"]
        row += [number(len(timed) * HOUR_MS / sum(timed), 1) if timed else DASH]
        row += [number(median(timed) / 60_000, 1) if timed else DASH, number(sum(timed) / HOUR_MS, 1)]
        rows.append([*row, *([number(sum(timed) / HOUR_MS * rate)] if rate else [])])
    header = ["annotator", "last hour", "last day", "in all", "an active hour", "minutes, median", "hours"]
    return Section(
        identity="work",
        title="Work by annotator",
        sees="Tasks of every kind, skips and second answers too. Active time is the browser's, without pauses.",
        table=Table(header=[*header, *(["cost"] if rate else [])], rows=rows) if rows else None,
    )


def cost(work: Sequence[Verdict], *, rate: float, left: int) -> Section:
    """Active minutes times the price of an hour; what is left, at the price of a judgment so far."""
    timed = [one.active_ms for one in work if one.active_ms]
    counted = sum(one.counted and one.kind == "normal" for one in work)
    spent = sum(timed) / HOUR_MS * rate
    each = spent / counted if counted else float("nan")
    rows = [
        ["so far", number(spent)],
        ["... a judgment that counts", number(each)],
        ["what is left", number(each * left)],
        ["hours of work", number(sum(timed) / HOUR_MS, 1)],
    ]
    unknown = len(work) - len(timed)
    sees = f"Active time at {rate:g} an hour; known answers and skips are in it."
    sees += f" The time of {unknown:,} of {len(work):,} is not known and costs nothing here." if unknown else ""
    return Section(identity="cost", title="Cost", sees=sees, table=Table(header=["", ""], rows=rows) if timed else None)


def known_answers(material: Material) -> Section:
    """Gold items and attention checks of each annotator, whether they are evidence or not."""
    people = sorted({who for who, kind in material.answers if kind in ("gold", "attention")})
    window = material.settings.attention_window
    rows = []
    for who in people:
        gold, checks = (material.answers.get((who, kind), ()) for kind in ("gold", "attention"))
        low, high = wilson(gold.count(True), len(gold)) if gold else (float("nan"), float("nan"))
        row = [who, f"{gold.count(True)} of {len(gold)}", f"{share(low)} to {share(high)}" if gold else DASH]
        rows.append([*row, f"{checks.count(True)} of {len(checks)}", str(checks[-window:].count(False))])
    header = ["annotator", "gold right", "95 % interval", "checks passed", f"failed of the last {window}"]
    return Section(
        identity="known",
        title="Gold items and attention checks",
        sees="First answers. Ten or more gold items that are surely under 70 % right are evidence.",
        table=Table(header=header, rows=rows) if rows else None,
    )


def length_beside_a_model(material: Material, report: CampaignReport) -> Section:
    """How often the longer response is preferred: one half, people, and the model that agrees with them best."""
    best = max((one for one in report.judges if one.n >= LEAST_PAIRS), key=lambda one: one.agreement, default=None)
    theirs = None if best is None else bias_of(_of(material, best), material.contents)
    ours = report.bias
    ratios = list(dict.fromkeys([*ours.by_ratio, *(theirs.by_ratio if theirs else ())]))
    rows = [_length_row("any length", ours, theirs, None)] if ours.longer is not None else []
    rows += [_length_row(f"{ratio} times as long", ours, theirs, ratio) for ratio in ratios]
    sees = "Share of strict choices for the longer response, and how far from one half. "
    sees += (
        f"Beside people: {best.judge}, which agrees with them most ({share(best.agreement)} of {best.n:,} pairs)."
        if best
        else f"No model's verdicts on {LEAST_PAIRS} of these pairs are imported; with them the best one stands beside."
    )
    header = ["the longer is", "people", "from 1/2", *(["model", "people less model"] if best else [])]
    return Section(
        identity="length", title="Length", sees=sees, table=Table(header=header, rows=rows) if rows else None
    )


def _of(material: Material, judge: JudgeLine) -> list[Verdict]:
    """A model's verdicts on the items people judged."""
    judged = {one.item_id for one in material.human() if one.ranks is not None}
    return [
        one
        for one in material.verdicts
        if one.judge is not None
        and one.source == judge.source
        and "@".join(part for part in one.judge[:2] if part) == judge.judge
        and one.item_id in judged
    ]


def _length_row(name: str, ours: Bias, theirs: Bias | None, ratio: str | None) -> list[str]:
    people = ours.longer if ratio is None else ours.by_ratio.get(ratio)
    row = [name, with_interval(people), number(None if people is None else people.value - 0.5)]
    if theirs is None:
        return row
    model = theirs.longer if ratio is None else theirs.by_ratio.get(ratio)
    gap = None if people is None or model is None else people.value - model.value
    return [*row, with_interval(model), number(gap)]
