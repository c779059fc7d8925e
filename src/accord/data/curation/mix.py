"""Several data sets into one: how often each is drawn, in which order, and what that comes to.

    rate_m ~ min(n_m, cap) ** (1 / temperature) * weight_m

as examples-proportional mixing with a limit (Raffel et al. 2020, arXiv:1910.10683, section 3.5.2), by which FLAN mixes.
The rates are met exactly, up to rounding: there is a plan of all rows, a function of seed and sizes, and row i of the
mixture is entry i of the plan. So a job that was stopped goes on at the row it had reached.

    accord data mix instructions/train --out mixture.jsonl --temperature 2
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import accord
from accord.data import files
from accord.data.curation.contamination import Index, evaluation_index
from accord.data.curation.examples import Aside, examples
from accord.data.curation.plan import MixConfig, MixSource, Share, held_back, plan, read_sources, shares
from accord.data.curation.written import beside
from accord.data.files import DataError
from accord.data.lines import Lines, write_json
from accord.data.progress import Tell, counted, silent

__all__ = ["Mixed", "mix"]


class Mixed(NamedTuple):
    """A finished mixture.

    Attributes:
        shares: by source.
        rows: of the mixture.
        contaminated: rows left out because they give an evaluation set away, by that set; 0 for sets nobody gave away.
        bad: rows set aside.
        wanted: rows asked for.
    """

    shares: list[Share]
    rows: int
    contaminated: Mapping[str, int]
    bad: int
    wanted: int


class _Rows:
    """The usable rows of a source: where each begins in a file of plain lines, one number a row in memory."""

    def __init__(self, source: MixSource, folder: Path) -> None:
        self.source, self.contaminated = source, 0
        self.sha256 = files.sha256(source.path)
        self.starts: list[int] = []
        self.kind = ""
        self._copy = folder / f"{source.name}.jsonl"
        self._file: Any = None

    def index(self, bad: Aside | None, against: Index | None, removed: Lines, tell: Tell) -> Counter[str]:
        """Read the source once, check every row, and copy the usable ones; returns how many each set lost us."""
        given_away: Counter[str] = Counter()
        with self._copy.open("wb") as copy:
            for example in counted(examples([self.source.path], bad), f"reading {self.source.name}", tell):
                find = None if against is None else against.find(example)
                if find is not None:
                    given_away[find.file] += 1
                    removed.add({"file": example.file, "row": example.number, **find.listed, "raw": example.raw})
                    continue
                self.kind = example.kind
                self.starts.append(copy.tell())
                copy.write(json.dumps(example.raw, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
        self.contaminated = given_away.total()
        return given_away

    def read(self, number: int) -> dict[str, Any]:
        """A row."""
        if self._file is None:
            self._file = self._copy.open("rb")
        self._file.seek(self.starts[number])
        row: dict[str, Any] = json.loads(self._file.readline())
        return row

    def close(self) -> None:
        """Remove the copy."""
        if self._file is not None:
            self._file.close()
        self._copy.unlink(missing_ok=True)


def mix(config: MixConfig, tell: Tell = silent) -> Mixed:
    """Write a mixture and its manifest, or go on with one that was stopped.

    Raises:
        DataError: a source is missing, has no usable row or a bad one, or two have the same name.
    """
    sources = read_sources(config)
    _check(sources, config)
    by_name = {source.name: source for source in sources}
    sets = [*config.against, *(held_back(sources) if config.against_held_back else ())]
    against = evaluation_index(sets, fields=config.against_fields, tell=tell) if sets else None
    contaminated = Counter({str(path): 0 for path in sets})
    folder = config.out.with_name(f".{config.out.name}.sources")
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        bad = stack.enter_context(Lines(beside(config.out, "bad-rows.jsonl"), keep_empty=False))
        removed = stack.enter_context(Lines(beside(config.out, "removed.jsonl"), keep_empty=False))
        rows = [_Rows(source, folder) for source in sources]
        for one in rows:
            stack.callback(one.close)
            contaminated.update(one.index(bad if config.skip_bad_rows else None, against, removed, tell))
            if not one.starts:
                raise DataError(f"{one.source.path}: no usable row; remove the source or mend it")
            if one.kind != rows[0].kind:
                raise DataError(
                    f"{one.source.path}: {one.kind} rows, where {rows[0].source.path} has {rows[0].kind} rows; "
                    "a mixture holds one kind, since one job trains on it; mix them apart"
                )
        sizes = {one.source.name: len(one.starts) for one in rows}
        usable = {name: min(size, config.max_examples) for name, size in sizes.items()}
        parts = shares(usable, by_name, config)
        order = plan(parts, sizes, config)
        _write(rows, order, config, _fingerprint(rows, sets, config), tell)
        mixed = Mixed(parts, len(order), contaminated, bad.rows, config.rows or len(order))
    with contextlib.suppress(OSError):
        folder.rmdir()
    write_json(_manifest(rows, mixed, sets, config), beside(config.out, "manifest.json"))
    return mixed


def _check(sources: Sequence[MixSource], config: MixConfig) -> None:
    if not config.out.name.endswith((".jsonl", ".jsonl.gz")):
        raise DataError(f"{config.out}: cannot write a file of this name; expected .jsonl or .jsonl.gz")
    if any(source.path.resolve() == config.out.resolve() for source in sources):
        raise DataError(f"{config.out}: --out is one of the sources; choose another file")


def _fingerprint(rows: Sequence[_Rows], sets: Sequence[Path], config: MixConfig) -> str:
    made_of = [accord.__version__, config.model_dump(mode="json"), [[str(part) for part in one.source] for one in rows]]
    made_of += [[one.sha256 for one in rows], [files.sha256(path) for path in sets]]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()


def _write(rows: Sequence[_Rows], order: NDArray[np.int64], config: MixConfig, made_of: str, tell: Tell) -> None:
    """Write the rows of the plan that are not written yet; the file appears under its name when all are there."""
    part = config.out.with_name(f".{config.out.name}.part")
    note = config.out.with_name(f".{config.out.name}.part.json")
    done = _whole_lines(part) if note.exists() and note.read_text() == made_of else 0
    note.write_text(made_of)
    with part.open("ab" if done else "wb") as file:
        for place in range(done, len(order)):
            source, number = order[place]
            row = rows[source].read(number)
            if isinstance(row.get("meta", {}), dict):  # a `meta` of somebody's own kind stays as it is
                row["meta"] = {**row.get("meta", {}), "mixed_from": rows[source].source.name}
            file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
            if place % 500 == 0:
                tell("mixing", place, len(order))
    tell("mixing", len(order), len(order))
    if config.out.suffix == ".gz":
        with Lines(config.out) as lines, part.open("rb") as file:
            for line in file:
                lines.add(json.loads(line))
        part.unlink()
    else:
        os.replace(part, config.out)
    note.unlink()


def _whole_lines(path: Path) -> int:
    """Count the finished lines of a file and cut off an unfinished one."""
    if not path.exists():
        return 0
    lines = length = 0
    with path.open("rb+") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            lines, length = lines + 1, length + len(line)
        file.truncate(length)
    return lines


def _manifest(rows: Sequence[_Rows], mixed: Mixed, sets: Sequence[Path], config: MixConfig) -> dict[str, Any]:
    return {
        "accord": accord.__version__,
        "settings": config.model_dump(mode="json"),
        "rows": mixed.rows,
        "sha256": files.sha256(config.out),
        "contaminated": sum(mixed.contaminated.values()),
        "contaminated_by_set": {name: count for name, count in mixed.contaminated.items() if count},
        "evaluation_sets": {str(path): files.sha256(path) for path in sets},
        "bad": mixed.bad,
        "sources": [
            {
                "name": part.name,
                "path": str(one.source.path),
                "sha256": one.sha256,
                "rows": part.available,
                "rate": part.rate,
                "drawn": part.drawn,
                "repeats": part.repeats,
                "contaminated": one.contaminated,
            }
            for one, part in zip(rows, mixed.shares, strict=True)
        ],
    }
