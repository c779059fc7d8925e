import json
from collections import Counter
from pathlib import Path

import pytest

from accord.data.curation.mix import mix
from accord.data.curation.plan import MixConfig, MixSource, shares
from accord.data.files import DataError


def source(folder, name, count):
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{name} {n}?", "response": str(n)}) + "\n" for n in range(count)))
    return str(path)


def config(folder, *sources, **changes):
    return MixConfig(**{"sources": sources, "out": folder / "mix.jsonl", **changes})


def counts(sizes, weights=None, **changes):
    sources = {name: MixSource(name, name, (weights or {}).get(name, 1.0)) for name in sizes}
    return {
        share.name: share.drawn for share in shares(sizes, sources, MixConfig(sources=("x",), out="o.jsonl", **changes))
    }


def test_rates_by_hand():
    assert counts({"a": 100, "b": 300}) == {"a": 100, "b": 300}
    assert counts({"a": 100, "b": 30_000}) == {"a": 100, "b": 3000}  # the cap
    assert counts({"a": 100, "b": 400}, temperature=2, rows=300) == {"a": 100, "b": 200}  # 10 : 20
    assert counts({"a": 100, "b": 100}, {"b": 3}, rows=400) == {"a": 100, "b": 300}
    assert counts({"a": 1, "b": 1, "c": 1}, rows=4) == {"a": 2, "b": 1, "c": 1}  # the rest goes to the first


def test_no_row_more_often_than_allowed_and_the_others_fill_up():
    assert counts({"a": 10, "b": 1000}, {"a": 100}, rows=500) == {"a": 40, "b": 460}
    assert counts({"a": 10, "b": 10}, rows=500, max_repeats=3) == {"a": 30, "b": 30}


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_epoch_has_every_row_once(tmp_path):
    mixed = mix(config(tmp_path, source(tmp_path, "a", 7), rows=21))
    said = [row["response"] for row in rows_of(tmp_path / "mix.jsonl")]
    assert mixed.rows == 21
    for epoch in range(3):
        assert sorted(said[7 * epoch : 7 * epoch + 7]) == sorted(map(str, range(7)))
    assert said[:7] != said[7:14]


def test_sources_are_spread_evenly(tmp_path):
    mix(config(tmp_path, source(tmp_path, "a", 300), source(tmp_path, "b", 100)))
    names = [row["meta"]["mixed_from"] for row in rows_of(tmp_path / "mix.jsonl")]
    for start in range(0, 400, 40):
        assert 5 <= names[start : start + 40].count("b") <= 15


def test_the_order_is_a_function_of_the_seed(tmp_path):
    sources = source(tmp_path, "a", 30), source(tmp_path, "b", 20)
    made = [
        mix(config(tmp_path, *sources, seed=seed, out=tmp_path / name)) and (tmp_path / name).read_bytes()
        for seed, name in ((0, "x.jsonl"), (0, "y.jsonl"), (1, "z.jsonl"))
    ]
    assert made[0] == made[1] != made[2]


def test_a_stopped_mixture_goes_on_at_its_row(tmp_path, monkeypatch):
    sources = source(tmp_path, "a", 300), source(tmp_path, "b", 100)
    mix(config(tmp_path, *sources, out=tmp_path / "whole.jsonl"))

    def stop(title, done, total=None, note=""):
        if title == "mixing" and done >= 500:
            raise KeyboardInterrupt

    cut = config(tmp_path, *sources, out=tmp_path / "cut.jsonl", rows=None)
    whole = (tmp_path / "whole.jsonl").read_bytes()
    long = {"rows": 1200}
    mix(config(tmp_path, *sources, out=tmp_path / "whole.jsonl", **long))
    whole = (tmp_path / "whole.jsonl").read_bytes()
    cut = config(tmp_path, *sources, out=tmp_path / "cut.jsonl", **long)
    with pytest.raises(KeyboardInterrupt):
        mix(cut, stop)
    part = tmp_path / ".cut.jsonl.part"
    assert not (tmp_path / "cut.jsonl").exists()
    assert 400 < len(part.read_bytes().splitlines()) < 1200
    with part.open("ab") as file:
        file.write(b'{"prompt": "half a')
    seen = []
    mix(cut, lambda title, done, *rest: seen.append(done) if title == "mixing" else None)
    assert min(seen) >= 400 or seen[0] % 500 == 0
    assert (tmp_path / "cut.jsonl").read_bytes() == whole
    assert not part.exists()


def test_rows_that_give_an_evaluation_set_away_stay_out(tmp_path):
    words = " ".join(f"word{n}" for n in range(14))
    (tmp_path / "eval.jsonl").write_text(json.dumps({"prompt": words}) + "\n")
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps({"prompt": text, "response": "r"}) + "\n" for text in ("fine", f"say {words}")))
    mixed = mix(config(tmp_path, str(path), against=(tmp_path / "eval.jsonl",)))
    assert (mixed.contaminated, mixed.rows) == ({str(tmp_path / "eval.jsonl"): 1}, 1)
    manifest = json.loads((tmp_path / "mix.manifest.json").read_text())
    assert manifest["contaminated"] == manifest["sources"][0]["contaminated"] == 1
    assert list(manifest["evaluation_sets"]) == [str(tmp_path / "eval.jsonl")]
    (listed,) = rows_of(tmp_path / "mix.removed.jsonl")
    assert (listed["row"], listed["evaluation"]["row"], listed["reason"]) == (2, 1, "13 words")
    assert listed["raw"]["prompt"] == f"say {words}"


@pytest.fixture
def converted(tmp_path):
    """A conversion of two tasks, one held out; a training row gives a test row away, another a held-out one."""
    texts = {name: " ".join(f"{name}{n}" for n in range(14)) for name in ("test", "held", "own")}
    written = {
        "train/a.jsonl": ["fine", texts["test"], texts["held"], texts["own"]],
        "test/a.jsonl": [texts["test"]],
        "held-out/b.jsonl": [texts["held"]],
    }
    for name, prompts in written.items():
        path = tmp_path / "i" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps({"prompt": text, "response": "r"}) + "\n" for text in prompts))
    tasks = {"a": {"outputs": {"train/a.jsonl": {}, "test/a.jsonl": {}}}, "b": {"outputs": {"held-out/b.jsonl": {}}}}
    (tmp_path / "i" / "manifest.json").write_text(json.dumps({"tasks": tasks}))
    return tmp_path


def test_what_the_conversion_held_back_is_checked_unless_switched_off(converted):
    folder = str(converted / "i" / "train")
    mixed = mix(config(converted, folder))
    assert {Path(name).parent.name: count for name, count in mixed.contaminated.items()} == {"test": 1, "held-out": 1}
    assert {row["prompt"].split()[0] for row in rows_of(converted / "mix.jsonl")} == {"fine", "own0"}
    manifest = json.loads((converted / "mix.manifest.json").read_text())
    assert manifest["contaminated"] == sum(manifest["contaminated_by_set"].values()) == 2
    assert len(manifest["evaluation_sets"]) == 2
    off = mix(config(converted, folder, against_held_back=False, out=converted / "off.jsonl"))
    assert (off.contaminated, off.rows) == ({}, 4)
    assert not (converted / "off.removed.jsonl").exists()


def test_a_split_that_is_mixed_itself_is_no_evaluation_set(converted):
    names = [f"{converted}/i/{name} name={name[:4]}" for name in ("train/a.jsonl", "test/a.jsonl")]
    assert [Path(name).parent.name for name in mix(config(converted, *names)).contaminated] == ["held-out"]


@pytest.mark.parametrize(
    "text", ["no json", "[]", '{"tasks": 3}', '{"tasks": {"a": {"outputs": {"test/a.jsonl": {}}}}}']
)
def test_a_manifest_of_something_else_names_no_evaluation_set(converted, text):
    """The last is of a conversion, and does not name the source: another program wrote train/ beside it."""
    (converted / "i" / "manifest.json").write_text(text)
    assert mix(config(converted, str(converted / "i" / "train"))).contaminated == {}


def test_settings_of_a_source_and_folders(tmp_path):
    (tmp_path / "f").mkdir()
    source(tmp_path / "f", "a", 10)
    source(tmp_path / "f", "b", 10)
    other = source(tmp_path, "a", 10)
    mixed = mix(config(tmp_path, str(tmp_path / "f"), f"{other} weight=2 name=mine cap=5", rows=30))
    drawn = Counter({share.name: share.drawn for share in mixed.shares})
    assert drawn == {"a": 10, "b": 10, "mine": 10}  # 10 : 10 : 5 * 2


@pytest.mark.parametrize(
    ("text", "message"),
    [("{a} wieght=2", "weight="), ("{a} weight=x", "could not convert"), ("{a} cap=0", "above 0"), ("{a} {a}", "PATH")],
)
def test_a_wrong_source_is_told(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        mix(config(tmp_path, text.format(a=source(tmp_path, "a", 3))))


def test_two_sources_of_one_name_and_bad_rows(tmp_path):
    path = source(tmp_path, "a", 3)
    with pytest.raises(DataError, match='two sources are called "a"'):
        mix(config(tmp_path, path, path))
    with open(path, "a") as file:
        file.write('{"prompt": "x"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl, row 4"):
        mix(config(tmp_path, path))
    mixed = mix(config(tmp_path, path, skip_bad_rows=True))
    assert (mixed.rows, mixed.bad) == (3, 1)
    assert rows_of(tmp_path / "mix.bad-rows.jsonl")[0]["row"] == 4


def test_rows_stay_as_they_are_but_for_where_they_come_from(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [{"prompt": "p", "response": "r", "meta": meta} for meta in ({"k": 1}, "text")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    mix(config(tmp_path, str(path)))
    metas = sorted((row["meta"] for row in rows_of(tmp_path / "mix.jsonl")), key=str)
    assert metas == ["text", {"k": 1, "mixed_from": "a"}]
