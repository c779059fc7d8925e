"""Settings of a conversion, and what it reports of a task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

__all__ = ["ConvertConfig", "TaskReport"]


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, (str, int)) else value


Words = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]


class ConvertConfig(BaseModel):
    """Conversion of tasks to instructions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: Words = Field(
        description="task files (.yaml), folders of them, names of tasks of the package, or all", min_length=1
    )
    root: Path = Field(Path(), description="folder that the paths in task files start from")
    out: Path = Field(description="folder of the instructions; finished tasks in it are not done again")
    hold_out: Words = Field((), description="clusters kept out of training, with those that must leave with them")
    templates_per_row: int = Field(1, ge=1, description="different templates drawn for a row, at most")
    options_share: float = Field(1.0, ge=0, le=1, description="share of rows whose prompts list the options")
    shots: Words = Field(
        ("0",),
        description="exemplars before a row, each 0 to 5, with shares: 0:0.5 2:0.3 5:0.2; equal if none are said",
    )
    reasoning_share: float = Field(
        0.5, ge=0, le=1, description="share of rows with a rationale whose response begins with it"
    )
    max_characters: int = Field(8000, ge=100, description="longest prompt with exemplars, the oldest of them go first")
    workers: int = Field(1, ge=1, description="tasks converted at the same time; the result does not depend on it")
    seed: int = Field(0, ge=0, description="every random choice is a function of it")
    skip_bad_rows: bool = Field(False, description="set bad rows aside instead of stopping at the first")

    @model_validator(mode="after")
    def _check(self) -> ConvertConfig:
        self.shot_shares  # noqa: B018  (raises)
        return self

    @property
    def shot_shares(self) -> dict[int, float]:
        """Number of exemplars -> share of the rows, adding up to 1."""
        shares: dict[int, float] = {}
        for word in self.shots:
            count, _, part = word.partition(":")
            try:
                shares[int(count)] = float(part or 1)
            except ValueError:
                raise ValueError(f'shots "{word}"; expected a number and perhaps a share, such as 2:0.25') from None
        if not shares or not set(shares) <= set(range(6)) or min(shares.values()) <= 0:
            raise ValueError(f"shots {' '.join(self.shots)}; expected numbers from 0 to 5 with shares above 0")
        return {count: part / sum(shares.values()) for count, part in shares.items()}


class TaskReport(NamedTuple):
    """What became of a task.

    Attributes:
        task: its name.
        clusters: of the task.
        role: "train", "held-out", or "left out" because a cluster is held out that it must leave with.
        read: rows of the source that belong to the task.
        written: rows by split.
        templates: rows by template.
        bad: rows set aside.
        unsplit: rows that no split takes.
        outputs: file under OUT -> rows and hash.
        seconds: it took; 0 if it was found finished.
    """

    task: str
    clusters: tuple[str, ...]
    role: str
    read: int = 0
    written: Mapping[str, int] = {}
    templates: Mapping[str, int] = {}
    bad: int = 0
    unsplit: int = 0
    outputs: Mapping[str, Any] = {}
    seconds: float = 0.0
