"""`accord eval truthfulness` on a scripted model: figures, resuming, judges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from accord.pipelines.evaluation import Items, perform
from accord.pipelines.evaluation_configs import TruthfulnessConfig
from accord.pipelines.settings import SettingsError
from accord.pipelines.truthfulness import run
from accord.protocols import Reply
from accord.train.progress import Quiet
from fakes import Scripted


def questions(path: Path, count: int = 6) -> Path:
    rows = []
    for i in range(count):
        pair = {f"True {i}": 1, f"False {i}": 0}
        rows.append({"question": f"What is {i}?", "mc0_targets": pair, "mc1_targets": pair, "mc2_targets": pair})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def honest(prompt: Any, texts: Any = None) -> Any:
    """Finds true answers likelier; of letters, the one before the true answer."""
    if texts is None:
        return "I know the answer.\nQ: and"
    if texts == (" (A)", " (B)") or list(texts) == [" (A)", " (B)"]:
        return [0.0, -1.0] if "(A) True" in prompt else [-1.0, 0.0]
    return [-1.0 if text.startswith(" True") else -2.0 for text in texts]


def config(tmp_path: Path, **more: Any) -> TruthfulnessConfig:
    settings: dict[str, Any] = {"model": "m", "data": questions(tmp_path / "q.jsonl"), "batch_size": 2}
    return TruthfulnessConfig(**settings | more)


def measure(tmp_path: Path, model: Scripted, **more: Any) -> dict[str, Any]:
    settings = config(tmp_path, **more)
    outcome = perform("truthfulness", settings, tmp_path / "run", lambda c, items, d: run(c, items, d, model), Quiet())
    return {named.name: named.result for named in outcome.results}


def test_an_honest_model_gets_everything_right(tmp_path: Path) -> None:
    found = measure(tmp_path, Scripted(honest))
    assert [found[name].value for name in ("MC1", "MC0", "MC3")] == [1.0, 1.0, 1.0]
    assert found["MC2"].value == pytest.approx(1 / (1 + 2.718281828**-1.0))
    assert found["MC1"].method == "wilson"
    assert found["MC1"].detail["primer"]


def test_a_killed_evaluation_ends_in_the_same_file(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir(), cut.mkdir()
    measure(whole, Scripted(honest))
    calls = 0

    def dies(prompt: Any, texts: Any = None) -> Any:
        nonlocal calls
        calls += 1
        if calls > 8:  # in the second batch of two questions, three prompts each
            raise KeyboardInterrupt
        return honest(prompt, texts)

    with pytest.raises(KeyboardInterrupt):
        measure(cut, Scripted(dies))
    model = Scripted(honest)
    measure(cut, model)
    assert len(model.asked) == 12  # four of six questions
    name = "run/eval/truthfulness.jsonl"
    assert (cut / name).read_bytes() == (whole / name).read_bytes()


def test_a_model_that_cannot_score_is_unscored_not_zero(tmp_path: Path) -> None:
    broken = Scripted(
        lambda prompt, texts=None: [None] * len(texts) if "What is 3?" in prompt else honest(prompt, texts)
    )
    found = measure(tmp_path, broken)
    assert (found["MC1"].value, found["MC1"].n, found["MC1"].n_unscored) == (1.0, 5, 1)
    again = Scripted(honest)
    assert measure(tmp_path, again)["MC1"].n == 6
    assert len(again.asked) == 3  # only the question that failed


def test_judges_are_trained_and_both_figures_stand_beside_truth(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    for name, good, bad in (
        ("truth", "I know the answer", "magic did it"),
        ("info", "I know the answer", "no comment"),
    ):
        rows = []
        for i in range(60):
            said, label = (good, " yes") if i % 2 else (bad, " no")
            rows.append({"prompt": f"Q: What is thing {i // 2}?\nA: {said}.\nTrue:", "completion": label})
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = (tmp_path / "truth.jsonl", tmp_path / "info.jsonl")
    model = Scripted(
        lambda prompt, texts=None: "no comment" if texts is None and "What is 2?" in prompt else honest(prompt, texts)
    )
    found = measure(tmp_path, model, judge=tmp_path / "judges", train_judge=files)
    assert found["informative"].value == pytest.approx(5 / 6)
    assert found["truthful and informative"].value == pytest.approx(5 / 6)
    card = json.loads((tmp_path / "judges/truth.json").read_text())
    assert card["accuracy"] == 1.0
    assert card["held_out_questions"] == 5
    alone = perform(
        "truthfulness", TruthfulnessConfig(judge=tmp_path / "judges", train_judge=files), tmp_path, run, Quiet()
    )
    worth = {named.name: named.result for named in alone.results}["judge of truth: accuracy"]
    assert (worth.value, worth.clusters, worth.n) == (1.0, 5, 10)
    assert worth.ci is not None


def test_a_failed_answer_is_unscored(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    test_judges_are_trained_and_both_figures_stand_beside_truth(tmp_path)
    lost = Reply(text="", finish="error", prompt_tokens=0, new_tokens=0, seconds=0.0, error="gone")

    def fails(prompt: Any, texts: Any = None) -> Any:
        return lost if texts is None and "What is 4?" in prompt else honest(prompt, texts)

    model = Scripted(fails, name="other @ 2")
    found = measure(tmp_path, model, judge=tmp_path / "judges")
    assert (found["truthful"].n, found["truthful"].n_unscored) == (5, 1)


def test_bad_rows_are_named_or_left_out(tmp_path: Path) -> None:
    settings = config(tmp_path)
    assert settings.data is not None
    with settings.data.open("a") as file:
        file.write('{"question": "no targets"}\n')
    with pytest.raises(SettingsError, match=r"row 7.*mc1_targets"):
        run(settings, Items(tmp_path / "x.jsonl"), Quiet(), Scripted(honest))
    skipping = settings.model_copy(update={"skip_bad_rows": True})
    outcome = run(skipping, Items(tmp_path / "x.jsonl"), Quiet(), Scripted(honest))
    assert outcome.data[0]["bad_rows"] == 1
