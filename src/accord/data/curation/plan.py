"""The plan of a mixture: its sources, how many rows each gives, and in which order they come."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from accord.data.curation.examples import expanded
from accord.data.draws import draw
from accord.data.files import DataError

__all__ = ["MixConfig", "MixSource", "Share", "held_back", "plan", "read_sources", "shares"]


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, (str, Path)) else value


class MixSource(NamedTuple):
    """A data set of a mixture: what the table calls it, its file, what its rate is multiplied by, a cap of its own."""

    name: str
    path: Path
    weight: float = 1.0
    cap: int | None = None


class MixConfig(BaseModel):
    """A mixture."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = Field(
        description='data files or folders of them, each perhaps with settings: "rte.jsonl weight=2 cap=1000 name=rte"',
        min_length=1,
    )
    out: Path = Field(description="file of the mixture, .jsonl or .jsonl.gz; a manifest is written beside it")
    rows: int | None = Field(None, ge=1, description="length of the mixture; none: the sum of min(rows, cap)")
    cap: int = Field(3000, ge=1, description="rows of a source that count towards its rate, at most")
    temperature: float = Field(1.0, gt=0, description="1: by size; large: all sources alike")
    max_examples: int = Field(30_000, ge=1, description="different rows of a source that are used, at most")
    max_repeats: int = Field(4, ge=1, description="times that a row may stand in the mixture, at most")
    against: Annotated[tuple[Path, ...], BeforeValidator(_as_tuple)] = Field(
        (), description="evaluation sets: rows that give them away are left out, counted"
    )
    against_fields: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = Field(
        (), description="columns that hold the prompt of evaluation rows in a format of their own"
    )
    against_held_back: bool = Field(
        True,
        description="check too against what `accord data convert` held back beside the sources: test/, held-out/ and "
        "other splits, which `accord eval tasks` asks about",
    )
    seed: int = Field(0, ge=0, description="which rows, and their order")
    skip_bad_rows: bool = Field(False, description="set bad rows aside instead of stopping at the first")


class Share(NamedTuple):
    """What one source gives: its name, usable rows, rate (sum 1), rows in the mixture, times a row stands in it."""

    name: str
    available: int
    rate: float
    drawn: int

    @property
    def repeats(self) -> float:
        """Mean times that a row of the source stands in the mixture."""
        return self.drawn / self.available


def shares(sizes: Mapping[str, int], sources: Mapping[str, MixSource], config: MixConfig) -> list[Share]:
    """Rates and numbers of rows.

    Args:
        sizes: usable rows by source.
        sources: by name.
        config: cap, temperature, rows, max_repeats.

    Returns: numbers that add up to the rows asked for, each within one of rate times rows; where a source would have to
        repeat its rows more than `max_repeats` times it gives that many, and the others give more. Two sources of 100
        and 300 rows, nothing else said: 100 and 300.
    """
    names = list(sizes)
    counted_N = np.array([min(sizes[name], sources[name].cap or config.cap) for name in names], float)
    weight_N = counted_N ** (1 / config.temperature) * np.array([sources[name].weight for name in names])
    most_N = np.array([sizes[name] * config.max_repeats for name in names])
    wanted = min(config.rows or int(counted_N.sum()), int(most_N.sum()))
    given_N = _apportioned(weight_N, most_N, wanted)
    rate_N = weight_N / weight_N.sum()
    return [Share(*values) for values in zip(names, sizes.values(), rate_N.tolist(), given_N.tolist(), strict=True)]


def _apportioned(weight_N: NDArray[Any], most_N: NDArray[Any], wanted: int) -> NDArray[Any]:
    """Whole numbers close to weights, none above its limit, that add up to `wanted`; large remainders round up."""
    full_N = np.zeros(len(weight_N), bool)
    while True:  # sources that reach their limit leave the rest to the others
        rest = wanted - most_N[full_N].sum()
        free = weight_N * ~full_N
        exact_N = np.where(full_N, most_N, rest * free / free.sum() if free.sum() else 0.0)
        over_N = ~full_N & (exact_N > most_N)
        if not over_N.any():
            break
        full_N |= over_N
    given_N = np.floor(exact_N).astype(int)
    order = np.argsort(-(exact_N - given_N), kind="stable")
    for place in order[: wanted - given_N.sum()]:
        given_N[place] += 1
    return given_N


def plan(parts: Sequence[Share], sizes: Mapping[str, int], config: MixConfig) -> NDArray[np.int64]:
    """The mixture as (rows, 2): source and row of it, both from 0.

    A source is gone through epoch by epoch, each in an order of its own; its rows are spread evenly over the mixture.
    """
    pieces, places = [], []
    for number, part in enumerate(parts):
        generator = np.random.default_rng(draw(config.seed, "mix", part.name).getrandbits(64))
        chosen = generator.permutation(sizes[part.name])[: part.available]
        epochs = -(-part.drawn // part.available)
        order = np.concatenate([generator.permutation(chosen) for _ in range(epochs)] or [chosen])[: part.drawn]
        pieces.append(np.stack([np.full(part.drawn, number), order], axis=1))
        places.append((np.arange(part.drawn) + generator.random(part.drawn)) / max(part.drawn, 1))
    return np.concatenate(pieces)[np.argsort(np.concatenate(places), kind="stable")]


def read_sources(config: MixConfig) -> list[MixSource]:
    """The sources that are named in a configuration, a file each.

    Raises:
        DataError: one is not there, a setting is unknown or no number, or two have the same name.
    """
    found: list[MixSource] = []
    for text in config.sources:
        path, *settings = text.split(" ")
        given = dict(setting.partition("=")[::2] for setting in settings if setting)
        try:
            weight = float(given.pop("weight", 1))
            cap = int(given.pop("cap")) if "cap" in given else None
        except ValueError as error:
            raise DataError(f'source "{text}": {error}; expected weight=NUMBER and cap=NUMBER') from None
        name = given.pop("name", None)
        if given or weight <= 0 or (cap is not None and cap < 1):
            raise DataError(f'source "{text}"; expected PATH, then perhaps weight=, cap= (both above 0) and name=')
        for file in expanded([path]):
            plain = file.name.split(".")[0]
            named = plain if name is None else name if Path(path) == file else f"{name}-{plain}"
            found.append(MixSource(named, file, weight, cap))
    names = [source.name for source in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise DataError(f'two sources are called "{twice}"; tell them apart: "PATH name=NAME"')
    return found


def held_back(sources: Sequence[MixSource]) -> list[Path]:
    """What conversions that sources come from keep for evaluation: the files of their splits other than train.

    A source in FOLDER/train/ is of a conversion if FOLDER/manifest.json names it; files that are sources themselves are
    no evaluation sets.
    """
    named = {source.path.resolve() for source in sources}
    folders = dict.fromkeys(source.path.parent.parent for source in sources)
    found: dict[Path, Path] = {}
    for folder in folders:
        outputs = {name: (folder / name).resolve() for name in _outputs(folder / "manifest.json")}
        if not named & set(outputs.values()):
            continue
        kept = {path: folder / name for name, path in outputs.items() if not name.startswith("train/")}
        found |= {path: shown for path, shown in kept.items() if path not in named and path.is_file()}
    return [path for path in found.values() if path.stat().st_size]


def _outputs(manifest: Path) -> list[str]:
    """Names of the files a conversion wrote; none where there is no manifest of one."""
    try:
        tasks = json.loads(manifest.read_text(encoding="utf-8"))["tasks"]
        return [name for entry in tasks.values() for name in entry["outputs"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
