import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from accord.data import read
from accord.data.files import DataError
from accord.data.tasks import ConvertConfig, Task, convert, read_tasks
from accord.data.tasks.rows import examples_of

TASK = {
    "task": "sums",
    "cluster": "arithmetic",
    "source": {"path": "sums.jsonl", "split": {"test": 0.25}, "group": "a"},
    "templates": [
        {"id": "plus", "prompt": "{{ a }} plus {{ b }}?", "response": "{{ a + b }}"},
        {"id": "and", "prompt": "Add {{ a }} and {{ b }}.", "response": "{{ a + b }}"},
        {
            "id": "make",
            "inverted": True,
            "prompt": "Two numbers that make {{ a + b }}?",
            "response": "{{ a }}, {{ b }}",
        },
    ],
}


@pytest.fixture
def root(tmp_path):
    rows = [{"a": n % 20, "b": n} for n in range(200)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def sums(**changes):
    return Task.model_validate({**TASK, **changes})


def config(root, **changes):
    return ConvertConfig(**{"tasks": ("sums",), "root": root, "out": root / "out", **changes})


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_become_demonstrations_that_the_trainer_reads(root):
    [report] = convert([sums()], config(root))
    assert report.read == 200
    assert sum(report.written.values()) == 200
    assert set(report.templates) == {"plus", "and", "make"}
    assert read(root / "out/train/sums.jsonl", "demonstration").records[0].response
    row = rows_of(root / "out/train/sums.jsonl")[0]
    assert row["meta"] | {"template": ""} == {
        "task": "sums",
        "cluster": ["arithmetic"],
        "template": "",
        "split": "train",
        "source": "sums.jsonl:1",
    } | ({"inverted": True} if row["meta"].get("inverted") else {})


def test_a_group_falls_on_one_side(root):
    convert([sums()], config(root, templates_per_row=3))
    groups = {}
    for split in ("train", "test"):
        for row in rows_of(root / f"out/{split}/sums.jsonl"):
            number = int(row["meta"]["source"].split(":")[1]) - 1
            groups.setdefault(number % 20, set()).add(split)
    assert all(len(splits) == 1 for splits in groups.values())
    assert sum("test" in splits for splits in groups.values()) in range(2, 9)


def test_splits_by_expression_and_rows_of_none(root):
    source = {"path": "sums.jsonl", "split": {"test": "b < 50", "train": "b >= 100"}}
    [report] = convert([sums(source=source)], config(root))
    assert report.written == {"test": 50, "train": 100}
    assert report.unsplit == 50


def test_a_file_per_split_and_lists_in_rows(root):
    (root / "lists.jsonl").write_text('{"of": [{"a": 1, "b": 2}, {"a": 3, "b": 4}]}\n')
    fields = {"a": "item.a", "b": "item.b"}
    source = {"path": {"test": "lists.jsonl"}, "each": "of"}
    [report] = convert([sums(source=source, fields=fields, templates=TASK["templates"][:1])], config(root))
    assert report.written == {"test": 2}
    assert [row["response"] for row in rows_of(root / "out/test/sums.jsonl")] == ["3", "7"]


def test_held_out_clusters_and_those_that_leave_with_them(root):
    tasks = [
        sums(exclude_with=["near"]),
        sums(task="near", cluster=["near", "other"]),
        sums(task="far", cluster="far"),
    ]
    reports = convert(tasks, config(root, hold_out=("arithmetic",)))
    assert [report.role for report in reports] == ["held-out", "left out", "train"]
    assert sorted(str(path.relative_to(root / "out")) for path in (root / "out").rglob("*.jsonl")) == [
        "held-out/sums.jsonl",
        "test/far.jsonl",
        "train/far.jsonl",
    ]
    assert len(rows_of(root / "out/held-out/sums.jsonl")) == 200
    with pytest.raises(DataError, match='no task is of the cluster "nothing"'):
        convert(tasks, config(root, hold_out=("nothing",)))


def test_training_rows_of_before_cannot_stay_when_their_cluster_is_held_out(root):
    convert([sums()], config(root))
    with pytest.raises(DataError, match="holds training rows of sums"):
        convert([sums(task="other")], config(root, hold_out=("arithmetic",)))


def test_exemplars_are_training_rows_and_never_the_row_itself(root):
    convert([sums(templates=TASK["templates"][:1])], config(root, shots=("0:0.5", "2:0.5")))
    test_keys = {row["meta"]["source"] for row in rows_of(root / "out/test/sums.jsonl")}
    held = {f"{(int(key.split(':')[1]) - 1) % 20} plus" for key in test_keys}
    shots = Counter()
    for row in rows_of(root / "out/train/sums.jsonl"):
        shots[row["meta"].get("shots", 0)] += 1
        blocks = row["prompt"].split("\n\n")
        for block in blocks[:-1]:
            assert not block.startswith(blocks[-1])
            assert " ".join(block.split()[:2]) not in held
    assert shots[0] > 30
    assert shots[2] > 30
    assert set(shots) == {0, 2}


def test_the_result_depends_on_the_seed_alone(root):
    for out, changes in (("a", {}), ("b", {"workers": 2}), ("c", {"seed": 1})):
        tasks = [sums(), sums(task="more")]
        convert(tasks, config(root, out=root / out, shots=("1",), **changes))
    same = [(root / out / "train/sums.jsonl").read_bytes() for out in "abc"]
    assert same[0] == same[1] != same[2]


def test_a_finished_task_is_not_done_again_until_something_changes(root):
    out = root / "out/train/sums.jsonl"
    convert([sums()], config(root))
    before = out.stat().st_mtime_ns
    [again] = convert([sums()], config(root))
    assert out.stat().st_mtime_ns == before
    assert again.seconds == 0
    (root / "sums.jsonl").write_text('{"a": 1, "b": 2}\n')
    convert([sums(source={"path": "sums.jsonl"})], config(root))
    assert len(rows_of(out)) == 1
    assert not (root / "out/test/sums.jsonl").exists()


BAD = [
    ("not json", "no JSON"),
    ('{"a": 1}', "'b' is undefined"),
    ("[1]", "found list"),
]


@pytest.mark.parametrize(("line", "message"), BAD)
def test_a_bad_row_is_named_and_nothing_half_is_left(root, line, message):
    with (root / "sums.jsonl").open("a") as file:
        file.write(line + "\n")
    plain = sums(source={"path": "sums.jsonl"})
    with pytest.raises(DataError, match=f"sums.jsonl, row 201: .*{message}"):
        convert([plain], config(root))
    assert list((root / "out").rglob("*.jsonl")) == []
    [report] = convert([plain], config(root, skip_bad_rows=True))
    assert (report.bad, sum(report.written.values())) == (1, 200)
    [aside] = rows_of(root / "out/bad-rows/sums.jsonl")
    assert aside["place"].endswith("row 201")


def test_shots_are_checked():
    with pytest.raises(ValueError, match='shots "two"'):
        ConvertConfig(tasks=("a",), out="o", shots=("two",))
    with pytest.raises(ValueError, match="from 0 to 5"):
        ConvertConfig(tasks=("a",), out="o", shots=("6",))
    assert ConvertConfig(tasks=("a",), out="o", shots=("0", "2")).shot_shares == {0: 0.5, 2: 0.5}


PROGRAM = """
import sys
from pathlib import Path
from accord.data.tasks import ConvertConfig, Task, convert
root = Path(sys.argv[1])
task = Task.model_validate_json((root / "task.json").read_text())
others = [task.model_copy(update={"task": f"t{n}"}) for n in range(6)]
convert(others, ConvertConfig(tasks=("x",), root=root, out=root / sys.argv[2]))
"""


def start(root, out):
    (root / "task.json").write_text(sums().model_dump_json())
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(root), out])


def test_a_killed_conversion_goes_on_to_the_same_files(root):
    with (root / "sums.jsonl").open("a") as file:
        file.writelines(f'{{"a": {n % 20}, "b": {n}}}\n' for n in range(400))
    tasks = [sums(task=f"t{n}") for n in range(6)]
    convert(tasks, config(root, tasks=("x",), out=root / "whole"))
    killed = start(root, "cut")
    deadline = time.monotonic() + 60
    while not (root / "cut/manifest.json").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    done = len(list((root / "cut/train").glob("[!.]*.jsonl")))
    assert 1 <= done < 6
    convert(tasks, config(root, tasks=("x",), out=root / "cut"))
    for path in sorted((root / "whole").rglob("*.jsonl")):
        assert (root / "cut" / path.relative_to(root / "whole")).read_bytes() == path.read_bytes()


def test_memory_does_not_grow_with_the_data(root):
    peaks = []
    for rows in (100, 1500):
        with (root / "sums.jsonl").open("w") as file:
            file.writelines(f'{{"a": {n % 20}, "b": {n}, "text": "{"x" * 5000}"}}\n' for n in range(rows))
        tracemalloc.start()
        convert([sums()], config(root, out=root / f"o{rows}"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (root / "sums.jsonl").stat().st_size > 7_000_000
    assert peaks[1] - peaks[0] < 300_000


SHARED = Path(__file__).resolve().parents[4] / "shared/data"


needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is not here")


@needs_shared
def test_every_template_of_the_package_fits_its_data():
    for task in read_tasks(["all"]):
        if ".gz" in str(task.source.path):
            continue  # collections of many tasks, read again for each: left to the slow test below
        wanted = {template.id for template in task.templates}
        whole = ConvertConfig(tasks=("all",), root=SHARED, out="none", templates_per_row=8)
        for number, (_, _, example) in enumerate(examples_of(task, whole, Counter())):
            wanted.discard(example.template.id)
            if not wanted and number > 40:
                break
        assert not wanted, task.task


@needs_shared
@pytest.mark.slow
def test_every_task_of_the_package_fits_every_row(tmp_path):
    tasks = read_tasks(["all"])
    reports = convert(tasks, ConvertConfig(tasks=("all",), root=SHARED, out=tmp_path, templates_per_row=8))
    assert sum(report.bad for report in reports) == 0
    for task, report in zip(tasks, reports, strict=True):
        assert set(report.templates) == {template.id for template in task.templates}, task.task


def test_the_package_covers_twenty_tasks_five_ways():
    tasks = read_tasks(["all"])
    assert len(tasks) >= 20
    for task in tasks:
        inverted = sum(template.inverted for template in task.templates)
        assert len(task.templates) >= 5, task.task
        assert inverted <= 3, task.task
        assert len({template.prompt for template in task.templates}) == len(task.templates), task.task
        assert task.licence, task.task
    clusters = {cluster for task in tasks for cluster in task.cluster}
    assert clusters >= {"nli", "reading", "commonsense", "sentiment", "paraphrase", "closed-book", "structure-to-text"}
    assert clusters >= {"summarisation", "coreference", "word-sense", "topic", "rewriting", "reasoning"}
