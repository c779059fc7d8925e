"""Names and addresses, which have no pattern, found by Microsoft's Presidio where it is installed."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from accord.feedback.store.personal_data import Detector, Find

__all__ = ["KINDS", "presidio_detector"]

# What only a model of the language finds; patterns know the rest better, with check digits.
KINDS: Mapping[str, str] = {"PERSON": "NAME", "LOCATION": "PLACE"}


class Analyzer(Protocol):
    """Presidio's AnalyzerEngine, as far as it is used."""

    def analyze(self, text: str, language: str, entities: list[str]) -> list[Any]:
        """Results with entity_type, start, end and score."""
        ...


def presidio_detector(language: str = "en", threshold: float = 0.5, analyzer: Analyzer | None = None) -> Detector:
    """A detector of people's names and of places.

    Args:
        language: of the texts, one Presidio has a spaCy model for.
        threshold: least score, 0..1.
        analyzer: an engine set up by the caller; None: Presidio's own.

    Raises:
        ValueError: Presidio, or its model of the language, is not installed.
    """
    engine = analyzer or _engine()

    def detect(text: str) -> Iterable[Find]:
        for found in engine.analyze(text=text, language=language, entities=list(KINDS)):
            if found.score >= threshold and found.entity_type in KINDS:
                yield Find(
                    type=KINDS[found.entity_type],
                    start=found.start,
                    end=found.end,
                    rule=f"Presidio {found.entity_type}",
                )

    return detect


def _engine() -> Analyzer:
    try:
        from presidio_analyzer import AnalyzerEngine
    except ImportError:
        raise ValueError(
            "looking for names needs Presidio: pip install presidio-analyzer, and a spaCy model (python -m spacy "
            "download en_core_web_lg)"
        ) from None
    try:
        engine: Analyzer = AnalyzerEngine()
    except (OSError, SystemExit) as error:  # it tries to download the model, and leaves the process where it cannot
        raise ValueError(
            "Presidio has no model of the language, and none could be fetched "
            f"({textwrap.shorten(str(error), 120)}); python -m spacy download en_core_web_lg"
        ) from None
    return engine
