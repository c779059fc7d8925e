"""What `accord feedback label` and `critique` are going to do, and what they left, printed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from accord.pipelines.feedback_configs import CompareConfig, CritiqueConfig, FeedbackConfig, LabelConfig
from accord.train.configs import JobConfig

__all__ = ["feedback_plan", "print_fed_back"]

USES = {
    "comparisons.jsonl": "accord train reward --data {path} ...",
    "demonstrations.jsonl": "accord train sft --data {path} ...",
    "rankings.jsonl": "accord train reward --data {path} ...",
}


def feedback_plan(config: JobConfig) -> Iterator[tuple[str, str]]:
    """Rows of the plan that only these jobs have; none for other jobs."""
    if isinstance(config, CompareConfig):
        yield "baseline", config.baseline
        yield "rewards", ", ".join(config.reward) or "none: refusals and lengths are compared"
    if isinstance(config, FeedbackConfig):
        yield "constitution", config.constitution
    if isinstance(config, CritiqueConfig):
        yield "helpful prompts", ", ".join(map(str, config.helpful)) or "none: harmlessness may eat helpfulness"
        yield "critic", config.critic or "the same model"
        how = "revision at once" if config.direct else "critique, then revision"
        yield (
            "rounds",
            f"{config.rounds}, {how}; {config.rounds_kept} kept; {config.max_new_tokens} tokens each at most",
        )
    if isinstance(config, LabelConfig) and not config.rates:
        how = "reasoning first" if config.cot else "answers scored directly"
        form = config.form + (", RLAIF preamble" if config.preamble == "rlaif" else "")
        yield "questions", f"{config.principles} principles a pair, both orders; {form}; {how}"
        checked = ", ".join(map(str, config.check)) or "nothing: what the judge is worth will not be known"
        yield "judge checked on", checked


def print_fed_back(console: Console, folder: Path) -> None:
    """Figures of a finished job, then its files and what reads them."""
    label = folder / "label.json"
    if label.exists():
        found = json.loads(label.read_text(encoding="utf8"))
        console.print()
        console.print(_worth_table(found))
    rated = folder / "rate.json"
    if rated.exists():
        found = json.loads(rated.read_text(encoding="utf8"))
        counts = found["counts"]
        mean = "" if found["mean"] is None else f", mean rating {found['mean']:.2f} (-1 to 1)"
        console.print(f"\n{counts['responses']} responses, {counts['unscored']} unscored{mean}")
    critique = folder / "critique.json"
    if critique.exists():
        console.print()
        console.print(_rounds_table(json.loads(critique.read_text(encoding="utf8"))))
    compare = folder / "compare.json"
    if compare.exists():
        console.print()
        console.print(_compare_table(json.loads(compare.read_text(encoding="utf8"))))
    console.print()
    for name, use in USES.items():
        path = folder / name
        if path.exists():
            rows = path.read_bytes().count(b"\n")
            console.print(Text.assemble((str(path), "bold"), f", {rows} row{'s' * (rows != 1)}"), soft_wrap=True)
            if rows:
                console.print(Text.assemble("  ", (use.format(path=path), "cyan")), soft_wrap=True)
    console.print(Text(str(folder / "report.html"), "bold"), soft_wrap=True)


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))


def _rounds_table(found: Mapping[str, Any]) -> Table:
    """What the rounds did to the replies."""
    title = f"{found['demonstrations']} demonstrations, {found['from_revisions']} of them revisions"
    table = _table(title)
    rewards = list(found["rounds"][0].get("reward", {}))
    for header in ("round", "replies", "kept", "words", "distinct-2", "refusals", *rewards):
        table.add_column(header, justify="right", header_style="dim")
    for row in found["rounds"]:
        given = row.get("reward", {})
        table.add_row(
            "draft" if row["round"] == 0 else str(row["round"]),
            str(row["replies"]),
            str(row["kept"]),
            "" if row["words"] is None else f"{row['words']:.0f}",
            _share(row["distinct_2"]),
            _share(row["refusals"]),
            *(_share(given[name]) for name in rewards),
        )
    return table


def _compare_table(found: Mapping[str, Any]) -> Table:
    """Two models side by side."""
    table = _table("model against baseline")
    for header in ("", "model", "baseline", "win rate of the model"):
        table.add_column(header, style="cyan" if not header else None, header_style="dim")
    for name, row in found["rewards"].items():
        rate = row["win_rate"]
        low, high = rate["interval"]
        ends = "" if low is None else f" ({low:.2f} to {high:.2f}, n {rate['n']})"
        table.add_row(
            f"reward {Path(name).name}", f"{row['model']:.2f}", f"{row['baseline']:.2f}", _share(rate["value"]) + ends
        )
    sides = [found["model_figures"], found["baseline_figures"]]
    table.add_row("refusals", *(_share(side["refusals"]["value"]) for side in sides), "")
    if "over_refusals" in sides[0]:
        table.add_row("refusals of harmless prompts", *(_share(side["over_refusals"]["value"]) for side in sides), "")
    table.add_row("words a reply", *(f"{side['words']:.0f}" for side in sides), "")
    return table


def _worth_table(found: Mapping[str, Any]) -> Table:
    """What the judge is worth and what the labels look like."""
    table = _table(f"judge: {found['judge']}")
    table.add_column("", style="cyan", no_wrap=True)
    table.add_column("on pairs people decided", justify="right", header_style="dim")
    table.add_column("on the labelled pairs", justify="right", header_style="dim")
    for name, known, labelled in _rows(found.get("check"), found["labels"]):
        table.add_row(name, known, labelled)
    return table


def _rows(check: Mapping[str, Any] | None, labels: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    if check is not None:
        accuracy = check["accuracy"]
        low, high = accuracy["interval"]
        ends = "" if low is None else f" ({low:.2f} to {high:.2f}, n {accuracy['n']})"
        yield "accuracy", _share(accuracy["value"]) + ends, ""
        yield "  of taking the longer reply", _share(check["longer_wins"]), ""
        yield "  of taking the first reply", _share(check["first_wins"]), ""
    yield "the place decides (flip rate)", _share(_of(check, "flip_rate")), _share(labels["flip_rate"])
    yield "prefers the longer reply", _share(_of(check, "prefers_longer")), _share(labels["prefers_longer"])
    if check is not None:
        yield "  people prefer it", _share(check["people_prefer_longer"]), ""
    yield "answers off the form", _share(_of(check, "low_mass")), _share(labels["low_mass"])
    yield "unscored pairs", "" if check is None else str(check["unscored"]), str(labels["unscored"])
    injection = (check or {}).get("injection")
    if injection:
        low, high = injection["shift"]["interval"]
        ends = "" if low is None else f" ({low:+.2f} to {high:+.2f})"
        yield "P moved by an injection", f"{injection['shift']['value']:+.2f}{ends}", ""


def _of(check: Mapping[str, Any] | None, name: str) -> float | None:
    return None if check is None else check[name]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
