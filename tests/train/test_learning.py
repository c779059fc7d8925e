"""Every job, through its own entry point, learns in seconds what it is paid for."""

import json

import pytest
import torch
from torch.testing import assert_close

from accord.models.load import load_policy, load_reward_model
from accord.records import Message
from accord.rollouts import Sampling
from accord.rollouts.native import NativeSampler
from accord.text import Template
from accord.train import policy, preference, reward, sft
from accord.train.configs import DpoConfig, PpoConfig, RewardConfig, SftConfig
from accord.train.progress import Quiet
from accord.train.rewards import FunctionReward
from train.data import WORDS, comparisons, demonstrations, many_a, metrics, prompts, rankings, write

FAST = {"precision": "fp32", "learning_rate": 3e-3, "max_length": 128, "micro_tokens": 512}


def train_sft(model, out, tmp_path, **extra):
    data = demonstrations(tmp_path / "demonstrations.jsonl")
    settings = {"batch_size": 8, "epochs": 20} | FAST | extra
    return sft.run(SftConfig(model=str(model), data=[data], out=out, **settings), Quiet())


def test_sft_learns_to_answer_and_to_stop(tiny_folder, tmp_path):
    folder = train_sft(tiny_folder, tmp_path / "sft", tmp_path)
    rows = metrics(folder)
    assert rows[0]["loss"] > 4.5  # a random model over 260 tokens: ln 260 = 5.56
    assert rows[-1]["loss"] < 0.3
    model, tokenizer = load_policy(str(folder))
    template = Template(tokenizer)
    ids = [template.prompt((Message(role="user", content=word),)) for word in ("ab", "mn")]
    out = NativeSampler(model, end_ids=template.end_ids).sample(ids, Sampling(max_new_tokens=10, temperature=0))
    assert [template.decode(k[0].tokens) for k in out] == ["ab", "mn"]
    assert all(k[0].finish == "stop" for k in out)  # field: T1


@pytest.mark.parametrize("make", [comparisons, rankings])
@pytest.mark.parametrize("lora", [0, 8])
def test_a_reward_model_learns_the_order_and_not_the_length(tiny_folder, tmp_path, make, lora):
    data = make(tmp_path / "data.jsonl")
    config = RewardConfig(
        model=str(tiny_folder), data=[data], eval_data=[data], out=tmp_path / "rm", batch_size=8, epochs=6,
        eval_every=4, lora_rank=lora, **FAST,
    )  # fmt: skip
    last = metrics(reward.run(config, Quiet()))[-1]
    assert last["eval/accuracy_tie_half"] == 1.0
    assert last["eval/margin"] > 1.0
    model, _ = load_reward_model(str(tmp_path / "rm"))
    assert model.config.num_labels == 1


@pytest.mark.parametrize("loss", ["dpo", "ipo", "hinge"])
@pytest.mark.parametrize("lora", [0, 8])
def test_dpo_prefers_what_people_prefer(tiny_folder, tmp_path, loss, lora):
    data = comparisons(tmp_path / "data.jsonl")
    config = DpoConfig(
        model=str(tiny_folder), data=[data], eval_data=[data], out=tmp_path / "dpo", batch_size=8, epochs=5,
        eval_every=5, loss=loss, lora_rank=lora, **FAST,
    )  # fmt: skip
    rows = metrics(preference.run(config, Quiet()))
    start = {"dpo": 0.6931, "ipo": 25.0, "hinge": 1.0}[loss]  # equal models
    assert_close(rows[0]["loss"], start, rtol=1e-4, atol=0)
    assert rows[0]["accuracy_tie_half"] == 0.5
    assert rows[-1]["eval/loss"] < start
    assert rows[-1]["eval/accuracy_tie_half"] > 0.95
    assert (
        rows[-1]["logprob/chosen"] - rows[-1]["logprob/rejected"]
        > rows[0]["logprob/chosen"] - rows[0]["logprob/rejected"]
    )


def train_undecided(model, folder):
    """Answers "a", "m" or "z", each a third of the time. (A frozen random embedding bounds what adapters can do.)"""
    rows = [{"prompt": WORDS[i % 8], "response": "amz"[i % 3] * 2} for i in range(48)]
    data = write(folder / "data.jsonl", rows)
    config = SftConfig(model=str(model), data=[data], out=folder / "sft", batch_size=16, epochs=20, **FAST)
    return sft.run(config, Quiet())


@pytest.fixture(scope="module")
def undecided(tiny_folder, tmp_path_factory):
    return train_undecided(tiny_folder, tmp_path_factory.mktemp("undecided"))


def test_ppo_moves_adapters_alone(undecided, tmp_path):
    config = PpoConfig(
        model=str(undecided), data=[prompts(tmp_path / "prompts.jsonl")], out=tmp_path / "ppo", reward="many_a",
        batch_size=8, samples=4, max_new_tokens=4, epochs=8, kl_beta=0.0, lora_rank=8, schedule="constant", **FAST,
    )  # fmt: skip
    rows = metrics(policy.run(config, Quiet(), FunctionReward("many_a", many_a)))
    assert rows[0]["reward/mean"] < 0.5
    assert rows[-1]["reward/mean"] > 0.8
    assert abs(rows[0]["kl/reference"]) < 1e-5  # the reference is the adapters switched off


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_ppo_raises_a_three_line_reward(tiny_folder, tmp_path, critic):
    config = PpoConfig(
        model=str(tiny_folder), data=[prompts(tmp_path / "prompts.jsonl")], out=tmp_path / "ppo", reward="many_a",
        batch_size=8, samples=4, max_new_tokens=8, epochs=8, kl_beta=0.0, critic=critic,
        value_learning_rate=1e-2, schedule="constant", **FAST,
    )  # fmt: skip
    rows = metrics(policy.run(config, Quiet(), FunctionReward("many_a", many_a)))
    assert rows[0]["reward/mean"] < 0.1
    assert rows[-1]["reward/mean"] > 0.5
    assert rows[-1]["kl/reference"] > rows[0]["kl/reference"]
    assert abs(rows[0]["kl/reference"]) < 1e-5  # policy == reference before the first update; field: S5
    assert max(row["sampler/gap"] for row in rows) < 1e-4  # field: S4


def test_a_strong_kl_penalty_holds_the_policy_at_the_reference(tiny_folder, tmp_path):
    ends = {}
    for beta in (0.0, 5.0):
        config = PpoConfig(
            model=str(tiny_folder), data=[prompts(tmp_path / "prompts.jsonl")], out=tmp_path / f"ppo{beta}",
            reward="many_a", batch_size=8, max_new_tokens=8, epochs=8, kl_beta=beta, schedule="constant", **FAST,
        )  # fmt: skip
        ends[beta] = metrics(policy.run(config, Quiet(), FunctionReward("many_a", many_a)))[-1]["kl/reference"]
    assert ends[5.0] < 0.1 * ends[0.0]


def test_an_exported_reward_model_scores_the_same_in_transformers(tiny_folder, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from accord.models.score import prepare, rewards
    from accord.trees import pack

    config = RewardConfig(
        model=str(tiny_folder), data=[comparisons(tmp_path / "c.jsonl")], out=tmp_path / "rm", batch_size=8, **FAST
    )
    folder = reward.run(config, Quiet())
    ours, tokenizer = load_reward_model(str(folder))
    prepare(ours)
    template = Template(tokenizer)
    tree = template.tree((Message(role="user", content="ab"),), ["aaaa", "z", "a<|im_end|>"])
    with torch.no_grad():
        expected = rewards(ours, pack([tree]))
    theirs = AutoModelForSequenceClassification.from_pretrained(folder / "model").eval()
    their_tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    rows = [list(tree.prompt + branch.tokens) for branch in tree.branches]
    batch = their_tokenizer.pad({"input_ids": rows}, return_tensors="pt")  # field: W1: pads are not end tokens
    with torch.no_grad():
        assert_close(theirs(**batch).logits[:, 0], expected, rtol=1e-5, atol=1e-6)
    assert json.loads((folder / "model" / "accord_reward.json").read_text())["std"] > 0


def test_an_exported_policy_loads_in_plain_transformers_and_peft(tiny_folder, tmp_path):
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    full = train_sft(tiny_folder, tmp_path / "full", tmp_path)
    lora = train_sft(tiny_folder, tmp_path / "lora", tmp_path, lora_rank=8, epochs=40)
    for folder, kind in ((full, AutoModelForCausalLM), (lora, AutoPeftModelForCausalLM)):
        tokenizer = AutoTokenizer.from_pretrained(folder / "model")
        model = kind.from_pretrained(folder / "model").eval()
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": "gh"}], tokenize=False, add_generation_prompt=True
        )
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        out = model.generate(**ids, max_new_tokens=8, do_sample=False, pad_token_id=3)
        assert tokenizer.decode(out[0, ids["input_ids"].shape[1] :]) == "gh<|im_end|>"


def test_adapters_on_adapters_keep_both(tiny_folder, tmp_path):
    first = train_sft(tiny_folder, tmp_path / "first", tmp_path, lora_rank=8, epochs=40)
    second = train_sft(first, tmp_path / "second", tmp_path, lora_rank=4, epochs=1, learning_rate=1e-5)
    for folder in (first, second):
        model, tokenizer = load_policy(str(folder))
        template = Template(tokenizer)
        ids = [template.prompt((Message(role="user", content="gh"),))]
        out = NativeSampler(model, end_ids=template.end_ids).sample(ids, Sampling(max_new_tokens=10, temperature=0))
        assert template.decode(out[0][0].tokens) == "gh"
