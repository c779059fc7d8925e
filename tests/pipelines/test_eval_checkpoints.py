"""`accord eval frontier` and `hacking` on short runs of a small model: kept models, KL, areas, signs."""

import json

import numpy as np
import pytest

from accord.evaluate.frontier import frontier
from accord.evaluate.markup import MARKS
from accord.pipelines.checkpoints import checkpoints_of
from accord.pipelines.eval_frontier import FrontierConfig
from accord.pipelines.eval_frontier import run as run_frontier
from accord.pipelines.eval_hacking import HackingConfig, Read, _gain_rows
from accord.pipelines.eval_hacking import run as run_hacking
from accord.pipelines.evaluation import Outcome
from accord.pipelines.settings import SettingsError
from accord.train import sft
from accord.train.configs import SftConfig
from accord.train.progress import Quiet
from pipelines.evaluating import close, evaluated, result, value, write_rows

COUNT, LENGTH = "pipelines.rewards_of_tests:count_a", "pipelines.rewards_of_tests:length"


def settings_of(tiny_folder, data, out, **settings):
    return SftConfig(
        model=str(tiny_folder), data=(data,), out=out, precision="fp32", batch_size=8, learning_rate=1e-2,
        epochs=3, schedule="constant", warmup=0, **settings
    )  # fmt: skip


@pytest.fixture(scope="module")
def world(tiny_folder, tmp_path_factory):
    """Prompts, and two runs that learn to say a: a quick one with models on the way, and a slow one."""
    root = tmp_path_factory.mktemp("frontier")
    data = write_rows(root / "data.jsonl", [{"prompt": f"p{i % 4}", "response": "aaaa"} for i in range(48)])
    prompts = write_rows(root / "prompts.jsonl", [{"prompt": f"p{i}"} for i in range(8)])
    sft.run(settings_of(tiny_folder, data, root / "quick", keep_every=6), Quiet())
    sft.run(settings_of(tiny_folder, data, root / "slow", max_steps=6), Quiet())
    return root, data, prompts


def config_of(world, kind, **settings):
    root, _, prompts = world
    runs = (root / "quick", root / "slow")
    return kind(**{"runs": runs, "data": (prompts,), "max_new_tokens": 6, "replicates": 50, **settings})


@pytest.fixture(scope="module")
def drawn(world):
    config = config_of(world, FrontierConfig, gold=COUNT, proxy=LENGTH)
    return evaluated("frontier", run_frontier, config, world[0] / "out")


def test_models_on_the_way_are_kept_and_change_nothing(world, tiny_folder):
    root, data, _ = world
    assert [one.step for one in checkpoints_of([root / "quick"])] == [6, 12, 18]
    sft.run(settings_of(tiny_folder, data, root / "plain"), Quiet())
    weights = [(root / name / "model/model.safetensors").read_bytes() for name in ("quick", "plain")]
    assert weights[0] == weights[1]


def test_the_reference_has_no_kl_and_every_checkpoint_has_its_own(drawn):
    assert not any((one.name, one.of) == ("KL", "reference") for one in drawn.results)
    kl = [value(drawn, "KL", f"quick step {step}") for step in (6, 12, 18)]
    assert 0 < kl[0] < kl[1] < kl[2]
    assert value(drawn, "KL", "slow step 6") == kl[0]  # the same two steps, the same random numbers


def test_kl_is_the_sum_over_tokens_of_the_difference_in_log_probability(world, drawn, tiny_folder):
    """Against transformers' own log-probabilities of the text that was sampled."""
    import torch

    from accord.models.load import load_policy
    from accord.records import Message
    from accord.text import Template

    lines = (world[0] / "out/eval/frontier.responses.jsonl").read_text(encoding="utf8").splitlines()
    rows = [json.loads(line) for line in lines]
    # Bytes that are no text do not come back from the text; a response of letters does.
    row = next(row for row in rows if row["stage"] == "quick" and set(row["response"]) == {"a"})
    sums = []
    for name in (world[0] / "quick", tiny_folder):
        model, tokenizer = load_policy(str(name))
        template = Template(tokenizer)
        prompt = template.prompt((Message(role="user", content=row["prompt"][0]["content"]),))
        said = template.response(row["response"], finished=not row["cut"])
        with torch.no_grad():
            logprob_TV = model(torch.tensor([[*prompt, *said]])).logits[0].log_softmax(-1)
        sums.append(sum(float(logprob_TV[len(prompt) - 1 + t, token]) for t, token in enumerate(said)))
    assert close(row["kl"], sums[0] - sums[1], 1e-3)
    assert row["length"] == len(said)


def test_gold_rose_and_the_area_is_that_of_the_points(drawn):
    start = value(drawn, "gold reward", "reference")
    assert value(drawn, "gold reward", "quick step 18") > start + 1
    points = [point for point in drawn.figures["points"] if point["run"] != "reference"]
    area = result(drawn, "area", "sft")
    expected = frontier([p["kl"] for p in points], [p["reward"] for p in points], start, area.detail["kl_max"])
    assert close(area.value, expected.area)
    assert area.ci[0] <= area.value <= area.ci[1]
    assert value(drawn, "win rate against the reference", "quick step 18") > 0.5


def test_a_second_call_measures_nothing_and_ends_in_the_same_rows(world, drawn, monkeypatch):
    path = world[0] / "out/eval/frontier.jsonl"
    before = path.read_bytes()
    monkeypatch.setattr("accord.models.load.load_policy", lambda *_, **__: pytest.fail("a model was loaded"))
    config = config_of(world, FrontierConfig, gold=COUNT, proxy=LENGTH)
    again = evaluated("frontier", run_frontier, config, world[0] / "out")
    assert path.read_bytes() == before
    assert value(again, "KL", "quick step 18") == value(drawn, "KL", "quick step 18")


def test_hacking_uses_the_responses_again_and_sees_length(world, drawn, monkeypatch):
    monkeypatch.setattr("accord.models.load.load_policy", lambda *_, **__: pytest.fail("a model was loaded"))
    config = config_of(world, HackingConfig, proxy=LENGTH, gold=COUNT)
    outcome = evaluated("hacking", run_hacking, config, world[0] / "out")
    correlation = value(outcome, "reward with length", "quick step 12")  # characters against tokens
    assert np.isnan(correlation) or correlation > 0.5
    assert value(outcome, "cut by the limit", "reference") > 0.9
    assert len(outcome.figures["suspects"]) == 20
    gaps = [row["gap"] for row in outcome.figures["suspects"]]
    assert gaps == sorted(gaps, reverse=True)


def test_reward_goes_with_form_where_form_is_what_it_counts(world, monkeypatch):
    """A reward that counts bold words, on responses that have some."""
    monkeypatch.setattr("accord.pipelines.eval_hacking.marks", lambda text: {name: text.count("a") for name in MARKS})
    config = config_of(world, HackingConfig, proxy=COUNT)
    outcome = evaluated("hacking", run_hacking, config, world[0] / "form")
    found = result(outcome, "reward with bold", "quick step 6")
    assert close(found.value, 1)
    assert found.ci is not None


def test_a_share_of_a_gain_that_may_be_nothing_warns_of_nothing(world):
    """Two draws of one distribution, and two that lie apart."""
    config = config_of(world, HackingConfig, proxy=COUNT)
    assert np.isnan(_gain_rows(_read(seed=1), _read(seed=0), config, Outcome()))
    assert close(_gain_rows(_read(seed=1, shift=3.0), _read(seed=0), config, Outcome()), 1)


def _read(seed, shift=0.0):
    rng = np.random.default_rng(seed)
    return Read(
        label="x step 1", texts=[""] * 40, prompt_N=np.repeat(np.arange(10), 4), length_N=np.full(40, 5.0),
        cut_N=np.zeros(40), proxy_N=rng.normal(size=40) + shift, gold_N=None, spread_N=None,
    )  # fmt: skip


def test_phrases_that_are_no_file_are_told_before_anything_is_sampled(world, monkeypatch):
    monkeypatch.setattr("accord.pipelines.eval_hacking.sample_all", lambda *_: pytest.fail("sampled first"))
    config = config_of(world, HackingConfig, proxy=COUNT, phrases=world[0] / "nothing.yaml")
    with pytest.raises(OSError, match=r"nothing\.yaml"):
        evaluated("hacking", run_hacking, config, world[0] / "none")


def test_repetition_and_phrases_are_counted(world, monkeypatch):
    config = config_of(world, HackingConfig, proxy=COUNT, name="phrases", phrases=write_phrases(world[0]))
    outcome = evaluated("hacking", run_hacking, config, world[0] / "out")
    assert value(outcome, "letters", "quick step 18") > 0.5  # "aa" is what it learned to say
    assert value(outcome, "letters", "reference") < 0.5
    assert not any(one.name == "refusals" for one in outcome.results)


def write_phrases(folder):
    path = folder / "phrases.yaml"
    path.write_text("letters: [AA]\n", encoding="utf8")
    return path


def test_a_frontier_needs_a_reward_and_finished_runs_of_one_start(world, tmp_path):
    with pytest.raises(ValueError, match="needs a reward"):
        config_of(world, FrontierConfig)
    (tmp_path / "half").mkdir()
    with pytest.raises(SettingsError, match="expected a finished run"):
        checkpoints_of([tmp_path / "half"])
    for folder, complaint in ((tmp_path / "half", "expected a finished run"), (tmp_path / "none", "no such folder")):
        config = FrontierConfig(runs=(folder,), data=(world[2],), gold=COUNT)
        with pytest.raises(SettingsError, match=complaint):
            evaluated("frontier", run_frontier, config, tmp_path / "out")
    with pytest.raises(SettingsError, match="two runs are called quick"):
        checkpoints_of([world[0] / "quick", world[0] / "quick"])


def test_a_gold_reward_that_never_answers_is_unscored_and_no_error(world, recwarn):
    """A scorer whose server is away: the run ends with exit code 3, nothing is zero, and the proxy stays."""
    broken = "pipelines.rewards_of_tests:broken"
    config = config_of(world, FrontierConfig, gold=broken, proxy=LENGTH)
    lost = evaluated("frontier", run_frontier, config, world[0] / "lost")
    assert [one.result.value for one in lost.results if one.name == "area" and close(one.result.value, 0)] == []
    gold = result(lost, "gold reward", "quick step 18")
    assert (np.isnan(gold.value), gold.n, gold.n_unscored) == (True, 0, 8)
    assert value(lost, "proxy reward", "quick step 18") > 0
    assert "KL at the peak of gold" not in {one.name for one in lost.results}
    assert lost.exit_code == 3
    signs = config_of(world, HackingConfig, gold=broken, proxy=broken)
    assert evaluated("hacking", run_hacking, signs, world[0] / "lost").exit_code == 3
    assert not [one for one in recwarn if issubclass(one.category, RuntimeWarning)]


def test_where_a_method_has_not_moved_it_says_why_there_is_no_area(world, tiny_folder):
    root, data, prompts = world
    sft.run(
        settings_of(tiny_folder, data, root / "still", max_steps=1, weight_decay=0.0).model_copy(
            update={"learning_rate": 1e-12}
        ),
        Quiet(),
    )
    config = FrontierConfig(runs=(root / "still",), data=(prompts,), max_new_tokens=6, replicates=0, gold=COUNT)
    found = evaluated("frontier", run_frontier, config, root / "stayed")
    assert np.isnan(value(found, "area", "sft"))
    assert "sft is not measurably away from the reference" in " ".join(found.notes)


def test_runs_that_differ_in_their_seed_have_an_interval_over_seeds(world, tiny_folder):
    """Two values 1 apart: t(.975, 1 degree of freedom) is 12.706, the deviation sqrt(1/2)."""
    from accord.pipelines.eval_frontier import _over_seeds

    root, data, _ = world
    for seed in (0, 1):
        sft.run(settings_of(tiny_folder, data, root / f"seed-{seed}", max_steps=1, seed=seed), Quiet())
    families = {one.family for one in checkpoints_of([root / "seed-0", root / "seed-1"])}
    assert len(families) == 1
    assert families.isdisjoint({one.family for one in checkpoints_of([root / "slow"])})
    found = _over_seeds([2.0, 3.0], 0.95)
    assert close(found.value, 2.5)
    assert close(found.ci[1] - 2.5, 12.7062 * 0.5, 1e-3)
