"""Dots of results: whose they are, their intervals, and which results a chart takes."""

from __future__ import annotations

from typing import Any

from accord.evaluate.page.found import dots_of
from accord.evaluate.page.model_charts import tax

RESULTS: list[dict[str, Any]] = [
    {"name": "after less before", "of": "tasks", "value": 0.25, "ci": [0.1, 0.4]},
    {"name": "after", "of": "unwanted", "value": 0.5, "ci": [0.4, 0.6]},
    {"name": "after less before", "of": "nothing measured", "value": None},
]


def test_a_result_with_a_value_is_a_dot_with_its_interval() -> None:
    (dot,) = dots_of([("run", {"results": RESULTS})], lambda one: one["name"] == "after less before")
    assert (dot.name, dot.value, dot.ci) == ("tasks", 0.25, (0.1, 0.4))
    both = dots_of([("a", {"results": RESULTS}), ("b", {"results": RESULTS})], lambda one: one["name"] == "after")
    assert [dot.name for dot in both] == ["a: unwanted", "b: unwanted"]


def test_the_chart_of_changes_shows_changes_alone() -> None:
    figure = tax("t", [("run", {"results": RESULTS})])
    assert figure is not None
    assert "tasks" in str(figure.drawing)
    assert "unwanted" not in str(figure.drawing)
