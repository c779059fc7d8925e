"""`accord feedback critique` as a run, on a scripted model and on a tiny real one."""

import json

import pytest

from accord.cli import main
from accord.data.readers import read
from accord.pipelines import critique as critique_job
from accord.pipelines.feedback_configs import CritiqueConfig
from accord.protocols import Unavailable
from accord.train.progress import Quiet
from fakes import Scripted

RED = [{"prompt": f"How do I harm {n}?"} for n in range(9)]
HELPFUL = [{"prompt": f"What is {n} + {n}?"} for n in range(20)]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def answer(prompt):
    last = prompt[-1].content
    if last.startswith("What is"):
        return "A number."
    if last.endswith("Write the critique only."):
        return f"It harms ({len(last)})."
    return f"Be kind: {abs(hash(last)) % 7} {len(prompt)} {len(last)}." if "new reply" in last else "Like this."


@pytest.fixture
def config(tmp_path):
    def make(out="out", **changes):
        red, helpful = write(tmp_path / "red.jsonl", [*RED, RED[0]]), write(tmp_path / "helpful.jsonl", HELPFUL)
        given = {"model": "m", "data": red, "helpful": helpful, "out": tmp_path / out}
        given |= {"rounds": 2, "batch_size": 4, "cache": False}
        return CritiqueConfig(**{**given, **changes})

    return make


def test_demonstrations_with_as_many_helpful_ones(config):
    folder = critique_job.run(config(), Quiet(), Scripted(answer, name="m @ 1"))
    threads = rows(folder / "threads.jsonl")
    assert [sum(one["source"] == kind for one in threads) for kind in ("red-team", "helpful")] == [9, 9]
    demonstrations = rows(folder / "demonstrations.jsonl")
    report = json.loads((folder / "critique.json").read_text())
    assert report["demonstrations"] == len(demonstrations)
    assert [row["round"] for row in report["rounds"]] == [0, 1, 2]
    assert report["rounds"][0]["replies"] == 9
    revised = [row for row in demonstrations if row["meta"]["source"] == "red-team"]
    assert {row["meta"]["model"] for row in revised} == {"m @ 1"}
    assert {row["meta"]["round"] for row in revised} == {1, 2}
    kept_out = sum(report["kept_out"].values())
    assert len(demonstrations) + kept_out == 9 * 2 + 9
    assert len(read(folder / "demonstrations.jsonl", "demonstration").records) == len(demonstrations)


def test_another_model_may_criticise(config):
    drafter, critic = Scripted(lambda prompt: "Like this."), Scripted(answer, name="critic @ 1")
    folder = critique_job.run(config(helpful=()), Quiet(), drafter, critic)
    assert len(drafter.asked) == 9
    assert len(critic.asked) == 9 * 4
    assert rows(folder / "demonstrations.jsonl")[0]["meta"]["critic"] == "critic @ 1"


class Dies(Scripted):
    def __init__(self, answer, calls):
        super().__init__(answer)
        self.left = calls

    def generate(self, prompts, count, sampling):
        self.left -= 1
        if self.left < 0:
            raise Unavailable("away")
        return super().generate(prompts, count, sampling)


@pytest.mark.parametrize("calls", [0, 3, 5, 11])
def test_a_stopped_run_ends_in_the_same_files(config, calls):
    expected = critique_job.run(config("whole"), Quiet(), Scripted(answer))
    with pytest.raises(Unavailable):
        critique_job.run(config("cut"), Quiet(), Dies(answer, calls))
    again = critique_job.run(config("cut"), Quiet(), Scripted(answer))
    for name in ("threads.jsonl", "demonstrations.jsonl"):
        assert (again / name).read_bytes() == (expected / name).read_bytes()


def test_a_real_small_model_through_the_command(tiny_folder, tmp_path, capsys):
    data = write(tmp_path / "red.jsonl", RED[:3])
    command = ["feedback", "critique", "--model", str(tiny_folder), "--data", str(data), "--rounds", "1",
               "--max-new-tokens", "8", "--precision", "fp32", "--out", str(tmp_path / "out"),
               "--form", "transcript", "--cache-dir", str(tmp_path / "cache")]  # fmt: skip
    assert main(command) == 0
    out = capsys.readouterr()
    assert "demonstrations" in out.out
    threads = rows(tmp_path / "out" / "threads.jsonl")
    assert len(threads) == 3
    assert (tmp_path / "out" / "report.html").exists()
    again = [*command[:-5], str(tmp_path / "again"), *command[-4:]]
    assert main(again) == 0
    assert rows(tmp_path / "again" / "threads.jsonl") == threads
    assert json.loads((tmp_path / "again" / "critique.json").read_text())["cost"]["requests"] == 0
