"""Turn a run folder into one HTML file that opens offline, on a phone and on a desktop.

The file holds everything: drawings as SVG, a style sheet, a small script. Its content security policy names the
hashes of that sheet and that script and forbids every other source, so text a model wrote can neither run nor load
anything, even if it were to escape the escaping.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import accord
from accord.evaluate.page.curves import compare_runs, curve_groups, not_drawn, training_verdict
from accord.evaluate.page.distributions import histogram_figures, unscored_warning, win_figure
from accord.evaluate.page.evaluations import evaluation_sections, headlines
from accord.evaluate.page.files import RunFiles, number, read_run
from accord.evaluate.page.parts import Figure
from accord.evaluate.page.provenance import absent_parts, facts_of, origin_of
from accord.evaluate.page.results import (
    accuracy_figure,
    duration,
    frontier_figure,
    result_figure,
    result_rows,
    seconds_by_stage,
    time_figure,
    verdict,
)
from accord.evaluate.page.samples import compare_stages, compare_steps
from accord.evaluate.page.svg import marker

__all__ = ["write_report"]


def write_report(run_folder: Path, *others: Path) -> Path:
    """Write RUN/report.html, whole or not at all; an older one is replaced.

    Args:
        run_folder: the folder of a run or of a quickstart; a part it does not have is left out, with a sentence.
        others: runs to draw over its curves and beside its results.

    Returns: the path of the report.

    Raises:
        ValueError: a folder does not exist, or holds nothing to report.
    """
    run, *beside = _apart([read_run(Path(folder)) for folder in (run_folder, *others)])
    page = _page(run, beside)
    target = Path(run_folder) / "report.html"
    aside = target.with_name(f".report.html.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
    return target


def _apart(runs: Sequence[RunFiles]) -> list[RunFiles]:
    """The runs under names that tell them apart: two called ppo are seed-0/ppo and seed-1/ppo."""
    names = [run.name for run in runs]
    return [
        replace(run, name=f"{run.folder.resolve().parent.name}/{run.name}") if names.count(run.name) > 1 else run
        for run in runs
    ]


def _page(run: RunFiles, others: Sequence[RunFiles]) -> bytes:
    style, script = (_source(name) for name in ("report.css", "report.js"))
    groups = curve_groups(run, others)
    page = (
        _templates()
        .get_template("report.html.jinja")
        .render(
            style=Markup(style),
            script=Markup(script),
            policy=_policy(style, script),
            title=run.name,
            facts=_facts(run),
            warning=unscored_warning(run.evaluation),
            verdict=[*(verdict(run.summary) or training_verdict(run)), *headlines(run)],
            result_rows=result_rows(run.summary),
            result_figures=_existing(result_figure(run, others), win_figure(run.evaluation)),
            frontier=frontier_figure([run, *others]),
            histograms=histogram_figures(run.evaluation),
            samples=compare_stages(run.evaluation) or compare_steps(run.samples),
            groups=groups,
            evaluations=evaluation_sections([run, *others]),
            comparison=compare_runs([run, *others]),
            costs=_existing(accuracy_figure(run.summary), time_figure(run.summary)),
            origins=[origin_of(each) for each in (run, *others)],
            absent=[*absent_parts(run), *not_drawn(run, others)],
            chart_data={panel.identity: panel.data for group in groups for panel in (*group.panels, *group.more)},
            marker=marker,
            version=accord.__version__,
            written=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
        )
    )
    # A lone surrogate in a response cannot be encoded; as a character reference browsers show it as U+FFFD.
    return page.encode("utf-8", "xmlcharrefreplace")


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("accord.evaluate"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _source(name: str) -> str:
    return resources.files("accord.evaluate").joinpath("templates", name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    hashes = [base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() for source in (style, script)]
    return (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _facts(run: RunFiles) -> list[tuple[str, str]]:
    """The line under the title."""
    facts = facts_of(run)
    spent = seconds_by_stage(run.summary)
    memory = number(run.summary.get("peak_memory_gb"))
    if spent:
        facts.append(("time", duration(sum(spent.values()))))
    if memory is not None:
        facts.append(("peak memory", f"{memory:.1f} GB"))
    return facts


def _existing(*figures: Figure | None) -> list[Figure]:
    return [figure for figure in figures if figure is not None]
