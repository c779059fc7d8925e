"""`accord eval reward` on rewards whose answers are known."""

import math

import pytest

from accord.cli.app import main
from accord.data.files import DataError
from accord.pipelines.eval_reward import RewardEvalConfig, run
from accord.pipelines.settings import SettingsError
from accord.train.configs import RewardConfig
from pipelines.evaluating import close, evaluated, result, value, write_rows

COUNT = "pipelines.rewards_of_tests:count_a"


def pair(prompt, chosen, rejected, **about):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **about}


def evaluate(tmp_path, rows, reward=COUNT, name="pairs.jsonl", **settings):
    data = write_rows(tmp_path / name, rows)
    config = RewardEvalConfig(reward=reward, data=(data,), replicates=200, **settings)
    return evaluated("reward", run, config, tmp_path / "out")


def test_accuracy_and_its_baselines_by_hand(tmp_path):
    outcome = evaluate(
        tmp_path,
        [
            pair("1", "aaa", "b", meta={"position": [0]}),  # right; the longer is the better; shown first
            pair("2", "a", "bbbb", meta={"position": [1]}),  # right; the shorter; shown second
            pair("3", "bbb", "a", meta={"position": [0]}),  # wrong; the longer
            pair("4", "b", "c", meta={"position": [0]}),  # a tie of scores and of lengths
        ],
    )
    assert close(value(outcome, "accuracy"), (1 + 1 + 0 + 0.5) / 4)
    assert close(value(outcome, "the longer wins"), (1 + 0 + 1 + 0.5) / 4)
    assert close(value(outcome, "accuracy less the longer wins"), (0 + 1 - 1 + 0) / 4)
    assert close(value(outcome, "the first shown wins"), 3 / 4)
    assert any("holds 1/2" in note for note in outcome.notes)


def test_a_ranking_is_all_its_pairs_and_a_failed_response_loses(tmp_path):
    rows = [{"prompt": "q", "responses": ["a", "aaa", "aa", "aaaa"], "ranks": [2, 1, 2, None]}] * 10
    outcome = evaluate(tmp_path, rows)
    # 1 > 0, 1 > 2 right; 0, 1, 2 > 3 wrong; 0 and 2 tie: no pair
    assert result(outcome, "accuracy").n == 50
    assert close(value(outcome, "accuracy"), 2 / 5)
    assert close(value(outcome, "accuracy", "places apart 1"), 1.0)


def test_soft_labels_turn_the_pair_round_and_calibrate(tmp_path):
    outcome = evaluate(tmp_path, [pair("1", "a", "aaa", probability=0.2), pair("2", "a", "b", probability=0.5)])
    assert result(outcome, "accuracy").n == 1  # 1/2 is no verdict
    assert value(outcome, "accuracy") == 1
    said = 1 / (1 + math.exp(-2))
    assert close(value(outcome, "brier", "calibration"), (said - 0.8) ** 2)


def test_calibration_and_length_have_intervals_over_prompts(tmp_path):
    rows = [
        pair(str(i % 20), "a" * (1 + i % 4), "b" * (1 + i % 3), probability=(0.9, 0.3)[i % 5 == 0]) for i in range(80)
    ]
    outcome = evaluate(tmp_path, rows)
    parts = {"calibration": ("ece", "mce", "brier", "log loss"), "score and length": ("pearson", "spearman", "slope")}
    for of, names in parts.items():
        for name in names:
            found = result(outcome, name, of)
            assert found.method == "bootstrap"
            assert found.ci[0] < found.ci[1], name
    within = result(outcome, "within prompt", "score and length")
    assert within.ci[0] <= within.value <= within.ci[1]


def test_parts_have_rows_of_their_own(tmp_path):
    meta = [{"group": f"g{i % 2}", "annotators": ["p1"]} for i in range(40)]
    rows = [pair(str(i), "a" if i % 2 else "c", "b", meta=about) for i, about in enumerate(meta)]
    outcome = evaluate(tmp_path, rows, name="pairs.held_out_prompts.jsonl")
    assert value(outcome, "accuracy", "group g1") == 1
    assert value(outcome, "accuracy", "group g0") == 0.5
    assert value(outcome, "accuracy", "annotator p1") == 0.75
    assert not any(one.of == "split held_out_prompts" for one in outcome.results)  # the only one: it is the whole


def test_groups_of_a_field_that_no_row_has_are_refused(tmp_path):
    rows = [pair(str(i), "a", "b", meta={"film": f"f{i % 2}"}) for i in range(40)]
    assert value(evaluate(tmp_path, rows, group_by="film"), "accuracy", "group f1") == 1
    with pytest.raises(SettingsError, match="--group-by flim: no row has"):
        evaluate(tmp_path, rows, group_by="flim")


def test_what_a_function_cannot_read_is_unscored_never_zero(tmp_path):
    rows = [pair(str(i), "aa?" if i % 10 == 0 else "aa", "b") for i in range(50)]
    found = result(evaluate(tmp_path, rows, reward="pipelines.rewards_of_tests:unreadable"), "accuracy")
    assert (found.value, found.n, found.n_unscored) == (1.0, 45, 5)


def test_a_scorer_that_always_fails_ends_with_code_3(tmp_path, monkeypatch):
    data = write_rows(tmp_path / "p.jsonl", [pair(str(i), "a", "b") for i in range(4)])
    words = ["eval", "reward", "pipelines.rewards_of_tests:broken", "--data", str(data), "--out", str(tmp_path / "o")]
    assert main(words) == 3


def test_best_of_n_chooses_by_score_and_counts_gold(tmp_path):
    said = [{"id": f"r{k}", "text": "a" * k + "b" * (3 - k) * 2} for k in range(4)]
    responses = [{"id": f"s{i}", "prompt": f"q{i}", "responses": said} for i in range(3)]
    outcome = evaluate(
        tmp_path,
        [pair("1", "a", "b")],
        responses=(write_rows(tmp_path / "responses.jsonl", responses),),
        gold="pipelines.rewards_of_tests:length",
    )
    assert close(value(outcome, "score", "best of 1"), 1.5)
    assert close(value(outcome, "score", "best of 4"), 3)
    assert close(value(outcome, "gold", "best of 1"), (6 + 5 + 4 + 3) / 4)
    assert close(value(outcome, "gold", "best of 4"), 3)  # what the score likes best is the shortest


def test_a_bad_row_is_named(tmp_path):
    with pytest.raises(DataError, match=r"pairs.jsonl, row 2: .*--skip-bad-rows"):
        evaluate(tmp_path, [pair("1", "a", "b"), {"prompt": "2", "chosen": "a"}])
    outcome = evaluate(tmp_path, [pair("1", "a", "b"), {"prompt": "2", "chosen": "a"}], skip_bad_rows=True)
    assert "1 bad rows left out." in outcome.notes


@pytest.fixture(scope="module")
def reward_runs(tiny_folder, tmp_path_factory):
    """Two small reward models that like the letter a."""
    from accord.train import reward
    from accord.train.progress import Quiet

    root = tmp_path_factory.mktemp("rewards")
    rows = [pair(f"{'xy'[i % 2]}{i % 7}", "a" * (1 + i % 3), "z" * (1 + (i + 1) % 3)) for i in range(32)]
    data = write_rows(root / "pairs.jsonl", rows)
    for seed in (0, 1):
        config = RewardConfig(
            model=str(tiny_folder), data=(data,), out=root / f"r{seed}", epochs=4, learning_rate=2e-3, precision="fp32",
            batch_size=8, seed=seed,
        )  # fmt: skip
        reward.run(config, Quiet())
    return data, root / "r0", root / "r1"


def test_a_reward_model_learned_and_no_batch_changes_its_scores(reward_runs, tmp_path):
    data, first, _ = reward_runs
    outcome = evaluated("reward", run, RewardEvalConfig(reward=str(first), data=(data,)), tmp_path)
    assert value(outcome, "accuracy") == 1
    assert value(outcome, "batch invariance") <= 1e-4
    assert outcome.models[0]["hash"]
    row = (tmp_path / "eval/reward.jsonl").read_text(encoding="utf8").splitlines()[0]
    assert '"lengths": [2, 3]' in row  # tokens, with the end token: one a, two z


def test_an_ensemble_disagrees_and_a_response_too_long_is_unscored(reward_runs, tmp_path):
    data, first, second = reward_runs
    config = RewardEvalConfig(reward=f"{first},{second}", data=(data,), replicates=0)
    outcome = evaluated("reward", run, config, tmp_path)
    assert value(outcome, "ensemble disagreement") > 0
    long = write_rows(tmp_path / "long.jsonl", [pair("1", "a" * 60, "b"), pair("2", "a", "b")])
    config = RewardEvalConfig(reward=str(first), data=(long,), max_length=64, name="long", replicates=0)
    found = result(evaluated("reward", run, config, tmp_path), "accuracy")
    assert (found.n, found.n_unscored) == (1, 1)
