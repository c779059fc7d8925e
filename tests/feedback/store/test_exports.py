"""Exports: from verdicts to rows that trainers read, worked by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from sqlalchemy import select

from accord.data.readers import read
from accord.evaluate.agreement import leave_one_out_agreement, preference_agreement
from accord.evaluate.consensus import majority_vote, ranked_pairs
from accord.feedback.store import (
    ExportOptions,
    Verdict,
    add_review,
    contents,
    exclude,
    export_campaign,
    finish_conversation,
    labels,
    matrix,
    pair_verdict,
    ranks_by_item,
    set_role,
    verdicts,
)
from accord.feedback.store.exports import export_rows
from accord.feedback.store.queries.verdicts import Content
from accord.feedback.store.tables import Event
from accord.records import Judgment, Message
from feedback.store.test_people import conversation
from feedback.worlds import make_world, ranks

TEXTS = {"a": "A", "b": "B", "c": "C", "d": "D"}


def content(item="i", question="2+2=", texts=TEXTS):
    return Content(
        item_id=item, name=item, prompt_id=f"p{question}", prompt_hash=question, group="g",
        prompt=(Message(role="user", content=question),), responses=texts, names={one: one for one in texts},
        models={one: f"model-{one}" for one in texts},
    )  # fmt: skip


def verdict(ranks, annotator="p1", item="i", **more):
    known = {
        "judgment_id": f"j-{annotator}-{item}", "item_id": item, "kind": "normal", "arm": "random",
        "annotator": annotator, "source": "human", "judge": None, "revision": 1, "payload": {"ranks": ranks},
        "words": None, "ranks": ranks, "display_order": ("b", "a", "d", "c"), "guideline": "1", "started_at": 1,
        "submitted_at": 2, "active_ms": None, "counted": True, "excluded": False,
    }  # fmt: skip
    return Verdict(**{**known, **more})


def rows(found, contents=None, adjudicated=None, split="train", **options):
    contents = contents or {"i": content()}
    export = export_rows(found, contents, ExportOptions(**options), task_type="rank", adjudicated=adjudicated)
    return export.rows.get(split, []), export


def pairs(made):
    return [(row["chosen"], row["rejected"], row.get("probability", 1)) for row in made]


FOUR = {"a": 2, "b": 1, "c": 2, "d": None}  # b first, a and c tie, d failed


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [("B", "A", 1), ("A", "D", 1), ("B", "C", 1), ("B", "D", 1), ("C", "D", 1)]),
        (
            {"ties": "half"},
            [("B", "A", 1), ("A", "C", 0.5), ("A", "D", 1), ("B", "C", 1), ("B", "D", 1), ("C", "D", 1)],
        ),
        ({"failed": "drop"}, [("B", "A", 1), ("B", "C", 1)]),
    ],
)
def test_pairs_of_four_with_a_tie_and_a_failure(options, expected):
    made, _ = rows([verdict(FOUR)], form="comparisons", **options)
    assert pairs(made) == expected
    assert {row["meta"]["weight"] for row in made} == {1 / len(expected)}  # those of a prompt weigh 1 together


def test_two_failed_never_pair():
    for options in ({}, {"ties": "half"}):
        made, _ = rows([verdict({"a": 1, "b": None, "c": None, "d": None})], form="comparisons", **options)
        assert pairs(made) == [("A", "B", 1), ("A", "C", 1), ("A", "D", 1)]


def test_meta_says_where_a_pair_comes_from():
    meta = rows([verdict(FOUR)], form="comparisons")[0][0]["meta"]
    assert meta == {
        "item": "i", "prompt_id": "p2+2=", "group": "g", "annotators": ["p1"], "guidelines": ["1"], "agreement": None,
        "arm": "random", "excluded": False, "n": 1, "gap": 1, "position": [0], "models": ["model-b", "model-a"],
        "weight": 0.2,
    }  # fmt: skip


def test_a_ranking_per_judgment():
    made, _ = rows([verdict(FOUR), verdict({"a": 1, "b": 2, "c": 3, "d": 4}, "p2")])
    assert [row["ranks"] for row in made] == [[2, 1, 2, None], [1, 2, 3, 4]]
    assert made[0]["responses"] == ["A", "B", "C", "D"]


TWO = {"a": "A", "b": "B"}


def two(*all_ranks):
    return [verdict({"a": a, "b": b}, f"p{n}") for n, (a, b) in enumerate(all_ranks)], {"i": content(texts=TWO)}


def test_shares_become_soft_labels_and_an_even_split_is_a_tie():
    options = {"form": "comparisons", "unit": "share"}
    made, _ = rows(*two((1, 2), (1, 2), (2, 1), (2, 1), (2, 1)), **options)
    assert pairs(made) == [("B", "A", 0.6)]
    assert made[0]["meta"]["n"] == 5
    assert rows(*two((1, 2), (2, 1)), **options)[0] == []
    assert pairs(rows(*two((1, 2), (2, 1)), ties="half", **options)[0]) == [("A", "B", 0.5)]
    assert rows(*two((None, None)), ties="half", **options)[0] == []
    assert rows(*two((1, 2), (None, 2)), failed="drop", **options)[0] == []


def test_consensus_is_by_ranked_pairs_and_the_reviewers_where_one_has_decided():
    most = two((1, 2), (2, 1), (2, 1))
    assert rows(*most, unit="consensus")[0][0]["ranks"] == [2, 1]
    assert pairs(rows(*most, unit="consensus", form="comparisons")[0]) == [("B", "A", 1)]
    assert rows(*two((1, None), (1, None)), unit="consensus")[0][0]["ranks"] == [1, None]  # all of them failed b
    decided = {"i": {"ranks": {"a": 1, "b": 2}}}
    assert rows(*most, adjudicated=decided, unit="consensus")[0][0]["ranks"] == [1, 2]


def test_filters_count_what_they_leave_out():
    found = [
        verdict(FOUR), verdict(FOUR, "p2", excluded=True), verdict(FOUR, "p3", guideline="2"),
        verdict(None, "p4", payload={"skip": "language"}),
    ]  # fmt: skip
    made, export = rows(found, guideline="1")
    assert len(made) == 1
    assert export.left_out == {"excluded annotator": 1, "other guideline": 1, "skipped": 1}
    marked, _ = rows(found, include_excluded=True)
    assert [row["meta"]["excluded"] for row in marked] == [False, True, False]
    assert rows(found, min_annotators=3)[1].left_out["too few annotators"] == 1
    agreed, _ = rows(*two((1, 2), (1, 2)), form="comparisons", agreed_only=True)
    assert len(agreed) == 2
    _, disputed = rows(*two((1, 2), (2, 1)), form="comparisons", agreed_only=True)
    assert disputed.left_out == {"not agreed": 2}
    agreement = rows(*two((1, 2), (1, 2), (2, 1)))[0][0]["meta"]["agreement"]
    assert agreement == pytest.approx(1 / 3)  # of three pairs of annotators one agrees
    assert rows(*two((1, 2), (1, 2), (2, 1)), min_agreement=0.5)[1].left_out == {"agreement": 1}
    assert len(rows(*two((1, 2), (1, 2), (2, 1)), min_agreement=0.3)[0]) == 3
    assert rows(*two((1, 2)), min_agreement=0.1)[1].left_out == {"agreement": 1}  # one alone agrees with nobody
    assert rows(*two((1, 1), (1, 1)))[0][0]["meta"]["agreement"] is None
    assert rows([verdict(FOUR)], {"i": content(texts={**TEXTS, "d": None})})[1].left_out == {"forgotten": 1}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"unit": "share"}, "goes with comparisons"),
        ({"unit": "consensus", "form": "judgments"}, "rankings and comparisons"),
        ({"all_revisions": True}, "all revisions go with judgments"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        rows([verdict(FOUR)], **options)


def test_splits_hold_prompts_and_annotators_apart():
    long = "tell me in a few plain words how one makes bread at home from flour water salt and yeast"
    questions = [f"question number {n}" for n in range(18)] + [long, long + " please"]
    contents = {f"i{n}": content(f"i{n}", question) for n, question in enumerate(questions)}
    found = [verdict(FOUR, f"p{a}", item) for a in range(5) for item in contents]
    options = {"held_out_prompts": 0.3, "held_out_annotators": 0.2}
    _, export = rows(found, contents, **options)
    prompts = {name: {row["meta"]["prompt_id"] for row in made} for name, made in export.rows.items()}
    people = {name: {row["meta"]["annotators"][0] for row in made} for name, made in export.rows.items()}
    assert set(prompts) == {"train", "held_out_prompts", "held_out_annotators", "held_out_both"}
    assert prompts["train"] == prompts["held_out_annotators"]
    assert prompts["train"].isdisjoint(prompts["held_out_prompts"])
    assert (len(people["train"]), len(people["held_out_annotators"])) == (4, 1)
    assert people["train"].isdisjoint(people["held_out_annotators"])
    for made in prompts.values():  # near-duplicates fall on one side
        assert (f"p{long}" in made) == (f"p{long} please" in made)
    assert sum(map(len, export.rows.values())) == 100
    assert rows(found[::-1], contents, **options)[1].rows == export.rows


def test_rows_stay_on_their_side_as_others_are_added():
    """Prompts that come later, near-duplicates among them, and people: what was trained on is never held out."""
    words = "how do you bake a loaf of bread with seeds and nuts in an oven without a door number"
    questions = [f"{words} {n} {n} {n} {n}" for n in range(30)]
    older = {f"i{n}": content(f"i{n}", question) for n, question in enumerate(questions)}
    # Hashes that come before all others, and a copy each
    newer = {f"k{n}": content(f"k{n}", f"{question}!") for n, question in enumerate(questions)}
    newer = {
        name: replace(one, prompt_hash=f"0 {one.prompt_hash}", prompt_id=f"q{name}") for name, one in newer.items()
    }
    options = {"held_out_prompts": 0.3, "held_out_annotators": 0.3, "form": "judgments"}
    people = [f"p{n}" for n in range(8)]

    def sides(contents, people):
        found = [verdict(FOUR, one, item) for one in people for item in contents]
        made = rows(found, older | newer if contents is not older else older, **options)[1].rows
        return {
            (row["meta"]["item"], row["meta"]["annotators"][0]): name for name, part in made.items() for row in part
        }

    before, after = sides(older, people[:6]), sides(older | newer, people)
    assert set(before.values()) == {"train", "held_out_prompts", "held_out_annotators", "held_out_both"}
    assert {row: after[row] for row in before} == before
    assert all(after[f"i{n}", one] == after[f"k{n}", one] for n in range(30) for one in people)


def test_a_file_is_the_same_bytes_twice_and_trains_as_it_stands(store, tmp_path):
    world = make_world(store, items=3, people=2, overlap=2)
    for who in (0, 1):
        for _ in range(3):
            task = world.next(who)
            world.submit(task, who)
    options = ExportOptions(form="comparisons")
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        manifest = export_campaign(store, folder, options, campaign_id=world.campaign, actor_id=world.people[0])
    for name in ("train.jsonl", "manifest.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    found = read(folders[0] / "train.jsonl", "comparison").records
    assert {(one.chosen, one.rejected) for one in found} == {("one", "two")}
    assert manifest["files"]["train.jsonl"]["rows"] == len(found) == 6
    noted = store.read(lambda session: session.scalars(select(Event).where(Event.kind == "export")).all())
    assert [event.detail["rows"] for event in noted] == [{"train.jsonl": 6}] * 2
    assert "person" not in (folders[0] / "train.jsonl").read_text()  # pseudonyms only
    ranked = export_campaign(store, tmp_path / "r", ExportOptions(), campaign_id=world.campaign, actor_id=None)
    assert len(read(tmp_path / "r" / "train.jsonl", "ranking").records) == ranked["files"]["train.jsonl"]["rows"] == 6


def test_exclusions_and_nothing_left_are_said(store, tmp_path):
    world = make_world(store, items=1, people=2, overlap=1)
    world.submit(world.next())
    row = store.run(exclude, annotator_id=world.people[0], reason="x", evidence={"a": 1}, decided_by=world.people[1])
    with pytest.raises(ValueError, match="1 excluded annotator"):
        export_campaign(store, tmp_path, ExportOptions(), campaign_id=world.campaign, actor_id=None)
    manifest = export_campaign(
        store, tmp_path, ExportOptions(include_excluded=True), campaign_id=world.campaign, actor_id=None
    )
    assert manifest["exclusions"] == [row.id]


def test_demonstrations_and_judgments_of_other_tasks(store, tmp_path):
    world = make_world(store, items=0, people=2, task_type="demonstrate")
    world.add_item("write a line", responses=())
    world.submit(world.next(0), 0, payload={"text": "A line, a@b.org."})
    world.submit(world.next(1), 1, payload={"skip": "language"})
    manifest = export_campaign(
        store, tmp_path, ExportOptions(form="demonstrations"), campaign_id=world.campaign, actor_id=None
    )
    assert [one.response for one in read(tmp_path / "train.jsonl", "demonstration").records] == ["A line, a@b.org."]
    assert manifest["personal_data"] == {"EMAIL": 1}
    export_campaign(store, tmp_path, ExportOptions(form="judgments"), campaign_id=world.campaign, actor_id=None)
    made = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert [(row["skipped"], row["meta"]["words"]) for row in made if "skipped" in row] == [("language", None)]
    assert [row["meta"]["words"] for row in made if "skipped" not in row] == ["A line, a@b.org."]


def test_conversations_need_consent_to_training(store, tmp_path):
    world = make_world(store, items=0, people=2, task_type="chat")
    talk = conversation(world)
    with pytest.raises(ValueError, match="1 unfinished"):
        export_campaign(store, tmp_path, ExportOptions(form="conversations"), campaign_id=world.campaign, actor_id=None)
    store.run(finish_conversation, conversation_id=talk, user_id=world.people[0], rating=4)
    export_campaign(store, tmp_path, ExportOptions(form="conversations"), campaign_id=world.campaign, actor_id=None)
    (row,) = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert ([turn["content"] for turn in row["messages"]], row["meta"]["rating"]) == (["How?", "Like this."], 4)


def test_an_adjudication_reaches_the_export(store, tmp_path):
    world = make_world(store, items=1, people=2, overlap=1)
    task = world.next(0)
    world.submit(task, 0)
    store.run(set_role, user_id=world.people[1], project_id=world.project, role="reviewer", actor_id=None)
    by_text = {shown.text: shown.id for shown in task.responses}
    store.run(
        add_review, reviewer_id=world.people[1], item_id=task.item_id, decision="adjudicate", reason="two is right",
        payload={
            "ranks": {by_text["one"]: 2, by_text["two"]: 1},
            "spans": [{"response": by_text["one"], "start": 0, "end": 3, "tag": "wrong"}],
        },
    )  # fmt: skip
    options = ExportOptions(unit="consensus", form="comparisons")
    export_campaign(store, tmp_path, options, campaign_id=world.campaign, actor_id=None)
    assert read(tmp_path / "train.jsonl", "comparison").records[0].chosen == "two"


def test_judgments_read_back_as_records(store, tmp_path):
    world = make_world(store, items=1, people=1)
    task = world.next()
    world.submit(task)
    export_campaign(store, tmp_path, ExportOptions(form="judgments"), campaign_id=world.campaign, actor_id=None)
    row = json.loads((tmp_path / "train.jsonl").read_text())
    row.pop("meta")
    record = Judgment.model_validate(row)
    assert record.display_order == tuple(shown.id for shown in task.responses)
    assert record.guideline == "1"


def test_arrays_for_statistics():
    found = [
        verdict({"a": 1, "b": 2}, "p1", "i", payload={"quality": 3}),
        verdict({"a": 1, "b": 1}, "p2", "i", payload={}),
        verdict({"a": None, "b": 1}, "p1", "k", payload={"quality": 5}),
        verdict(None, "p2", "k", payload={"skip": "x"}),
    ]  # fmt: skip
    table = matrix(found, lambda one: one.payload.get("quality"))
    assert (table.annotators, table.items) == (("p1", "p2"), ("i", "k"))
    assert table.value_AN.tolist()[0] == [3, 5]
    assert str(table.value_AN.tolist()[1]) == "[nan, nan]"
    listed = labels(found, lambda one: one.payload.get("quality"))
    assert (listed.classes, listed.item_M.tolist(), listed.annotator_M.tolist(), listed.label_M.tolist()) == (
        (3, 5), [0, 1], [0, 0], [0, 1],
    )  # fmt: skip
    assert ranks_by_item(found, {"i": ["b", "a"], "k": ["a", "b"]}) == {"i": [[2, 1], [1, 1]], "k": [[None, 1]]}
    assert [pair_verdict(one, "a", "b") for one in found] == [1, 0, -1, None]


def test_verdicts_are_the_latest_revision_unless_all_are_asked_for(store):
    world = make_world(store, items=1)
    task = world.next()
    world.submit(task)
    world.submit(task, revision=2, payload={"ranks": {shown.id: 1 for shown in task.responses}, "reason": "equal"})
    (last,) = store.read(verdicts, campaign_id=world.campaign)
    assert (last.revision, last.words, set(last.ranks.values())) == (2, "equal", {1})
    assert [one.revision for one in store.read(verdicts, campaign_id=world.campaign, all_revisions=True)] == [1, 2]


def test_earlier_revisions_are_exported_if_asked_for(store, tmp_path):
    world = make_world(store, items=1)
    task = world.next()
    world.submit(task)
    world.submit(task, revision=2, payload={"ranks": {shown.id: 1 for shown in task.responses}})
    for options, revisions in (({}, [2]), ({"all_revisions": True}, [1, 2])):
        chosen = ExportOptions(form="judgments", **options)
        export_campaign(store, tmp_path, chosen, campaign_id=world.campaign, actor_id=None)
        rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
        assert [row["meta"]["revision"] for row in rows] == revisions


def test_the_arrays_are_what_the_statistics_take(store):
    """Three annotators on three items: two always agree, the third never does."""
    world = make_world(store, items=3, people=3, overlap=3)
    for who, best in enumerate(["one", "one", "two"]):
        for _ in range(3):
            task = world.next(who)
            world.submit(task, who, payload=ranks(task, best))
    found = store.read(verdicts, campaign_id=world.campaign)
    sides = {item: list(one.responses) for item, one in store.read(contents, campaign_id=world.campaign).items()}
    table = matrix(found, lambda one: pair_verdict(one, *sides[one.item_id]))
    assert preference_agreement(table.value_AN).agreement == pytest.approx(1 / 3)
    rate = dict(zip(table.annotators, leave_one_out_agreement(table.value_AN).rate_A, strict=True))
    assert sorted(rate.values()) == [0, 0.5, 0.5]  # with one other each way, half a credit
    said = labels(found, lambda one: pair_verdict(one, *sides[one.item_id]))
    winners = majority_vote(said.item_M, said.label_M, len(said.items), len(said.classes)).label_N
    assert [said.classes[winner] for winner in winners] == [1, 1, 1]
    for all_ranks in ranks_by_item(found, sides).values():
        assert ranked_pairs(all_ranks).rank_K.tolist() == [1, 2]
