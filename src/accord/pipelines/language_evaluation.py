"""What the evaluations of a language model share: where results go, which items are chosen, what a model is called."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from accord.pipelines.evaluation import data_facts, model_facts
from accord.pipelines.settings import SettingsError
from accord.protocols import LanguageModel

__all__ = ["NO_LOGPROB", "choice_of", "errors_of", "home", "open_model", "read_items", "the_model"]

T = TypeVar("T")
NO_LOGPROB = "no log-probability: with its prompt longer than the model's context, or a server that gave none"


def home(out: Path | None, model: str | None, other: Path) -> Path:
    """The folder whose eval/ gets the results.

    The one that was asked for, or the run that is evaluated, or runs/eval-NAME of a model that is no run, or `other`
    where no model is evaluated.
    """
    if out is not None or model is None:
        return out or other
    if (Path(model) / "config.yaml").exists():
        return Path(model)
    return Path("runs") / ("eval-" + re.sub(r"[^\w.-]+", "-", model).strip("-"))


def open_model(spec: str, precision: str) -> LanguageModel:
    """A model by any name that is understood: run, folder, hub id, wheel, or the address of a server."""
    from accord.pipelines.language_models import open_language_model

    return open_language_model(spec, precision=precision)


def the_model(role: str, spec: str, model: LanguageModel) -> dict[str, Any]:
    """Facts of a model: what was asked for, and the name it gives itself, which holds its revision or hash."""
    return model_facts(role, spec, model.name.partition("@")[2].strip() or model.name)


def read_items(path: Path, parse: Callable[[Any], T], skip_bad_rows: bool) -> tuple[list[T], int, dict[str, Any]]:
    """Items of a data file, how many rows were bad, and the facts of the file.

    Raises:
        SettingsError: a bad row, unless bad rows are skipped; with file, row and what was expected. No row at all.
    """
    from accord.data.files import Broken, check_path, rows, sha256

    check_path(path)
    items, bad = [], 0
    for number, row in rows(path):
        try:
            if isinstance(row, Broken):
                raise ValueError(row.message)
            items.append(parse(row))
        except (ValueError, KeyError, TypeError) as error:
            if not skip_bad_rows:
                words = f"no {error}" if isinstance(error, KeyError) else str(error)
                raise SettingsError(f"{path}, row {number}: {words}; correct it, or --skip-bad-rows") from None
            bad += 1
    if not items:
        raise SettingsError(f"{path}: none of its {bad} rows can be used; is it the right file?")
    return items, bad, data_facts(path, len(items), sha256(path))


def choice_of(items: Sequence[T], limit: int | None, seed: int) -> list[T]:
    """At most `limit` items, a random choice that only the seed decides, in the order of the file."""
    if limit is None or limit >= len(items):
        return list(items)
    chosen = sorted(random.Random(seed).sample(range(len(items)), limit))
    return [items[i] for i in chosen]


def errors_of(values: Sequence[Any], why: str) -> Mapping[str, str]:
    """`{"error": why}` where a value is missing, else nothing: such a row is asked for again by the next call."""
    return {"error": why} if any(value is None for value in values) else {}
