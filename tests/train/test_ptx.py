"""PPO-ptx: the stream is a function of seed and step, its gradient that of the objective; what it trains is kept."""

import gzip
import json
from collections import Counter

import pytest
import torch
from torch.testing import assert_close

from accord.data.batches import corpus_trees
from accord.models.load import load_policy
from accord.models.score import response_scores
from accord.text import Template
from accord.train import policy
from accord.train.configs import PpoConfig
from accord.train.progress import Quiet
from accord.train.ptx import Ptx
from accord.train.rewards import FunctionReward
from accord.trees import pack
from train.data import many_a, metrics, prompts, write
from train.test_exact_accumulation import BASE, BUDGETS, gradient, model_of, ragged

TEXTS = ["the cat sat on the mat", "a dog ran", "birds sing in the tree at noon"]


def config_of(**extra) -> PpoConfig:
    return PpoConfig(**{**BASE, "reward": "r", "ptx_data": ["t"], **extra})


def test_each_pass_over_the_text_is_a_permutation_and_needs_no_state():
    trees = ragged([[3], [4], [5], [6], [7]])
    stream = Ptx(trees, config_of(ptx_batch_size=3))
    rows = [row for step in range(10) for row in stream.rows(step)]
    assert [sorted(rows[at : at + 5]) for at in range(0, 30, 5)] == [list(range(5))] * 6
    assert len({tuple(rows[at : at + 5]) for at in range(0, 30, 5)}) > 3
    again = Ptx(trees, config_of(ptx_batch_size=3))
    assert again.rows(7) == rows[21:24]  # asked for alone
    assert [row for step in range(10) for row in Ptx(trees, config_of(ptx_batch_size=3, seed=1)).rows(step)] != rows
    assert (
        Counter(Ptx(trees, config_of(ptx_batch_size=12)).rows(0)).most_common()[0][1] == 3
    )  # more rows than there are
    assert Ptx(trees, config_of(batch_size=7)).size == 7
    assert (stream.coefficient, Ptx(trees, config_of(ptx_coefficient=2.0)).coefficient) == (27.8, 2.0)


def test_its_gradient_is_the_mean_over_the_step_s_tokens_times_the_coefficient():
    trees, results = ragged([[3], [14], [5], [6], [20]]), []
    for budget in BUDGETS:
        model = model_of()
        stream = Ptx(trees, config_of(ptx_coefficient=1.5, ptx_batch_size=5, micro_tokens=budget))
        results.append((stream.accumulate(model, 3)["loss__ptx"], gradient(model)))
    model = model_of()
    loss = -torch.cat([response_scores(model, pack([tree])).logprob_T for tree in trees]).mean()
    (1.5 * loss).backward()
    for found, grad in results:
        assert found == pytest.approx(loss.item(), rel=1e-6)
        assert_close(grad, gradient(model), rtol=0, atol=2e-6 * float(gradient(model).abs().max()))


def test_it_is_added_to_the_step_and_not_put_in_its_place():
    model = model_of()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    Ptx(ragged([[3]]), config_of(ptx_batch_size=1)).accumulate(model, 0)
    alone = model_of()
    Ptx(ragged([[3]]), config_of(ptx_batch_size=1)).accumulate(alone, 0)
    assert_close(gradient(model), gradient(alone) + 1)


@torch.no_grad()
def nll_of(folder) -> float:
    """Nats per token of TEXTS."""
    model, tokenizer = load_policy(str(folder))
    trees, _ = corpus_trees(TEXTS, Template(tokenizer), 128)
    return -float(torch.cat([response_scores(model.eval(), pack([tree])).logprob_T for tree in trees]).mean())


def settings_of(model, folder, name, **extra) -> PpoConfig:
    data = folder / "prompts.jsonl"
    data = data if data.exists() else prompts(data, 16)
    return PpoConfig(
        model=str(model), data=[data], out=folder / name, reward="train.data:many_a", batch_size=4, samples=2,
        max_new_tokens=4, precision="fp32", learning_rate=3e-3, max_length=64, **extra,
    )  # fmt: skip


@pytest.mark.parametrize("algorithm", ["ppo-clip", "rloo"])
def test_text_that_is_trained_beside_is_not_forgotten(tiny_folder, tmp_path, algorithm):
    text = tmp_path / "text.jsonl.gz"
    with gzip.open(text, "wt") as file:
        file.write("".join(json.dumps({"text": one}) + "\n" for one in TEXTS))
    reward, ends = FunctionReward("many_a", many_a), {}
    for name, extra in {
        "without": {},
        "with": {"ptx_data": [text], "ptx_coefficient": 5.0, "micro_tokens": 32},
    }.items():
        config = settings_of(tiny_folder, tmp_path, name, algorithm=algorithm, epochs=4, **extra)
        ends[name] = nll_of(policy.run(config, Quiet(), reward))
    rows = metrics(tmp_path / "with")
    assert ends["with"] < ends["without"] - 1
    assert rows[0]["loss/ptx"] > rows[-1]["loss/ptx"] + 1
    assert "loss/ptx" not in metrics(tmp_path / "without")[0]
    last = rows[-1]
    known = last["loss/policy"] + 0.1 * last.get("loss/value", 0.0) + 5.0 * last["loss/ptx"]
    assert last["loss"] == pytest.approx(known, rel=1e-5)
    manifest = json.loads((tmp_path / "with" / "manifest.json").read_text())
    assert manifest["ptx_data"][0]["rows"] == 3
    assert len(manifest["ptx_data"][0]["sha256"]) == 64
    assert manifest["ptx_data_fit"]["windows"] == 3
    text.write_bytes(gzip.compress(b'{"text": "other"}\n'))  # a finished run is not one of other data
    with pytest.raises(ValueError, match=r"is finished, but .*text.jsonl.gz has changed"):
        policy.run(config, Quiet(), reward)


def test_each_step_of_a_run_takes_the_rows_of_its_number(tiny_folder, tmp_path, monkeypatch):
    asked, rows = [], Ptx.rows
    monkeypatch.setattr(Ptx, "rows", lambda self, step: asked.append(step) or rows(self, step))
    data = write(tmp_path / "text.jsonl", [{"text": text} for text in TEXTS])
    policy.run(settings_of(tiny_folder, tmp_path, "run", ptx_data=[data], epochs=2), Quiet())
    assert asked == list(range(16))  # 2 epochs of 2 rollouts, 2 passes of 2 steps each


def test_an_unfinished_run_goes_on_with_the_same_text_only(tiny_folder, tmp_path):
    class Stop(Quiet):
        def update(self, step, figures):
            if step > 4:
                raise KeyboardInterrupt

    data = write(tmp_path / "text.jsonl", [{"text": text} for text in TEXTS])
    config = settings_of(tiny_folder, tmp_path, "run", ptx_data=[data], save_every=1)
    with pytest.raises(KeyboardInterrupt):
        policy.run(config, Stop())
    write(data, [{"text": "other"}])
    with pytest.raises(ValueError, match=r"ptx_data was .* when the run began"):
        policy.run(config, Quiet())


def test_demonstrations_serve_as_text_too_and_bad_rows_do_not(tiny_folder, tmp_path):
    data = write(tmp_path / "mixed.jsonl", [{"text": "some text"}, {"prompt": "ab", "response": "cd"}])
    config = settings_of(tiny_folder, tmp_path, "run", max_steps=1, ptx_data=[data])
    fitted = json.loads((policy.run(config, Quiet()) / "manifest.json").read_text())["ptx_data_fit"]
    assert (fitted["texts"], fitted["demonstrations"]["kept"]) == (1, 1)
    assert fitted["trained_tokens"] == (len("some text") - 1) + (2 + 1)
    bad = write(tmp_path / "bad.jsonl", [{"text": 3}])
    with pytest.raises(ValueError, match=r"bad.jsonl, row 1: `text`: found 3; expected a text"):
        policy.run(settings_of(tiny_folder, tmp_path, "bad", ptx_data=[bad]), Quiet())
    one = write(tmp_path / "one.jsonl", [{"text": "a"}])
    with pytest.raises(ValueError, match="no row of ptx_data can be trained on"):
        policy.run(settings_of(tiny_folder, tmp_path, "one", ptx_data=[one]), Quiet())
