"""Bad rows by named rules, each with a count and an off switch. Rules are crude on purpose: they see form, not truth.

accord data clean generated.jsonl --out clean.jsonl --without personal boilerplate
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import accord
from accord.data.curation.examples import Aside, Example, Nowhere, examples, expanded
from accord.data.curation.rules import RULES, CleanConfig, Context, Scorer, beginning
from accord.data.curation.written import Written, sift
from accord.data.progress import Tell, counted, silent

__all__ = ["clean"]


def clean(
    config: CleanConfig,
    tell: Tell = silent,
    *,
    personal: Callable[[str], Sequence[Any]] | None = None,
    toxicity: Scorer | None = None,
    reward: Scorer | None = None,
) -> Written:
    """Write the rows that no rule removes, those that one does with the reason, and a report.

    Args:
        config: which rules, and their limits.
        tell: progress.
        personal: finds personal data in a text, e.g. `accord.feedback.store.personal_data.find`.
        toxicity: scores responses.
        reward: scores prompts with their responses.

    Raises:
        DataError: a file cannot be read, a row is bad, or a library is missing.
    """
    paths = expanded(config.data)
    rules = [rule for rule in RULES if rule.name not in config.without]
    names = {rule.name for rule in rules}
    bad = Nowhere() if config.skip_bad_rows else None
    common = _common(paths, config, bad, tell) if "boilerplate" in names else frozenset()
    lowest = _lowest(paths, config, bad, reward, tell) if reward is not None and "reward" in names else frozenset()
    context = Context(config, common, personal, toxicity, lowest)

    def reason(example: Example) -> dict[str, Any] | None:
        for rule in rules:
            found = rule.find(example, context)
            if found is not None:
                return {"reason": rule.name, "found": found}
        return None

    report = {
        "accord": accord.__version__,
        "settings": config.model_dump(mode="json"),
        "rules": [rule.name for rule in rules],
        "beginnings": sorted(common),
    }
    return sift(paths, config.out, reason, report, skip_bad_rows=config.skip_bad_rows, tell=tell)


def _common(paths: Sequence[Path], config: CleanConfig, bad: Aside | None, tell: Tell) -> frozenset[str]:
    """First 4 words of more than a share of the responses that have more; in sets of 100 or more."""
    counts: Counter[str] = Counter()
    rows = 0
    for example in counted(examples(paths, bad), "beginnings", tell):
        rows += 1
        counts.update(set(filter(None, map(beginning, example.responses))))
    return frozenset(text for text, count in counts.items() if rows >= 100 and count > config.max_beginning * rows)


def _lowest(
    paths: Sequence[Path], config: CleanConfig, bad: Aside | None, reward: Scorer, tell: Tell
) -> frozenset[tuple[str, int]]:
    """The rows with the lowest rewards; of several responses the best one counts. Unscored rows stay."""
    scored: list[tuple[float, str, int]] = []
    for batch in _batches(counted(examples(paths, bad), "rewards", tell)):
        texts = [f"{example.prompt}\n\n{response}" for example in batch for response in example.responses]
        scores = iter(reward(texts))
        for example in batch:
            own = [score for _, score in zip(example.responses, scores, strict=False) if score is not None]
            if own:
                scored.append((max(own), example.file, example.number))
    scored.sort()
    return frozenset((file, number) for _, file, number in scored[: int(config.drop_lowest * len(scored))])


def _batches(rows: Iterable[Example], size: int = 64) -> Iterable[list[Example]]:
    batch: list[Example] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
