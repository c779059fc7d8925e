"""The job on a scripted model: what is asked, what is kept, and that a kill changes nothing."""

import json
import random
from pathlib import Path

import pytest

from accord.data import read
from accord.data.files import DataError
from accord.data.self_instruct import SelfInstructConfig, read_seeds, self_instruct
from accord.protocols import Reply, Unavailable
from fakes import Scripted

WORDS = (
    *("river", "stone", "bread", "cloud", "piano", "window", "garden", "letter"),
    *("winter", "market", "bridge", "candle", "orange", "teacher", "engine", "copper"),
)


@pytest.fixture
def seeds(tmp_path):
    path = tmp_path / "seeds.jsonl"
    rows = [
        {
            "id": f"seed_{n}",
            "instruction": f"Tell {WORDS[n]} from {WORDS[-1 - n]} in detail",
            "instances": [{"input": "", "output": "yes"}],
            "is_classification": n % 4 == 0,
        }
        for n in range(12)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def writer(prompt, texts=None):
    """A model that says the same to the same prompt: five instructions, or two instances."""
    draw = random.Random(prompt)
    if texts:
        return [-1.0, -2.0] if draw.random() < 0.5 else [-2.0, -1.0]
    if prompt.startswith("Come up with a series"):
        first = int(prompt.rsplit("\n", 1)[1].rstrip("."))
        lines = [" ".join(["compare", *draw.sample(WORDS, 6)]) for _ in range(4)]
        lines.append("Draw a picture of it all")
        return " " + "\n".join(f"{first + n}. {line}" if n else line for n, line in enumerate(lines))
    if prompt.startswith("Given the classification"):
        return "Class label: yes\nText: a\nClass label: no\nText: b"
    return "Example 1\nText: a\nOutput: b.\nExample 2\nText: x\nOutput: Text: x"


def config(seeds, out, **changes):
    return SelfInstructConfig(**{"model": "m", "seeds": seeds, "target": 30, "out": out, "batch": 2, **changes})


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_four_steps(seeds, tmp_path):
    model = Scripted(writer)
    report = self_instruct(model, config(seeds, tmp_path / "o"))
    accepted = rows_of(tmp_path / "o/instructions.jsonl")
    assert len(accepted) == report["instructions"]["accepted"] == 30
    assert all(row["instruction"].startswith("Compare ") for row in accepted)
    assert report["instructions"]["rejected"]["blocked word"] >= 7
    assert 0 < report["filter_ms_by_pool_size"]["up to 1,000"] < 100
    classes = {row["id"]: row["is_classification"] for row in rows_of(tmp_path / "o/classified.jsonl")}
    assert 5 < sum(classes.values()) < 25
    instances = rows_of(tmp_path / "o/instances.jsonl")
    assert len(instances) == 30 + sum(classes.values())
    assert report["instances"]["rejected"] == {"input equals output": 30 - sum(classes.values())}
    demonstrations = rows_of(tmp_path / "o/demonstrations.jsonl")
    assert len(read(tmp_path / "o/demonstrations.jsonl", "demonstration").records) == len(instances)
    assert demonstrations[0]["meta"]["model"] == "scripted @ 1"
    assert len(demonstrations[0]["meta"]["seeds"]) == 8
    assert len(read(tmp_path / "o/review.jsonl", "response_set").records) == min(50, len(instances))


def test_two_of_eight_in_context_are_the_machines_own(seeds, tmp_path):
    self_instruct(Scripted(writer), config(seeds, tmp_path / "o"))
    own = [
        sum(name.startswith("machine") for name in row["context"]) for row in rows_of(tmp_path / "o/instructions.jsonl")
    ]
    assert own[0] == 0
    assert own[-1] == 2
    assert set(own) == {0, 2}


def test_how_the_model_is_asked(seeds, tmp_path):
    model = Scripted(writer)
    self_instruct(model, config(seeds, tmp_path / "o", target=4))
    writing, answering = model.samplings[0], model.samplings[-1]
    assert (writing.temperature, writing.top_p, writing.stop[:2]) == (0.7, 0.5, ("\n\n", "\n16"))
    assert writing.presence_penalty == 2
    assert (answering.temperature, answering.max_new_tokens) == (0.0, 300)
    assert model.continuations[0] == (" Yes", " No")


def test_what_is_new_is_told_by_the_nearest(seeds, tmp_path):
    self_instruct(Scripted(writer), config(seeds, tmp_path / "o"))
    for row in rows_of(tmp_path / "o/instructions.jsonl"):
        assert 1 <= len(row["nearest"]) <= 10  # of those that share a word
        assert 0.7 >= row["nearest"][0]["f1"] >= row["nearest"][-1]["f1"]


class Leaves:
    """A model that goes away, or whose process is killed, at call n."""

    def __init__(self, calls, error):
        self.calls, self.error = calls, error

    def __call__(self, prompt, texts=None):
        self.calls -= 1
        if self.calls < 0:
            raise self.error
        return writer(prompt, texts)


@pytest.mark.parametrize("error", [Unavailable("away"), KeyboardInterrupt()])
def test_a_stopped_job_ends_in_the_same_files(seeds, tmp_path, error):
    self_instruct(Scripted(writer), config(seeds, tmp_path / "whole"))
    for calls in (3, 1, 9, 20, 30):
        with pytest.raises(type(error)):
            self_instruct(Scripted(Leaves(calls, error)), config(seeds, tmp_path / "cut"))
        for name in ("instructions", "rejected"):  # what a kill in the middle of a row leaves
            with (tmp_path / f"cut/{name}.jsonl").open("a") as file:
                file.write('{"half a')
    self_instruct(Scripted(writer), config(seeds, tmp_path / "cut"))
    for name in ("instructions", "classified", "instances", "rejected", "demonstrations", "review"):
        whole, cut = (tmp_path / run / f"{name}.jsonl" for run in ("whole", "cut"))
        assert cut.read_bytes() == whole.read_bytes(), name


def test_a_file_that_lost_rows_is_told(seeds, tmp_path):
    """Bytes that are missing are not made up."""
    self_instruct(Scripted(writer), config(seeds, tmp_path / "o", target=5))
    path = tmp_path / "o/instructions.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"instructions.jsonl: has \d+ bytes, and .*state.json counts"):
        self_instruct(Scripted(writer), config(seeds, tmp_path / "o", target=9))


def test_requests_that_bring_nothing_are_counted_with_the_reason(seeds, tmp_path):
    replies = ["", Reply(text="", finish="error", prompt_tokens=0, new_tokens=0, seconds=0, error="status 400: no")]
    report = self_instruct(Scripted(*replies), config(seeds, tmp_path / "o", max_requests=2))
    assert report["requests_without_reply"] == 2
    assert report["why_without_reply"] == {"no instruction in the reply": 1, "no reply: status 400: no": 1}


def test_a_classification_that_got_no_answer_is_counted(seeds, tmp_path):
    failed = Reply(text="", finish="error", prompt_tokens=0, new_tokens=0, seconds=0, error="too long")

    def model(prompt, texts=None):
        if texts:
            return [None, None]
        return failed if prompt.startswith("Can the following") else writer(prompt)

    self_instruct(Scripted(model), config(seeds, tmp_path / "o", target=4))
    assert {row["method"] for row in rows_of(tmp_path / "o/classified.jsonl")} == {"no answer"}
    assert [row["reason"] for row in rows_of(tmp_path / "o/rejected.jsonl")].count("no reply: too long") == 4


def test_a_finished_job_asks_nothing(seeds, tmp_path):
    self_instruct(Scripted(writer), config(seeds, tmp_path / "o"))
    model = Scripted(writer)
    self_instruct(model, config(seeds, tmp_path / "o"))
    assert model.asked == []
    more = self_instruct(model, config(seeds, tmp_path / "o", target=40))
    assert more["instructions"]["accepted"] == 40


def test_other_settings_are_refused(seeds, tmp_path):
    self_instruct(Scripted(writer), config(seeds, tmp_path / "o", target=2))
    with pytest.raises(DataError, match="holds a job with seed 0, now it is 1"):
        self_instruct(Scripted(writer), config(seeds, tmp_path / "o", target=2, seed=1))


def test_replies_that_fail_or_are_cut_lose_only_themselves(seeds, tmp_path):
    def model(prompt, texts=None):
        if texts:
            return [None, None]
        if prompt.startswith("Come up with a series"):
            if len(asked) % 2:
                asked.append(prompt)
                return Reply(text="", finish="error", prompt_tokens=0, new_tokens=0, seconds=0.0, error="refused")
            asked.append(prompt)
            text = " Explain river stone bread.\n10. Count cloud piano window.\n11. Sing garden let"
            return Reply(text=text, finish="length", prompt_tokens=1, new_tokens=9, seconds=0.0)
        return " Yes" if "Is it classification?" in prompt[-30:] else "Output: done."

    asked = []
    report = self_instruct(Scripted(model), config(seeds, tmp_path / "o", target=5, max_requests=4))
    assert report["instructions"]["accepted"] == 2
    assert report["requests"] == 4
    assert report["requests_without_reply"] == 2
    assert report["instructions"]["rejected"] == {
        "cut off by length (the last one only)": 2,
        "too close to a known one": 2,
    }
    assert {row["method"] for row in rows_of(tmp_path / "o/classified.jsonl")} == {"text"}
    assert report["classification"] == {"yes": 2, "no": 0}


def test_alpacas_style_has_no_further_steps(seeds, tmp_path):
    def model(prompt, texts=None):
        assert texts is None
        assert prompt.count("###") == 4
        draw = random.Random(prompt)
        lines = [" ".join(draw.sample(WORDS, 5)) for _ in range(3)]
        blocks = [
            f"{n}. Instruction: {line}\n{n}. Input:\n<noinput>\n{n}. Output:\nout {n}"
            for n, line in enumerate(lines, 4)
        ]
        return " " + "\n###\n".join(blocks).removeprefix("4. Instruction: ")

    fake = Scripted(model)
    report = self_instruct(fake, config(seeds, tmp_path / "o", target=6, style="alpaca"))
    assert report["instructions"]["accepted"] == report["instances"]["kept"] == 6
    assert fake.samplings[0].temperature == 1.0
    assert {row["response"] for row in rows_of(tmp_path / "o/demonstrations.jsonl")} == {"out 4", "out 5", "out 6"}


def test_a_chat_model_gets_messages(seeds, tmp_path):
    model = Scripted(lambda prompt, texts=None: [0.0, -1.0] if texts else writer(prompt[0].content.split("\n\n", 1)[1]))
    self_instruct(model, config(seeds, tmp_path / "o", target=2, form="chat"))
    assert model.asked[0][0].role == "user"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"instruction": " "}\n', "row 1: no `instruction`"),
        ('{"instruction": "a", "instances": ["x"]}\n', "`instances`: expected a list"),
        ('{"instruction": "a", "instances": []}\n', "1 seeds; expected at least 3"),
        ("x\n", "row 1: no JSON"),
    ],
)
def test_bad_seeds_are_told(tmp_path, text, message):
    path = tmp_path / "s.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_seeds(path)


@pytest.mark.slow
@pytest.mark.realmodel
def test_a_real_model(tmp_path):
    """SmolLM2 writes poorly, but it follows the form; two requests are enough to accept something."""
    from accord.pipelines.language_models import open_language_model

    seeds = Path(__file__).resolve().parents[3] / "recipes/data/seeds.jsonl"
    model = open_language_model("smollm2-135m")
    report = self_instruct(model, config(seeds, tmp_path / "o", target=3, max_requests=2))
    assert report["instructions"]["accepted"] >= 1
    assert report["requests"] <= 2
    assert "smollm2" in report["model"]
    assert len(rows_of(tmp_path / "o/classified.jsonl")) == report["instructions"]["accepted"]
    assert {row["method"] for row in rows_of(tmp_path / "o/classified.jsonl")} == {"score"}
