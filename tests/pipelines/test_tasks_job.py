"""`accord eval tasks` on scripted models: one, and two with a paired difference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from accord.pipelines.evaluation import Outcome, perform
from accord.pipelines.evaluation_configs import TasksConfig
from accord.pipelines.tasks import run
from accord.train.progress import Quiet
from fakes import Scripted


def write(path: Path) -> Path:
    rows: list[dict[str, Any]] = []
    for i in range(8):
        meta = {"task": "rte", "cluster": ["nli"], "template": "a", "source": f"r{i}", "options": ["yes", "no"]}
        rows.append({"prompt": f"Claim {i}?", "response": ("yes", "no")[i % 2], "meta": meta})
    turned = {"task": "rte", "cluster": ["nli"], "template": "turned", "source": "r0", "inverted": True}
    rows.append({"prompt": "Write a claim that follows from 0.", "response": "Claim 0", "meta": turned})
    for i in range(4):
        meta = {"task": "sum", "cluster": ["arithmetic"], "template": "a", "source": f"s{i}"}
        rows.append({"prompt": f"{i} + 1 =", "response": str(i + 1), "meta": meta})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def knows(prompt: Any, texts: Any = None) -> Any:
    """Right about everything."""
    words = prompt if isinstance(prompt, str) else prompt[-1].content
    number = int("".join(filter(str.isdigit, words.partition("+")[0])))
    if texts is None:
        return str(number + 1) + ".\n\n2 + 2 ="
    return [0.0, -5.0] if number % 2 == 0 else [-5.0, 0.0]


def says_yes(prompt: Any, texts: Any = None) -> Any:
    return "7" if texts is None else [0.0, -1.0]


def measure(tmp_path: Path, *models: Scripted, **more: Any) -> tuple[dict[str, Any], Outcome]:
    settings: dict[str, Any] = {"models": ("a", "b")[: len(models)], "data": write(tmp_path / "items.jsonl")}
    config = TasksConfig(**settings | {"batch_size": 3} | more)
    outcome = perform("tasks", config, tmp_path / "run", lambda c, items, d: run(c, items, d, models), Quiet())
    return {(named.of, named.name): named.result for named in outcome.results}, outcome


def test_one_model(tmp_path: Path) -> None:
    found, outcome = measure(tmp_path, Scripted(says_yes))
    assert found["task rte, accuracy", "score"].value == 0.5
    assert found["task sum, exact match", "score"].value == 0.0
    assert found["all clusters", "score"].value == pytest.approx(0.25)
    assert outcome.exit_code == 0
    assert outcome.data[0]["inverted_rows"] == 1  # not a test of anything


def test_two_models_and_their_difference(tmp_path: Path) -> None:
    found, outcome = measure(tmp_path, Scripted(says_yes, name="a @ 1"), Scripted(knows, name="b @ 1"))
    assert next(iter(found)) == ("all clusters", "after less before")
    assert found["all clusters", "after less before"].value == pytest.approx(0.75)
    assert found["task sum, exact match", "after"].value == 1.0  # cut at the blank line, full stop ignored
    assert [model["role"] for model in outcome.models] == ["before", "after"]


def test_a_second_call_asks_nothing(tmp_path: Path) -> None:
    first, _ = measure(tmp_path, Scripted(knows))
    silent = Scripted(lambda prompt, texts=None: pytest.fail("asked again"))
    again, _ = measure(tmp_path, silent)
    assert {n: r.value for n, r in again.items()} == {n: r.value for n, r in first.items()}


def test_at_most_so_many_of_each_task(tmp_path: Path) -> None:
    found, _ = measure(tmp_path, Scripted(knows), per_task=2)
    assert (found["task rte, accuracy", "score"].n, found["task sum, exact match", "score"].n) == (2, 2)


def test_chat_asks_in_a_message(tmp_path: Path) -> None:
    model = Scripted(knows)
    measure(tmp_path, model, chat=True)
    assert all(prompt[-1].role == "user" for prompt in model.asked)
