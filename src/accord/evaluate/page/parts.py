"""The building blocks of the page: figures, tables, and the names of stages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

__all__ = ["Figure", "Table", "baseline_of", "listed", "stage_name", "stages_in_order"]

NAMES = {"base": "Base", "reference": "Reference", "sft": "SFT", "ppo": "PPO", "dpo": "DPO", "reward": "Reward model"}
LONGEST = 28  # characters of a name
ORDER = ("reference", "base", "sft", "reward", "ppo", "dpo")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text; the first cell of a row names it."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A chart with the sentence that says what is to be seen, and its numbers as a table."""

    identity: str
    title: str
    sees: str
    drawing: Markup
    table: Table | None = None
    is_wide: bool = False  # takes the whole width of the page


def stage_name(stage: str) -> str:
    """How a stage is written on the page: `SFT`, `Reward model`; unknown ones as they are, long ones cut."""
    return NAMES.get(stage, stage if len(stage) <= LONGEST else stage[: LONGEST - 1] + "…")


def stages_in_order(stages: Iterable[str]) -> list[str]:
    """Each stage once: base, SFT, PPO, DPO, then the others in the order they come."""
    seen = list(dict.fromkeys(stages))
    return sorted(seen, key=lambda stage: ORDER.index(stage) if stage in ORDER else len(ORDER) + seen.index(stage))


def baseline_of(stages: Iterable[str]) -> str:
    """The stage that others are compared with: base, or the reference of an evaluation that has no base."""
    return "reference" if "base" not in (seen := set(stages)) and "reference" in seen else "base"


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
