"""The run folder: what binds, what is taken back, what an error leaves, and that nothing half-written is ever read."""

import json
import os

import pytest
import torch
from torch import nn

from accord.models.score import prepare
from accord.train import preference, reward, sft
from accord.train.configs import DpoConfig, PpoConfig, RewardConfig, SftConfig
from accord.train.loop import Diverged, optimise
from accord.train.progress import Quiet
from accord.train.run import Run, write_atomically
from fakes import tiny_llama
from train.data import comparisons, demonstrations, metrics

FAST = {"precision": "fp32", "learning_rate": 3e-3, "max_length": 128, "batch_size": 8}


def config(out, tiny_folder, tmp_path, **extra):
    data = tmp_path / "demonstrations.jsonl"
    if not data.exists():
        demonstrations(data, 16)
    return SftConfig(model=str(tiny_folder), data=[data], out=out, **FAST | extra)


def test_an_error_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, lambda aside: aside.write_text("old"))

    def fail(aside):
        aside.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "old"


def test_a_folder_is_replaced_whole(tmp_path):
    path = tmp_path / "model"
    for text in ("old", "new"):
        write_atomically(path, lambda aside, text=text: (aside.mkdir(), (aside / text).write_text(text)))
    assert os.listdir(path) == ["new"]
    assert os.listdir(tmp_path) == ["model"]


def test_a_folder_in_use_is_refused(tiny_folder, tmp_path):
    with Run("sft", config(tmp_path / "run", tiny_folder, tmp_path)), pytest.raises(ValueError, match="in use"):
        Run("sft", config(tmp_path / "run", tiny_folder, tmp_path))


def test_a_run_that_failed_before_its_first_result_binds_nobody(tiny_folder, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(ValueError, match="max-length"):
        sft.run(config(out, tiny_folder, tmp_path, max_length=8), Quiet())
    assert sft.run(config(out, tiny_folder, tmp_path), Quiet()) == out  # the advice of the error can be followed
    with pytest.raises(ValueError, match="holds a run with max_length = 128"):
        sft.run(config(out, tiny_folder, tmp_path, max_length=64), Quiet())


def test_a_finished_run_is_not_reused_for_changed_data(tiny_folder, tmp_path):
    settings = config(tmp_path / "run", tiny_folder, tmp_path)
    sft.run(settings, Quiet())
    sft.run(settings, Quiet())
    demonstrations(settings.data[0], 17)
    with pytest.raises(ValueError, match="has changed since"):
        sft.run(settings, Quiet())


def test_figures_after_the_checkpoint_are_taken_back(tiny_folder, tmp_path):
    with Run("sft", config(tmp_path / "run", tiny_folder, tmp_path)) as run:
        for step in (1, 2, 3):
            run.log(step, loss=float(step))
            if step == 2:
                run.save(2, {})
        with (run.folder / "metrics.jsonl").open("a") as file:
            file.write('{"step": 4, "lo')  # cut off by a kill
    with Run("sft", config(tmp_path / "run", tiny_folder, tmp_path)) as run:
        assert run.restore()["step"] == 2
        assert [row["step"] for row in metrics(run.folder)] == [1, 2]
        run.save(3, {})
        assert [path.name for path in (run.folder / "checkpoints").iterdir()] == ["step-00000003.pt"]


def test_a_metric_without_a_meaning_is_refused(tiny_folder, tmp_path):
    with Run("sft", config(tmp_path / "run", tiny_folder, tmp_path)) as run, pytest.raises(AssertionError):
        run.log(1, mystery=1.0)


def test_a_step_that_is_not_finite_changes_nothing():
    layer = nn.Linear(2, 1)
    before = layer.weight.detach().clone()
    optimiser = torch.optim.AdamW(layer.parameters())
    (layer(torch.ones(2)) * float("nan")).sum().backward()
    with pytest.raises(Diverged, match="at step 7"):
        optimise(optimiser, 1e-3, 1.0, float("nan"), lambda: "step 7")
    assert torch.equal(layer.weight, before)
    assert layer.weight.grad is None


def test_reference_figures_of_other_tokens_are_made_again(tiny_folder, tmp_path):
    out, data = tmp_path / "dpo", comparisons(tmp_path / "c.jsonl", 8)
    settings = DpoConfig(model=str(tiny_folder), data=[data], out=out, **FAST)
    out.mkdir()
    wrong = {"key": 1, "logprob_N": torch.full((16,), -1e6)}  # left by a run on other tokens
    torch.save(wrong, out / "reference.pt")
    first = metrics(preference.run(settings, Quiet()))[0]
    assert abs(first["loss"] - 0.6931) < 1e-3


def test_an_adapted_reward_model_scores_alike_in_plain_transformers(tiny_folder, tmp_path):
    from transformers import AutoModelForSequenceClassification

    from accord.models.load import load_reward_model

    data = comparisons(tmp_path / "c.jsonl")
    settings = RewardConfig(model=str(tiny_folder), data=[data], out=tmp_path / "rm", lora_rank=4, **FAST)
    folder = reward.run(settings, Quiet())
    ours, _ = load_reward_model(str(folder))
    theirs = AutoModelForSequenceClassification.from_pretrained(folder / "model").eval()
    ids = torch.tensor([[70, 71, 72, 2]])
    with torch.no_grad():
        assert torch.equal(theirs(input_ids=ids).logits, ours(input_ids=ids).logits)
    assert theirs.config.num_labels == 1
    assert theirs.config.pad_token_id != 2


def test_a_temperature_without_sampling_in_the_start_does_not_spoil_the_end(tiny_folder, tmp_path):
    import shutil

    start = tmp_path / "start"
    shutil.copytree(tiny_folder, start)
    (start / "generation_config.json").write_text(json.dumps({"temperature": 0.9, "top_p": 0.6, "eos_token_id": 2}))
    folder = sft.run(config(tmp_path / "run", start, tmp_path), Quiet())
    assert json.loads((folder / "model" / "generation_config.json").read_text())["temperature"] == 0.9


def test_a_model_that_does_more_to_its_logits_is_refused():
    model = tiny_llama()
    plain = model.lm_head.forward
    model.lm_head.forward = lambda hidden: 0.1 * plain(hidden)
    nn.init.normal_(model.lm_head.weight)  # logits large enough to tell
    with pytest.raises(ValueError, match="not supported"):
        prepare(model)


def test_an_adaptive_coefficient_needs_a_start(tiny_folder, tmp_path):
    with pytest.raises(ValueError, match="kl_beta must start above 0"):
        PpoConfig(model="m", data=["d"], out=tmp_path, reward="m:f", kl_beta=0, kl_target=6)
