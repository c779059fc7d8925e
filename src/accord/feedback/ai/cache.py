"""What a model was asked before is not asked again: one SQLite file, keyed by content.

A key is the SHA-256 of kind, model (name and revision), rendered prompt (in this process its tokens and the
arithmetic), continuations or sampling, and number of the reply: whatever decides an answer. Errors and scores that
could not be had are not kept: they are asked again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accord.feedback.ai.draws import digest
from accord.protocols import LanguageModel, Prompt, Reply, Sampling, Usage

__all__ = ["Cached"]

Scores = list[float | None]


class Cached(LanguageModel):
    """A model with a memory on disk. Several processes may share the file.

    Attributes:
        hits: answers that came from the file.
    """

    def __init__(self, model: LanguageModel, path: Path) -> None:
        """Open the file, or make it. Raises: ValueError: it is something else."""
        self.model, self.hits, self._method = model, 0, ""
        self._methods: dict[Prompt, str] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file = sqlite3.connect(path, timeout=60, isolation_level=None)
            self._file.execute("PRAGMA journal_mode=WAL")
            self._file.execute("CREATE TABLE IF NOT EXISTS answer (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{path}: not a cache file ({error}); delete it, or give another --cache") from None

    @property
    def name(self) -> str:
        """The model's own."""
        return self.model.name

    @property
    def method(self) -> str:
        """The model's own; of kept scores how they were had."""
        return self._method or self.model.method

    @property
    def usage(self) -> Usage:
        """What the model was asked in truth."""
        return self.model.usage

    def method_of(self, prompt: Prompt) -> str:
        """Of the last question; of kept scores how they were had then."""
        return self._methods.get(prompt, self.method)

    def rendered(self, prompt: Prompt) -> Any:
        """The model's own."""
        return self.model.rendered(prompt)

    def unread(self, prompt: Prompt) -> str | None:
        """The model's own: what could not be read is not kept here."""
        return self.model.unread(prompt)

    def generate(self, prompts: Sequence[Prompt], count: int, sampling: Sampling) -> list[list[Reply]]:
        """As the model; prompts of which any reply is missing are asked anew, all their replies."""
        plan = asdict(sampling)
        keys = [[self._key("reply", prompt, plan, number) for number in range(count)] for prompt in prompts]
        known = [[self._get(key) for key in of_prompt] for of_prompt in keys]
        missing = [place for place, found in enumerate(known) if None in found]
        asked = self.model.generate([prompts[place] for place in missing], count, sampling) if missing else []
        replies = [[Reply(**found) for found in of_prompt if found] for of_prompt in known]
        for place, fresh in zip(missing, asked, strict=True):
            replies[place] = fresh
            good = [(key, asdict(reply)) for key, reply in zip(keys[place], fresh, strict=True) if not reply.error]
            self._put(good)
        self.hits += sum(len(found) for place, found in enumerate(known) if place not in set(missing))
        return replies

    def score(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[str]]) -> list[Scores]:
        """As the model."""
        return self._scored("score", self.model.score, prompts, continuations)

    def score_labels(self, prompts: Sequence[Prompt], labels: Sequence[Sequence[str]]) -> list[Scores]:
        """As the model."""
        return self._scored("labels", self.model.score_labels, prompts, labels)

    def _scored(
        self, kind: str, ask: Callable[..., list[Scores]], prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]
    ) -> list[Scores]:
        keys = [self._key(kind, prompt, list(of_prompt)) for prompt, of_prompt in zip(prompts, texts, strict=True)]
        known = [self._get(key) for key in keys]
        scores: list[Any] = [found and found["scores"] for found in known]
        missing = [place for place, found in enumerate(known) if found is None]
        self._methods = {prompt: found["method"] for prompt, found in zip(prompts, known, strict=True) if found}
        self.hits += len(keys) - len(missing)
        fresh = ask([prompts[place] for place in missing], [texts[place] for place in missing]) if missing else []
        for place, row in zip(missing, fresh, strict=True):
            scores[place] = row
            self._methods[prompts[place]] = method = self.model.method_of(prompts[place])
            if None not in row:
                self._put([(keys[place], {"scores": row, "method": method})])
        self._method = " and ".join(sorted(set(self._methods.values())))
        return scores

    def _key(self, kind: str, prompt: Prompt, *how: object) -> str:
        return digest(kind, self.name, self.model.rendered(prompt), *how)

    def _get(self, key: str) -> Any:
        row = self._file.execute("SELECT value FROM answer WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else None

    def _put(self, rows: Sequence[tuple[str, Any]]) -> None:
        values = [(key, json.dumps(value)) for key, value in rows]
        self._file.executemany("INSERT OR REPLACE INTO answer (key, value) VALUES (?, ?)", values)
