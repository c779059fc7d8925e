import json

from accord.data.curation.duplicates import DedupConfig, dedup, exact_key

LONG = " ".join(f"word{n}" for n in range(60))


def written(folder, name, rows):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_keys_ignore_case_space_and_composition():
    assert exact_key("Caf\u00e9  noir\n") == exact_key("cafe\u0301 NOIR")
    assert exact_key("a") != exact_key("b")


def test_the_first_stays_in_the_order_of_files(tmp_path):
    mine = written(tmp_path, "mine.jsonl", [{"prompt": "2+2?", "response": "4", "extra": 1}])
    others = written(
        tmp_path,
        "others.jsonl",
        [
            {"prompt": " 2+2? ", "response": "4"},
            {"prompt": "2+2?", "response": "5"},
            {"instruction": LONG, "output": "yes"},
            {"instruction": LONG + " more", "output": "yes"},
            {"instruction": (LONG + " more").upper(), "output": "Yes"},
        ][:2],
    )
    long = written(
        tmp_path, "long.jsonl", [{"prompt": LONG + more, "response": "yes"} for more in ("", " more", " MORE")]
    )
    result = dedup(DedupConfig(data=(mine, others, long), out=tmp_path / "out.jsonl"))
    assert [row["response"] for row in rows_of(result.out)] == ["4", "5", "yes"]
    assert rows_of(result.out)[0] == {"prompt": "2+2?", "response": "4", "extra": 1}  # as it stands
    assert dict(result.removed) == {"duplicate": 2, "near-duplicate": 1}
    removed = {(row["file"].split("/")[-1], row["row"]): row for row in rows_of(result.aside)}
    assert removed["others.jsonl", 1]["same_as"] == {"file": str(mine), "row": 1}
    assert removed["long.jsonl", 2]["same_as"] == {"file": str(long), "row": 1}
    assert removed["long.jsonl", 3]["same_as"] == {"file": str(long), "row": 1}  # through row 2
    groups = result.details["largest_groups"]
    assert [group["rows"] for group in groups] == [3, 2] or [group["rows"] for group in groups] == [2, 2]


def test_the_prompt_alone_and_without_near(tmp_path):
    rows = [
        {"prompt": LONG, "response": "a"},
        {"prompt": LONG, "response": "b"},
        {"prompt": LONG + " x", "response": "c"},
    ]
    path = written(tmp_path, "a.jsonl", rows)
    plain = dedup(DedupConfig(data=(path,), out=tmp_path / "p.jsonl", on="prompt", near=False))
    assert [row["response"] for row in rows_of(plain.out)] == ["a", "c"]
    everything = dedup(DedupConfig(data=(path,), out=tmp_path / "q.jsonl", near=False))
    assert everything.kept == 3
    assert everything.aside is None


def test_bad_rows_are_set_aside_and_numbers_stay_right(tmp_path):
    path = tmp_path / "a.jsonl"
    row = json.dumps({"prompt": "p", "response": "r"})
    path.write_text(f"{row}\nnot json\n{row}\n")
    result = dedup(DedupConfig(data=(path,), out=tmp_path / "o.jsonl", skip_bad_rows=True))
    assert (result.kept, result.bad) == (1, 1)
    assert rows_of(result.aside)[0]["row"] == 3
