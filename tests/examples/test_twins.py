"""The programs of one file in examples/ and the trainers come to the same numbers by different ways."""

import ast
import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import launch
from accord.rollouts.native import NativeSampler
from accord.train import loop, policy, preference, reward, sft
from accord.train.configs import DpoConfig, PpoConfig, RewardConfig, SftConfig
from accord.train.progress import Quiet
from train.data import WORDS, comparisons, metrics, prompts, rankings, write

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = ["sft", "reward", "dpo", "ppo", "pro"]
RATE = 1e-3  # so that five steps move the weights, and a wrong gradient shows in the steps after it


def twin(name):
    spec = importlib.util.spec_from_file_location(f"twin_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def policy_of(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def settings(model, data, out, **extra):
    fixed = {"precision": "fp32", "learning_rate": RATE, "max_steps": 5, "epochs": 9, "micro_tokens": 150}
    return {"model": str(model), "data": [data], "out": out, **fixed, **extra}


def assert_same_losses(twins, trainers):
    assert len(twins) == 5
    assert len(set(twins)) == 5
    assert_close(twins, trainers, rtol=2e-5, atol=1e-6)


def assert_same_way(twin_state, trainer_state, start_state, rtol=1e-3):
    """Both went from `start` to the same place: every tensor is apart by a thousandth of its way at most."""
    assert twin_state.keys() == trainer_state.keys()
    for name, end in trainer_state.items():
        way = (end - start_state[name]).norm()
        assert way > 0, name
        assert (twin_state[name] - end).norm() <= rtol * way, name


def several_turns(path):
    """Demonstrations, and conversations: a system message, and two turns of the assistant, the first one longer."""
    rows = [{"prompt": word, "response": word * (1 + n % 3)} for n, word in enumerate(WORDS)]
    say = [("system", "brief"), ("user", "ab"), ("assistant", "abab"), ("user", "cd"), ("assistant", "c")]
    messages = [{"role": role, "content": text} for role, text in say]
    rows += [{"messages": messages}, {"prompt": messages[:4], "response": "dd"}, {"messages": messages[1:3]}]
    return write(path, rows)


def test_sft(tiny_folder, tmp_path):
    data = several_turns(tmp_path / "data.jsonl")
    folder = sft.run(SftConfig(**settings(tiny_folder, data, tmp_path / "run", batch_size=4)), Quiet())
    one, model = twin("sft"), policy_of(tiny_folder)
    lines = one.read(data, {"prompt", "response"}, {"messages"})
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    losses = one.train(model, tokenizer, lines, epochs=9, steps=5, batch_size=4, peak=RATE)
    assert_same_losses(losses, [row["loss"] for row in metrics(folder)])
    start, end = policy_of(tiny_folder).state_dict(), policy_of(folder / "model").state_dict()
    assert_same_way(model.state_dict(), end, start)


def test_reward(tiny_folder, tmp_path):
    data = comparisons(tmp_path / "data.jsonl")
    folder = reward.run(RewardConfig(**settings(tiny_folder, data, tmp_path / "run", batch_size=8)), Quiet())
    one = twin("reward")
    model, tokenizer = one.load(str(tiny_folder))
    start = {name: value.clone() for name, value in model.state_dict().items()}
    lines = one.read(data, {"prompt", "chosen", "rejected"})
    losses = one.train(model, tokenizer, lines, epochs=9, steps=5, batch_size=8, peak=RATE)
    assert_same_losses(losses, [row["loss"] for row in metrics(folder)])
    end = AutoModelForSequenceClassification.from_pretrained(folder / "model").state_dict()
    assert_same_way(model.state_dict(), end, start)


def test_dpo(tiny_folder, tmp_path):
    data = comparisons(tmp_path / "data.jsonl")
    config = DpoConfig(**settings(tiny_folder, data, tmp_path / "run", batch_size=8, beta=0.3))
    folder = preference.run(config, Quiet())
    one, model = twin("dpo"), policy_of(tiny_folder)
    lines = one.read(data, {"prompt", "chosen", "rejected"})
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    losses = one.train(model, tokenizer, lines, epochs=9, steps=5, batch_size=8, peak=RATE, beta=0.3)
    assert_same_losses(losses, [row["loss"] for row in metrics(folder)])
    start, end = policy_of(tiny_folder).state_dict(), policy_of(folder / "model").state_dict()
    assert_same_way(model.state_dict(), end, start)


def uneven_rankings(path):
    """Four responses and two, ties at the top and below it, failed ones, one row of nothing else."""
    rows = [json.loads(line) for line in rankings(path, count=9).read_text(encoding="utf8").splitlines()]
    rows += [
        {"prompt": "ab", "responses": ["z", "ab"], "ranks": [7, 3]},
        {"prompt": "cd", "responses": ["cd", "cdcd", "m"], "ranks": [1, 1, 2]},
        {"prompt": "ef", "responses": ["z", "zz"], "ranks": [None, None]},
    ]
    return write(path, rows)


def test_pro(tiny_folder, tmp_path):
    data = uneven_rankings(tmp_path / "data.jsonl")
    config = DpoConfig(**settings(tiny_folder, data, tmp_path / "run", batch_size=6, loss="pro"))
    folder = preference.run(config, Quiet())
    one, model = twin("pro"), policy_of(tiny_folder)
    lines = one.read(data, {"prompt", "responses", "ranks"})
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    losses = one.train(model, tokenizer, lines, epochs=9, steps=5, batch_size=6, peak=RATE)
    assert_same_losses(losses, [row["loss"] for row in metrics(folder)])
    start, end = policy_of(tiny_folder).state_dict(), policy_of(folder / "model").state_dict()
    assert_same_way(model.state_dict(), end, start)


def test_pro_by_hand(tiny_folder):
    """The first loss, from mean log-probabilities asked one by one: a tie, a failed response, a prompt with fewer."""
    one, model = twin("pro"), policy_of(tiny_folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    lines = [
        {"prompt": "ab", "responses": ["m", "aa", "zz", "mmm"], "ranks": [2, 1, None, 2]},
        {"prompt": "cd", "responses": ["z", "ab"], "ranks": [2, 1]},
    ]

    def score(prompt, text):
        ask, say = one.encode(tokenizer, prompt, text)
        logits_TV = model(input_ids=torch.tensor([ask + say])).logits[0].detach().double()
        return sum(logits_TV[len(ask) - 1 + t].log_softmax(-1)[token] for t, token in enumerate(say)) / len(say)

    m, aa, zz, mmm = (score("ab", text).exp() for text in ("m", "aa", "zz", "mmm"))
    first = -(aa / (aa + m + mmm + zz)).log() - (m / (m + zz)).log() - (mmm / (mmm + zz)).log() - 0.05 * aa.log()
    z, ab = (score("cd", text).exp() for text in ("z", "ab"))
    second = -(ab / (ab + z)).log() - 0.05 * ab.log()
    losses = one.train(model, tokenizer, lines)
    assert_close(losses[0], float((first + second) / 2), rtol=1e-5, atol=0)


def test_the_ppo_twin_plans_as_many_steps_as_the_trainer(talker, tmp_path, capsys):
    """8 prompts, rollouts of 6: the second has 2, so it takes one step per pass, not two."""
    one, model = twin("ppo"), policy_of(talker)
    head = nn.Linear(64, 1)
    wanted = one.Settings(epochs=1, batch_size=3, samples=2, max_new_tokens=2)
    one.train(model, head, AutoTokenizer.from_pretrained(talker), WORDS, wanted, one.sample)
    assert (
        policy.plan_rollouts(
            8, PpoConfig(**settings(talker, "d", "o", reward="r", batch_size=3, epochs=1, max_steps=None))
        ).total
        == 6
    )
    assert capsys.readouterr().out.count(" of 6:") == 6


@pytest.fixture(scope="module")
def talker(tiny_folder, tmp_path_factory):
    """Says one to four letters and stops, so that sampled responses differ in length and in reward."""
    folder = tmp_path_factory.mktemp("talker")
    data = write(folder / "data.jsonl", [{"prompt": w, "response": "amza"[: 1 + n % 4]} for n, w in enumerate(WORDS)])
    config = SftConfig(**settings(tiny_folder, data, folder / "run", learning_rate=3e-3, epochs=30, max_steps=None))
    return sft.run(config, Quiet()) / "model"


def test_ppo(talker, tmp_path, monkeypatch):
    """The twin is handed the tokens that the trainer sampled; everything after that is its own."""
    data = prompts(tmp_path / "data.jsonl", count=14)  # the second rollout is short: 6 prompts in batches of 4 and 2
    sampled, steps, lengths = [], [], set()

    def remember(self, prompt_ids, sampling, sample=NativeSampler.sample):
        rollouts = sample(self, prompt_ids, sampling)
        lengths.update(len(r.tokens) for row in rollouts for r in row)
        sampled.extend(
            (list(ids), [list(r.tokens) for r in row]) for ids, row in zip(prompt_ids, rollouts, strict=True)
        )
        return rollouts

    def watch(optimiser, rate, max_norm, loss, where, optimise=loop.optimise):
        steps.append(float(loss))
        return optimise(optimiser, rate, max_norm, loss, where)

    monkeypatch.setattr(NativeSampler, "sample", remember)
    monkeypatch.setattr(loop, "optimise", watch)
    sizes = {"batch_size": 4, "samples": 3, "max_new_tokens": 6}
    config = PpoConfig(**settings(talker, data, tmp_path / "run", reward="train.data:many_a", **sizes))
    folder = policy.run(config, Quiet())

    one, model = twin("ppo"), policy_of(talker)
    monkeypatch.setattr(one, "reward", lambda prompt, text: text.count("a") / max(1, len(text)))
    head = nn.Linear(64, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)

    def replay(model, ids, end, settings):
        asked, responses = sampled.pop(0)
        assert asked == ids
        return responses

    tokenizer = AutoTokenizer.from_pretrained(talker)
    lines = [word["prompt"] for word in twin("sft").read(data, {"prompt"})]
    wanted = one.Settings(epochs=9, steps=5, peak=RATE, **sizes)
    losses = one.train(model, head, tokenizer, lines, wanted, replay)
    assert not sampled
    assert_same_losses(losses, steps)
    logged = [row["loss"] for row in metrics(folder)]
    assert len(lengths) > 3
    assert metrics(folder)[0]["clip_fraction"] > 0.1
    assert_close([sum(losses[:4]) / 4, losses[4]], logged, rtol=1e-4, atol=1e-6)
    start, end = policy_of(talker).state_dict(), policy_of(folder / "model").state_dict()
    assert_same_way(model.state_dict(), end, start)
    zero = {"weight": torch.zeros(1, 64), "bias": torch.zeros(1)}
    assert_same_way(head.state_dict(), load_file(folder / "model" / "value_head.safetensors"), zero)


def test_the_sampler_of_ppo_draws_from_the_model_and_stops(talker):
    """Frequencies of first tokens are the model's probabilities; nothing stands behind an end token."""
    one, model = twin("ppo"), policy_of(talker)
    prompt = one.prompt_ids(AutoTokenizer.from_pretrained(talker), "ab")
    torch.manual_seed(0)
    rows = one.sample(model, prompt, 2, one.Settings(samples=4000, max_new_tokens=4))
    assert all(len(row) == 4 or row[-1] == 2 for row in rows)
    assert not any(2 in row[:-1] for row in rows)
    for given in (
        [],
        next(row for row in rows if len(row) > 1)[:1],
    ):  # the second token too: it is drawn by way of the cache
        alike = [row for row in rows if row[: len(given)] == given]
        share_V = torch.bincount(torch.tensor([row[len(given)] for row in alike]), minlength=260) / len(alike)
        wanted_V = model(input_ids=torch.tensor([prompt + given])).logits[0, -1].detach().softmax(-1)
        assert_close(share_V, wanted_V, rtol=0, atol=4 * 0.5 / len(alike) ** 0.5)  # four deviations at most


DATA = {
    "sft": {"prompt": "ab", "response": "ab"},
    "reward": {"prompt": "ab", "chosen": "a", "rejected": "z"},
    "dpo": {"prompt": [{"role": "user", "content": "ab"}], "chosen": "a", "rejected": "z"},
    "ppo": {"prompt": "ab"},
    "pro": {"prompt": "ab", "responses": ["a", "m", "z"], "ranks": [1, 2, None]},
}


@pytest.mark.parametrize("name", NAMES)
def test_runs_as_a_script_and_what_it_saves_loads(name, tiny_folder, tmp_path):
    data = write(tmp_path / "data.jsonl", [DATA[name]] * 4)
    out = tmp_path / "out"
    words = ["--model", tiny_folder, "--data", data, "--steps", "2", "--out", out, "--epochs", "2"]
    words += ["--max-new-tokens", "4"] if name == "ppo" else ["--batch-size", "2"]
    done = launch.run([EXAMPLES / f"{name}.py", *words], script=True)
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["step 1 of 2", "step 2 of 2"]
    kind = AutoModelForSequenceClassification if name == "reward" else AutoModelForCausalLM
    model, report = kind.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    before = policy_of(tiny_folder).model.embed_tokens.weight
    assert not torch.equal(model.model.embed_tokens.weight, before)
    assert AutoTokenizer.from_pretrained(out).chat_template


def test_a_field_that_goes_unread_is_refused(tmp_path):
    data = write(tmp_path / "data.jsonl", [DATA["dpo"], DATA["dpo"] | {"probability": 0.2}])
    with pytest.raises(ValueError, match=r"row 2: the fields are .*'probability'.*; write \['chosen', 'prompt'"):
        twin("dpo").read(data, {"prompt", "chosen", "rejected"})


@pytest.mark.parametrize("name", NAMES)
def test_is_one_short_file_that_needs_no_more_than_torch_transformers_and_the_losses(name):
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf8")
    assert len(text.splitlines()) <= 200
    modules = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            modules.add(node.module)
    allowed = sys.stdlib_module_names | {"torch", "transformers"}
    others = {module for module in modules if module.split(".")[0] not in allowed}
    assert others
    assert all(module == "accord.losses" or module.startswith("accord.losses.") for module in others)


def test_what_is_repeated_is_the_same():
    """Functions that stand in several files, so that each can be read alone, are one function."""
    found = {}
    for name in NAMES:
        for node in ast.parse((EXAMPLES / f"{name}.py").read_text(encoding="utf8")).body:
            if isinstance(node, ast.FunctionDef):
                found.setdefault(node.name, {})[name] = ast.dump(node)
    shared = {function for function, texts in found.items() if len(texts) > 1} - {"train", "main"}
    assert shared == {"encode", "logprobs", "padded", "batches", "learning_rate", "read"}
    for function in shared:
        assert len(set(found[function].values())) == 1, function
