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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of spaCy and its dependencies
def test_the_real_engine_finds_what_its_language_model_knows():
    """Presidio itself, with a model of the language that knows one name and one place."""
    pytest.importorskip("presidio_analyzer", reason="Presidio is not installed")
    import spacy
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    class Engine(SpacyNlpEngine):
        def __init__(self):
            super().__init__()
            language = spacy.blank("en")
            known = [{"label": "PERSON", "pattern": "Ada Lovelace"}, {"label": "GPE", "pattern": "Turin"}]
            language.add_pipe("entity_ruler").add_patterns(known)
            self.nlp = {"en": language}

    detect = presidio_detector(analyzer=AnalyzerEngine(nlp_engine=Engine(), supported_languages=["en"]))
    texts, _ = scrub(["Ada Lovelace lives in Turin, ada@example.org"], [detect])
    assert texts == ["[NAME_1] lives in [PLACE_1], [EMAIL_1]"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_language_model_that_is_missing_is_told(monkeypatch):
    pytest.importorskip("presidio_analyzer", reason="Presidio is not installed")
    if importlib.util.find_spec("en_core_web_lg"):
        pytest.skip("the language model is installed")
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # nothing is fetched by a test
    with pytest.raises(ValueError, match="python -m spacy download en_core_web_lg"):
        presidio_detector()
