"""Sampling and ranking: what is written, that a stopped run ends in the same files, and what becomes of the rows."""

import json
import random
import signal
import time

import pytest

import launch
from accord.cli import main
from accord.data import read
from accord.data.batches import demonstration_trees, preferences
from accord.data.formats import parse
from accord.evaluate.report import write_report
from accord.records import Message, Response, ResponseSet
from accord.text import Template
from accord.train import sample, sft
from accord.train.best_of_n import best_of_n
from accord.train.configs import SampleConfig, SftConfig
from accord.train.progress import Quiet
from accord.train.rewards import FunctionReward
from fakes import tiny_tokenizer
from train.data import WORDS, many_a, metrics, prompts, write

FILES = ("responses.jsonl", "scores.jsonl", "rankings.jsonl", "best.jsonl", "best_of_n.json")


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf8").split("\n")[:-1]]


def config(model, tmp_path, out="run", **settings):
    data = tmp_path / "prompts.jsonl"
    if not data.exists():
        prompts(data, 10)
    given = {"reward": "train.data:many_a", "samples": 4, "max_new_tokens": 6, "batch_size": 4, "precision": "fp32"}
    return SampleConfig(model=str(model), data=[data], out=tmp_path / out, **{**given, **settings})


@pytest.fixture(scope="module")
def talker(tiny_folder, tmp_path_factory):
    """Says "a", "aa" or "z", a third of the time each: duplicates and ties come by themselves."""
    folder = tmp_path_factory.mktemp("talker")
    data = write(
        folder / "d.jsonl", [{"prompt": WORDS[i % 8], "response": ("ab", "aa", "zz")[i % 3]} for i in range(48)]
    )
    settings = {"precision": "fp32", "learning_rate": 3e-3, "max_length": 128, "batch_size": 16, "epochs": 20}
    return sft.run(SftConfig(model=str(tiny_folder), data=[data], out=folder / "sft", **settings), Quiet())


def test_files_say_what_was_sampled_and_what_it_scored(talker, tmp_path):
    folder = sample.run(config(talker, tmp_path), Quiet())
    sets = read(folder / "responses.jsonl", "response_set").records
    assert [one.id for one in sets] == [f"prompt-{row}" for row in range(1, 11)]
    assert [one.prompt[0].content for one in sets] == [WORDS[i % 8] for i in range(10)]
    first = sets[0].responses[0]
    assert first.model.startswith(str(talker))
    assert len(sets[0].responses) == 4
    assert first.sampling == {"temperature": 1.0, "max_new_tokens": 6, "seed": 0, "finish": "stop"}
    scores = rows(folder / "scores.jsonl")
    for one, judged in zip(sets, scores, strict=True):
        said = [(Message(role="assistant", content=response.text),) for response in one.responses]
        assert judged["id"] == one.id
        assert judged["scores"] == pytest.approx(many_a(said))
    table = json.loads((folder / "best_of_n.json").read_text())
    assert table["rows"] == [row._asdict() for row in best_of_n([judged["scores"] for judged in scores])]
    assert (table["prompts"], table["samples"], table["seed"]) == (10, 4, 0)
    assert table["reward"].startswith("train.data:many_a (")  # with the hash of the file it is in
    assert [row["n"] for row in table["rows"]] == [1, 2, 4]
    means = [row["reward"] for row in table["rows"]]
    assert means[0] < means[1] < means[2]
    assert metrics(folder)[-1]["reward/best"] > metrics(folder)[-1]["reward/mean"]
    assert [row["step"] for row in metrics(folder)] == [4, 8, 10]
    assert not (folder / "checkpoints").exists()
    assert not (folder / "model").exists()


def test_rankings_and_best_responses_train_other_jobs(talker, tmp_path):
    folder = sample.run(config(talker, tmp_path, samples=8), Quiet())
    demonstrations = read(folder / "best.jsonl", "demonstration").records
    rankings = read(folder / "rankings.jsonl", "preference").records
    assert len(demonstrations) == 10
    assert sum("a" in one.response for one in demonstrations) >= 9
    assert all("z" not in one.response for one in demonstrations)
    for one in rankings:
        assert len(set(one.responses)) == len(one.responses)
        share = [text.count("a") / len(text) for text in one.responses]
        assert [1 + sum(other > mine for other in set(share)) for mine in share] == list(one.ranks)


def judged(*said, prompt="q", finished_only=False):
    """Of (text, score, finished) the ranking and the best."""
    responses = tuple(
        Response(id=f"r{i}", text=text, sampling={"finish": "stop" if done else "length"})
        for i, (text, _, done) in enumerate(said)
    )
    sets = ResponseSet(id="p", prompt=prompt, responses=responses)
    return sample.ranked(sets, [score for _, score, _ in said], finished_only)


def test_equal_scores_tie_and_the_first_of_them_is_shown():
    ranking, best = judged(("x", 1.0, True), ("y", 3.0, True), ("z", 3.0, True), ("w", -2.0, True))
    assert (ranking["responses"], ranking["ranks"]) == (["x", "y", "z", "w"], [2, 1, 1, 3])
    assert best["response"] == "y"


def test_empty_and_repeated_texts_are_no_choice():
    """A text said twice counts once, with its better score; blank texts do not count, however they score."""
    ranking, best = judged(("x", 1.0, True), (" \n", 9.0, True), ("y", 2.0, True), ("x", 3.0, False), ("", 9.0, True))
    assert (ranking["responses"], ranking["ranks"]) == (["x", "y"], [1, 2])
    assert best["response"] == "x"
    assert judged(("x", 1.0, True), ("x", 2.0, True)) == (
        None, {"prompt": best["prompt"], "response": "x", "finished": True}
    )  # fmt: skip


def test_what_was_cut_off_is_marked_and_teaches_no_end():
    ranking, best = judged(("x", 2.0, False), ("y", 1.0, True), ("y", 0.5, False), ("x", 2.0, False))
    assert (ranking["responses"], ranking["finished"]) == (["x", "y"], [False, True])
    assert best["finished"] is False
    template = Template(tiny_tokenizer())
    trees, _ = demonstration_trees([parse(best, "demonstration")[0]], template, 200)
    assert trees[0].branches[0].tokens[-1] != template.end_id
    [item], _ = preferences([parse(ranking, "ranking")[0]], template, 200)
    assert [branch.tokens[-1] == template.end_id for branch in item.tree.branches] == [False, True]
    assert judged(("x", 2.0, False), ("x", 2.0, True))[1]["finished"] is True  # said twice with one score: it can end
    assert judged(("", 1.0, True), (" ", 2.0, True)) == (None, None)
    assert judged(("x", 3.0, True), ("y", 2.0, True), ("x", 1.0, False))[0]["ranks"] == [1, 2]


def test_responses_that_all_tie_are_no_ranking_but_one_is_the_best():
    ranking, best = judged(("x", 0.5, True), ("y", 0.5, True))
    assert ranking is None
    assert best["response"] == "x"


def test_only_what_ended_may_be_the_best_where_that_is_asked():
    said = (("x", 1.0, True), ("y", 3.0, False), ("z", 2.0, True), ("z", 5.0, False))
    assert judged(*said)[1]["response"] == "z"
    assert judged(*said, finished_only=True)[1]["response"] == "z"
    assert judged(*said[:2], finished_only=True)[1]["response"] == "x"
    assert judged(*said[:2])[1]["response"] == "y"
    assert judged(said[1], finished_only=True) == (None, None)
    assert judged(*said, finished_only=True)[0] == judged(*said)[0]  # all are ranked


def test_scores_are_written_beside_ranks_where_rankings_hold_them():
    from accord.records import Ranking

    ranking, _ = judged(("x", 1.0, True), ("y", 3.0, True))
    assert ranking.get("scores") == ([1.0, 3.0] if "scores" in Ranking.model_fields else None)


def test_prompts_without_a_best_response_are_counted(tiny_folder, tmp_path):
    """A random model never ends within two tokens."""

    class Notes(Quiet):
        said = ()

        def note(self, text):
            self.said = (*self.said, text)

    notes = Notes()
    folder = sample.run(config(tiny_folder, tmp_path, finished_only=True, max_new_tokens=2), notes)
    missing = 10 - len(rows(folder / "best.jsonl"))
    assert missing > 0
    assert f"{missing} prompts have no response with text that ended within --max-new-tokens" in " ".join(notes.said)


def test_without_a_reward_there_are_responses_alone(talker, tmp_path):
    folder = sample.run(config(talker, tmp_path, reward=()), Quiet())
    assert [name for name in FILES if (folder / name).exists()] == ["responses.jsonl"]
    assert "reward/mean" not in metrics(folder)[0]
    with_reward = sample.run(config(talker, tmp_path, "with"), Quiet())
    assert (with_reward / "responses.jsonl").read_bytes() == (folder / "responses.jsonl").read_bytes()


def test_seed_and_temperature_decide_what_is_said(talker, tmp_path):
    def texts(out, **settings):
        folder = sample.run(config(talker, tmp_path, out, reward=(), **settings), Quiet())
        return [[one["text"] for one in row["responses"]] for row in rows(folder / "responses.jsonl")]

    assert texts("again") == texts("once")
    assert texts("seed", seed=1) != texts("once")
    greedy = texts("greedy", temperature=0, samples=1)
    assert greedy == texts("greedy-seed", temperature=0, samples=1, seed=1)


def test_batches_do_not_repeat_each_others_random_numbers(talker, tmp_path):
    """The same prompt twice, in two batches: what is said differs."""
    write(tmp_path / "prompts.jsonl", [{"prompt": "ab"}] * 2)
    folder = sample.run(config(talker, tmp_path, batch_size=1, samples=16), Quiet())
    said = [[one["text"] for one in row["responses"]] for row in rows(folder / "responses.jsonl")]
    assert said[0] != said[1]


# -- stopped and continued ---------------------------------------------------------------------------------------------


def contents(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.mark.parametrize("where", ["sampler", "append", "scores", "save", "results"])
def test_a_run_stopped_anywhere_ends_in_the_same_files(where, talker, tmp_path, monkeypatch):
    whole = contents(sample.run(config(talker, tmp_path, "whole"), Quiet()))
    calls = []

    def stops(real, at):
        def call(*args, **more):
            calls.append(args)
            if len(calls) == at:
                raise KeyboardInterrupt
            return real(*args, **more)

        return call

    if where == "sampler":
        monkeypatch.setattr(sample.NativeSampler, "sample", stops(sample.NativeSampler.sample, 2))
    elif where == "append":
        monkeypatch.setattr(sample, "append", stops(sample.append, 3))
    elif where == "scores":
        monkeypatch.setattr(sample, "append", stops(sample.append, 4))
    elif where == "save":
        monkeypatch.setattr(sample.Run, "save", stops(sample.Run.save, 2))
    else:
        monkeypatch.setattr(sample, "write_text", stops(sample.write_text, 4))
    with pytest.raises(KeyboardInterrupt):
        sample.run(config(talker, tmp_path, "cut"), Quiet())
    monkeypatch.undo()
    for name in FILES[:2]:
        with (tmp_path / "cut" / name).open("ab") as file:
            file.write(b'{"id": "half a row \xc3')
    folder = sample.run(config(talker, tmp_path, "cut"), Quiet())
    assert contents(folder) == whole
    assert [row["step"] for row in metrics(folder)] == [4, 8, 10]
    assert len((folder / "samples.jsonl").read_text().splitlines()) == 3
    before = (folder / "best.jsonl").stat().st_mtime_ns
    assert contents(sample.run(config(talker, tmp_path, "cut"), Quiet())) == whole
    assert (folder / "best.jsonl").stat().st_mtime_ns == before  # a finished run is left alone


def test_other_settings_do_not_continue_a_run(talker, tmp_path, monkeypatch):
    monkeypatch.setattr(sample, "write_results", None)
    with pytest.raises(TypeError):
        sample.run(config(talker, tmp_path), Quiet())
    monkeypatch.undo()
    with pytest.raises(ValueError, match="holds a run with seed = 0, asked for is 3"):
        sample.run(config(talker, tmp_path, seed=3), Quiet())
    with pytest.raises(
        ValueError, match=r"reward was 'train.data:many_a \([0-9a-f]{12}\)' when the run began and is 'other' now"
    ):
        sample.run(config(talker, tmp_path), Quiet(), FunctionReward("other", many_a))
    (tmp_path / "run" / "scores.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"scores.jsonl has 0 rows, and the checkpoint beside it counts 10; put the"):
        sample.run(config(talker, tmp_path), Quiet())


@pytest.mark.slow
def test_a_killed_run_ends_in_the_same_files(talker, tmp_path):
    """SIGKILL at random moments of the real command, and the command again."""
    prompts(tmp_path / "prompts.jsonl", 96)

    def command(out):
        words = f"sample --model {talker} --data {tmp_path}/prompts.jsonl --out {tmp_path}/{out} --precision fp32"
        words += " --reward train.data:many_a --samples 8 --max-new-tokens 24 --batch-size 4"
        return words.split()

    def finish(out):
        done = launch.run(command(out))
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    assert "best of n, 96 prompts, 8 responses each" in finish("whole")
    moment, kills = random.Random(0), 0
    log = tmp_path / "cut" / "responses.jsonl"
    for _ in range(3):
        size = log.stat().st_size if log.exists() else 0
        process = launch.start(command("cut"))
        while process.poll() is None:
            if log.exists() and log.stat().st_size > size:
                time.sleep(moment.uniform(0, 0.2))
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        kills += process.wait() == -signal.SIGKILL
    assert kills >= 1
    finish("cut")
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


# -- around it ---------------------------------------------------------------------------------------------------------


def test_the_command_prints_the_table_and_what_to_do(talker, tmp_path, capsys):
    prompts(tmp_path / "prompts.jsonl", 6)
    words = [
        "sample",
        "--model",
        str(talker),
        "--data",
        str(tmp_path / "prompts.jsonl"),
        "--out",
        str(tmp_path / "run"),
    ]
    words += ["--reward", "train.data:many_a", "--max-new-tokens", "6", "--precision", "fp32", "--samples", "4"]
    for _ in range(2):  # and again when it is finished
        assert main(words) == 0
        printed = " ".join(capsys.readouterr().out.split())
        table = json.loads((tmp_path / "run" / "best_of_n.json").read_text())["rows"]
        assert "accord sample" in printed
        for row in table:
            assert (
                f"{row['n']} {row['reward']:.3f} {row['lo']:.3f} to {row['hi']:.3f} {row['kl_bound']:.2f} nats"
                in printed
            )
        assert f"accord train sft --data {tmp_path}/run/best.jsonl ..." in printed


def test_a_report_says_what_the_best_of_n_would_earn(talker, tmp_path):
    folder = sample.run(config(talker, tmp_path), Quiet())
    page = write_report(folder).read_text()
    assert "Best of 4: reward" in page
    assert "nats of KL to the model sampled from" in page
    assert "means of the first and the last tenth" not in page.split("Learning curves")[0]


def test_every_setting_is_read(talker, tmp_path):
    seen = set()

    class Spy(SampleConfig):
        def __getattribute__(self, name):
            if name in SampleConfig.model_fields:
                seen.add(name)
            return super().__getattribute__(name)

    settings = config(talker, tmp_path, reward=["train.data:many_a", "train.data:many_a"]).model_dump()
    spy = Spy(**settings)
    seen.clear()
    sample.run(spy, Quiet())
    assert SampleConfig.model_fields.keys() - seen == set()


def test_prompts_that_leave_no_room_are_said(tiny_folder, tmp_path):
    with pytest.raises(ValueError, match="no prompt of data leaves room for 600 new tokens within 512"):
        sample.run(config(tiny_folder, tmp_path, max_new_tokens=600), Quiet())
