"""Items, their scores and averages, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from accord.evaluate.task_items import Item, by_cluster, by_task, item_of, mark


def row(task: str = "rte", cluster: str = "nli", template: str = "a", source: str = "1", **more: Any) -> dict[str, Any]:
    meta = {"task": task, "cluster": [cluster], "template": template, "source": source, "options": ["yes", "no"]}
    return {"prompt": "Does it follow?", "response": "no", "meta": meta | more}


def test_an_option_by_log_probability() -> None:
    item = item_of(row())
    assert (item.answer, item.metric) == (1, "accuracy")
    assert mark(item, {"logprobs": [-3.0, -1.0]})["score"] == 1.0
    assert mark(item, {"logprobs": [-1.0, -1.0]})["score"] == 0.5  # a tie is half, not the first
    assert mark(item, {"logprobs": [-3.0, -2.5]})["normalised"] == 0.0  # -1 a letter against -1.25
    assert math.isnan(mark(item, {"logprobs": [None, -1.0]})["score"])
    assert math.isnan(mark(item, {"error": "gone"})["score"])


def test_options_that_were_listed_with_letters_are_scored_with_them() -> None:
    item = item_of({**row(), "response": "(B) no"})
    assert item.options == ("(A) yes", "(B) no")
    assert item.answer == 1


@pytest.mark.parametrize(("metric", "score"), [(None, 0.0), ("f1", 0.8), ("rouge_l", 6 / 7)])
def test_a_written_answer_by_its_metric(metric: str | None, score: float) -> None:
    item = item_of(row(options=None, metric=metric, references=["the red fox jumps"]))
    assert mark(item, {"answer": "the red fox"})["score"] == pytest.approx(score)
    assert mark(item, {"answer": "The red fox jumps."})["score"] == 1.0


def items() -> tuple[list[Item], list[float]]:
    """Two clusters; nli has two tasks, one of them with two templates."""
    rows = [
        (row("rte", "nli", "a", "1"), 1.0),
        (row("rte", "nli", "b", "1"), 0.0),
        (row("rte", "nli", "b", "2"), 0.0),
        (row("cb", "nli", "a", "3"), 1.0),
        (row("sst", "sentiment", "a", "4"), 0.0),
    ]
    return [item_of(one) for one, _ in rows], [score for _, score in rows]


def test_averages_go_over_templates_then_tasks_then_clusters() -> None:
    found = by_cluster(*items())
    # rte: templates 1 and 0 are .5; cb 1: nli .75; sentiment 0: all .375
    assert found["nli"].value == pytest.approx(0.75)
    assert found["sentiment"].value == 0.0
    assert found["all clusters"].value == pytest.approx(0.375)
    assert found["all clusters"].detail["best_template"] == pytest.approx(0.5)
    assert found["all clusters"].clusters == 4


def test_templates_of_one_row_are_one_observation() -> None:
    result = by_task(*items())["rte"]
    assert (result.n, result.clusters) == (3, 2)


def test_a_difference_is_paired_and_turns_its_sign() -> None:
    some, after = items()
    before = [0.0, 0.0, 1.0, 1.0, 0.0]
    forth, back = by_cluster(some, after, before), by_cluster(some, before, after)
    # rte before: templates 0 and .5 are .25, after .5; cb the same: nli rises by .125
    assert forth["nli"].value == pytest.approx(0.125)
    assert {name: -result.value for name, result in back.items()} == pytest.approx(
        {name: result.value for name, result in forth.items()}
    )


def test_a_difference_without_variation_has_no_interval_of_shares() -> None:
    some, scores = items()
    change = by_task(some, scores, scores)["rte"]
    assert (change.value, change.ci) == (0.0, (0.0, 0.0))


def test_what_is_unscored_is_left_out_and_counted() -> None:
    some, scores = items()
    scores[3] = math.nan
    found = by_cluster(some, scores)
    assert (found["nli"].n, found["nli"].n_unscored) == (3, 1)
    assert found["nli"].value == pytest.approx(0.5)


@pytest.mark.parametrize(
    "bad",
    [{}, {"prompt": "a", "response": "b"}, row(options=["maybe"]), {**row(), "prompt": " "}, {**row(), "prompt": 3}],
)
def test_bad_rows_are_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"expected|none of|texts"):
        item_of(bad)
