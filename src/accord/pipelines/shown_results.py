"""Figures of the feedback jobs as reports show them: `eval/NAME.json` in the run folder, one record per result."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accord import __version__
from accord.train.run import write_text

__all__ = [
    "compare_rows",
    "compare_sentences",
    "critique_rows",
    "critique_sentences",
    "label_rows",
    "label_sentences",
    "write_shown",
]

Row = dict[str, Any]


def row(name: str, unit: str, value: float | None, of: str = "", **more: Any) -> Row:
    """One result; `more` may hold `ci`, `n`, `n_unscored`, `method`."""
    plain = {"ci": None, "n": None, "n_unscored": 0, "method": "none", "level": 0.95, "version": __version__}
    return {"name": name, "of": of, "unit": unit, "value": value, **plain, **more}


def write_shown(folder: Path, name: str, rows: Sequence[Row], said: Sequence[str], about: Mapping[str, Any]) -> None:
    """Write eval/NAME.json, and the sentences a report begins with."""
    write_text(folder / "findings.json", json.dumps({"sentences": list(said)}, indent=1, ensure_ascii=False))
    content = {
        "evaluation": name,
        "name": name,
        "notes": list(said),
        "command": " ".join(sys.argv),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **about,
        "results": list(rows),
    }
    (folder / "eval").mkdir(exist_ok=True)
    write_text(folder / "eval" / f"{name}.json", json.dumps(content, indent=1, ensure_ascii=False))


def _measured(name: str, unit: str, found: Mapping[str, Any], of: str = "") -> Row:
    more = {"ci": found["interval"], "n": found["n"], "method": found["method"]}
    return row(name, unit, found["value"], of, n_unscored=found.get("unscored", 0), **more)


def label_rows(result: Mapping[str, Any]) -> list[Row]:
    """What a judge is worth, and what its labels look like."""
    check, labels = result["check"], result["labels"]
    rows: list[Row] = []
    if check is not None:
        n = check["accuracy"]["n"]
        rows.append(_measured("accuracy on pairs people decided", "share, ties half", check["accuracy"]))
        rows += [
            row("of taking the longer reply", "share", check["longer_wins"], n=n),
            row("of taking the first reply", "share", check["first_wins"], n=n),
            row("the place decides, decided pairs", "share of pairs", check["flip_rate"], n=n),
            row("prefers the longer reply, decided pairs", "share", check["prefers_longer"], n=n),
            row("people prefer the longer reply", "share", check["people_prefer_longer"], n=n),
        ]
        if check["injection"]:
            shift = check["injection"]["shift"]
            rows.append(_measured("P moved by an injection", "probability", shift))
    n = labels["labelled"]
    rows += [
        row("labelled pairs", "pairs", n, n=n, n_unscored=labels["unscored"]),
        row("the place decides, labelled pairs", "share of pairs", labels["flip_rate"], n=n),
        row("prefers the longer reply, labelled pairs", "share", labels["prefers_longer"], n=n),
        row("certainty of the labels", "probability", labels["mean_certainty"], n=n),
        row("pairs on which principles disagree", "share", labels["principles_split"], n=n),
        row("answers off the form", "share", labels["low_mass"], n=n),
    ]
    return rows


def critique_rows(result: Mapping[str, Any]) -> list[Row]:
    """What the rounds did to the replies, one subject a round."""
    rows: list[Row] = []
    for found in result["rounds"]:
        of = "draft" if found["round"] == 0 else f"round {found['round']}"
        n = found["replies"]
        rows += [
            row("kept", "replies", found["kept"], of, n=n),
            row("length", "words", found["words"], of, n=n),
            row("distinct-2", "share", found["distinct_2"], of, n=n),
            row("refusals", "share", found["refusals"], of, n=n),
            *(row(f"reward {Path(name).name}", "reward units", mean, of, n=n)
              for name, mean in found.get("reward", {}).items()),
        ]  # fmt: skip
    return rows


def label_sentences(result: Mapping[str, Any]) -> list[str]:
    """What a reader must know of labels: what the judge is worth, how many there are."""
    check, counts = result["check"], result["counts"]
    found = ["What this judge is worth is not known: it was not checked on pairs that people decided."]
    if check is not None and check["accuracy"]["value"] is None:
        found = ["No better than chance: no pair that people decided could be scored."]
    elif check is not None:
        accuracy = check["accuracy"]
        low, high = accuracy["interval"]
        worth = "No better than chance: the judge" if check["near_chance"] else "The judge"
        found = [
            f"{worth} sides with people on {accuracy['value']:.2f} of {accuracy['n']} pairs they decided (95% interval "
            f"{low:.2f} to {high:.2f}); taking the longer reply is right on {check['longer_wins']:.2f}.",
        ]
    flips = result["labels"]["flip_rate"]
    if flips is not None:
        found.append(f"In {flips:.0%} of the labelled pairs the place decides, whichever reply stands there.")
    if check is not None and check["injection"] and check["injection"]["shift"]["value"] is not None:
        shift = check["injection"]["shift"]
        low, high = shift["interval"]
        ends = "" if low is None else f" (95% interval {low:+.2f} to {high:+.2f})"
        found.append(f"A reply that orders its own victory gains {shift['value']:+.2f} of probability{ends}.")
    found.append(
        f"{counts['given']} pairs: {counts['labelled']} labelled, {counts['unscored']} unscored, "
        f"{counts['rejected']} without a choice."
    )
    return found


def critique_sentences(result: Mapping[str, Any]) -> list[str]:
    """What came of the rounds."""
    out = ", ".join(f"{count} {reason}" for reason, count in result["kept_out"].items()) or "nothing"
    return [
        f"{result['demonstrations']} demonstrations, {result['from_revisions']} of them revisions.",
        f"Kept out: {out}.",
    ]


def compare_sentences(result: Mapping[str, Any]) -> list[str]:
    """Whether anything was gained."""
    found = []
    for name, one in result["rewards"].items():
        rate = one["win_rate"]
        low, high = rate["interval"]
        ends = "" if low is None else f" (95% interval {low:.2f} to {high:.2f}, {rate['n']} prompts)"
        verdict = "No difference is shown" if low is None or low <= 0.5 <= high else "The difference is shown"
        found.append(f"{verdict}: by {Path(name).name} the model wins {rate['value']:.2f}{ends}.")
    found.append(f"{result['same_reply']} of {result['replies']} replies are the same.")
    return found


def compare_rows(result: Mapping[str, Any]) -> list[Row]:
    """Two models side by side."""
    rows = [
        _measured(f"win rate by reward {Path(name).name}", "share, ties half", found["win_rate"])
        for name, found in result["rewards"].items()
    ]
    for side in ("model", "baseline"):
        figures = result[f"{side}_figures"]
        rows += [
            *(row(f"reward {Path(name).name}", "reward units", found[side], side, n=found["win_rate"]["n"])
              for name, found in result["rewards"].items()),
            *(_measured(name.replace("_", "-"), "share", figures[name], side)
              for name in ("refusals", "over_refusals") if name in figures),
            row("length", "words", figures["words"], side, n=result["replies"]),
        ]  # fmt: skip
    return rows
