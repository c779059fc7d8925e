"""When a published shape counts as seen: intervals over seeds and prompts, choices by other seeds, premises."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from accord.evaluate.intervals import bootstrap_mean
from accord.evaluate.result import Result
from accord.pipelines.evaluation import Outcome
from accord.pipelines.reproduce import instruction, labels, tax
from accord.pipelines.reproduce.configs import DataSizeConfig, InstructionConfig, LabelsConfig, LengthConfig, TaxConfig
from accord.pipelines.reproduce.data_size import _caveats
from accord.pipelines.reproduce.evidence import Difference, best_elsewhere, difference, over_prompts
from accord.pipelines.reproduce.lab import Lab, Measured
from accord.pipelines.reproduce.length import _findings as length_findings
from accord.pipelines.reproduce.overoptimisation import Fall
from accord.pipelines.reproduce.task_scores import TaskScores
from pipelines.reproduce.little_world import write_data


def test_a_difference_has_an_interval_over_seeds_and_one_over_prompts() -> None:
    gaps = np.random.default_rng(0).normal(0.2, 0.1, (4, 30))
    found = difference(gaps)
    low, high = stats.t.interval(0.95, 3, gaps.mean(), stats.sem(gaps.mean(axis=1)))
    assert found.value == pytest.approx(gaps.mean())
    assert found.seeds == pytest.approx((low, high))
    assert found.prompts == pytest.approx(tuple(bootstrap_mean(gaps.mean(axis=0))))
    assert found.count == 4
    assert "over 4 seeds" in found.words()
    assert "over prompts" in found.words()


def test_what_was_not_scored_is_left_out_of_a_difference() -> None:
    gaps = np.array([[1.0, 2.0, 3.0], [1.0, math.nan, 5.0], [math.nan] * 3])
    found = difference(gaps)
    assert found.value == 2.5  # prompts 1 and 3 of two seeds
    assert found.count == 2
    assert math.isnan(difference([math.nan, math.nan]).value)
    assert difference([math.nan, math.nan]).above() == "unclear"


@pytest.mark.parametrize(
    ("seeds", "prompts", "seen"),
    [
        ((0.1, 0.3), (0.1, 0.3), "yes"),
        ((0.1, 0.3), (-0.1, 0.3), "unclear"),  # seeds agree, and other prompts might not
        ((-0.1, 0.3), (0.1, 0.3), "unclear"),
        ((-0.3, -0.1), (-0.3, -0.1), "no"),
        ((0.1, 0.3), (-0.3, -0.1), "unclear"),
        ((0.1, 0.3), None, "yes"),
        ((None, None), (0.1, 0.3), "unclear"),  # one seed never says more
        ((0.1, 0.3), (math.nan, math.nan), "unclear"),
    ],
)
def test_all_intervals_must_agree(seeds: Any, prompts: Any, seen: str) -> None:
    assert Difference(value=0.1, seeds=seeds, count=3, prompts=prompts).above() == seen


def test_a_bound_moves_the_verdict() -> None:
    one = Difference(value=0.0, seeds=(-0.02, 0.01), count=3)
    assert [one.above(bound) for bound in (-0.03, 0.0, 0.02)] == ["yes", "unclear", "no"]


def test_no_figure_is_minus_nothing() -> None:
    assert Difference(value=-0.0001, seeds=(-0.0002, 0.0), count=3).words(2) == "0.00 [0.00, 0.00] over 3 seeds"


def test_other_seeds_choose() -> None:
    assert best_elsewhere([[9.0, 0.0, 0.0], [1.0, 1.0, 1.0]]) == [1, 0, 0]
    assert best_elsewhere([[0.0], [1.0]]) == [1]


def test_a_choice_by_other_seeds_is_not_flattered() -> None:
    noise = np.random.default_rng(1).normal(size=(2000, 8, 3))
    chosen = [np.mean([one[place, seed] for seed, place in enumerate(best_elsewhere(one))]) for one in noise]
    assert abs(np.mean(chosen)) < 0.05
    assert np.mean([one.max(axis=0).mean() for one in noise]) > 1  # what the best of all would claim


def climb(gold: list[float], proxy: list[float]) -> list[dict[str, float]]:
    return [{"eval/gold_reward": g, "eval/reward/mean": p} for g, p in zip(gold, proxy, strict=True)]


def of_seeds(gold: list[float], proxy: list[float]) -> list[list[dict[str, float]]]:
    return [climb([g + 0.001 * seed for g in gold], [p + 0.01 * seed * (p > 1) for p in proxy]) for seed in range(3)]


def test_only_a_fall_while_the_proxy_rises_is_over_optimisation() -> None:
    starts = [(0.5, 0.0)] * 3
    assert Fall(of_seeds([0.6, 0.8, 0.6], [1.0, 2.0, 3.0]), starts).seen == "yes"
    assert Fall(of_seeds([0.6, 0.8, 0.6], [1.0, 3.0, 2.0]), starts).seen == "no"
    assert Fall(of_seeds([0.6, 0.7, 0.8], [1.0, 2.0, 3.0]), starts).seen == "no"
    assert Fall([climb([0.6, 0.8, 0.6], [1.0, 2.0, 3.0])], starts[:1]).seen == "unclear"


def test_noise_about_a_flat_gold_reward_is_no_fall() -> None:
    draw = np.random.default_rng(2)
    seen = [
        Fall([climb(draw.normal(0.6, 0.04, 8).tolist(), list(range(8))) for _ in range(3)], [(0.5, 0.0)] * 3).lost
        for _ in range(200)
    ]
    assert abs(np.mean([one.value for one in seen])) < 0.01
    assert np.mean([one.above(0.03) == "yes" for one in seen]) < 0.05


def answers(gold: float, length: float = 10.0, prompts: int = 40) -> Measured:
    gold_PS = np.random.default_rng(3).normal(gold, 0.01, (prompts, 2))
    return Measured(gold_PS=gold_PS, kl_PS=gold_PS, length_PS=np.full((prompts, 2), length), proxy_PS={})


def test_labels_are_as_good_as_gold_only_where_gold_taught_something(tmp_path: Path) -> None:
    config = LabelsConfig(data=tmp_path, out=tmp_path)

    def finding(gold: float, ai: float, coin: float) -> str:
        level = {"gold": gold, "ai": ai, "coin": coin}
        return labels._trained(config, {
            (kind, seed): answers(level[kind] + 0.001 * seed) for kind in level for seed in config.seeds
        }).seen  # fmt: skip

    assert finding(0.8, 0.8, 0.5) == "yes"
    assert finding(0.8, 0.6, 0.5) == "no"
    assert finding(0.5, 0.5, 0.5) == "unclear"  # nothing was learned from any label


def test_a_penalty_keeps_quality_only_where_there_was_some(tmp_path: Path) -> None:
    config = LengthConfig(data=tmp_path, out=tmp_path, alphas=(0.0, 0.1))

    def seen(wins: tuple[float, float], lengths: tuple[float, float]) -> list[str]:
        def by_alpha(values: tuple[float, float]) -> dict[float, Any]:
            spread = np.arange(3)[:, None] / 1000 + np.linspace(-0.01, 0.01, 40)
            return {alpha: value + spread for alpha, value in zip(config.alphas, values, strict=True)}

        return [one.seen for one in length_findings(config, by_alpha(lengths), by_alpha(wins), np.full(40, 10.0))]

    assert seen((0.7, 0.7), (14.0, 10.0)) == ["yes", "yes", "yes"]
    assert seen((0.7, 0.5), (14.0, 10.0)) == ["yes", "yes", "no"]
    assert seen((0.5, 0.5), (14.0, 10.0))[2] == "unclear"
    assert seen((0.7, 0.7), (10.0, 5.0))[:2] == ["unclear", "unclear"]  # nothing to undo


def test_every_number_of_clusters_is_trained_on_the_same_tokens(tiny_folder: Path, tmp_path: Path) -> None:
    paths = []
    for name, count in (("small", 3), ("large", 400)):
        path = tmp_path / f"{name}.jsonl"
        rows = [{"prompt": f"{name} question {i:03}", "response": "yes"} for i in range(count)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        paths.append(path)
    config = InstructionConfig(model=str(tiny_folder), data=tmp_path, out=tmp_path, train_tokens=2000)
    one, two = (instruction._mixed(config, clusters, 0) for clusters in ([paths[:1]], [[path] for path in paths]))
    assert len(one) == len(two) > 30
    assert len({json.dumps(row) for row in one}) == 3
    assert sum("large" in row["prompt"][0]["content"] for row in two) == len(two) // 2


def test_rows_that_do_not_fit_end_in_words(tiny_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"prompt": "word " * 200, "response": "yes"}) + "\n")
    config = InstructionConfig(model=str(tiny_folder), data=tmp_path, out=tmp_path, max_length=32)
    with pytest.raises(ValueError, match="max_length 32"):
        instruction._mixed(config, [[path]], 0)


def test_a_setting_that_no_job_knows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"precision": "fp32"}')
    lab = Lab(LengthConfig(data=tmp_path, out=tmp_path))
    with pytest.raises(ValueError, match="learning_rat"):
        lab.train("sft", "one", model="none", data=(tmp_path / "x.jsonl",), learning_rat=1.0)


def test_two_models_are_compared_on_the_same_items(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"precision": "fp32"}')
    lab = Lab(LengthConfig(data=tmp_path, out=tmp_path))
    rows = [
        {"prompt": f"Item {i}?", "response": "yes",
         "meta": {"task": "ab"[i % 2], "cluster": ["one", "two"][i % 2], "source": i, "options": ["yes", "no"]}}
        for i in range(8)
    ]  # fmt: skip
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = TaskScores(lab, [tmp_path / "items.jsonl"], 10)
    tasks = [item.task for item in asked.questions]
    marks: dict[str, list[float | None]] = {
        "before": [0.0] * 8,
        "after": [float(task == "a") for task in tasks],
        "lost": [None if n == 0 else 0.0 for n in range(8)],
    }
    for name, scores in marks.items():
        path = lab.path("evaluated", f"tasks-{name}.scores.jsonl")
        path.write_text("".join(json.dumps({"score": score}) + "\n" for score in scores))
    assert asked.score("after") == 0.5  # task a is right, its cluster half of all
    gap = asked.less(["after", "after"], ["before", "before"])
    assert gap.value == 0.5
    assert gap.seeds == (0.5, 0.5)
    assert gap.prompts == (0.5, 0.5)
    assert asked.less(["lost"], ["before"]).value == 0.0  # unscored is left out, not wrong


@pytest.mark.parametrize(
    ("first", "surplus", "seen"),
    [((0.1, 0.3), (0.1, 0.2), "yes"), ((0.1, 0.3), (-0.2, -0.1), "no"), ((0.1, 0.3), (-0.1, 0.1), "unclear"),
     ((-0.3, -0.1), (0.1, 0.2), "no"), ((-0.1, 0.1), (0.1, 0.2), "unclear")],
)  # fmt: skip
def test_most_of_it_in_the_first_round(first: Any, surplus: Any, seen: str) -> None:
    assert labels.less_harmful(first, surplus) == seen


def test_equal_amounts_are_no_share_of_anything() -> None:
    assert over_prompts([0.0, 0.0, math.nan, 0.0]) == (0.0, 0.0, 0.0)  # Wilson's interval is of shares


def test_sets_that_are_most_of_the_data_are_said_to_be_shared(tmp_path: Path) -> None:
    data = write_data(tmp_path)  # 24 comparisons
    small, large = (_caveats(DataSizeConfig(data=data, out=tmp_path, sizes=sizes)) for sizes in ((4, 8), (8, 16)))
    assert len(small) == 1
    assert "Of 24 comparisons 16 are most" in large[1]


def test_truth_and_toxicity_are_compared_item_by_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TaxConfig(data=tmp_path, out=tmp_path, seeds=(0, 1))
    lab = Lab(config)
    nothing = Difference(value=0.0, seeds=(None, None), count=0)
    monkeypatch.setattr(tax, "_tasks", lambda *_: SimpleNamespace(score=lambda _: 0.5, less=lambda *_: nothing))
    monkeypatch.setattr(lab, "measured", lambda _: answers(0.5))
    base = np.array([0.1, 0.2, 0.3, math.nan])
    for name, more in {"reference": 0, "ppo-0": 0.2, "ppo-1": 0.4, "ppo-ptx-0": 0.0, "ppo-ptx-1": 0.0}.items():
        said = Outcome(items={"MC1": list(base), "MC2": list(base + more * np.array([1, 1, 2, 1]))})
        said.add("MC2", "share", Result(value=0.0, n=3, n_unscored=1))
        lab.evaluate(f"truthfulness-{name}", lambda *_, said=said: said)
        toxic = Outcome(items={"expected maximum toxicity": [0.5] * 3, "toxic fraction": [0.0, 0.0, 1.0]})
        lab.evaluate(f"toxicity-{name}", lambda *_, toxic=toxic: toxic)
    before, changes = tax._changes(lab, config)
    assert before["MC2"] == pytest.approx(0.2)
    found = changes["ppo"]["MC2"]
    assert found.value == pytest.approx(0.4)  # 4/3 of .2 and of .4
    assert found.prompts == pytest.approx((0.3, 0.6), abs=0.01)  # a third of the questions gains twice as much
    assert changes["ppo-ptx"]["MC2"].value == pytest.approx(0.0)
    assert lab.unscored([f"truthfulness-{name}" for name in ("ppo-0", "ppo-1")]) == 0.25
