"""Names and places by Presidio: what is taken of its findings, and what is said where it is missing."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import pytest

from accord.feedback.store.personal_data import scrub
from accord.feedback.store.presidio import presidio_detector


@dataclass
class Result:
    entity_type: str
    start: int
    end: int
    score: float


class Analyzer:
    """Finds what it is told, and keeps what it was asked."""

    def __init__(self, *results):
        self.results, self.asked = results, []

    def analyze(self, text, language, entities):
        self.asked.append((text, language, entities))
        return [one for one in self.results if one.end <= len(text)]


def test_names_and_places_of_enough_score_become_placeholders_beside_the_patterns():
    analyzer = Analyzer(Result("PERSON", 0, 3, 0.9), Result("LOCATION", 13, 18, 0.8), Result("PERSON", 4, 9, 0.2))
    texts, _ = scrub(["Ada lives in Paris, ada@example.org"], [presidio_detector(analyzer=analyzer)])
    assert texts == ["[NAME_1] lives in [PLACE_1], [EMAIL_1]"]
    assert analyzer.asked == [("Ada lives in Paris, ada@example.org", "en", ["PERSON", "LOCATION"])]


@pytest.mark.skipif(importlib.util.find_spec("presidio_analyzer") is not None, reason="Presidio is installed")
def test_without_it_the_message_says_what_to_install():
    with pytest.raises(ValueError, match="pip install presidio-analyzer"):
        presidio_detector()
