"""Imports: each row once, screened, and back out as it came in."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime

import pytest
from sqlalchemy import func, select

from accord.feedback.store import (
    ExportOptions,
    Task,
    add_judge,
    add_model,
    add_model_judgment,
    export_campaign,
    import_judgments,
    import_records,
    verdicts,
)
from accord.feedback.store import imports as module
from accord.feedback.store.queries.foreign import Statement
from accord.feedback.store.tables import Item, Judgment, Prompt, Response, User
from accord.records import Comparison, Demonstration, Model, Person, Ranking, ResponseSet, to_row
from accord.records import Judgment as Record
from accord.records import Response as Said
from feedback.worlds import make_world

SET = ResponseSet(
    id="q1", prompt="2+2=", responses=(Said(id="x", text="4", model="m@1"), Said(id="y", text="5", model="m@2"))
)
AT = datetime(2026, 5, 1, 12, tzinfo=UTC)


def count(store, table):
    return store.read(lambda session: session.scalar(select(func.count()).select_from(table)))


def judgment(annotator, ranks, order=("y", "x"), **more):
    said = {"response_set": "q1", "display_order": order, "submitted_at": AT, "guideline": "v3", **more}
    return Record(annotator=annotator, ranks=ranks, **said)


def test_a_second_import_adds_nothing_whatever_the_size_of_a_batch(store, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 2)
    world = make_world(store, items=0)
    sets = [SET, *(ResponseSet(id=f"s{n}", prompt=f"{n}", responses=SET.responses) for n in range(4))]
    first = import_records(store, sets, campaign_id=world.campaign, source="f")
    again = import_records(store, iter(sets), campaign_id=world.campaign, source="f")
    assert first.items == again.items
    assert [count(store, table) for table in (Item, Prompt, Response)] == [5, 5, 10]
    task = world.next()
    assert {shown.text for shown in task.responses} == {"4", "5"}


def test_comparisons_and_rankings_bring_a_rules_verdict_or_a_known_answer(store):
    world = make_world(store, items=0)
    records = [
        Comparison(prompt="a", chosen="yes", rejected="no", probability=0.3),
        Comparison(prompt="b", chosen="yes", rejected="no", probability=0.5),
        Ranking(prompt="c", responses=("1", "2", "3"), ranks=(2, None, 1)),
    ]
    import_records(store, records, campaign_id=world.campaign, source="hh")
    import_records(store, records, campaign_id=world.campaign, source="hh")
    found = store.read(verdicts, campaign_id=world.campaign)
    assert [tuple(verdict.ranks.values()) for verdict in found] == [(2, 1), (1, 1), (2, None, 1)]
    assert {(verdict.source, verdict.judge[0]) for verdict in found} == {("rule", "hh")}
    gold = import_records(store, records[2:], campaign_id=world.campaign, source="hh", kind="gold")
    item = store.read(lambda session: session.get(Item, gold.items[0]))
    assert (item.kind, list(item.expected["ranks"].values())) == ("gold", [2, None, 1])
    with pytest.raises(ValueError, match="hh, row 1: `expected` has all responses in one place"):
        import_records(store, records[1:2], campaign_id=world.campaign, source="hh", kind="gold")


def test_a_bad_row_is_named_and_earlier_batches_stay(store, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 1)
    world = make_world(store, items=0, task_type="pairwise")
    good = Comparison(prompt="a", chosen="yes", rejected="no")
    bad = Ranking(prompt="b", responses=("1", "2", "3"), ranks=(1, 2, 3))
    with pytest.raises(ValueError, match="f, row 2: found 3 responses; a pairwise task takes 2"):
        import_records(store, [good, bad], campaign_id=world.campaign, source="f")
    assert count(store, Item) == 1


def test_demonstrations_hide_the_response_from_who_is_to_write_one(store):
    world = make_world(store, items=0, task_type="demonstrate")
    import_records(store, [Demonstration(prompt="sing", response="la")], campaign_id=world.campaign, source="f")
    assert world.next().responses == ()


PII = ResponseSet(id="p", prompt="mail a@b.org", responses=(Said(id="x", text="to a@b.org?"), Said(id="y", text="no")))


def test_personal_data_is_replaced_dropped_held_or_let_be(store):
    world = make_world(store, items=0)
    replaced = import_records(store, [PII, SET], campaign_id=world.campaign, source="f")
    assert replaced.finds == Counter(EMAIL=2)
    texts = store.read(lambda session: session.scalars(select(Response.text)).all())
    assert sorted(texts) == ["4", "5", "no", "to [EMAIL_1]?"]
    marks = store.read(lambda session: session.scalars(select(Prompt.pii).order_by(Prompt.pii)).all())
    assert marks == ["clean", "scrubbed"]
    dropped = import_records(store, [PII, SET], campaign_id=world.campaign, source="f", screen="drop")
    assert (dropped.dropped, len(dropped.items)) == (1, 1)
    held = import_records(store, [PII], campaign_id=world.campaign, source="f", screen="hold")
    assert held.held == held.items
    assert store.read(lambda session: session.get(Item, held.items[0])).state == "withdrawn"


def test_judgments_come_back_out_as_they_went_in(store, tmp_path):
    world = make_world(store, items=0)
    import_records(store, [SET], campaign_id=world.campaign, source="f")
    records = [
        judgment(Person(id="p7"), {"x": 1, "y": None}, shown_at=AT.replace(minute=0)),
        judgment(Person(id="p8"), {"x": 1, "y": 1}, ("x", "y")),
        judgment(Person(id="p9"), {}, skipped="I know the author"),
        judgment(Model(name="judge", revision="r1", prompt="Which is better?"), {"x": 1, "y": 2}),
    ]
    known = {"campaign_id": world.campaign, "source": "f", "consent": "published under CC0"}
    assert import_judgments(store, records, **known) == 4
    assert import_judgments(store, records, **known) == 0
    export_campaign(store, tmp_path, ExportOptions(form="judgments"), campaign_id=world.campaign, actor_id=None)
    made = []
    for line in (tmp_path / "train.jsonl").read_text().splitlines():
        row = json.loads(line)
        row.pop("meta")
        made.append(Record.model_validate(row))

    def as_text(record):
        return json.dumps(to_row(record), sort_keys=True)

    def plain(record):  # what a file leaves open is filled in: shown when submitted; a model follows its prompt
        person = isinstance(record.annotator, Person)
        return record.model_copy(
            update={"shown_at": record.shown_at or record.submitted_at, "guideline": "v3" if person else "none"}
        )

    assert sorted(map(as_text, made)) == sorted(as_text(plain(record)) for record in records)
    people = store.read(lambda session: session.scalars(select(User).where(User.handle.like("imported:%"))).all())
    assert {one.pseudonym for one in people} == {"p7", "p8", "p9"}
    assert None not in {one.disabled_at for one in people}
    assert isinstance(world.next(), Task)  # nobody here is asked for consent again


@pytest.mark.parametrize("annotator", [Person(id="p7"), Model(name="judge", revision="r1", prompt="Which?")])
def test_marked_passages_come_in_and_lie_within_the_text(store, annotator):
    world = make_world(store, items=0)
    import_records(store, [SET], campaign_id=world.campaign, source="f")
    known = {"campaign_id": world.campaign, "source": "f", "consent": "published under CC0"}

    def said(end):
        span = {"response": "x", "start": 0, "end": end, "tag": "a tag of elsewhere"}
        return Statement(
            annotator=annotator, response_set="q1", payload={"ranks": {"x": 1, "y": 2}, "spans": [span]},
            display_order=("x", "y"), submitted_at=AT, shown_at=None, guideline="v3",
        )  # fmt: skip

    with pytest.raises(ValueError, match="which has 1 characters"):
        import_judgments(store, [said(2)], **known)
    assert import_judgments(store, [said(1)], **known) == 1
    (verdict,) = store.read(verdicts, campaign_id=world.campaign)
    (span,) = verdict.payload["spans"]
    assert (verdict.ranks[span["response"]], span["tag"]) == (1, "a tag of elsewhere")


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (judgment(Person(id="p"), {"x": 1}, ("x",)), "f, row 1: `display_order`"),
        (
            judgment(Person(id="p"), {"x": 1, "y": 1}, response_set="q9"),
            "`response_set` is 'q9'",
        ),
    ],
)
def test_a_judgment_of_something_else_is_refused(store, record, said):
    world = make_world(store, items=0)
    import_records(store, [SET], campaign_id=world.campaign, source="f")
    with pytest.raises(ValueError, match=said):
        import_judgments(store, [record], campaign_id=world.campaign, source="f", consent="none")


def test_a_models_verdict_is_kept_once_per_request_and_told_from_a_persons(store):
    world = make_world(store, items=1)
    task = world.next()
    world.submit(task)
    order = [shown.id for shown in task.responses]
    model = store.run(add_model, name="judge", revision="r")
    judge = store.run(add_judge, model_id=model.id, prompt="Which?", settings={"temperature": 0})
    assert store.run(add_judge, model_id=model.id, prompt="Which?", settings={"temperature": 0}).id == judge.id

    def say(key):
        return store.run(
            add_model_judgment, item_id=task.item_id, judge_id=judge.id, payload={"ranks": dict.fromkeys(order, 1)},
            display_order=order, client_key=key, started_at=1, submitted_at=2,
        )  # fmt: skip

    assert say("k1").id == say("k1").id
    assert say("k2").revision == 2
    assert count(store, Judgment) == 3
    found = store.read(verdicts, campaign_id=world.campaign, sources=["ai"])
    assert [(one.source, one.judge, one.revision) for one in found] == [("ai", ("judge", "r", "Which?"), 2)]
    assert len(store.read(verdicts, campaign_id=world.campaign, sources=["human"])) == 1
