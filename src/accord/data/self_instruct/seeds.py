"""Seed tasks: what people wrote to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from accord.data import files
from accord.data.files import Broken, DataError

__all__ = ["Instance", "Seed", "read_seeds"]


class Instance(NamedTuple):
    """An input (empty: the instruction needs none) and the output it should get."""

    input: str
    output: str


class Seed(NamedTuple):
    """A task a person wrote."""

    id: str
    instruction: str
    instances: tuple[Instance, ...]
    is_classification: bool


def read_seeds(path: Path) -> list[Seed]:
    """Read seeds, in the format of the 175 public ones.

    Raises:
        DataError: the file cannot be read, or a row is no seed.
    """
    files.check_path(path)
    seeds = []
    for number, row in files.rows(path):
        try:
            seeds.append(_seed(row, number))
        except ValueError as error:
            raise DataError(f"{path}, row {number}: {error}") from None
    if len(seeds) < 3:
        raise DataError(f"{path}: {len(seeds)} seeds; expected at least 3, so that there is something to vary")
    return seeds


def _seed(row: Any, number: int) -> Seed:
    if isinstance(row, Broken):
        raise ValueError(row.message)
    instruction = row.get("instruction") if isinstance(row, dict) else None
    if not isinstance(instruction, str) or not instruction.strip():
        raise ValueError("no `instruction`; expected its text, `instances` and perhaps `is_classification`")
    listed = row.get("instances", [{"input": row.get("input", ""), "output": row.get("output", "")}])
    try:
        instances = tuple(Instance(str(one.get("input", "")), str(one["output"])) for one in listed)
    except (AttributeError, KeyError, TypeError):
        raise ValueError('`instances`: expected a list of {"input": ..., "output": ...}; correct the row') from None
    return Seed(
        str(row.get("id", f"seed_{number}")), instruction.strip(), instances, bool(row.get("is_classification", False))
    )
