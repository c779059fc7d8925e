"""Files in, records out: formats of files, damage of every kind, and the real data where it is at hand."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from accord.data import DataError, read, read_rows
from accord.records import Comparison, Message, Ranking

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
GOOD = {"prompt": "2+2=", "chosen": "4", "rejected": "5"}
BAD = {"prompt": "2+2=", "chosen": "4", "rejected": ""}
PAIR = Comparison(**GOOD)


def write_lines(path: Path, *lines: object) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    data = "".join(text + "\n" for text in texts).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def refusal(path: Path | list[Path], kind: str = "comparison", **options: bool) -> str:
    with pytest.raises(DataError) as caught:
        read(path, kind, **options)
    return str(caught.value)


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.jsonl.gz"])
def test_lines_are_read_plain_and_compressed(tmp_path, name):
    path = write_lines(tmp_path / name, GOOD, "", GOOD)
    result = read(path, "comparison")
    assert result.records == [PAIR, PAIR]
    assert result.bad_rows == []
    assert result.files[0].rows == 2
    assert result.files[0].forms == {"named prompt": 2}
    assert result.files[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_lists_are_read_and_lines_in_a_file_called_json(tmp_path):
    (tmp_path / "list.json").write_text(json.dumps([GOOD, GOOD], indent=2))
    assert read(tmp_path / "list.json", "comparison").records == [PAIR, PAIR]
    write_lines(tmp_path / "lines.json", GOOD, GOOD)
    assert read(tmp_path / "lines.json", "comparison").records == [PAIR, PAIR]


def test_a_byte_order_mark_is_no_text(tmp_path):
    for name, data in {"a.jsonl": json.dumps(GOOD), "a.json": json.dumps([GOOD]), "b.json": json.dumps(GOOD)}.items():
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + data.encode())
        assert read(tmp_path / name, "comparison").records == [PAIR]


def test_several_files_keep_their_order_and_counts(tmp_path):
    first = write_lines(tmp_path / "a.jsonl", GOOD)
    second = write_lines(
        tmp_path / "b.jsonl", {"prompt": "q", "responses": ["a", "b"], "ranks": [1, 2]}, {**GOOD, "prompt": "3+1="}
    )
    result = read([first, str(second)], "preference")
    assert [type(record) for record in result.records] == [Comparison, Ranking, Comparison]
    assert [report.rows for report in result.files] == [1, 2]


def test_the_fingerprint_follows_content_and_order_but_not_names(tmp_path):
    a = write_lines(tmp_path / "a.jsonl", GOOD)
    b = write_lines(tmp_path / "b.jsonl", {**GOOD, "rejected": "6"})
    c = write_lines(tmp_path / "c.jsonl", GOOD)
    fingerprints = [read(paths, "comparison").fingerprint for paths in ([a, b], [c, b], [b, a], [a])]
    assert fingerprints[0] == fingerprints[1]
    assert len(set(fingerprints)) == 3


def test_a_bad_row_stops_with_file_row_field_and_remedy(tmp_path):
    path = write_lines(tmp_path / "pairs.jsonl", GOOD, "", BAD)
    message = refusal(path)
    for part in (f"{path}, row 3:", "`rejected` is empty", "found ''", "--skip-bad-rows"):
        assert part in message


def test_bad_rows_can_be_set_aside(tmp_path):
    path = write_lines(tmp_path / "pairs.jsonl", BAD, GOOD, '{"prompt": "q"', [1], GOOD)
    result = read(path, "comparison", skip_bad_rows=True)
    assert result.records == [PAIR, PAIR]
    assert [(bad.file, bad.row, bad.raw) for bad in result.bad_rows] == [
        (str(path), 1, BAD),
        (str(path), 3, '{"prompt": "q"'),
        (str(path), 4, [1]),
    ]
    assert "`rejected` is empty" in result.bad_rows[0].message
    assert "no JSON" in result.bad_rows[1].message
    assert (result.files[0].rows, result.files[0].bad) == (2, 3)


def test_a_file_without_a_good_row_stops_even_so(tmp_path):
    message = refusal(write_lines(tmp_path / "pairs.jsonl", BAD, BAD), skip_bad_rows=True)
    assert "all 2 rows are bad" in message
    assert "`rejected` is empty" in message


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        (b'{"prompt": "q", "chosen"', ("row 2", "no JSON", "column 25")),
        (b"prompt,chosen,rejected", ("row 2", "'prompt,chosen,rejected'", "one JSON object a line")),
        (b'[{"prompt": "q"},', ("row 2", ".json")),
        ('{"prompt": "caf\xe9"}'.encode("latin-1"), ("row 2", "byte 0xe9 at position 16", "not UTF-8", "iconv")),
        (b"[" * 100_000, ("row 2", "no JSON")),
        (b"1" * 5000, ("row 2", "no JSON")),
        (b'"a text"', ("row 2", "found str", "expected an object")),
        (b'{"prompt": "q", "chosen": "a", "rejected": "b", "probability": NaN}', ("row 2", "`probability`", "nan")),
        (b'{"prompt": "q", "chosen": "a\\ud83d", "rejected": "b"}', ("row 2", "`chosen`", "half a character")),
    ],
)
def test_a_broken_line_is_explained(tmp_path, line, parts):
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n" + line + b"\n")
    message = refusal(path)
    assert all(part in message for part in parts), message
    assert len(message) < 500
    assert len(read(path, "comparison", skip_bad_rows=True).bad_rows) == 1


def test_a_file_that_cannot_be_used_says_why(tmp_path):
    write_lines(tmp_path / "pairs.jsonl", GOOD)
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "blank.jsonl").write_text("\n\n")
    (tmp_path / "table.xls").write_text("a,b\n")
    (tmp_path / "latin.csv").write_bytes(b"prompt,response\nol\xe9,yes\n")
    (tmp_path / "short.csv").write_text("prompt,response\nonly one\n")
    (tmp_path / "one.json").write_text("3")
    (tmp_path / "none.json").write_text("[]")
    (tmp_path / "broken.json").write_text('[\n{"a" 1}]')
    (tmp_path / "plain.jsonl.gz").write_text(json.dumps(GOOD))
    (tmp_path / "plain.parquet").write_text(json.dumps(GOOD))
    for name, part in {
        "pars.jsonl": "did you mean",
        "empty.jsonl": "the file is empty",
        "blank.jsonl": "no row",
        "table.xls": ".parquet",
        "latin.csv": "not a sound table",
        "short.csv": "fewer cells than the header's 2",
        "one.json": "expected a list",
        "none.json": "no row",
        "broken.json": "no JSON (line 2, column 6",
        "plain.jsonl.gz": "not a sound gzip file",
        "plain.parquet": "not a sound Parquet file",
        ".": "not one saved by `datasets`",
    }.items():
        message = refusal(tmp_path / name, skip_bad_rows=True)
        assert part in message, message
        assert message.startswith(str(tmp_path))


def test_a_compressed_file_cut_short_is_not_read_in_part(tmp_path):
    path = write_lines(tmp_path / "pairs.jsonl.gz", *[{**GOOD, "prompt": str(number) * 50} for number in range(1000)])
    path.write_bytes(path.read_bytes()[:-200])
    assert "ends too early" in refusal(path, skip_bad_rows=True)


def test_a_flipped_bit_in_a_compressed_file_is_seen(tmp_path):
    path = write_lines(tmp_path / "pairs.jsonl.gz", *[{**GOOD, "prompt": str(number)} for number in range(100)])
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # in the checksum of the content
    path.write_bytes(bytes(data))
    assert "not a sound gzip file" in refusal(path)


def test_data_of_another_kind_names_the_command_for_it(tmp_path):
    demonstrations = write_lines(tmp_path / "sft.jsonl", {"prompt": "q", "response": "a"})
    assert "these look like demonstrations; use `accord train sft`" in refusal(demonstrations)
    pairs = write_lines(tmp_path / "pairs.jsonl", GOOD)
    assert "these look like comparisons; use `accord train dpo`" in refusal(pairs, "demonstration")
    assert "`ranks`" in refusal(pairs, "ranking")


def test_rows_in_memory_are_read_like_those_of_a_table():
    assert read_rows([{**GOOD, "probability": None}], "comparison") == [PAIR]
    with pytest.raises(DataError, match=r"^my rows, row 1: `rejected` is empty"):
        read_rows([BAD], "comparison", name="my rows")


def test_reading_starts_without_torch():
    code = "import sys, accord.data; assert not sys.modules.keys() & {'torch', 'transformers', 'pyarrow', 'datasets'}"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- real data. The counts were taken from the files with a program of its own, see the notes beside them.

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder is not beside the clone")


@needs_shared
@pytest.mark.parametrize(
    ("name", "rows", "bad"),
    [  # bad: the last turn of one side is empty
        ("harmless-base.train.jsonl.gz", 1621, [59, 648, 767]),
        ("harmless-base.test.jsonl", 361, [84]),
        ("helpful-base.train.jsonl.gz", 1610, [83, 504, 827]),
        ("helpful-base.test.jsonl", 400, []),
    ],
)
def test_hh_rlhf_reads_whole(name, rows, bad):
    path = SHARED / "hh_rlhf" / name
    result = read(path, "comparison", skip_bad_rows=True)
    assert result.files[0].forms == {"HH-RLHF transcripts": rows}
    assert [row.row for row in result.bad_rows] == bad
    for record in result.records:
        roles = [message.role for message in record.prompt]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
    assert len(read(path, "prompts", skip_bad_rows=True).records) == rows + len(bad)


@needs_shared
def test_hh_rlhf_loses_no_text():
    path = SHARED / "hh_rlhf" / "helpful-base.test.jsonl"
    for line, record in zip(path.read_text().splitlines(), read(path, "comparison").records, strict=True):
        for name in ("chosen", "rejected"):
            text = json.loads(line)[name]
            said = [message.content for message in record.prompt] + [getattr(record, name)]
            spoken = text.replace("\n\nHuman:", "").replace("\n\nAssistant:", "")
            assert "".join("".join(said).split()) == "".join(spoken.split())


@needs_shared
@pytest.mark.parametrize(
    ("name", "kind", "rows", "bad"),
    [
        ("instruction_samples/alpaca_cleaned_1000.jsonl", "demonstration", 887, 0),
        ("instruction_samples/alpaca_gpt4_demo.jsonl", "demonstration", 852, 0),
        ("instruction_samples/gpteacher_roleplay.jsonl.gz", "demonstration", 1923, 0),
        ("instruction_samples/dolly_fragment.jsonl", "demonstration", 126, 0),
        ("instruction_samples/fastchat_dummy.jsonl", "demonstration", 500, 0),
        ("instruction_samples/dpo_en_demo.jsonl.gz", "comparison", 273, 0),
        ("llms_from_scratch_pref/instruction_preference.jsonl", "comparison", 925, 4),  # bad: both texts the same
        ("llms_from_scratch_pref/instruction_preference.jsonl", "demonstration", 929, 0),
        ("hhh_alignment/hhh_alignment.jsonl", "preference", 196, 0),
        ("red_team_prompts/harmful_questions.jsonl", "prompts", 1838, 0),
        ("p3_t0_sample/p3_t0.jsonl.gz", "demonstration", 10474, 273),  # bad: empty completions
    ],
)
def test_other_real_files_read_whole(name, kind, rows, bad):
    result = read(SHARED / name, kind, skip_bad_rows=True)
    assert (len(result.records), len(result.bad_rows)) == (rows, bad)


@needs_shared
@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("instruction_samples/dpo_en_demo.jsonl.gz", "these look like comparisons"),
        ("instruction_samples/kto_en_demo.jsonl", "unpaired feedback"),
        ("imdb/train.jsonl.gz", "found `label`, `rating`, `text`"),
        ("openassistant_sample/trees.jsonl", "`message_tree_id`"),
    ],
)
def test_real_files_of_other_shapes_are_refused(name, part):
    assert part in refusal(SHARED / name, "demonstration")


@needs_shared
def test_a_real_conversation_as_it_comes_out():
    record = read(SHARED / "instruction_samples" / "fastchat_dummy.jsonl", "demonstration").records[0]
    assert record.conversation[0] == Message(role="user", content="Who are you?")
    assert record.trained == "all"


def test_tables_with_a_header(tmp_path):
    (tmp_path / "a.csv").write_text('prompt,response\n"one, two","line\nend"\nb,c\n', encoding="utf-8-sig")
    (tmp_path / "a.tsv").write_text('prompt\tresponse\nsay "one, two\tyes\n')
    with gzip.open(tmp_path / "a.csv.gz", "wt") as file:
        file.write("instruction,output\nadd,3\n")
    found = read([tmp_path / "a.csv", tmp_path / "a.tsv", tmp_path / "a.csv.gz"], "demonstration").records
    assert [(one.prompt[0].content, one.response) for one in found] == [
        ("one, two", "line\nend"),
        ("b", "c"),
        ('say "one, two', "yes"),
        ("add", "3"),
    ]
