"""The report of a campaign on disk: one HTML file that opens offline, its figures as JSON, consensus as JSONL."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from accord.evaluate.page.plots import Dot, intervals
from accord.evaluate.page.svg import NARROW, WIDE, StageStyle, responsive, stage_style
from accord.evaluate.result import Result
from accord.feedback.analysis.report import CampaignReport, as_json
from accord.feedback.analysis.tables import headline, sections

__all__ = ["render_page", "write_page"]

MOST_DOTS = 30


def write_page(report: CampaignReport, folder: Path) -> dict[str, Path]:
    """Write agreement.html, agreement.json and consensus.jsonl into a folder, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {name: value for name, value in as_json(report).items() if name != "consensus"}
    figures["written"] = datetime.now(UTC).isoformat(timespec="seconds")
    lines = "".join(json.dumps(as_json(one), ensure_ascii=False) + "\n" for one in report.consensus)
    found = {
        "agreement.html": render_page(report),
        "agreement.json": json.dumps(figures, indent=2, ensure_ascii=False) + "\n",
        "consensus.jsonl": lines,
    }
    for name, text in found.items():
        aside = folder / f".{name}.{os.getpid()}"
        aside.write_bytes(text.encode("utf-8", "xmlcharrefreplace"))
        aside.replace(folder / name)
    return {name: folder / name for name in found}


def render_page(report: CampaignReport) -> str:
    """The page as text: no script, no request, styles by hash."""
    shared = resources.files("accord.evaluate").joinpath("templates", "report.css").read_text(encoding="utf-8")
    own = resources.files("accord.feedback.analysis").joinpath("templates", "agreement.css").read_text(encoding="utf-8")
    style = shared + own
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = Environment(
        loader=PackageLoader("accord.feedback.analysis"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    counts = {name: f"{count:,}" for name, count in report.counts.items() if count}
    return environment.get_template("agreement.html.jinja").render(
        report=report,
        style=Markup(style),
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'",
        counts=counts,
        headline=headline(report),
        sections=sections(report),
        charts={"agreement": _agreement_chart(report), "annotators": _annotator_chart(report)},
        written=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
    )


def _dot(name: str, value: float, ends: tuple[float, float] | None, style: StageStyle) -> Dot:
    known = ends is not None and not any(math.isnan(end) for end in ends)
    return Dot(name=name, style=style, value=value, ci=ends if known else None)


def _chart(identity: str, title: str, unit: str, dots: list[Dot], reference: tuple[float, str] | None) -> Markup | None:
    if len(dots) < 2:
        return None
    wide, narrow = (
        intervals(f"{identity}-{size}", title, unit, dots[:MOST_DOTS], width, reference)
        for size, width in (("wide", WIDE), ("narrow", NARROW))
    )
    return responsive(wide, narrow)


def _agreement_chart(report: CampaignReport) -> Markup | None:
    """Alpha of each measure, then of each part of the main one."""
    rows: list[tuple[str, Result]] = [(one.name, one.alpha) for one in report.agreement]
    rows += [(f"{part}", one.alpha) for parts in report.slices.values() for part, one in parts.items()]
    style = stage_style("sft")
    dots = [_dot(name, one.value, one.ci, style) for name, one in rows if not math.isnan(one.value)]
    return _chart("alpha", "Krippendorff's alpha", "alpha, 95% interval", dots, (0.0, "chance"))


def _annotator_chart(report: CampaignReport) -> Markup | None:
    flagged = {one.annotator for one in report.suspects}
    known = [line for line in report.annotators if not math.isnan(line.rate)]
    dots = [
        _dot(line.annotator, line.rate, line.interval, stage_style("ppo" if line.annotator in flagged else "sft"))
        for line in known
    ]
    judged = sorted(line.rate for line in known)
    middle = (judged[(len(judged) - 1) // 2] + judged[len(judged) // 2]) / 2 if judged else 0.0
    return _chart("people", "Agreement with the others", "share, 95% interval", dots, (middle, "median"))
