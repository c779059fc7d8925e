"""Several rewards at once: ensembles and sums by hand, one source as ever, and what is logged of them."""

import math
import shutil

import pytest
import torch
from torch.testing import assert_close

from accord.models.load import load_tokenizer, new_reward_model
from accord.records import Message
from accord.text import Template
from accord.train import policy
from accord.train.configs import PpoConfig
from accord.train.export import save_reward_model
from accord.train.progress import Quiet
from accord.train.rewards import FunctionReward, ModelReward, Responses, load_reward
from accord.train.sources import Ensemble, Total, labels, load_rewards
from accord.trees import Branch, PromptTree
from train.data import many_a, metrics, prompts


class Said:
    """A reward that says given scores, whatever it is asked."""

    def __init__(self, name, scores, mean=0.0, std=1.0):
        self.name, self.mean, self.std, self.scores = name, mean, std, torch.tensor(scores)

    def __call__(self, responses):
        return self.scores


def responses(template=None, texts=("aa", "abc", "zz")):
    """Of 3, 4 and 3 tokens, the end token included."""
    template = template or Template(load_tokenizer_of_fakes())
    prompt = (Message(role="user", content="x"),)
    tree = PromptTree(template.prompt(prompt), tuple(Branch.response(template.response(text)) for text in texts))
    return Responses(prompts=[prompt], trees=[tree], texts_BK=[list(texts)], finished_BK=[[True] * len(texts)])


def load_tokenizer_of_fakes():
    from fakes import tiny_tokenizer

    return tiny_tokenizer()


MEMBERS = [Said("one", [3.0, 1.0, -1.0], mean=1.0, std=2.0), Said("two", [0.5, 0.25, 0.0], mean=0.0, std=0.25)]
# Normalised by their own moments: (1, 0, -1) and (2, 1, 0), so means 1.5, .5, -.5 and deviations 1/2 each.


@pytest.mark.parametrize(
    ("combine", "expected"),
    [("mean", [1.5, 0.5, -0.5]), ("min", [1.0, 0.0, -1.0]), ("mean-std", [1.0, 0.0, -1.0])],
)
def test_an_ensemble_by_hand(combine, expected):
    ensemble = Ensemble(MEMBERS, combine)
    assert_close(ensemble(responses()), torch.tensor(expected))
    assert ensemble.figures == {"reward__disagreement": pytest.approx(0.5)}
    assert (ensemble.mean, ensemble.std) == (0, 1)
    assert ensemble.name == f"{combine} of one, two"


def test_the_deviation_is_that_of_the_population_of_members():
    """Scores 0, 0, 3: mean 1, deviation sqrt(2); each response has its own."""
    three = [Said(str(m), [float(3 * (m == 2)), 1.0]) for m in range(3)]
    ensemble = Ensemble(three, "mean-std")
    assert_close(ensemble(responses()), torch.tensor([1 - math.sqrt(2), 1.0]))
    assert ensemble.figures["reward__disagreement"] == pytest.approx(math.sqrt(2) / 2)


def test_a_response_only_one_member_likes_is_worth_less():
    liked_by_one, liked_by_all = [[4.0, 2.0], [0.0, 2.0]], torch.tensor([0, 1])
    members = [Said("a", liked_by_one[0]), Said("b", liked_by_one[1])]
    for combine, order in (("mean", [0.0, 0.0]), ("min", [-2.0, 0.0]), ("mean-std", [-2.0, 0.0])):
        score_N = Ensemble(members, combine)(responses())
        assert_close(score_N - score_N[liked_by_all[1]], torch.tensor(order))


def test_a_total_by_hand():
    """2 x (1, 0, -1) - 1 x (2, 1, 0) - 0.5 per token of 3, 4, 3."""
    total = Total(dict(zip(("first", "second"), MEMBERS, strict=True)), (2.0, -1.0), 0.5)
    assert_close(total(responses()), torch.tensor([-1.5, -3.0, -3.5]))
    assert total.figures == pytest.approx({"reward__source__first": 0.0, "reward__source__second": 1.0})
    assert (total.mean, total.std) == (0, 1)
    assert total.name == "2 x one + -1 x two - 0.5 x tokens"


def test_a_total_says_how_far_apart_its_ensembles_are():
    ensemble = Ensemble(MEMBERS, "min")
    total = Total({"both": ensemble, "rule": Said("rule", [1.0, 1.0, 1.0])}, (1.0, 3.0), 0.0)
    assert_close(total(responses()), torch.tensor([4.0, 3.0, 2.0]))
    expected = {"reward__source__both": 0.0, "reward__source__rule": 1.0, "reward__disagreement": 0.5}
    assert total.figures == pytest.approx(expected)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["runs/helpful"], ["helpful"]),
        (["runs/helpful/", "old/helpful/model", "helpful"], ["helpful", "helpful-2", "helpful-3"]),
        (["a/x,a/y", "words:short", "/"], ["x+y", "words:short", "/"]),
        (["x", "x-2", "y/x"], ["x", "x-2", "x-3"]),
    ],
)
def test_labels_are_short_and_differ(names, expected):
    assert labels(names) == expected


# -- from settings -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def template(tiny_folder):
    return Template(load_tokenizer(str(tiny_folder)))


@pytest.fixture(scope="module")
def folders(tiny_folder, tmp_path_factory):
    """Three reward models with moments of their own."""
    base = tmp_path_factory.mktemp("rewards")
    for seed, (mean, std) in enumerate([(0.25, 2.0), (-0.5, 0.1), (0.0, 1.0)]):
        model, tokenizer = new_reward_model(str(tiny_folder), seed=seed)
        save_reward_model(model, Template(tokenizer), base / f"rm{seed}", mean=mean, std=std)
    return [str(base / f"rm{seed}") for seed in range(3)]


def config(reward, **settings) -> PpoConfig:
    return PpoConfig(model="m", data=["d"], out="o", reward=reward, precision="fp32", **settings)


def test_a_single_source_is_what_it_always_was(folders, template):
    """Raw scores and its own moments, which are taken out where advantages are made."""
    one, before = load_rewards(config(folders[0]), template, "fp32"), load_reward(folders[0], template, "fp32", 4096)
    assert isinstance(one, ModelReward)
    assert (one.name, one.mean, one.std) == (before.name, 0.25, 2.0)
    assert torch.equal(one(responses(template)), before(responses(template)))
    assert not hasattr(one, "figures")
    assert isinstance(load_rewards(config("train.data:many_a"), template, "fp32"), FunctionReward)
    assert isinstance(load_rewards(config("train.data:many_a", reward_weights=[1.0]), template, "fp32"), FunctionReward)


def test_settings_make_the_sum_they_say(folders, template):
    given = responses(template)
    raw = [load_reward(folder, template, "fp32", 4096)(given) for folder in folders]
    normal = [(raw[0] - 0.25) / 2.0, (raw[1] + 0.5) / 0.1, raw[2]]
    many = torch.tensor([1.0, 1 / 3, 0.0])

    ensemble = load_rewards(config(",".join(folders), ensemble="mean-std"), template, "fp32")
    stacked = torch.stack(normal)
    assert_close(ensemble(given), stacked.mean(0) - stacked.std(0, correction=0), rtol=1e-4, atol=1e-4)
    mean = load_rewards(config(f"{folders[0]}, {folders[1]}"), template, "fp32")  # and without a rule their mean
    assert_close(mean(given), stacked[:2].mean(0), rtol=1e-4, atol=1e-4)

    settings = {"reward_weights": [0.5, 2.0], "length_penalty": 0.1}
    total = load_rewards(config([folders[1], "train.data:many_a"], **settings), template, "fp32")
    expected = 0.5 * normal[1] + 2 * many - 0.1 * torch.tensor([3.0, 4.0, 3.0])
    assert_close(total(given), expected, rtol=1e-4, atol=1e-4)
    assert list(total.figures) == ["reward__source__rm1", "reward__source__train.data:many_a"]
    assert total.figures["reward__source__train.data:many_a"] == pytest.approx(4 / 9)

    doubled = load_rewards(config(folders[0], reward_weights=[2.0]), template, "fp32")
    assert_close(doubled(given), 2 * normal[0], rtol=1e-4, atol=1e-4)
    alone = load_rewards(config(folders[0], length_penalty=1.0), template, "fp32")
    assert_close(alone(given), normal[0] - torch.tensor([3.0, 4.0, 3.0]), rtol=1e-4, atol=1e-4)


def test_members_with_another_vocabulary_read_the_text(folders, template, tmp_path):
    from train.test_rewards import other_template

    shutil.copytree(folders[1], tmp_path / "other")
    other_template().tokenizer.save_pretrained(tmp_path / "other")
    ensemble = load_rewards(config(f"{folders[0]},{tmp_path / 'other'}"), template, "fp32")
    assert [member.template is None for member in ensemble.members] == [True, False]
    assert torch.isfinite(ensemble(responses(template))).all()


def test_what_is_missing_is_named(folders, template, tiny_folder):
    for reward, words in {
        f"{folders[0]},runs/none": "ensemble .*: reward 'runs/none' is no folder here",
        f"{folders[0]},train.data:many_a": "'train.data:many_a' is a function; members are reward models",
        f"{folders[0]},{tiny_folder}": "ensemble .*not a reward model; make one with `accord train reward",
        "runs/none": "reward 'runs/none' is no folder here",
    }.items():
        with pytest.raises(ValueError, match=words):
            load_rewards(config(reward), template, "fp32")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"reward": "a,"}, "reward 'a,' has a place without a name"),
        ({"reward": ["a", ""]}, "reward '' has a place without a name"),
        ({"reward": ["a", "b"], "reward_weights": [1.0]}, "reward_weights has 1 numbers for 2 rewards; one for each"),
        ({"reward": ["a", "b"], "ensemble": "min"}, "ensemble needs a reward of several folders joined by commas"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        config(settings.pop("reward"), **settings)


def test_ppo_logs_each_source_and_the_disagreement(folders, tiny_folder, tmp_path):
    shared = {
        "data": [prompts(tmp_path / "prompts.jsonl", 8)], "model": str(tiny_folder), "batch_size": 4, "samples": 2,
        "max_new_tokens": 4, "max_steps": 1, "precision": "fp32", "max_length": 128,
    }  # fmt: skip
    out = policy.run(
        PpoConfig(
            out=tmp_path / "ppo", reward=[",".join(folders), "train.data:many_a"], ensemble="min",
            reward_weights=[1.0, 2.0], **shared,
        ),
        Quiet(),
    )  # fmt: skip
    row = metrics(out)[0]
    both = row["reward/source/rm0+rm1+rm2"] + 2 * row["reward/source/train.data:many_a"]
    assert row["reward/mean"] == row["reward/normalised"] == pytest.approx(both, rel=1e-5)
    assert row["reward/disagreement"] > 0
    plain = policy.run(PpoConfig(out=tmp_path / "plain", reward="train.data:many_a", **shared), Quiet())
    assert not [name for name in metrics(plain)[0] if "source" in name or "disagreement" in name]


def test_one_source_trains_as_a_reward_given_in_python(tiny_folder, tmp_path):
    """The same figures whether a function is named in the settings or handed over."""
    shared = {
        "data": [prompts(tmp_path / "prompts.jsonl", 8)], "model": str(tiny_folder), "batch_size": 4, "samples": 2,
        "max_new_tokens": 4, "precision": "fp32", "max_length": 128, "reward": "train.data:many_a",
    }  # fmt: skip
    named = metrics(policy.run(PpoConfig(out=tmp_path / "named", **shared), Quiet()))
    given = metrics(policy.run(PpoConfig(out=tmp_path / "given", **shared), Quiet(), FunctionReward("many_a", many_a)))
    times = ("seconds", "seconds/sample", "seconds/score", "seconds/update", "tokens_per_second")
    for rows in (named, given):
        for row in rows:
            for name in times:
                del row[name]
    assert named == given
