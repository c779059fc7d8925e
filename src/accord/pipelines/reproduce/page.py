"""docs/evidence.md, made of the evidence that is kept: what was run, what was seen, and what has not been run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from accord.pipelines.reproduce.drawing import draw
from accord.pipelines.reproduce.evidence import Evidence, Table, read
from accord.pipelines.reproduce.runner import EXPERIMENTS

__all__ = ["keep", "markdown"]

HEAD = """\
# Evidence

Published results, run again in small with Accord. Made by `python tools/evidence.py` from the files in
`docs/evidence/`, which `accord reproduce` writes; nothing on this page is typed by hand. Results that disagree
with the literature stay.

A shape counts as seen, or as not seen, only where the intervals say so: the t interval over seeds and, where the row
gives one, the bootstrap interval over prompts, each by itself and never pooled. Everything else is unclear, and one
seed never says more than that. What a shape needs before it can be judged (a fall that could be prevented, labels that
teach more than a coin) stands beside it. Models of this size and a few CPU hours can show a direction; they cannot show
that a published number holds.

To run one again (the folder of data has `imdb/`, `sentence_classification/` and `hh_rlhf/` in it, see the recipes):

```sh
accord reproduce frontier recipes/reproduce/frontier.yaml
python tools/evidence.py runs/reproduce/frontier
```

Finished steps are skipped, so a stopped experiment goes on where it was. `--fast` takes a few steps of everything: it
checks the machinery and shows nothing.
"""


def keep(run: Path, folder: Path) -> Path:
    """Take the evidence of a run into the folder of evidence; its file there.

    Raises: ValueError: there is none, or it is of a fast run, which shows nothing.
    """
    path = run / "evidence.json" if run.is_dir() else run
    if not path.exists():
        raise ValueError(f"{run}: no evidence.json; expected the folder of a finished `accord reproduce`")
    evidence = read(path)
    if evidence.provenance.get("fast"):
        raise ValueError(f"{run}: a fast run, which shows nothing; run it without --fast")
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f"{evidence.experiment}.json"
    evidence.write(kept)
    for figure in evidence.figures:
        (folder / f"{evidence.experiment}-{figure.name}.svg").write_text(draw(figure), encoding="utf8")
    return kept


def markdown(folder: Path) -> str:
    """The page."""
    found = {path.stem: read(path) for path in sorted(folder.glob("*.json"))}
    known = [found[name] for name in EXPERIMENTS if name in found]
    missing = [name for name in EXPERIMENTS if name not in found]
    parts = [HEAD]
    if known:
        parts.append(_overview(known))
    if missing:
        parts.append(
            "## Not run yet\n\n" + "\n".join(f"- `{name}`: {EXPERIMENTS[name].help}" for name in missing) + "\n"
        )
    parts += [_section(evidence) for evidence in known]
    return "\n".join(parts)


def _overview(several: Sequence[Evidence]) -> str:
    rows = []
    for evidence in several:
        about = evidence.provenance
        for finding in evidence.findings:
            cost = f"{about['seconds'] / 60:.0f} min"
            rows.append([f"[{evidence.experiment}](#{_anchor(evidence)})", finding.claim, f"**{finding.seen}**",
                         str(len(about["seeds"])), cost])  # fmt: skip
    columns = ["experiment", "claim", "seen here", "seeds", "cost of the experiment"]
    return _table(Table(title="", columns=columns, rows=rows))


def _anchor(evidence: Evidence) -> str:
    kept = "".join(c for c in evidence.title.lower() if c.isalnum() or c in " -")
    return kept.replace(" ", "-")


def _section(evidence: Evidence) -> str:
    about = evidence.provenance
    lines = [f"## {evidence.title}", "", evidence.question, "", evidence.setting, ""]
    for finding in evidence.findings:
        lines.append(f"- Claim: {finding.claim} Seen here: **{finding.seen}**. {_sentence(finding.words)}")
    for table in evidence.tables:
        lines += ["", f"{table.title}:", "", _table(table).rstrip()]
    for figure in evidence.figures:
        lines += ["", f"![{figure.title}](evidence/{evidence.experiment}-{figure.name}.svg)"]
    lines += ["", *[f"Note: {caveat}" for caveat in evidence.caveats], ""]
    seeds = ", ".join(map(str, about["seeds"]))
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    data = "; ".join(
        f"{Path(one['path']).parent.name}/{Path(one['path']).name} {one['hash'][:12]}" for one in about["data"]
    )
    parts = [about, *about.get("continued", [])]
    threads = " and ".join(map(str, sorted({part["environment"]["threads"] for part in parts})))
    lines.append(
        f"Model {about['model']} ({about['model_fingerprint'][:12]}), seeds {seeds}, {about['precision']} on "
        f"{threads} thread{'s' * (threads != '1')}, "
        f"{about['seconds'] / 60:.0f} minutes, {about['peak_memory_gb']:g} GB, {about['time'][:10]}. Data: {data}. "
        f"{versions}."
    )
    return "\n".join(lines) + "\n"


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + ("" if words.endswith(".") else ".")


def _table(table: Table) -> str:
    lines = ["| " + " | ".join(table.columns) + " |", "|" + "---|" * len(table.columns)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table.rows]
    return "\n".join(lines) + "\n"
