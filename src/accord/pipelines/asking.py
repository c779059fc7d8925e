"""What the feedback jobs share: the model with its memory, work that goes on where it stopped, and what it cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from accord.feedback.ai.cache import Cached
from accord.models.cache import cache_folder
from accord.pipelines.feedback_configs import FeedbackConfig
from accord.pipelines.language_models import is_server, open_language_model
from accord.protocols import LanguageModel, Usage
from accord.train.progress import Display
from accord.train.run import Run, write_text
from accord.train.sample import append, keep_rows

__all__ = ["Cost", "Note", "Work", "open_model", "read_price", "write_rows"]

Item = TypeVar("Item")
Note = Callable[[int], tuple[Mapping[str, float], Mapping[str, Any]]]
"""(items done) -> figures to log, and the cost so far."""


def open_model(spec: str, config: FeedbackConfig) -> LanguageModel:
    """The model a setting names, with the cache the settings ask for."""
    options: dict[str, Any] = {"precision": config.precision, "micro_tokens": config.micro_tokens}
    if is_server(spec):
        options = {"concurrency": config.concurrency, "timeout": config.timeout, "api_key_env": config.api_key_env}
    else:
        options["max_length"] = config.max_length
    model = open_language_model(spec, **options)
    folder = config.cache_dir or cache_folder() / "feedback"
    return Cached(model, folder / "answers.sqlite") if config.cache else model


def read_price(path: Path | None) -> tuple[float, float, str] | None:
    """Money per million prompt tokens and per million new tokens, and the currency.

    Raises: ValueError: the file holds something else.
    """
    if path is None:
        return None
    found = yaml.safe_load(path.read_text(encoding="utf8"))
    try:
        return float(found["prompt"]), float(found["reply"]), str(found.get("currency", ""))
    except (TypeError, KeyError, ValueError):
        raise ValueError(
            f"{path}: expected `prompt: NUMBER` and `reply: NUMBER`, money per million tokens, and `currency: NAME`"
        ) from None


class Cost:
    """Requests, tokens, seconds and money of a job, over all its parts."""

    def __init__(
        self, models: Sequence[LanguageModel], price: tuple[float, float, str] | None, before: Mapping[str, float]
    ) -> None:
        """`before` is what earlier parts of the run cost, as `figures` gave it."""
        self._models, self._price, self._before = models, price, before
        self._started = time.monotonic()

    def figures(self) -> dict[str, Any]:
        """What it has cost so far; money only where a price is known."""
        used = [model.usage for model in {id(model.usage): model for model in self._models}.values()]
        total = Usage(
            sum(one.requests for one in used),
            sum(one.prompt_tokens for one in used),
            sum(one.new_tokens for one in used),
        )
        now: dict[str, Any] = {
            "requests": total.requests,
            "prompt_tokens": total.prompt_tokens,
            "new_tokens": total.new_tokens,
            "from_cache": sum(getattr(model, "hits", 0) for model in self._models),
            "seconds": time.monotonic() - self._started,
        }
        summed = {name: value + self._before.get(name, 0) for name, value in now.items()}
        if self._price is not None:
            prompt, reply, currency = self._price
            money = (prompt * summed["prompt_tokens"] + reply * summed["new_tokens"]) / 1e6
            summed |= {"money": money, "currency": currency}
        return summed


class Work:
    """Batches of items, each on disk before the next begins; what an earlier part of the run did is not done again.

    Args:
        run: the open run.
        display: where to show progress.
        batch_size: items of a batch. The batches of a stopped job are those of one that was not.
    """

    def __init__(self, run: Run, display: Display, batch_size: int) -> None:
        self.run, self.display, self.batch_size = run, display, batch_size
        state = run.restore() or {"step": 0}
        self.done, self.before = int(state["step"]), dict(state.get("cost", {}))
        self._offset = 0
        self._tokens = self.before.get("prompt_tokens", 0) + self.before.get("new_tokens", 0)

    def through(
        self,
        title: str,
        items: Sequence[Item],
        name: str,
        work: Callable[[Sequence[Item]], Iterable[Mapping[str, Any]]],
        note: Note,
    ) -> None:
        """Work through items and append the rows that come of a batch, one per item, to a file of the run.

        Args:
            title: of the progress bar.
            items: in a fixed order.
            name: of the file.
            work: rows of a batch.
            note: called behind each batch.
        """
        path = self.run.folder / name
        begun = min(max(self.done - self._offset, 0), len(items))
        keep_rows(path, begun, self.run.folder)
        self.display.begin(title, len(items), begun)
        for first in range(begun, len(items), self.batch_size):
            batch = items[first : first + self.batch_size]
            started = time.monotonic()
            append(path, work(batch))
            seconds = max(1e-9, time.monotonic() - started)
            step = self._offset + first + len(batch)
            figures, cost = note(first + len(batch))
            tokens = cost.get("prompt_tokens", 0) + cost.get("new_tokens", 0)
            speeds = {"label__per_second": len(batch) / seconds, "label__tokens": (tokens - self._tokens) / seconds}
            self._tokens = tokens
            row = self.run.log(step, **speeds, **figures)
            self.display.update(first + len(batch), row)
            self.run.save(step, {"cost": dict(cost)})
        self._offset += len(items)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write a whole JSONL file, whole or not at all; returns the number of rows."""
    import json

    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    write_text(path, "".join(lines))
    return len(lines)
