"""--dry-run: it counts what the run then does, says whether the memory is enough and what lowers it, writes nothing."""

import json
from pathlib import Path

import pytest

from accord.cli import main
from accord.train import estimate as module
from accord.train import policy, sft
from accord.train.configs import DpoConfig, PpoConfig, SftConfig
from accord.train.estimate import Case, estimate
from accord.train.progress import Quiet
from accord.trees import Branch, PromptTree
from fakes import tiny_llama
from train.data import comparisons, demonstrations, metrics, prompts


def test_it_counts_the_steps_and_tokens_of_the_run(tmp_path, tiny_folder):
    data = demonstrations(tmp_path / "d.jsonl", 22)
    config = SftConfig(model=str(tiny_folder), data=(data,), out=tmp_path / "run", batch_size=4, epochs=2)
    found = estimate(config)
    assert not config.out.exists()
    folder = sft.run(config, Quiet())
    assert found.steps == metrics(folder)[-1]["step"] == 12
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf8"))
    assert found.tokens == 2 * manifest["data_fit"]["tokens"]
    assert f"{manifest['data_fit']['kept']} of 22 rows" in found.notes[0]
    assert found.precision == manifest["precision"]


def test_steps_on_rollouts(tmp_path, tiny_folder):
    data = prompts(tmp_path / "p.jsonl", 10)
    settings = {"batch_size": 4, "minibatches": 2, "ppo_epochs": 3, "samples": 2, "max_new_tokens": 8}
    config = PpoConfig(model=str(tiny_folder), data=(data,), out=tmp_path, reward="train.data:many_a", **settings)
    found = estimate(config)
    plan = policy.plan_rollouts(10, config)
    assert (found.steps, found.rollouts) == (plan.total, len(plan.rollouts)) == (9, 2)
    assert {"reference", "sampler"} & {part.name for part in found.parts}


def test_smaller_packs_and_adapters_need_less(tmp_path, tiny_folder):
    data = comparisons(tmp_path / "c.jsonl", 64)
    config = DpoConfig(model=str(tiny_folder), data=(data,), out=tmp_path / "run", batch_size=64, precision="fp32")

    def part(name, **change):
        return {p.name: p.bytes for p in estimate(config.model_copy(update=change)).parts}[name]

    assert part("activations", micro_tokens=512) < 0.5 * part("activations")
    assert part("moments", lora_rank=2) < 0.2 * part("moments")
    assert part("activations", gradient_checkpointing=True) < part("activations")


def test_what_does_not_fit(tmp_path, tiny_folder, monkeypatch, capsys):
    data = comparisons(tmp_path / "c.jsonl", 64)
    words = ["train", "dpo", "--model", str(tiny_folder), "--data", str(data), "--out", str(tmp_path / "run")]
    words += ["--batch-size", "64", "--dry-run"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "fits: " in said
    assert "1 optimiser step\n" in said
    monkeypatch.setattr(module, "memory_available", lambda device: 10**6)
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "does not fit: " in said
    assert "--micro-tokens" in said.split("what lowers it")[1]
    assert not Path(tmp_path / "run").exists()


def test_data_the_run_would_refuse(tmp_path, tiny_folder):
    data = demonstrations(tmp_path / "d.jsonl", 4)
    config = SftConfig(model=str(tiny_folder), data=(data,), out=tmp_path / "run", max_length=8)
    with pytest.raises(ValueError, match="no row of data fits into --max-length 8"):
        estimate(config)


@pytest.mark.parametrize(("fused", "free", "rows"), [(False, 10**12, 64), (True, 10**12, 200), (True, 0, 1)])
def test_rows_decoded_at_once_are_those_the_sampler_takes(tmp_path, tiny_folder, monkeypatch, fused, free, rows):
    config = PpoConfig(model=str(tiny_folder), data=(tmp_path,), out=tmp_path / "run", reward=("r",), samples=4)
    trees = [PromptTree((1, 2), (Branch.response((3,)),) * 4)] * 50
    model, asked = tiny_llama(), list[int]()
    monkeypatch.setattr(module.memory, "sampling_bytes", lambda shape, rows, *rest, **more: asked.append(rows) or 0)
    case = Case(
        config=config, model=model, shape=module.memory.shape_of(model), rewards=(), half=True, steps=[trees],
        rollout=trees, used=0, available=free, fused=fused, reads=False,
    )  # fmt: skip
    list(module.parts_of(case, config))
    assert asked == [rows]
