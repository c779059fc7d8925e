"""The benchmarks' own arithmetic: ratios, rows, the page."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _repository_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


def runs(*seconds: float, losses: tuple[float, ...] = ()) -> list[dict[str, object]]:
    return [{"seconds": s, "peak_gb": 2 * s, "losses": list(losses), "wall_seconds": s} for s in seconds]


def test_a_ratio_is_of_medians_and_its_spread_of_neighbours() -> None:
    from benchmarks.compare import loss_gap, ratio

    both = {"accord": runs(1.0, 2.0, 4.0, losses=(1.0, 0.5)), "trl": runs(6.0, 6.0, 8.0, losses=(1.1, 0.45))}
    assert ratio(both, "trl", "seconds") == {"median": 3.0, "low": 2.0, "high": 6.0}
    assert loss_gap(both, "trl")["largest_gap"] == pytest.approx(0.1)


def test_rows_are_the_same_every_time_and_as_long_as_said() -> None:
    from benchmarks import workload

    rows = workload.ranking_rows("listwise-4")
    assert rows == workload.ranking_rows("listwise-4") != workload.ranking_rows("listwise-4", seed=1)
    assert all(24 <= len(row["prompt"].split()) <= 96 and len(row["responses"]) == 4 for row in rows)


def test_a_run_sees_the_rows_in_the_order_given() -> None:
    from benchmarks.ours import in_training_order

    from accord.data.batches import step_batches

    placed = in_training_order(list("abcdefgh"), 3)
    assert "".join(placed[i] for batch in step_batches(8, 3, 1, 0) for i in batch) == "abcdefgh"


def test_the_page_is_that_of_the_results() -> None:
    from benchmarks import page

    assert page.PAGE.read_text() == page.page(*page.read_results())


def test_growth_is_told_over_the_first_row() -> None:
    from benchmarks.page import growth_lines

    found = {"rows": [{"rows": 10, "tokens": 100, "seconds": 1.0}, {"rows": 20, "tokens": 200, "seconds": 3.0}]}
    found |= {"prompts": [{"prompt_tokens": 64, "tokens": 1000, "seconds": 2.0, "attention": 0.5}]}
    text = "\n".join(growth_lines(found | {"versions": {}, "machine": {"threads": 2}, "date": "today"}))
    assert "| 20 | 200 | 15000.0 | 1.50 |" in text
    assert "| 64 | 2.00 | 1.50 | 1.00 |" in text


def test_a_goal_that_is_missed_is_said_to_be() -> None:
    from benchmarks.page import row

    result = {"job": "dpo", "peer": "trl", "rows": None, "tokens": 100, "runs": {"accord": runs(1.0), "trl": runs(3.0)}}
    result |= {"ratio": {"median": 3.0, "low": 3.0, "high": 3.0}, "memory": {"median": 3.0}}
    assert "4: not reached" in row(result)
    assert "0.5: reached" in row(result)
