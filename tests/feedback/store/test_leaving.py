"""What leaves the store: personal data as the project says, conversations split by person and by how they begin."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select

from accord.feedback.store import (
    ExportOptions,
    add_model,
    add_turn,
    export_campaign,
    exported_rows,
    finish_conversation,
    start_conversation,
)
from accord.feedback.store.queries.projects import change_project
from accord.feedback.store.splits import held_out
from accord.feedback.store.tables import User
from feedback.worlds import make_world

HIDDEN = "Write to a@b.org or c@d.org, yes a@b.org."


def set_rule(world, rule):
    given = {"retention_days": None, "on_withdrawal": "keep_verdicts", "on_export": rule}
    world.store.run(change_project, project_id=world.project, actor_id=None, **given)


def test_personal_data_is_counted_replaced_or_left_out_as_the_project_says(store, tmp_path):
    world = make_world(store, items=0, people=2, task_type="demonstrate")
    world.add_item("write a line", responses=())
    world.submit(world.next(0), 0, payload={"text": HIDDEN})
    world.submit(world.next(1), 1, payload={"text": "Nothing to see."})
    found = {}
    for rule in ("count", "replace", "drop"):
        set_rule(world, rule)
        options = ExportOptions(form="demonstrations")
        manifest = export_campaign(store, tmp_path, options, campaign_id=world.campaign, actor_id=None)
        rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
        found[rule] = {row["response"] for row in rows}, manifest["personal_data"], manifest["left_out"]
        assert exported_rows(store, options, campaign_id=world.campaign, actor_id=None) == {"train": rows}
    assert found["count"] == ({HIDDEN, "Nothing to see."}, {"EMAIL": 3}, {})
    clean = "Write to [EMAIL_1] or [EMAIL_2], yes [EMAIL_1]."
    assert found["replace"] == ({clean, "Nothing to see."}, {}, {})
    assert found["drop"] == ({"Nothing to see."}, {}, {"personal data": 1})
    with pytest.raises(ValueError, match="found the rule 'hide' for exports"):
        set_rule(world, "hide")


def test_words_beside_a_judgment_are_replaced_too(store):
    world = make_world(store, items=1, people=1)
    task = world.next(0)
    ranks = {shown.id: place for place, shown in enumerate(task.responses, 1)}
    world.submit(task, 0, payload={"ranks": ranks, "reason": "ask a@b.org"})
    set_rule(world, "replace")
    (row,) = exported_rows(store, ExportOptions(form="judgments"), campaign_id=world.campaign, actor_id=None)["train"]
    assert row["meta"]["words"] == "ask [EMAIL_1]"
    assert row["meta"]["payload"]["ranks"] == ranks


def test_placeholders_of_an_import_keep_their_numbers(store):
    """An address that is found at export is not the one an import has replaced, and a row without finds stays."""
    world = make_world(store, items=0, people=2, task_type="demonstrate")
    world.add_item("write to [EMAIL_1]", responses=())
    world.submit(world.next(0), 0, payload={"text": "Dear [EMAIL_1], see a@b.org and [PHONE_7] or +49 30 123456-78."})
    world.submit(world.next(1), 1, payload={"text": "Dear [EMAIL_1]."})
    found = {}
    for rule in ("replace", "drop"):
        set_rule(world, rule)
        options = ExportOptions(form="demonstrations")
        rows = exported_rows(store, options, campaign_id=world.campaign, actor_id=None)["train"]
        found[rule] = sorted(row["response"] for row in rows)
    assert found["replace"] == ["Dear [EMAIL_1], see [EMAIL_2] and [PHONE_7] or [PHONE_8].", "Dear [EMAIL_1]."]
    assert found["drop"] == ["Dear [EMAIL_1]."]


@pytest.mark.parametrize(
    ("marked", "covers"),
    [
        ("Ask", "Ask"),
        (" now. 😀 Wr", " now. 😀 Wr"),  # behind what was replaced
        ("ron", "ron"),
        ("a@b.o", "[EMAIL_1]"),  # a part of it: all of what stands for it
        ("@mail.org now", "[EMAIL_2] now"),
        ("b.org or a-very-long-name@ma", "[EMAIL_1] or [EMAIL_2]"),
        ("a@b.org or a-very-long-name@mail.org", "[EMAIL_1] or [EMAIL_2]"),
    ],
)
def test_marked_passages_are_where_they_were_in_the_text_that_leaves(store, marked, covers):
    world = make_world(store, items=0, people=1)
    text = "Ask a@b.org or a-very-long-name@mail.org now. 😀 Wrong."
    world.add_item("to whom?", responses=(text, "Nobody."))
    task = world.next(0)
    first, second = sorted(task.responses, key=lambda one: one.text != text)
    at = text.index(marked)
    spans = [{"response": first.id, "start": at, "end": at + len(marked), "tag": "wrong"}]
    world.submit(task, 0, payload={"ranks": {first.id: 1, second.id: 2}, "spans": spans})
    set_rule(world, "replace")
    rows = {
        form: exported_rows(store, ExportOptions(form=form), campaign_id=world.campaign, actor_id=None)["train"][0]
        for form in ("rankings", "judgments")
    }
    (span,) = rows["judgments"]["meta"]["payload"]["spans"]
    shown = rows["rankings"]["responses"][rows["rankings"]["ranks"].index(1)]
    assert shown == "Ask [EMAIL_1] or [EMAIL_2] now. 😀 Wrong."
    assert shown[span["start"] : span["end"]] == covers
    set_rule(world, "count")
    (row,) = exported_rows(store, ExportOptions(form="judgments"), campaign_id=world.campaign, actor_id=None)["train"]
    assert row["meta"]["payload"]["spans"] == spans


def test_what_still_looks_personal_is_counted_in_words_beside_a_judgment_and_at_the_start_of_a_line(store, tmp_path):
    world = make_world(store, items=1, people=1)
    task = world.next(0)
    ranks = {shown.id: place for place, shown in enumerate(task.responses, 1)}
    world.submit(task, 0, payload={"ranks": ranks, "reason": "ask a@b.org\n030 123456-78"})
    options = ExportOptions(form="judgments")
    manifest = export_campaign(store, tmp_path, options, campaign_id=world.campaign, actor_id=None)
    assert manifest["personal_data"] == {"EMAIL": 1, "PHONE": 1}
    set_rule(world, "replace")
    manifest = export_campaign(store, tmp_path, options, campaign_id=world.campaign, actor_id=None)
    assert manifest["personal_data"] == {}


def talk(world, who, begins):
    def add(session):
        person = world.people[who]
        model = add_model(session, name="m", revision="1")
        started = start_conversation(session, campaign_id=world.campaign, user_id=person, model_id=model.id)
        said = add_turn(session, conversation_id=started.id, user_id=person, role="user", text=begins)
        add_turn(session, conversation_id=started.id, user_id=person, role="assistant", text="Yes.", parent_id=said.id)
        finish_conversation(session, conversation_id=started.id, user_id=person, rating=4)

    world.store.run(add)


def test_conversations_are_held_out_by_person_and_by_how_they_begin(store):
    world = make_world(store, items=0, people=5, task_type="chat")
    for number in range(10):
        for who in range(5):  # with white space and capitals of their own: near-duplicates
            words = f"question number {number} about how to bake a loaf of bread number {number}"
            talk(world, who, f"{words.upper() if who % 2 else words} ")
    people = store.read(lambda s: list(s.scalars(select(User.pseudonym))))
    words = {f"question number {n} about how to bake a loaf of bread number {n} " for n in range(10)}
    seeds = map(str, range(1000))  # one that holds out one person, and three beginnings
    seed = next(s for s in seeds if len(held_out(s, people, 0.2)) == 1 and len(held_out(s, list(words), 0.3)) == 3)
    options = ExportOptions(form="conversations", held_out_prompts=0.3, held_out_annotators=0.2, seed=seed)
    found = exported_rows(store, options, campaign_id=world.campaign, actor_id=None)
    begins = {name: {row["messages"][0]["content"].lower().strip() for row in rows} for name, rows in found.items()}
    people = {name: {row["meta"]["annotators"][0] for row in rows} for name, rows in found.items()}
    assert {name: len(rows) for name, rows in found.items()} == {
        "train": 28, "held_out_prompts": 12, "held_out_annotators": 7, "held_out_both": 3
    }  # fmt: skip
    assert begins["train"].isdisjoint(begins["held_out_prompts"])
    assert people["train"].isdisjoint(people["held_out_annotators"])
    assert begins["train"] == begins["held_out_annotators"]
    assert exported_rows(store, options, campaign_id=world.campaign, actor_id=None) == found
