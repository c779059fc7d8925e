"""An exploration on disk: one HTML file with the map, its figures as JSON, and a row per conversation."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import accord
from accord.feedback.explore.exploration import Exploration, Point
from accord.feedback.explore.prepare import Prepared

__all__ = ["cluster_rows", "map_data", "render_page", "summary", "write_exploration"]

SHOWN = 400  # characters of a prompt on the page


def write_exploration(found: Exploration, folder: Path, *, sources: Sequence[str] = ()) -> dict[str, Path]:
    """Write explore.html, explore.json and conversations.jsonl into a folder, each whole or not at all.

    Args:
        found: what to write.
        folder: made if it is not there.
        sources: names of the files, for the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = (
        {
            "id": point.log.id, "cluster": point.cluster, "set": "compared" if point.compared else "logs",
            "x": point.x, "y": point.y, "language": point.language, "model": point.log.model, "prompt": point.log.first,
        }
        for point in found.points
    )  # fmt: skip
    texts = {
        "explore.html": render_page(found, sources=sources),
        "explore.json": json.dumps(summary(found, sources=sources), indent=2, ensure_ascii=False) + "\n",
        "conversations.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
    }
    for name, text in texts.items():
        aside = folder / f".{name}.{os.getpid()}"
        aside.write_bytes(text.encode("utf-8", "xmlcharrefreplace"))
        aside.replace(folder / name)
    return {name: folder / name for name in texts}


def summary(found: Exploration, *, sources: Sequence[str] = ()) -> dict[str, Any]:
    """The figures: what came in and went out, the clusters, how two sets differ."""
    return {
        "sources": list(sources),
        "version": accord.__version__,
        "seed": found.seed,
        "embedding": found.embedding,
        "explained_variance": found.explained,
        "logs": _counts(found.prepared),
        "compared": None if found.compared is None else _counts(found.compared),
        "jensen_shannon_bits": None if found.divergence is None else found.divergence.jensen_shannon,
        "clusters": cluster_rows(found),
    }


def _counts(part: Prepared) -> dict[str, Any]:
    return {
        "conversations": part.conversations,
        "shown": len(part.logs),
        "personal_data": dict(part.finds),
        "conversations_with_personal_data": part.with_finds,
        "dropped": part.dropped,
        "over_the_limit_of_a_person": part.capped,
        "near_duplicates": part.duplicates,
        "largest_groups": [{"prompt": prompt[:SHOWN], "conversations": size} for prompt, size in part.largest],
    }


def cluster_rows(found: Exploration) -> list[dict[str, Any]]:
    """A row per cluster: name, terms, size, examples, and the shares of both sets with their ratio."""
    rows = []
    for cluster in found.clusters:
        row: dict[str, Any] = {
            "cluster": cluster.number,
            "name": cluster.name,
            "terms": list(cluster.terms),
            "size": cluster.size,
            "examples": [found.points[place].log.first[:SHOWN] for place in cluster.medoids],
        }
        if found.divergence is not None:
            first, second = found.divergence.shares[cluster.number]
            row |= {"share": first, "compared_share": second, "ratio": first / second if second else None}
        rows.append(row)
    return rows


def map_data(points: Sequence[Point], clusters: Sequence[dict[str, Any]]) -> str:
    """What the script draws, as JSON that is safe inside a page: points as rows, words of a kind once."""
    languages = sorted({point.language for point in points})
    models = sorted({point.log.model or "unknown" for point in points})
    language, model = ({name: place for place, name in enumerate(names)} for names in (languages, models))
    rows = [
        [
            point.x, point.y, point.cluster, int(point.compared), language[point.language],
            model[point.log.model or "unknown"], point.length, point.turns,
            point.log.toxic, point.log.id, point.log.first[:SHOWN],
        ]
        for point in points
    ]  # fmt: skip
    data = {"points": rows, "languages": languages, "models": models, "clusters": clusters}
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    # "</script>" or "<!--" in a prompt would end the block of data.
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def render_page(found: Exploration, *, sources: Sequence[str] = ()) -> str:
    """The page as text. Its policy allows its own script and styles by hash, and no request."""
    shared = resources.files("accord.evaluate").joinpath("templates", "report.css").read_text(encoding="utf-8")
    style = shared + _own("explore.css")
    script = _own("explore.js")
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    environment = Environment(
        loader=PackageLoader("accord.feedback.explore"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rows = cluster_rows(found)
    return environment.get_template("explore.html.jinja").render(
        found=found,
        facts=summary(found, sources=sources),
        clusters=rows,
        data=Markup(map_data(found.points, rows)),
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        sources=", ".join(sources),
        version=accord.__version__,
        written=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
    )


def _own(name: str) -> str:
    return resources.files("accord.feedback.explore").joinpath("static", name).read_text(encoding="utf-8")
