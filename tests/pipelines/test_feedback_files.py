"""Files into a store and out again: every row is accounted for, and doing it again adds nothing."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from sqlalchemy import select

from accord.data import DataError
from accord.feedback.analysis import gather
from accord.feedback.explore import choose, explore, fill_campaign
from accord.feedback.store import ExportOptions, Store, contents, export_campaign, prioritise, verdicts
from accord.feedback.store.find import arms_of, campaign_lines, find_campaign, find_person
from accord.feedback.store.tables import Item, Prompt, User
from accord.pipelines.feedback_data import import_files, target_campaign
from accord.pipelines.feedback_priorities import item_scores, read_scores
from accord.pipelines.feedback_sampling import sample_into
from accord.pipelines.feedback_settings import CampaignTarget, FeedbackImport, FeedbackSample
from accord.protocols import Reply
from accord.records import Message
from fakes import Scripted
from feedback.explore.test_explorer import chats


@pytest.fixture
def store(tmp_path):
    opened = Store.open(f"sqlite:///{tmp_path / 'feedback.db'}")
    yield opened
    opened.close()


def written(tmp_path, *rows, name="rows.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(store, path, **settings):
    return import_files(store, FeedbackImport(**{"files": (path,), "campaign": "p/c", **settings}))


def response_set(name, *texts):
    responses = [{"id": f"r{n}", "text": text, "model": f"m{n}"} for n, text in enumerate(texts)]
    return {"id": name, "prompt": f"question {name}", "responses": responses}


def judgment(name, who, ranks, second=0):
    return {
        "annotator": {"kind": "person", "id": who}, "response_set": name, "display_order": list(ranks), "ranks": ranks,
        "submitted_at": f"2026-01-01T00:00:{second:02}Z", "guideline": "v1",
    }  # fmt: skip


ROWS = (
    response_set("a", "one", "two"),
    response_set("b", "one", "two"),
    *(judgment(name, who, {"r0": 1, "r1": 2}) for name in "ab" for who in ("ada", "bob")),
    judgment("a", "cyd", {"r0": 2, "r1": 1}),
)


def test_sets_and_judgments_go_in_once_and_come_out_as_they_were(store, tmp_path):
    path = written(tmp_path, *ROWS)
    first, again = run(store, path), run(store, path)
    assert (first.items, first.judgments, first.rows) == (2, 5, 7)
    assert (again.items, again.judgments) == (2, 0)
    campaign = first.campaign_id
    manifest = export_campaign(
        store, tmp_path / "out", ExportOptions(form="judgments"), campaign_id=campaign, actor_id=None
    )
    assert manifest["files"]["train.jsonl"]["rows"] == 5
    rows = [json.loads(line) for line in (tmp_path / "out/train.jsonl").read_text().splitlines()]
    assert Counter(row["annotator"]["id"] for row in rows) == {"ada": 2, "bob": 2, "cyd": 1}
    # What was exported goes into another campaign, and the same judgments are there.
    sets = written(tmp_path, ROWS[0], ROWS[1], name="sets.jsonl")
    copy = import_files(store, FeedbackImport(files=(sets, tmp_path / "out/train.jsonl"), campaign="p/copy"))
    assert copy.judgments == 5
    before, after = (
        sorted((v.annotator.rpartition(":")[2], tuple(v.ranks.values())) for v in store.read(verdicts, campaign_id=one))
        for one in (campaign, copy.campaign_id)
    )
    assert before == after


def label_kept(label):
    """With what nobody said as the studio keeps it."""
    flags = ("lang_mismatch", "pii", "not_appropriate", "hate_speech", "sexual_content", "moral_judgement")
    scales = ("helpfulness", "creativity", "humor", "toxicity", "violence")
    return {**dict.fromkeys((*flags, "political_content"), False), **dict.fromkeys(scales), **label}


def test_labels_go_round_too(store, tmp_path):
    label = {"schema": 1, "spam": True, "fails_task": False, "quality": 0.75}
    rows = [response_set("a", "text")] + [
        {"annotator": {"kind": "person", "id": who}, "response_set": "a", "display_order": ["r0"], "payload": label,
         "submitted_at": "2026-01-01T00:00:00Z", "guideline": "v1"}
        for who in ("ada", "bob")
    ]  # fmt: skip
    outcome = run(store, written(tmp_path, *rows), task="labels")
    assert outcome.judgments == 2
    options = ExportOptions(form="judgments")
    export_campaign(store, tmp_path / "out", options, campaign_id=outcome.campaign_id, actor_id=None)
    sets = written(tmp_path, rows[0], name="sets.jsonl")
    files = (sets, tmp_path / "out/train.jsonl")
    copy = import_files(store, FeedbackImport(files=files, campaign="p/copy", task="labels"))
    assert copy.formats == {"records": 1, "judgments": 2}
    assert [one.payload for one in store.read(verdicts, campaign_id=copy.campaign_id)] == [label_kept(label)] * 2


def test_ranks_without_an_annotator_are_a_rules_and_gold_makes_them_known_answers(store, tmp_path):
    replies = [
        {"message_id": "x", "role": "assistant", "text": "4", "rank": 0, "model_name": "m"},
        {"message_id": "y", "role": "assistant", "text": "5", "rank": 1},
    ]
    asked = {"message_id": "q", "role": "prompter", "text": "2+2=", "lang": "en", "replies": replies}
    tree = {"message_tree_id": "t", "prompt": asked}
    path = written(tmp_path, tree)
    normal = run(store, path)
    (said,) = store.read(verdicts, campaign_id=normal.campaign_id)
    assert (said.source, said.judge[0], tuple(said.ranks.values())) == ("rule", "rows", (1, 2))
    (content,) = store.read(contents, campaign_id=normal.campaign_id).values()
    assert list(content.models.values()) == ["m", None]
    assert store.read(lambda s: s.scalars(select(Prompt.language)).one()) == "en"
    gold = run(store, path, campaign="p/gold", kind="gold")
    expected = store.read(lambda s: s.scalars(select(Item.expected).where(Item.campaign_id == gold.campaign_id)).one())
    assert list(expected["ranks"].values()) == [1, 2]


def test_who_is_to_write_a_response_sees_none(store, tmp_path):
    outcome = run(store, written(tmp_path, response_set("a", "one", "two")), task="demonstrate")
    (content,) = store.read(contents, campaign_id=outcome.campaign_id).values()
    assert content.responses == {}


def test_rows_that_do_not_fit_the_task_are_left_out_with_the_reason(store, tmp_path):
    rows = (response_set("a", "one"), response_set("b", "one", "two", "three"), response_set("c", "one", "two"))
    outcome = run(store, written(tmp_path, *rows), task="pairwise")
    assert outcome.items == 1
    assert outcome.left_out == {
        "1 response; a pairwise task takes two": 1,
        "3 responses; a pairwise task takes two": 1,
    }
    assert [(bad.row, bad.raw) for bad in outcome.bad_rows] == [(1, "ResponseSet a"), (2, "ResponseSet b")]


def test_a_judgment_of_an_unknown_set_names_the_row(store, tmp_path):
    with pytest.raises(ValueError, match=r"rows, row 1: `response_set` is 'z'"):
        run(store, written(tmp_path, judgment("z", "ada", {"r0": 1})))


def test_sets_that_are_the_same_once_screened_are_one_item_with_the_judgments_of_both(store, tmp_path):
    texts = ("call 030 1234567", "call 030 7654321")
    sets = [{**response_set(name, "yes", "no"), "prompt": text} for name, text in zip("ab", texts, strict=True)]
    said = [judgment(name, who, {"r0": 1, "r1": 2}) for name, who in (("a", "ada"), ("b", "bob"))]
    outcome = run(store, written(tmp_path, *sets, *said))
    assert (outcome.items, outcome.judgments, outcome.finds) == (1, 2, {"PHONE": 2})
    dropped = run(store, tmp_path / "rows.jsonl", campaign="p/dropped", screen="drop")
    assert (dropped.items, dropped.dropped, dropped.judgments) == (0, 2, 0)
    assert dropped.left_out == {"judgment of a row that was dropped": 2}


def test_a_campaign_of_another_task_is_refused(store, tmp_path):
    path = written(tmp_path, *ROWS)
    run(store, path)
    with pytest.raises(ValueError, match="p/c has the task rank, not labels"):
        run(store, path, task="labels")
    assert run(store, path).judgments == 0  # not naming a task takes the one that is there


def test_campaigns_and_people_are_found_by_name_and_the_nearest_is_named(store, tmp_path):
    run(store, written(tmp_path, *ROWS))
    assert store.read(find_campaign, "c").id == store.read(find_campaign, "p/c").id
    with pytest.raises(ValueError, match="did you mean p/c"):
        store.read(find_campaign, "p/d")
    assert store.read(find_person, "ada").handle == "imported:rows:ada"
    with pytest.raises(ValueError, match="found no person of the name 'eve'"):
        store.read(find_person, "eve")
    (line,) = store.read(campaign_lines)
    assert (line.items, line.judgments, line.people) == (2, 5, 3)
    run(store, tmp_path / "rows.jsonl", campaign="q/c")
    with pytest.raises(ValueError, match="in several projects; expected one of p/c, q/c"):
        store.read(find_campaign, "c")


def test_hashed_annotators_are_one_name_per_campaign_that_no_other_shares(store, tmp_path):
    path = written(tmp_path, *ROWS)
    names = []
    for campaign in ("p/one", "p/two"):
        outcome = run(store, path, campaign=campaign)
        options = ExportOptions(form="judgments", hash_annotators=True)
        folder = tmp_path / campaign
        export_campaign(store, folder, options, campaign_id=outcome.campaign_id, actor_id=None)
        rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
        assert all(row["meta"]["annotators"] == [row["annotator"]["id"]] for row in rows)
        names.append({row["annotator"]["id"] for row in rows})
    assert [len(found) for found in names] == [3, 3]
    assert not names[0] & names[1]
    known = set(store.read(lambda s: s.scalars(select(User.pseudonym)).all()))
    assert not names[0] & known


@pytest.mark.parametrize("table", ["parquet", "datasets"])
def test_tables_hold_the_rows_of_the_jsonl(store, tmp_path, table):
    from accord.data import read

    outcome = run(store, written(tmp_path, *ROWS))
    options = ExportOptions(form="comparisons")
    for kind in ("jsonl", table):
        export_campaign(store, tmp_path / kind, options, campaign_id=outcome.campaign_id, actor_id=None, table=kind)
    name = {"parquet": "train.parquet", "datasets": "train"}[table]
    assert (
        read(tmp_path / table / name, "comparison").records
        == read(tmp_path / "jsonl/train.jsonl", "comparison").records
    )


def test_sampling_fills_a_campaign_and_goes_on_where_it_stopped(store):
    prompts = [(Message(role="user", content=f"question {n}"),) for n in range(5)]
    config = FeedbackSample(campaign="p/s", models=("a", "b"), prompts=("x",), task="pairwise", batch=2)

    def answers(name, fails=()):
        def say(prompt):
            text = prompt[-1].content
            error = Reply(text="", finish="error", prompt_tokens=0, new_tokens=0, seconds=0, error="server is away")
            return error if text in fails else f"{name} to {text}"

        return Scripted(say, name=f"{name} @ 1")

    first = sample_into(store, config, prompts, [answers("a"), answers("b", fails=("question 3",))])
    assert (first.items, first.failed) == (4, {"server is away": 1})
    again = [answers("a"), answers("b")]
    second = sample_into(store, config, prompts, again)
    assert (second.there, second.items) == (4, 1)
    assert [prompt[-1].content for prompt in again[0].asked] == ["question 3"]
    found = store.read(contents, campaign_id=first.campaign_id).values()
    assert {tuple(content.models.values()) for content in found} == {("a@1", "b@1")}


def test_a_task_of_pairs_takes_two_responses(store):
    config = FeedbackSample(campaign="p/s", models=("a",), prompts=("x",), task="pairwise", count=3)
    with pytest.raises(ValueError, match="1 models with 3 responses each are 3 responses; a pairwise task takes 2"):
        sample_into(store, config, [], [Scripted("x")])


def test_two_equal_texts_of_one_model_are_no_item(store):
    config = FeedbackSample(campaign="p/s", models=("a",), prompts=("x",), task="pairwise", count=2)
    outcome = sample_into(store, config, [(Message(role="user", content="q"),)], [Scripted("same", "same")])
    assert outcome.failed == {"two responses of one model are the same text": 1}


def test_disputed_items_come_first_and_a_share_stays_random(store, tmp_path):
    rows = [response_set(f"i{n:02}", "one", "two") for n in range(40)]
    rows += [
        judgment(f"i{n:02}", who, {"r0": 1, "r1": 2} if who == "ada" or n % 2 else {"r0": 2, "r1": 1})
        for n in range(40)
        for who in ("ada", "bob")
    ]
    outcome = run(store, written(tmp_path, *rows))
    case = store.read(gather, campaign_id=outcome.campaign_id)
    scores = item_scores(case, "disagreement", None)
    names = {item: content.name for item, content in case.contents.items()}
    assert {names[item] for item, score in scores.items() if score > 0.69} == {f"i{n:02}" for n in range(0, 40, 2)}
    store.run(prioritise, campaign_id=outcome.campaign_id, scores=scores, actor_id=None)
    arms = store.read(arms_of, outcome.campaign_id)
    assert 2 <= sum(arm == "random" for arm in arms.values()) <= 16
    diverse = item_scores(case, "diversity", None)
    assert max(diverse.values()) == pytest.approx(0, abs=1e-6)  # all are judged


def test_scores_of_a_file_by_name_with_uncertainty_of_probabilities_and_rewards(tmp_path):
    path = written(
        tmp_path, {"item": "a", "probability": 0.5}, {"item": "b", "probability": 0.9},
        {"item": "c", "rewards": {"x": 1.0, "y": 1.0, "z": -9.0}},
    )  # fmt: skip
    assert read_scores(path, uncertainty=True) == {"a": 1.0, "b": pytest.approx(0.2), "c": 1.0}
    plain = written(tmp_path, {"item": "a", "score": 3}, name="plain.jsonl")
    assert read_scores(plain, uncertainty=False) == {"a": 3.0}
    twice = written(tmp_path, {"item": "a", "score": 3}, {"item": "a", "score": 4}, name="twice.jsonl")
    with pytest.raises(DataError, match="row 2: item 'a' comes a second time"):
        read_scores(twice, uncertainty=False)
    with pytest.raises(DataError, match="row 1: `score`: found None"):
        read_scores(path, uncertainty=False)


def test_a_cluster_becomes_a_campaign(store):
    found = explore(chats(), clusters=3)
    points = choose([point for point in found.points if point.cluster == 1], 5)
    target = CampaignTarget(campaign="p/cluster", task="demonstrate")
    campaign, _ = store.run(target_campaign, target)
    assert len(fill_campaign(store, points, {1: "a cluster"}, campaign_id=campaign).items) == 5
    assert {content.group for content in store.read(contents, campaign_id=campaign).values()} == {"a cluster"}
    compare, _ = store.run(target_campaign, CampaignTarget(campaign="p/compare", task="pairwise"))
    with pytest.raises(ValueError, match="a pairwise task compares responses, and a log has one"):
        fill_campaign(store, points, {}, campaign_id=compare)
    labels, _ = store.run(target_campaign, CampaignTarget(campaign="p/labels", task="labels"))
    with pytest.raises(ValueError, match="none of the 5 conversations has a response"):
        fill_campaign(store, points, {}, campaign_id=labels)
