"""The run folder: what binds, what is taken back, what an error leaves, and that nothing half-written is ever read."""

import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter

import pytest
import torch
from torch import nn

from accord.models.score import prepare
from accord.train import loop, policy, preference, reference, reward, sample, sft, updates
from accord.train.configs import DpoConfig, PpoConfig, RewardConfig, SampleConfig, SftConfig
from accord.train.loop import Diverged, optimise
from accord.train.optimiser import AdamW
from accord.train.progress import Quiet
from accord.train.run import Run, write_atomically
from fakes import tiny_llama
from train.data import comparisons, demonstrations, metrics, prompts, write

FAST = {"precision": "fp32", "learning_rate": 3e-3, "max_length": 128, "batch_size": 8}


def config(out, tiny_folder, tmp_path, **extra):
    data = tmp_path / "demonstrations.jsonl"
    if not data.exists():
        demonstrations(data, 16)
    return SftConfig(**{"model": str(tiny_folder), "data": [data], "out": out, **FAST, **extra})


def test_an_error_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, lambda aside: aside.write_text("old"))

    def fail(aside):
        aside.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "old"


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("killed_at", [1, 2])
def test_a_kill_while_renaming_leaves_one_that_is_whole(kind, killed_at, tmp_path, monkeypatch):
    """Of a folder two renames are needed: between them the old one stands beside, and the next write goes through."""
    path = tmp_path / "thing"

    def write(aside, text):
        if kind == "folder":
            aside.mkdir()
        (aside / "inside" if kind == "folder" else aside).write_text(text)

    def read():
        return (path / "inside" if kind == "folder" else path).read_text()

    write_atomically(path, lambda aside: write(aside, "old"))
    calls, rename = [], os.replace

    def replace(*where):
        calls.append(where)
        if len(calls) == killed_at:
            raise KeyboardInterrupt
        rename(*where)

    monkeypatch.setattr(os, "replace", replace)
    if killed_at == 1 or kind == "folder":
        with pytest.raises(KeyboardInterrupt):
            write_atomically(path, lambda aside: write(aside, "new"))
        if killed_at == 1:
            assert read() == "old"
    monkeypatch.undo()
    write_atomically(path, lambda aside: write(aside, "newer"))
    assert read() == "newer"
    assert os.listdir(tmp_path) == ["thing"]


def test_a_folder_is_replaced_whole(tmp_path):
    path = tmp_path / "model"
    for text in ("old", "new"):
        write_atomically(path, lambda aside, text=text: (aside.mkdir(), (aside / text).write_text(text)))
    assert os.listdir(path) == ["new"]
    assert os.listdir(tmp_path) == ["model"]


def test_a_folder_in_use_is_refused(tiny_folder, tmp_path):
    with Run("sft", config(tmp_path / "run", tiny_folder, tmp_path)), pytest.raises(ValueError, match="in use"):
        Run("sft", config(tmp_path / "run", tiny_folder, tmp_path))


def test_a_folder_in_use_by_another_process_is_refused(tiny_folder, tmp_path):
    holder = "import fcntl,sys,time; f=open(sys.argv[1],'w'); fcntl.flock(f,fcntl.LOCK_EX); print('held',flush=True);"
    (tmp_path / "run").mkdir()
    words = [sys.executable, "-c", f"{holder} time.sleep(60)", str(tmp_path / "run" / ".lock")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=r"run is in use by another process; give this run another --out"):
            Run("sft", config(tmp_path / "run", tiny_folder, tmp_path))
    finally:
        process.kill()
        process.communicate()
    Run("sft", config(tmp_path / "run", tiny_folder, tmp_path)).close()  # a killed process holds nothing


def test_a_refused_configuration_lets_go_of_the_folder(tiny_folder, tmp_path):
    """A notebook keeps the traceback of the error, and with it everything that was alive."""
    sft.run(config(tmp_path / "run", tiny_folder, tmp_path), Quiet())
    with pytest.raises(ValueError, match="seed = 0, asked for is 5") as kept:
        Run("sft", config(tmp_path / "run", tiny_folder, tmp_path, seed=5))
    Run("sft", config(tmp_path / "run", tiny_folder, tmp_path)).close()
    assert kept.tb is not None
    with pytest.raises(ValueError, match="holds a run with job = 'sft', asked for is 'dpo'"):
        Run("dpo", config(tmp_path / "run", tiny_folder, tmp_path))
    Run("sft", config(tmp_path / "run", tiny_folder, tmp_path, save_every=7)).close()  # free to change


@pytest.mark.parametrize("key", ["data", "eval_data", "model_fingerprint", "precision", "reward"])
def test_a_run_goes_on_only_from_what_it_began_with(key, tiny_folder, tmp_path):
    facts = {"data": [{"sha256": "a"}], "eval_data": [], "model_fingerprint": "m", "precision": "fp32", "reward": "r"}
    with Run("ppo", config(tmp_path / "run", tiny_folder, tmp_path)) as run:
        run.begin(**facts)
        run.save(3, {})
    with Run("ppo", config(tmp_path / "run", tiny_folder, tmp_path)) as run:
        assert run.known(key) == facts[key]
        with pytest.raises(ValueError, match=rf"{key} was .* when the run began and is 'other' now; restore it"):
            run.begin(**facts | {key: "other"})
        run.begin(**facts, fit=1)
        assert run.known("fit") == 1


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


def test_what_a_kill_cut_in_the_middle_of_a_character_is_taken_back(tiny_folder, tmp_path):
    """Samples hold any text: line separators that are no newline, and letters of several bytes."""
    with Run("sft", config(tmp_path / "run", tiny_folder, tmp_path)) as run:
        for step in (1, 2):
            run.sample(step, response="a\u2028b\x85c\x0bd 日本")
        run.save(1, {})
        run.save(2, {})
        with (run.folder / "samples.jsonl").open("ab") as file:
            file.write('{"step": 2, "response": "日'.encode()[:-1])
    with Run("sft", config(tmp_path / "run", tiny_folder, tmp_path)) as run:
        run.restore()
        lines = (run.folder / "samples.jsonl").read_bytes().split(b"\n")
        assert [json.loads(line)["response"] for line in lines[:-1]] == ["a\u2028b\x85c\x0bd 日本"] * 2
        assert lines[-1] == b""


def test_without_a_checkpoint_everything_is_taken_back_and_time_adds_up(tiny_folder, tmp_path):
    with Run("sft", config(tmp_path / "run", tiny_folder, tmp_path)) as run:
        run.log(1, loss=1.0)
        assert run.restore() is None
        assert metrics(run.folder) == []
        spent = run.seconds
        run.save(1, {"x": torch.ones(2)})
    with Run("sft", config(tmp_path / "run", tiny_folder, tmp_path)) as run:
        assert torch.equal(run.restore()["x"], torch.ones(2))
        assert run.seconds >= spent


def test_bad_rows_of_all_files_are_kept(tiny_folder, tmp_path):
    """Half a character in a row that is set aside is no reason to fail."""
    good = {"prompt": "a", "response": "b"}
    train, held = (write(tmp_path / f"{name}.jsonl", [good] * 4) for name in ("train", "held"))
    with train.open("a") as file:
        file.write('{"prompt": "\\ud800", "response": "b"}\n')
    with held.open("a") as file:
        file.write('{"prompt": "日"}\n')
    settings = config(tmp_path / "run", tiny_folder, tmp_path, data=[train], eval_data=[held], skip_bad_rows=True)
    folder = sft.run(settings, Quiet())
    rows = [json.loads(line) for line in (folder / "bad_rows.jsonl").read_text(encoding="utf8").splitlines()]
    assert [(row["setting"], row["row"]) for row in rows] == [("data", 5), ("eval_data", 5)]
    assert rows[1]["raw"] == {"prompt": "日"}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [manifest[name][0]["bad_rows"] for name in ("data", "eval_data")] == [1, 1]


ENTRIES = {
    "sft": (SftConfig, sft),
    "reward": (RewardConfig, reward),
    "dpo": (DpoConfig, preference),
    "ppo": (PpoConfig, policy),
    "sample": (SampleConfig, sample),
}


@pytest.mark.parametrize("job", [*ENTRIES, "ppo: eval_data"])
def test_a_bad_row_shows_before_the_model_is_loaded(job, tiny_folder, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny_folder, model)
    (model / "model.safetensors").write_bytes(b"no weights")
    bad, good = tmp_path / "bad.jsonl", prompts(tmp_path / "good.jsonl", 2)
    bad.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": 5}\n')
    job, _, setting = job.partition(": ")
    settings = {"model": str(model), "out": tmp_path / "run", "data": [good if setting else bad]}
    settings |= {"eval_data": [bad]} if setting else {}
    settings |= {"reward": ["train.data:many_a"]} if job in ("ppo", "sample") else {}
    with pytest.raises(ValueError, match=r"bad\.jsonl, row [12]: "):
        ENTRIES[job][1].run(ENTRIES[job][0](**settings), Quiet())


def test_bad_rows_of_a_new_start_are_kept(tiny_folder, tmp_path, monkeypatch):
    """A run without results binds nobody to its data; what it left is cleared, what was just set aside is not."""
    data = write(tmp_path / "train.jsonl", [{"prompt": "a", "response": "b"}] * 4)
    settings = config(tmp_path / "run", tiny_folder, tmp_path, data=[data], skip_bad_rows=True)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "plan", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            sft.run(settings, Quiet())
    with data.open("a") as file:
        file.write("{}\n")
    folder = sft.run(settings, Quiet())
    assert len((folder / "bad_rows.jsonl").read_text().splitlines()) == 1
    assert json.loads((folder / "manifest.json").read_text())["data"][0]["bad_rows"] == 1


def test_a_metric_without_a_meaning_is_refused(tiny_folder, tmp_path):
    with Run("sft", config(tmp_path / "run", tiny_folder, tmp_path)) as run, pytest.raises(AssertionError):
        run.log(1, mystery=1.0)


def test_a_step_that_is_not_finite_changes_nothing():
    layer = nn.Linear(2, 1)
    before = layer.weight.detach().clone()
    optimiser = AdamW([{"params": list(layer.parameters())}], lr=1e-3, betas=(0.9, 0.95))
    (layer(torch.ones(2)) * float("nan")).sum().backward()
    with pytest.raises(Diverged, match="at step 7"):
        optimise(optimiser, 1e-3, 1.0, float("nan"), lambda: "step 7")
    assert torch.equal(layer.weight, before)
    assert layer.weight.grad is None


def test_reference_figures_of_other_tokens_are_made_again(tiny_folder, tmp_path):
    out, data = tmp_path / "dpo", comparisons(tmp_path / "c.jsonl", 8)
    settings = DpoConfig(model=str(tiny_folder), data=[data], out=out, **FAST)
    preference.run(settings, Quiet())
    [own] = out.glob("reference-*.pt")
    wrong = {"key": 1, "logprob_N": torch.full((16,), -1e6)}  # left by a run on other tokens
    (tmp_path / "again").mkdir()
    torch.save(wrong, tmp_path / "again" / own.name)
    first = metrics(preference.run(settings.model_copy(update={"out": tmp_path / "again"}), Quiet()))[0]
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


# -- killed and continued ----------------------------------------------------------------------------------------------

JOBS = {
    "sft": (SftConfig, sft, demonstrations, {}),
    "reward": (RewardConfig, reward, comparisons, {}),
    "dpo": (DpoConfig, preference, comparisons, {"lora_rank": 4}),
    "ppo": (PpoConfig, policy, prompts, {"reward": "train.data:many_a", "max_new_tokens": 5, "ppo_epochs": 1,
                                         "minibatches": 1, "kl_target": 1.0, "samples": 2}),
}  # fmt: skip


def weights(folder):
    from safetensors.torch import load_file

    name = "adapter_model" if (folder / "model" / "adapter_model.safetensors").exists() else "model"
    return load_file(folder / "model" / f"{name}.safetensors")


@pytest.mark.parametrize("job", JOBS)
def test_killed_at_any_step_a_run_ends_at_the_same_weights(job, tiny_folder, tmp_path, monkeypatch):  # field: R1, R2
    """Three steps an epoch, two epochs; killed within each step in turn, at an epoch's end too."""
    kind, module, make, own = JOBS[job]
    data = make(tmp_path / "data.jsonl", 11)
    settings = {"model": str(tiny_folder), "data": [data], "epochs": 2, **FAST, "batch_size": 4, **own}
    seen, step, place = [], loop.optimise, loop.place

    def watched_place(run, number, rows):
        seen.append((number, tuple(rows)))
        return place(run, number, rows)

    monkeypatch.setattr(loop, "place", watched_place)
    whole = module.run(kind(**settings, out=tmp_path / "whole"), Quiet())
    plan = list(seen)
    assert Counter(row for _, rows in plan for row in rows) == dict.fromkeys(range(1, 12), 2)
    assert [number for number, _ in plan] == list(range(6))

    cut = kind(**settings, out=tmp_path / "cut", save_every=random.Random(job).choice([1, 2]))
    for kill in range(1, 7):
        taken = []

        def killed(*arguments, kill=kill, taken=taken):
            norm = step(*arguments)
            taken.append(norm)
            if seen[-1][0] + 1 == kill:
                raise KeyboardInterrupt  # within the step: weights have moved, nothing is saved yet
            return norm

        monkeypatch.setattr(loop, "optimise", killed)
        with pytest.raises(KeyboardInterrupt):
            module.run(cut, Quiet())
        assert not (cut.out / "done.json").exists()
    monkeypatch.setattr(loop, "optimise", step)
    module.run(cut, Quiet())
    expected, found = weights(whole), weights(cut.out)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    timeless = [
        [{k: v for k, v in row.items() if "second" not in k} for row in metrics(folder)] for folder in (whole, cut.out)
    ]
    assert timeless[0] == timeless[1]  # every step once, the same figures
    assert set(seen) == set(plan)  # a step is made of the same rows however often it is begun
    assert not (cut.out / "checkpoints").exists()


@pytest.mark.parametrize("job", JOBS)
def test_a_run_killed_before_it_could_say_it_is_done_only_says_so(job, tiny_folder, tmp_path, monkeypatch):  # field: R2
    kind, module, make, own = JOBS[job]
    data = make(tmp_path / "data.jsonl", 8)
    settings = kind(**{"model": str(tiny_folder), "data": [data], "out": tmp_path / "run", **FAST, **own})
    finish = Run.finish
    monkeypatch.setattr(Run, "finish", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        module.run(settings, Quiet())
    monkeypatch.setattr(Run, "finish", finish)
    monkeypatch.setattr(loop, "optimise", lambda *_: pytest.fail("no step is left to take"))
    assert (module.run(settings, Quiet()) / "done.json").exists()


def test_the_reference_is_asked_once_and_not_again_by_a_continued_run(tiny_folder, tmp_path, monkeypatch):  # field: M2
    monkeypatch.setenv("ACCORD_CACHE", str(tmp_path / "cache"))
    data, held = comparisons(tmp_path / "c.jsonl", 8), comparisons(tmp_path / "h.jsonl", 6)
    settings = DpoConfig(model=str(tiny_folder), data=[data], eval_data=[held], out=tmp_path / "dpo", epochs=3, **FAST)
    asked, step, plain = [], loop.optimise, reference.all_sequence_logprobs
    monkeypatch.setattr(reference, "all_sequence_logprobs", lambda *a: asked.append(len(a[1])) or plain(*a))
    monkeypatch.setattr(loop, "optimise", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        preference.run(settings, Quiet())
    monkeypatch.setattr(loop, "optimise", step)
    preference.run(settings, Quiet())
    assert asked == [8, 6]  # training and held-out rows, before the first step of three epochs


# -- what is not finite ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("job", "name"), [("sft", "sft"), ("reward", "reward"), ("dpo", "preference")])
def test_a_loss_that_is_not_finite_names_step_rows_and_checkpoint(job, name, tiny_folder, tmp_path, monkeypatch):
    """Row numbers are those of the file, also behind rows that were left out as too long."""
    kind, module, _, own = JOBS[job]
    long = {"prompt": "q", "response": "x" * 200, "chosen": "x" * 200, "rejected": "y"}
    short = {"prompt": "q", "response": "b", "chosen": "c", "rejected": "d"}
    pick = ("prompt", "response") if job == "sft" else ("prompt", "chosen", "rejected")
    rows = [{key: row[key] for key in pick} for row in (long, long, short, short, long, short)]
    data = write(tmp_path / "data.jsonl", rows)
    plain, steps = module.accumulate, []

    def accumulate(model, *rest):
        loss = plain(model, *rest)
        steps.append(1)
        if len(steps) == 3:
            next(p for p in model.parameters() if p.requires_grad).grad.fill_(math.inf)
        return loss

    monkeypatch.setattr(module, "accumulate", accumulate)
    settings = {**FAST, **own, "batch_size": 1, "save_every": 2}
    with pytest.raises(Diverged) as caught:
        module.run(kind(model=str(tiny_folder), data=[data], out=tmp_path / "run", **settings), Quiet())
    words = str(caught.value)
    order = [[3, 4, 6][i] for i in torch.randperm(3, generator=torch.Generator().manual_seed(0)).tolist()]
    assert f"gradient norm inf at step 3 (rows {order[2]} of the data that was read, from 1)" in words
    assert f"the last good checkpoint is {tmp_path}/run/checkpoints/step-00000002.pt" in words
    assert len(metrics(tmp_path / "run")) == 2
    monkeypatch.setattr(module, "accumulate", plain)
    module.run(
        kind(model=str(tiny_folder), data=[data], out=tmp_path / "run", **settings), Quiet()
    )  # and on from there


def test_a_rollout_that_is_not_finite_names_the_prompts_rows(tiny_folder, tmp_path, monkeypatch):
    data = prompts(tmp_path / "prompts.jsonl", 8)
    plain = updates.accumulate

    def accumulate(*arguments):
        return plain(*arguments) | {"loss": math.nan}

    monkeypatch.setattr(updates, "accumulate", accumulate)
    settings = PpoConfig(
        model=str(tiny_folder), data=[data], out=tmp_path / "run", reward="train.data:many_a", max_new_tokens=4,
        **FAST | {"batch_size": 2},
    )  # fmt: skip
    with pytest.raises(Diverged) as caught:
        policy.run(settings, Quiet())
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0)).tolist()
    found = re.search(r"step 1 \(rows (\d+), (\d+) of the data", str(caught.value))
    assert {int(row) - 1 for row in found.groups()} <= set(order[:4])  # of the first rollout's prompts
    assert "there is no checkpoint yet" in str(caught.value)


def test_a_run_that_diverges_ends_the_command_with_an_error(tiny_folder, tmp_path, capsys):
    from accord.cli import main

    data = demonstrations(tmp_path / "d.jsonl", 16)
    words = ["train", "sft", "--model", str(tiny_folder), "--data", str(data), "--out", str(tmp_path / "run")]
    words += ["--learning-rate", "1e30", "--precision", "fp32", "--batch-size", "4", "--warmup", "0"]
    assert main(words) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "gradient norm nan at step" in said
    assert "Traceback" not in said
    assert not (tmp_path / "run" / "done.json").exists()
    assert not (tmp_path / "run" / "model").exists()
