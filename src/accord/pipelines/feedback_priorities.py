"""Scores of a campaign's items for the queue: by disagreement, uncertainty of a reward model, distance, or a file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from accord.data import files
from accord.data.files import Broken, DataError
from accord.feedback.analysis import Material
from accord.feedback.analysis.consensus import consensus
from accord.feedback.store import by_diversity, by_uncertainty

__all__ = ["item_rewards", "item_scores", "read_scores"]


def item_scores(material: Material, by: str, scores: Path | None) -> dict[str, float]:
    """Item id -> score, higher ones to be served first.

    Args:
        material: of the campaign.
        by: "disagreement": mean entropy of the votes on what is judged; items nobody judged get the mean of the others,
            so that they are not served last. "uncertainty": 1 - 2|p - 1/2| of the file's probabilities, or of
            p = sigma(r1 - r2) of the two best rewards of an item. "diversity": cosine distance of the prompt to the
            nearest judged one. "scores": as the file says.
        scores: the file, for uncertainty and scores.

    Raises:
        ValueError: the file is missing, or not needed; a row is bad; nothing is judged yet.
    """
    if (scores is not None) != (by in ("uncertainty", "scores")):
        needed = by in ("uncertainty", "scores")
        raise ValueError(f"--by {by} {'needs' if needed else 'takes no'} --scores; {'add' if needed else 'remove'} it")
    if by == "disagreement":
        return _disagreement(material)
    if by == "diversity":
        return _diversity(material)
    assert scores is not None
    names = {content.name: item for item, content in material.contents.items()}
    names |= {item: item for item in material.contents}
    found = read_scores(scores, uncertainty=by == "uncertainty")
    unknown = [name for name in found if name not in names]
    if unknown:
        raise ValueError(f"{scores}: {unknown[0]!r} is no item of the campaign; expected names or ids of its items")
    return {names[name]: score for name, score in found.items()}


def item_rewards(material: Material, scores: Path) -> dict[str, dict[str, float]]:
    """Item id -> response id -> reward, of the rows of a file that have rewards; a probability belongs to no response.

    Raises:
        ValueError: a row is bad, or names no response of its item. (No such item: `item_scores` has said so.)
    """
    found: dict[str, dict[str, float]] = {}
    items = {content.name: content for content in material.contents.values()} | dict(material.contents)
    for _, row in files.rows(scores):
        if isinstance(row, Mapping) and "rewards" in row:
            content = items[row["item"]]
            ids = {name: response for response, name in content.names.items()} | {one: one for one in content.names}
            unknown = next((name for name in row["rewards"] if name not in ids), None)
            if unknown is not None:
                raise ValueError(
                    f"{scores}, item {row['item']!r}: `rewards` names {unknown!r}; "
                    f"expected responses of the item, {', '.join(content.names.values())}"
                )
            found[content.item_id] = {ids[name]: float(value) for name, value in row["rewards"].items()}
    return found


def _disagreement(material: Material) -> dict[str, float]:
    votes = {one.item_id: one.disagreement for one in consensus(material) if one.method != "review"}
    if not votes:
        raise ValueError(f"nobody has judged an item of {material.name} yet; use --by diversity, or collect some first")
    middle = float(np.mean(list(votes.values())))
    return {item: votes.get(item, middle) for item in material.contents}


def _diversity(material: Material) -> dict[str, float]:
    from accord.feedback.explore.embed import tf_idf

    items = list(material.contents)
    texts = ["\n".join(turn.content for turn in material.contents[item].prompt) for item in items]
    vector_ND = tf_idf(texts).vector_ND
    judged = {verdict.item_id for verdict in material.human()}
    labelled = np.array([item in judged for item in items])
    return dict(zip(items, by_diversity(vector_ND, vector_ND[labelled]).tolist(), strict=True))


def read_scores(path: Path, *, uncertainty: bool) -> dict[str, float]:
    """Item name -> score of a JSONL file.

    Args:
        path: rows {"item", "score"}.
        uncertainty: rows are {"item", "probability"} or {"item", "rewards": {response: reward}} instead.

    Raises:
        DataError: a row is bad, or an item comes twice.
    """
    files.check_path(path)
    found: dict[str, float] = {}
    for number, row in files.rows(path):
        try:
            if isinstance(row, Broken):
                raise ValueError(row.message)
            name, score = _score_of(row, uncertainty)
            if name in found:
                raise ValueError(f"item {name!r} comes a second time; expected one row per item; remove one")
        except ValueError as error:
            raise DataError(f"{path}, row {number}: {error}") from None
        found[name] = score
    return found


def _score_of(row: Any, uncertainty: bool) -> tuple[str, float]:
    if not isinstance(row, Mapping) or not isinstance(row.get("item"), str):
        raise ValueError('`item` is missing or no text; expected {"item": NAME, ...}; add it')
    if not uncertainty:
        return row["item"], _number(row, "score")
    if "rewards" in row:
        rewards = row["rewards"]
        if not isinstance(rewards, Mapping) or len(rewards) < 2:
            raise ValueError("`rewards`: expected an object with the rewards of two responses or more")
        best, second = sorted((_number(rewards, name) for name in rewards), reverse=True)[:2]
        return row["item"], float(by_uncertainty([1 / (1 + math.exp(-(best - second)))])[0])
    return row["item"], float(by_uncertainty([_number(row, "probability")])[0])


def _number(row: Mapping[str, Any], name: str) -> float:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"`{name}`: found {value!r}; expected a finite number; correct it")
    return float(value)
