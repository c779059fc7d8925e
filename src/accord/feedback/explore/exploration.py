"""The whole of it: logs in, an `Exploration` out; and the prompts of some of its clusters, for a campaign."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from accord.data.collections import ChatLog
from accord.feedback.explore.cluster import Cluster, Divergence, clusters_of, compare_shares, layout
from accord.feedback.explore.embed import Embedding, sentence_vectors, tf_idf
from accord.feedback.explore.prepare import Prepared, prepare
from accord.feedback.scripts import script_of
from accord.feedback.store.personal_data import Detector

__all__ = ["Exploration", "Point", "choose", "explore"]


@dataclass(frozen=True, kw_only=True)
class Point:
    """A conversation on the map.

    Attributes:
        log: the conversation, screened.
        compared: it is of the second set.
        cluster: number.
        x: -1..1.
        y: -1..1.
        language: as the source says, else the script.
        turns: messages.
        length: characters of the first turn.
    """

    log: ChatLog
    compared: bool
    cluster: int
    x: float
    y: float
    language: str
    turns: int
    length: int


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """What people ask.

    Attributes:
        points: conversations of both sets.
        clusters: largest first.
        prepared: of the first set: what was left out, and why.
        compared: of the second set; None: there is none.
        divergence: of the two sets; None: there is one.
        embedding: what texts were placed by.
        explained: share of the variance an SVD kept; None: no SVD.
        seed: of clusters and map.
    """

    points: tuple[Point, ...]
    clusters: tuple[Cluster, ...]
    prepared: Prepared
    compared: Prepared | None
    divergence: Divergence | None
    embedding: str
    explained: float | None
    seed: int


Step = Callable[[str, int, int | None], object]


def explore(  # noqa: PLR0913 - keyword-only, one per setting of the command
    logs: Sequence[ChatLog],
    compare: Sequence[ChatLog] = (),
    *,
    clusters: int | None = None,
    model: str | None = None,
    screen: Literal["replace", "drop", "off"] = "replace",
    detectors: Sequence[Detector] = (),
    near_duplicates: float = 0.8,
    per_user: int = 200,
    map_points: int = 5000,
    seed: int = 0,
    step: Step = lambda title, done, total: None,
) -> Exploration:
    """Screen, deduplicate, embed, cluster and map conversations by what was asked first.

    Args:
        logs: what people ask.
        compare: a second set to put on the same map; none: one set.
        clusters: how many; None: sqrt(n/2), from 4 to 60.
        model: of sentence-transformers; None: TF-IDF.
        screen: of personal data.
        detectors: of personal data, beyond the patterns.
        near_duplicates: Jaccard index from which two first turns are one.
        per_user: conversations of one person at most.
        map_points: that t-SNE places.
        seed: of clusters and map.
        step: called with what is done, for a progress bar.

    Raises:
        ValueError: fewer than ten conversations are left.
    """
    prepared, compared = (
        prepare(
            part, screen=screen, detectors=detectors, per_user=per_user, threshold=near_duplicates, seed=seed,
            step=lambda title, done, total: step(title, done, total),
        )
        if part
        else None
        for part in (logs, compare)
    )  # fmt: skip
    if prepared is None or len(prepared.logs) < 10:
        left = 0 if prepared is None else len(prepared.logs)
        raise ValueError(
            f"{left} conversations are left of {len(logs)}; expected ten or more to make clusters of; give more, or "
            "leave fewer out"
        )
    every = [*prepared.logs, *(compared.logs if compared else ())]
    texts = [log.first for log in every]
    step("embedding", 0, None)
    embedding: Embedding = sentence_vectors(texts, model) if model else tf_idf(texts, seed=seed)
    step("clusters", 0, None)
    cluster_N, found = clusters_of(embedding.vector_ND, texts, clusters, seed)
    step("map", 0, None)
    place_N2 = layout(embedding.vector_ND, map_points, seed)
    first_N = np.arange(len(every)) < len(prepared.logs)
    points = tuple(
        Point(
            log=log,
            compared=not first,
            cluster=cluster,
            x=round(x, 4),
            y=round(y, 4),
            language=log.language or f"{_script(log.first)} script",
            turns=len(log.messages),
            length=len(log.first),
        )
        for log, first, cluster, (x, y) in zip(
            every, first_N.tolist(), cluster_N.tolist(), place_N2.tolist(), strict=True
        )
    )
    return Exploration(
        points=points,
        clusters=tuple(found),
        prepared=prepared,
        compared=compared,
        divergence=compare_shares(cluster_N, first_N, len(found)) if compared else None,
        embedding=embedding.name,
        explained=embedding.explained,
        seed=seed,
    )


def choose(points: Sequence[Point], count: int, seed: int = 0) -> list[Point]:
    """Draw prompts for a campaign: of each cluster its share of the points, every cluster at least one; by hash.

    Args:
        points: the selection; those of a second set are left out.
        count: how many at most.
        seed: of the draw.
    """
    by_cluster: dict[int, list[Point]] = {}
    for point in points:
        if not point.compared:
            by_cluster.setdefault(point.cluster, []).append(point)
    total = sum(map(len, by_cluster.values()))
    drawn: list[list[Point]] = []
    for cluster in sorted(by_cluster):
        members = sorted(by_cluster[cluster], key=lambda point: _draw(seed, point))
        drawn.append(members[: max(1, round(count * len(members) / total))])
    # Rounding up may give some too many: the last ones of the largest clusters go.
    while sum(map(len, drawn)) > count and max(map(len, drawn)) > 1:
        max(drawn, key=len).pop()
    return [point for members in drawn for point in members][:count]


def _script(text: str) -> str:
    """Return "Latin", "Cyrillic", "CJK"; "none" without letters."""
    name = script_of(text) or "none"
    return name if name in ("CJK", "none") else name.capitalize()


def _draw(seed: int, point: Point) -> bytes:
    return hashlib.sha256(f"{seed}\0{point.log.id}\0{point.log.first}".encode("utf-8", "replace")).digest()
