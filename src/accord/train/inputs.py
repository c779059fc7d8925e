"""What a job is given: the records of its files, how long a row may be, and what became of the rows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accord.data.batches import Fit
from accord.data.readers import ReadResult, read
from accord.models.score import base_of
from accord.train.configs import JobConfig
from accord.train.progress import Display
from accord.train.run import Run

__all__ = ["length_limit", "note_fit", "read_data", "read_files"]


def read_files(config: JobConfig, run: Run, **kinds: Any) -> dict[str, list[Any]]:
    """Read and validate the records of settings that name files; hashes and bad rows go to the run folder.

    Asked for before the model is loaded: a bad row shows at once, however large the model is.

    Args:
        config: of the job.
        run: keeps what was read.
        kinds: by name of a setting, what its rows are (see `accord.data.read`).

    Returns:
        Records by name of the setting; none where it is not set.
    """
    named = {name: getattr(config, name) for name in kinds}
    return {name: read_data(paths, kinds[name], config, run, name) if paths else [] for name, paths in named.items()}


def read_data(paths: Iterable[Path], kind: Any, config: JobConfig, run: Run, name: str = "data") -> list[Any]:
    """Read and validate records; hashes and bad rows go to the run folder."""
    result: ReadResult[Any] = read(list(paths), kind, skip_bad_rows=config.skip_bad_rows)
    run.manifest[name] = [
        {"file": report.file, "rows": report.rows, "bad_rows": report.bad, "sha256": report.sha256}
        | _doubts(Path(report.file))
        for report in result.files
    ]
    if result.bad_rows:
        run.set_aside(name, [asdict(bad) for bad in result.bad_rows])
    return list(result.records)


def _doubts(path: Path) -> dict[str, str]:
    """What a reader of results should know of labels a model made: `label.json` beside them says what it is worth."""
    report = path.parent / "label.json"
    if path.name != "comparisons.jsonl" or not report.is_file():
        return {}
    weak = json.loads(report.read_text(encoding="utf8")).get("weak_judge")
    return {"doubt": "labels of a judge that is near chance"} if weak else {}


def length_limit(model: Any, config: JobConfig, display: Display) -> int:
    """Tokens a row may have: `max_length`, or the model's positions where they are fewer, and then said so."""
    positions = getattr(base_of(model).config.get_text_config(), "max_position_embeddings", None)  # type: ignore[operator, union-attr]
    if positions is None or positions >= config.max_length:
        return config.max_length
    display.note(f"the model has {positions} positions: they bound a row, not --max-length {config.max_length}")
    return int(positions)


def note_fit(fitted: Fit, config: JobConfig, run: Run, display: Display, name: str = "data") -> None:
    """Say what became of the rows, on the screen and in the manifest.

    Raises: ValueError: none is left.
    """
    run.manifest[f"{name}_fit"] = fitted.as_dict()
    display.note(f"{name}: {fitted.sentence()}")
    if not fitted.kept:
        raise ValueError(f"no row of {name} fits into --max-length {config.max_length}; raise it")
