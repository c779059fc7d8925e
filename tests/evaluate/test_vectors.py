"""Every golden case of `vectors/evaluation.json`, and those on real annotations where these lie beside this clone."""

import importlib
import json
from pathlib import Path

import pytest

from evaluate.vectors_file import check

VECTORS = json.loads(Path(__file__).with_name("vectors").joinpath("evaluation.json").read_text())
SHARED = Path(__file__).parents[3] / "shared" / "spec" / "vectors" / "evaluation_data.json"
ON_DATA = json.loads(SHARED.read_text())["cases"] if SHARED.exists() else []


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["id"])
def test_golden_case(case):
    check(case)


@pytest.mark.skipif(not ON_DATA, reason="the cases on real annotations are not beside this clone: no licence to copy")
@pytest.mark.parametrize("case", ON_DATA, ids=lambda case: case["id"])
def test_golden_case_on_real_annotations(case):
    check(case)


def test_no_case_is_missing():
    assert len(VECTORS["cases"]) == 190


MODULES = (
    *("intervals", "agreement", "annotators", "consensus", "winrate", "ratings", "judge", "reward", "frontier"),
    *("overoptimisation", "hacking", "truthfulness", "toxicity", "attributes", "tasks"),
)


def test_the_page_names_every_function():
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf8")
    for name in MODULES:
        functions = [word for word in importlib.import_module(f"accord.evaluate.{name}").__all__ if word[0].islower()]
        assert [word for word in functions if f"`{word}`" not in page and f"`{name}.{word}`" not in page] == []


def test_every_function_has_cases():
    """But for those with a test of their own beside: no golden case was ever made for them."""
    own = {"intervals:mean_result", "ratings:bradley_terry_ci", "winrate:outcomes", "toxicity:score_texts"}
    own |= {"intervals:bootstrap_several", "hacking:correlation_within"}
    covered = {case["call"] for case in VECTORS["cases"]}
    for name in MODULES:
        module = importlib.import_module(f"accord.evaluate.{name}")
        public = {f"{name}:{word}" for word in module.__all__ if word[0].islower()}
        assert {word for word in public if f"accord.evaluate.{word}" not in covered} <= own
