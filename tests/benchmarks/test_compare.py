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


def gpu_result() -> dict[str, object]:
    ours = {"seconds": 20.0, "step": 1.0, "step_seconds": [9.0, 1.0, 1.0], "reference_seconds": 3.0, "peak_gb": 30.0}
    theirs = {"seconds": 40.0, "step": 2.0, "step_seconds": [3.0, 1.5, 2.5], "reference_seconds": 8.0, "peak_gb": 40.0}
    rates = {"accord": {"trees": 3.6e14, "rows": 4.8e14}, "trl": {"trees": 1.8e14, "rows": 2.4e14}}
    return {
        "job": "dpo",
        "rows": None,
        "peer": "trl",
        "device": "cuda",
        "shape": "llama-3.2-1b",
        "variant": "trl-liger",
        "variants": {"trl": {"median": 2.5, "runs": []}, "trl-liger": {"median": 2.0, "runs": []}},
        "runs": {"accord": [ours], "trl": [theirs]},
        "figure": "step",
        "ratio": {"median": 2.0, "low": 2.0, "high": 2.0},
        "memory": {"median": 4 / 3},
        "losses": {"largest_gap": 0.01},
        "work": {"rate": rates},
        "machine": {"card": {"name": "a card", "tflops": 720.0, "datasheet_tflops": 900.0, "cuda": "13.0"}},
        "settings": "",
        "versions": {},
        "size": {"micro_tokens": 16384},
        "date": "today",
    }


def test_the_page_has_a_section_on_a_gpu_where_it_was_measured() -> None:
    from benchmarks import page

    text = page.page([gpu_result()])
    assert "| dpo | llama-3.2-1b | trl-liger | 2.00 [1.50, 2.50] | 2.5: not reached | 30.0 / 40.0 | 0.75 |" in text
    assert "| 1.00 / 2.00 | 9.00 / 3.00 | 3.00 / 8.00 | 20.00 / 40.00 |" in text
    assert "| 50.0% (40.0%) | 66.7% (53.3%) | 0.45: not reached | 25.0% (20.0%) | 33.3% (26.7%) |" in text
    assert "On a GPU" not in page.page([])
    once = gpu_result() | {"figure": "seconds"}  # a single run has no spread
    assert "| trl-liger | 2.00 | 2.5: not reached |" in page.page([once])


def test_the_useful_work_of_a_step_by_hand() -> None:
    from benchmarks.flop import step_flop

    # A prompt of 2 tokens with responses of 1 and 3: 6 tokens as a tree, 8 as rows; pairs 3 + 3 + 12, then 3 more.
    sizes = {"linear": 10, "head": 100, "attention": 2}
    found = step_flop([(2, [1, 3])], sizes, scored=True)
    assert found == {"trees": 6 * 10 * 6 + 6 * 100 * 4 + 12 * 2 * 18, "rows": 6 * 10 * 8 + 6 * 100 * 4 + 12 * 2 * 21}
    assert step_flop([(2, [1, 3])], sizes, scored=False)["trees"] == 6 * 10 * 6 + 12 * 2 * 18


def test_of_the_peers_variants_the_faster_one_counts() -> None:
    from benchmarks.compare import file_name, gpu_figures

    def side(*steps: float) -> list[dict[str, object]]:
        return [{"seconds": sum(steps), "rollout_seconds": list(steps), "peak_gb": 1.0, "losses": []}]

    found = gpu_figures({}, {"accord": side(1.0), "trl": side(4.0), "trl-liger": side(3.0)}, "trl", 2)
    assert found["variant"] == "trl-liger"
    assert found["ratio"]["median"] == 3.0
    assert file_name(gpu_result()) == "dpo-trl-gpu"
    assert file_name(gpu_result() | {"size": {"micro_tokens": 4096}}) == "dpo-trl-gpu-4096"


def test_a_folder_of_packages_stands_for_an_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from benchmarks import peers

    (tmp_path / "trl-1.16" / "site").mkdir(parents=True)
    monkeypatch.setenv("ACCORD_PEERS", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", "further")
    assert peers.interpreter("trl-1.16") == (
        Path(sys.executable),
        {"PYTHONPATH": f"{tmp_path / 'trl-1.16' / 'site'}:further"},
    )


def test_a_model_of_a_known_shape_speaks_words_of_the_tokenizer(tiny_folder: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from benchmarks import flop, shapes

    folder = shapes.make("tiny", tmp_path, str(tiny_folder))
    assert folder == shapes.make("tiny", tmp_path, "nowhere")  # made once
    model, known = AutoModelForCausalLM.from_pretrained(folder), len(AutoTokenizer.from_pretrained(folder))
    assert known < model.config.vocab_size
    with torch.no_grad():
        share_TV = model(torch.tensor([[1, 5, known - 1]])).logits[0].float().softmax(-1)
    assert float(share_TV[:, known:].sum(-1).max()) < 1e-6
    # Two layers: queries and outputs 64 x 64, keys and values 64 x 32, three matrices of the gates 64 x 128.
    linear = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)
    assert flop.model_numbers(str(folder)) == {"linear": linear, "head": 64 * 50000, "attention": 2 * 64}
