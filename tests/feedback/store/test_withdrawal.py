"""Consent that is taken back: what leaves the store no more, by the project's rule, on all ways out."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select

from accord.feedback.store import (
    ExportOptions,
    add_turn,
    export_campaign,
    exported_rows,
    finish_conversation,
    give_consent,
    rate_by_others,
    verdicts,
    withdraw_consent,
)
from accord.feedback.store.tables import Body, Event, Item, Prompt
from feedback.store.test_people import conversation
from feedback.worlds import MINUTE, make_world, ranks


def withdraw(world, who=0):
    world.now += MINUTE
    world.store.run(withdraw_consent, user_id=world.people[who], project_id=world.project, now=world.now)


def agree(world, *uses, who=0):
    world.now += MINUTE
    world.store.run(give_consent, user_id=world.people[who], project_id=world.project, now=world.now, uses=uses)


def export(world, folder, form, **more):
    """(rows, what was left out) of the command's function, and of the one for programs, which have to agree."""
    options = ExportOptions(form=form, **more)
    try:
        manifest = export_campaign(world.store, folder, options, campaign_id=world.campaign, actor_id=None)
    except ValueError as nothing:
        with pytest.raises(ValueError, match="nothing to export"):
            exported_rows(world.store, options, campaign_id=world.campaign, actor_id=None)
        return [], str(nothing)
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    assert exported_rows(world.store, options, campaign_id=world.campaign, actor_id=None) == {"train": rows}
    return rows, str(manifest["left_out"])


def judged(world):
    """Two people rank one item, each with words."""
    for who in (0, 1):
        task = world.next(who)
        world.submit(task, who, payload={**ranks(task), "reason": f"zq-words of {who}"})
    return world


@pytest.mark.parametrize(("rule", "left"), [("keep_verdicts", 2), ("delete", 1)])
def test_words_go_and_verdicts_stay_or_go_with_them(store, tmp_path, rule, left):
    world = judged(make_world(store, items=1, people=2, on_withdrawal=rule))
    assert len(export(world, tmp_path, "rankings")[0]) == 2
    withdraw(world)
    for form in ("rankings", "judgments"):
        rows, why = export(world, tmp_path, form)
        assert len(rows) == left
        assert why == ("{}" if left == 2 else "{'consent withdrawn': 1}")
        assert "zq-words of 0" not in json.dumps(rows)
    assert "zq-words of 1" in json.dumps(rows)
    assert len(store.read(verdicts, campaign_id=world.campaign)) == left  # and so in all figures
    agree(world)
    rows, _ = export(world, tmp_path, "judgments")
    assert "zq-words of 0" in json.dumps(rows)  # nothing was erased, and the last word is in force


@pytest.mark.parametrize("rule", ["keep_verdicts", "delete"])
def test_a_finished_conversation_leaves_no_more(store, tmp_path, rule):
    """It is words through and through, so both rules keep it here, as they keep any text its author wrote."""
    world = make_world(store, items=0, people=2, task_type="chat", on_withdrawal=rule)
    for who in (0, 1):
        talk = conversation(world, who)
        store.run(finish_conversation, conversation_id=talk, user_id=world.people[who], rating=4)
    assert len(export(world, tmp_path, "conversations")[0]) == 2
    withdraw(world)
    rows, why = export(world, tmp_path, "conversations")
    assert [row["meta"]["item"] for row in rows] == [talk]
    assert why == "{'consent withdrawn': 1}"
    withdraw(world, 1)
    assert "2 consent withdrawn" in export(world, tmp_path, "conversations")[1]
    agree(world)  # to judging, not to training
    assert "1 no consent to training, 1 consent withdrawn" in export(world, tmp_path, "conversations")[1]
    agree(world, "train")
    assert len(export(world, tmp_path, "conversations")[0]) == 1


@pytest.mark.parametrize("rule", ["keep_verdicts", "delete"])
def test_an_attempt_is_rated_no_more_and_not_exported(store, tmp_path, rule):
    world = make_world(store, items=0, people=3, task_type="redteam", on_withdrawal=rule)
    talk = conversation(world)
    store.run(finish_conversation, conversation_id=talk, user_id=world.people[0])
    item = store.run(rate_by_others, conversation_id=talk)
    world.submit(world.next(1), 1, payload={"conversation_id": talk, "success": 3})
    assert len(export(world, tmp_path, "judgments")[0]) == 1
    withdraw(world)
    assert world.next(2) == "nothing left"
    assert store.read(lambda session: session.get(Item, item)).state == "withdrawn"
    assert "1 forgotten" in export(world, tmp_path, "judgments")[1]
    assert "How?" not in export(world, tmp_path, "judgments")[1]


def test_a_prompt_of_someone_who_withdrew_is_not_read(store, tmp_path):
    world = make_world(store, items=0, people=2)
    item = world.add_item("written by the first one")
    world.submit(world.next(1), 1)

    def own(session):
        session.get(Prompt, session.get(Item, item).prompt_id).author_id = world.people[0]

    store.run(own)
    assert len(export(world, tmp_path, "rankings")[0]) == 1
    withdraw(world)
    assert "1 forgotten" in export(world, tmp_path, "rankings")[1]


def test_nobody_goes_on_talking_without_consent(store):
    world = make_world(store, items=0, people=1, task_type="chat")
    talk = conversation(world)
    withdraw(world)
    said = {"conversation_id": talk, "user_id": world.people[0], "role": "user", "text": "and then?"}
    with pytest.raises(ValueError, match="consent"):
        store.run(add_turn, **said)
    agree(world)
    store.run(add_turn, **said)


@pytest.mark.parametrize("rule", ["keep_verdicts", "delete"])
def test_demonstrations_train_nobody_whose_author_does_not_want_that(store, tmp_path, rule):
    world = make_world(store, items=0, people=2, task_type="demonstrate", on_withdrawal=rule)
    world.add_item("write a line", responses=())
    for who in (0, 1):
        world.submit(world.next(who), who, payload={"text": f"line {who}"})
    agree(world)  # the box that allows training is left empty
    rows, why = export(world, tmp_path, "demonstrations")
    assert ([row["response"] for row in rows], why) == (["line 1"], "{'no consent to training': 1}")
    withdraw(world, 1)
    assert "1 no consent to training, 1 consent withdrawn" in export(world, tmp_path, "demonstrations")[1]
    agree(world, "train")
    assert [row["response"] for row in export(world, tmp_path, "demonstrations")[0]] == ["line 0"]


def test_a_conversation_whose_words_are_erased_is_not_an_empty_row(store, tmp_path):
    world = make_world(store, items=0, people=1, task_type="chat")
    talk = conversation(world)
    store.run(finish_conversation, conversation_id=talk, user_id=world.people[0])
    store.run(lambda session: [setattr(body, "text", None) for body in session.scalars(select(Body))])
    assert "1 forgotten" in export(world, tmp_path, "conversations")[1]


def test_options_that_do_nothing_for_conversations_are_refused(store, tmp_path):
    world = make_world(store, items=0, people=1, task_type="chat")
    options = ExportOptions(form="conversations", min_annotators=2)
    with pytest.raises(ValueError, match="`min_annotators` does nothing for conversations"):
        export_campaign(store, tmp_path, options, campaign_id=world.campaign, actor_id=None)


def test_an_export_for_a_program_is_in_the_log_like_one_of_files(store, tmp_path):
    world = judged(make_world(store, items=1, people=2))
    export(world, tmp_path, "rankings")
    noted = store.read(lambda session: session.scalars(select(Event).where(Event.kind == "export")).all())
    assert [event.detail for event in noted] == [noted[0].detail] * 2
