"""What is written reads back equal, in every format and for every record."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accord.data import BadRow, DataError, read, read_rows, to_columns, write, write_bad_rows
from accord.records import (
    Comparison,
    Demonstration,
    Judgment,
    Message,
    Model,
    Person,
    Ranking,
    Response,
    ResponseSet,
)

NOON = datetime(2026, 5, 1, 12, 0, 0, 250_000, tzinfo=UTC)
SYSTEM, USER = Message(role="system", content=""), Message(role="user", content="2+2=\n«é» 😀 \u2028 end")
ASSISTANT = Message(role="assistant", content="4")
JUDGED = {"response_set": "q1", "display_order": ("b", "a"), "submitted_at": NOON, "guideline": "v3"}
RECORDS = {
    "demonstration": [
        Demonstration(prompt="2+2=", response="4"),
        Demonstration(messages=(SYSTEM, USER, ASSISTANT, USER)),
    ],
    "comparison": [
        Comparison(prompt=(SYSTEM, USER), chosen="4", rejected="5"),
        Comparison(prompt="2+2=", chosen="4", rejected="5", probability=0.75, margin=-1.5),
    ],
    "ranking": [
        Ranking(prompt="q", responses=("a", "b", ""), ranks=(1, 2, None)),
        Ranking(prompt="q", responses=("a", "b"), ranks=(None, None)),
    ],
    "preference": [
        Ranking(prompt="q", responses=("a", "b"), ranks=(2, 1)),
        Comparison(prompt="q", chosen="a", rejected="b", probability=1),
    ],
    "prompts": [(SYSTEM, USER), (USER, ASSISTANT, USER)],
    "response_set": [
        ResponseSet(
            id="q1",
            prompt="q",
            responses=(
                Response(id="a", text=""),
                Response(id="b", text="4", model="m@1", sampling={"top_p": 0.9, "stop": ["\n"], "seed": None}),
            ),
        ),
    ],
    "judgment": [
        Judgment(annotator=Person(id="p7"), ranks={"a": 1, "b": None}, shown_at=NOON, **JUDGED),
        Judgment(annotator=Model(name="m", revision="1", prompt="?"), ranks={}, skipped="language", **JUDGED),
    ],
}


@pytest.mark.parametrize("kind", RECORDS)
@pytest.mark.parametrize("name", ["deep/er/rows.jsonl", "rows.jsonl.gz", "rows.parquet"])
def test_files_read_back_equal(tmp_path, kind, name):
    write(RECORDS[kind], tmp_path / name)
    assert read(tmp_path / name, kind).records == RECORDS[kind]
    assert [path.name for path in (tmp_path / name).parent.iterdir()] == [name.rpartition("/")[2]]  # nothing aside


@pytest.mark.parametrize("kind", RECORDS)
def test_datasets_columns_read_back_equal(tmp_path, kind):
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict(to_columns(RECORDS[kind]))
    assert read_rows(table, kind) == RECORDS[kind]
    table.save_to_disk(str(tmp_path / "table"))
    result = read(tmp_path / "table", kind)
    assert result.records == RECORDS[kind]
    assert len(result.files[0].sha256) == 64


def test_a_folder_of_several_tables_asks_for_one(tmp_path):
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict(to_columns(RECORDS["comparison"]))
    datasets.DatasetDict(train=table, test=table).save_to_disk(str(tmp_path / "both"))
    with pytest.raises(DataError, match=r"several data sets; .*both/test, .*both/train"):
        read(tmp_path / "both", "comparison")
    assert len(read(tmp_path / "both" / "train", "comparison").records) == 2


@given(texts=st.lists(st.text(min_size=1).filter(str.strip), min_size=2, max_size=4, unique=True))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_survives_lines_and_tables(tmp_path, texts):
    records = [Ranking(prompt=texts[0], responses=tuple(texts), ranks=tuple(range(1, len(texts) + 1)))]
    for name in ("rows.jsonl", "rows.parquet"):
        write(records, tmp_path / name)
        assert read(tmp_path / name, "ranking").records == records


def test_the_same_records_give_the_same_bytes(tmp_path):
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        write(RECORDS["comparison"], tmp_path / name)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    assert (tmp_path / "a.jsonl.gz").read_bytes()[4:8] == bytes(4)  # no time of writing in the header


def test_bad_rows_are_kept_with_their_reason(tmp_path):
    bad = [
        BadRow(file="a.jsonl", row=3, message="`chosen` is empty", raw={"chosen": ""}),
        BadRow(file="a.jsonl", row=4, message="half a character", raw={"chosen": "\ud800"}),
    ]
    write_bad_rows(bad, tmp_path / "bad.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [row["raw"] for row in rows] == [{"chosen": ""}, {"chosen": "\ud800"}]
    assert rows[0] == {"file": "a.jsonl", "row": 3, "message": "`chosen` is empty", "raw": {"chosen": ""}}


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no records"):
        write([], tmp_path / "rows.jsonl")
    with pytest.raises(ValueError, match=r"rows\.csv: .*expected \.jsonl"):
        write(RECORDS["comparison"], tmp_path / "rows.csv")
    assert list(tmp_path.iterdir()) == []
