"""Where the figures come from: model, data, seed, versions, command (manifest.json, config.yaml)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from accord.evaluate.page.files import RunFiles, number, settings_of

__all__ = ["Origin", "absent_parts", "facts_of", "origin_of"]

# What readers ask first; everything else in the manifest follows in its own order.
FIRST = ("job", "model", "model_fingerprint", "seed", "data", "data_fit", "precision", "device", "trained_parameters",
         "parameters", "versions")  # fmt: skip
HASH_SHOWN = 16  # characters of a hash; the whole of it stands in manifest.json, below
LONGEST = 400  # characters of a value; likewise


@dataclass(frozen=True, kw_only=True)
class Origin:
    """One run's provenance: the command, (name, value) rows, and the files as they stand."""

    name: str
    folder: str
    command: str
    rows: Sequence[tuple[str, str]]
    files: Sequence[tuple[str, str]]


def origin_of(run: RunFiles) -> Origin:
    """The provenance of one run; model and seed may stand in the manifest, the summary or the settings."""
    known = _known(run)
    command = known.pop("command", "")
    share = _trained_share(known)
    ordered = [name for name in FIRST if name in known] + [name for name in known if name not in FIRST]
    rows = [row for name in ordered for row in _rows(name, known[name])]
    files = {
        "config.yaml": run.config,
        "manifest.json": json.dumps(run.manifest, indent=2) if run.manifest else "",
        "summary.json": json.dumps(run.summary, indent=2) if run.summary else "",
    }
    return Origin(
        name=run.name,
        folder=str(run.folder),
        command=" ".join(map(str, command)) if isinstance(command, list) else str(command),
        rows=[*rows, *([("share of parameters trained", share)] if share else [])],
        files=[(name, content) for name, content in files.items() if content],
    )


def facts_of(run: RunFiles) -> list[tuple[str, str]]:
    """The few facts that stand under the title."""
    known = _known(run)
    model = known.get("model")
    if isinstance(model, Mapping):
        model = next((model[key] for key in ("name", "id") if key in model), None)
    facts = {"model": model, "seed": known.get("seed"), "precision": known.get("precision")}
    return [(name, _in_words(value)) for name, value in facts.items() if value is not None]


def absent_parts(run: RunFiles) -> list[str]:
    """A plain sentence for every part of the page that this run has no file for, and for what could not be read."""
    has_curves = bool(run.curves) or any(stage.curves for stage in run.stages)
    compares = bool(run.summary or run.evaluation or run.frontier)
    sentences = {
        "No manifest.json: where the figures come from is not recorded.": bool(run.manifest),
        "No metrics.jsonl: there are no learning curves.": has_curves,
        "No samples.jsonl: there are no responses to read.": bool(run.samples or run.evaluation),
        "No summary.json: there is no table of results by stage.": bool(run.summary) or not compares,
        "No evaluation.jsonl: wins, histograms and held-out responses are missing.": bool(run.evaluation)
        or not compares,
        "No frontier.json: reward against KL shows finished stages only.": bool(run.frontier) or not compares,
    }
    return [sentence for sentence, present in sentences.items() if not present] + list(run.notes)


def _known(run: RunFiles) -> dict[str, object]:
    """The manifest; model and seed also from the summary or the settings."""
    known: dict[str, object] = {}
    for source in (settings_of(run), run.summary):
        known |= {name: source[name] for name in ("model", "seed") if name in source}
    return known | dict(run.manifest)


def _trained_share(known: Mapping[str, object]) -> str:
    trained, whole = number(known.get("trained_parameters")), number(known.get("parameters"))
    return "" if trained is None or not whole else f"{trained / whole:.2%}"


def _rows(name: str, value: object) -> list[tuple[str, str]]:
    """One row for a plain value or a flat mapping, several for what is nested deeper."""
    label = name if "." in name else name.replace("_", " ")
    if isinstance(value, Mapping) and any(isinstance(inner, Mapping) for inner in value.values()):
        return [row for key, inner in value.items() for row in _rows(f"{label} · {key}", inner)]
    if isinstance(value, list) and value and all(isinstance(entry, Mapping) for entry in value):
        return [(label, _in_words(entry)) for entry in value]
    return [(label, _in_words(value))]


def _in_words(value: object) -> str:
    if isinstance(value, Mapping):
        words = ", ".join(f"{str(key).replace('_', ' ')} {_in_words(inner)}" for key, inner in value.items())
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000:
        words = f"{value:,}"
    else:
        words = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(words) >= 40 and set(words) <= set("0123456789abcdef"):
        return words[:HASH_SHOWN] + "…"
    return words if len(words) <= LONGEST else words[:LONGEST] + "… (all of it in manifest.json)"
