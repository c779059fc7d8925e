"""Judged data of other projects, row by row: what is the prompt, who ranked what, what is refused."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from accord.data.collections import UNKNOWN_TIME, Asked, read_collection, read_logs
from accord.data.files import DataError
from accord.records import Comparison, Demonstration, Judgment, Message, Model, Person

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def written(tmp_path, *rows, name="rows.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(tmp_path, *rows, **options):
    return read_collection([written(tmp_path, *rows)], **options)


def one(tmp_path, row):
    (found,) = read(tmp_path, row).rows
    return found


def message(name, text, role, rank=None, replies=(), **more):
    return {"message_id": name, "text": text, "role": role, "rank": rank, "replies": list(replies), **more}


def test_a_tree_becomes_one_set_per_message_of_the_person_and_rank_0_is_best(tmp_path):
    deeper = message("q2", "And in metres?", "prompter", replies=[message("a3", "4 m", "assistant")])
    replies = [
        message("a1", "four", "assistant", rank=1, model_name="m"),
        message("a2", "4", "assistant", rank=0, replies=[deeper]),
        message("a0", "spam", "assistant", rank=2, deleted=True),
    ]
    tree = {"message_tree_id": "t", "prompt": message("q1", "2+2=", "prompter", replies=replies, lang="en")}
    first, second = read(tmp_path, tree).rows
    assert first.ranks == {"a1": 2, "a2": 1}  # the deleted one is gone
    assert [(one.id, one.model) for one in first.record.responses] == [("a1", "m"), ("a2", None)]
    assert first.language == "en"
    assert [turn.content for turn in second.record.prompt] == ["2+2=", "4", "And in metres?"]
    assert second.ranks is None  # a single reply has no rank


def test_ultrafeedback_ranks_by_mean_rating_and_not_by_the_overall_score(tmp_path):
    def completion(model, rating, overall):
        aspects = {"helpfulness": {"Rating": str(rating)}, "honesty": {"Rating": str(rating)}}
        return {"model": model, "response": f"by {model}", "annotations": aspects, "overall_score": overall}

    row = {"source": "sharegpt", "instruction": "Say hello.", "completions": [
        completion("a", 1, 10), completion("b", 5, 8), completion("c", 5, 7)
    ]}  # fmt: skip
    found = one(tmp_path, row)
    (judgment,) = found.judgments
    assert judgment.ranks == {"a": 2, "b": 1, "c": 1}
    assert judgment.annotator == Model(name="gpt-4", revision="unknown", prompt="UltraFeedback")
    assert found.group == "sharegpt"


@pytest.mark.parametrize(
    ("preference", "ranks"), [(1, (1, 2)), (2, (2, 1)), (1.5, (1, 1)), (1.01, (1, 2)), (None, None), (0, None)]
)
def test_alpaca_eval_prefers_the_first_at_1_and_says_nothing_at_0(tmp_path, preference, ranks):
    row = {"instruction": "Hi", "output_1": "x", "output_2": "y", "generator_1": "base", "generator_2": "mine",
           "annotator": "judge", "preference": preference}  # fmt: skip
    found = one(tmp_path, row)
    said = [tuple(judgment.ranks.values()) for judgment in found.judgments]
    assert said == ([] if ranks is None else [ranks])


def test_outputs_of_several_models_are_one_set_per_instruction(tmp_path):
    rows = [
        {"instruction": asked, "output": f"{asked} by {model}", "generator": model}
        for model in ("a", "b")
        for asked in ("one", "two")
    ]
    found = read(tmp_path, *rows)
    assert [[one.model for one in row.record.responses] for row in found.rows] == [["a", "b"], ["a", "b"]]
    assert found.formats == {"alpaca-outputs": 4}


def test_label_studio_pairs_rankers_ratings_and_texts(tmp_path):
    def task(data, *results, **more):
        said = {
            "completed_by": 7,
            "created_at": "2026-01-02T03:04:05Z",
            "lead_time": 5,
            "result": list(results),
            **more,
        }
        return {"id": 1, "data": data, "annotations": [said]}

    pair = {"prompt": "2+2=", "answer1": "4", "answer2": "5"}
    left = one(tmp_path, task(pair, {"type": "pairwise", "value": {"selected": "left"}})).judgments[0]
    assert left.payload == {"ranks": {"answer1": 1, "answer2": 2}}
    assert left.annotator == Person(id="label-studio-7")
    assert (left.submitted_at - left.shown_at).total_seconds() == 5
    assert left.submitted_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    items = {"text": "Which?", "items": [{"id": "x", "body": "X"}, {"id": "y", "body": "Y"}]}
    ranked = one(tmp_path, task(items, {"type": "ranker", "value": {"ranker": {"_": [], "rank": ["y", "x"]}}}))
    assert ranked.judgments[0].payload == {"ranks": {"y": 1, "x": 2}}

    rated = [{"type": "rating", "to_name": name, "value": {"rating": stars}} for name, stars in
             (("answer1", 2), ("answer2", 4))]  # fmt: skip
    assert one(tmp_path, task(pair, *rated)).judgments[0].payload == {"ranks": {"answer1": 2, "answer2": 1}}

    text = one(tmp_path, task({"prompt": "Tell me."}, {"type": "textarea", "value": {"text": ["Well."]}}))
    assert isinstance(text.record, Asked)
    assert text.judgments[0].payload == {"text": "Well."}

    skipped = one(tmp_path, task(pair, was_cancelled=True)).judgments[0]
    assert skipped.payload == {"skip": "other", "text": "cancelled"}


@pytest.mark.parametrize("form", ["to_json", "api"])
def test_argilla_in_both_of_its_shapes(tmp_path, form):
    ranking = [{"value": "response1", "rank": 2}, {"value": "response2", "rank": 1}]
    row = {"id": "r", "fields": {"prompt": "2+2=", "response1": "5", "response2": "4"}}
    if form == "to_json":
        row["responses"] = {"order": [{"user_id": "u", "value": ranking}]}
        row["suggestions"] = {"order": {"value": ranking, "agent": "judge-1"}}
    else:
        row["responses"] = [
            {"user_id": "u", "status": "submitted", "values": {"order": {"value": ranking}}},
            {"user_id": "v", "status": "draft", "values": {"order": {"value": ranking}}},
        ]
        row["suggestions"] = [{"question_name": "order", "value": ranking, "agent": "judge-1"}]
    person, model = one(tmp_path, row).judgments  # a draft is no judgment
    assert person.payload == model.payload == {"ranks": {"response1": 2, "response2": 1}}
    assert person.annotator == Person(id="u")
    assert model.annotator.name == "judge-1"
    assert model.submitted_at == UNKNOWN_TIME


def test_wildchat_and_sharegpt_become_conversations_with_model_user_and_language(tmp_path):
    turns = [{"role": "user", "content": "Hi", "language": "English"}, {"role": "assistant", "content": "Hello"}]
    wild = {"conversation_hash": "h", "model": "gpt-x", "conversation": turns, "language": "English", "toxic": False,
            "hashed_ip": "abc", "timestamp": "2024-01-01"}  # fmt: skip
    share = {"id": "s", "conversations": [{"from": "human", "value": "Yo"}, {"from": "gpt", "value": "Hey"}]}
    first, second = read_logs([written(tmp_path, wild, share)]).logs
    assert (first.id, first.model, first.user, first.language, first.toxic) == ("h", "gpt-x", "abc", "English", 0.0)
    assert (second.id, second.first, second.user) == ("s", "Yo", None)
    judged = read(tmp_path, wild).rows[0]
    assert judged.record.prompt == (Message(role="user", content="Hi"),)
    assert judged.record.responses[0].model == "gpt-x"


def test_our_own_records_and_what_reads_as_them(tmp_path):
    transcript = "\n\nHuman: 2+2=\n\nAssistant:"
    rows = [
        {"chosen": f"{transcript} 4", "rejected": f"{transcript} 5"},
        {"instruction": "Say a.", "input": "", "output": "a"},
        {"annotator": {"kind": "person", "id": "p"}, "response_set": "q", "display_order": ["a"], "ranks": {"a": 1},
         "submitted_at": "2026-01-01T00:00:00Z", "guideline": "1"},
    ]  # fmt: skip
    comparison, demonstration, judgment = read(tmp_path, *rows).rows
    assert isinstance(comparison.record, Comparison)
    assert isinstance(demonstration.record, Demonstration)
    assert judgment.record is None
    assert isinstance(judgment.judgments[0], Judgment)


def test_a_bad_row_is_named_and_can_be_set_aside(tmp_path):
    good = {"instruction": "a", "output": "b"}
    tree = {"message_tree_id": "t", "prompt": {"message_id": "q", "role": "prompter", "text": " "}}
    path = written(tmp_path, good, tree, {"conversation": "no list"})
    with pytest.raises(DataError, match=r"rows\.jsonl, row 2: `text` is empty"):
        read_collection([path])
    found = read_collection([path], skip_bad_rows=True)
    assert len(found.rows) == 1
    assert [bad.row for bad in found.bad_rows] == [2, 3]
    assert found.bad_rows[0].raw == tree


def test_a_row_nobody_foresaw_is_a_bad_row_and_no_crash(tmp_path):
    odd = {"id": 1, "data": {"prompt": "x", "answer1": "a", "answer2": "b"},
           "annotations": [{"result": [{"type": "pairwise", "value": 3}]}]}  # fmt: skip
    with pytest.raises(DataError, match="row 1: the row is not built like its format"):
        read(tmp_path, odd)


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(DataError, match="expected auto or one of oasst"):
        read(tmp_path, {"a": 1}, format="nonsense")


@pytest.mark.skipif(not SHARED.exists(), reason="needs the data sets beside the repository")
def test_real_trees_and_transcripts():
    trees = read_collection([SHARED / "openassistant_sample/trees.jsonl"])
    assert trees.formats == {"oasst": 83}
    ranked = [row for row in trees.rows if row.ranks]
    assert (len(trees.rows), len(ranked)) == (214, 178)
    assert all(sorted(row.ranks.values()) == list(range(1, len(row.ranks) + 1)) for row in ranked)
    pairs = read_collection([SHARED / "hh_rlhf/helpful-base.test.jsonl"])
    assert Counter(row.group for row in pairs.rows) == {"helpful-base": 400}


@pytest.mark.skipif(not SHARED.exists(), reason="needs the data sets beside the repository")
def test_real_alpaca_eval_annotations(tmp_path):
    """Joined as its own annotations.json has them: the published preference of the first pairs comes back."""

    def rows(name):
        with gzip.open(SHARED / "alpaca_eval" / name, "rt") as file:
            return [json.loads(line) for line in file]

    asked = {row["instr_id"]: row for row in rows("instructions.jsonl.gz")}
    said = [row for row in rows("preferences.jsonl.gz") if row["annotator"] == "alpaca_eval_gpt4"][:200]
    joined = [
        {"instruction": asked[row["instr_id"]]["instruction"], "output_1": "baseline", "output_2": "model",
         "generator_1": row["generator_1"], "generator_2": row["generator_2"], "annotator": row["annotator"],
         "preference": row["preference"]}
        for row in said if row["instr_id"] in asked
    ]  # fmt: skip
    found = read(tmp_path, *joined).rows
    wins = sum(one.judgments[0].ranks[row["generator_2"]] == 1 < one.judgments[0].ranks[row["generator_1"]]
               for one, row in zip(found, joined, strict=True) if one.judgments)  # fmt: skip
    assert wins == sum(1.5 < (row["preference"] or 0) <= 2 for row in joined)
    assert wins > 10
