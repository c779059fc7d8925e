"""The dashboard's tables of work, known answers, cost and length; notes to annotators; evidence by night; addresses."""

from __future__ import annotations

import csv
import io

import pytest
from sqlalchemy import select

from accord.evaluate.page.svg import DASH
from accord.feedback.analysis.material import gather
from accord.feedback.analysis.report import analyse
from accord.feedback.store import (
    CampaignSettings,
    ExportOptions,
    add_judge,
    add_model,
    add_model_judgment,
    enforce_retention,
    exported_rows,
    forget,
    keep_rewards,
    now_ms,
    verdicts,
)
from accord.feedback.store.tables import ApiToken, Body, Campaign, Event, LoginSession
from accord.feedback.studio.nightly import collect_evidence
from accord.feedback.studio.workload import length_beside_a_model
from feedback.studio.test_api import program
from feedback.studio.visitors import assignment, shown, text_of
from feedback.worlds import MINUTE, ranks


def table(admin, place, name):
    answer = admin.get(f"/admin/campaign/{place.world.campaign}/table/{name}.csv")
    assert answer.status_code == 200
    return list(csv.reader(io.StringIO(answer.text)))


def test_work_pace_known_answers_and_cost_are_counted_by_hand(both):
    settings = CampaignSettings(gold_every=1, attention_every=0, hourly_rate=30.0)
    both.open(items=2, people=2, overlap=2, settings=settings)
    both.world.add_item("known", kind="gold", expected={"one": 1, "two": 2})
    world = both.world
    for best, minutes in (("two", 6), ("one", 3), ("one", 3)):  # the gold item comes first, and is got wrong
        world.submit(world.next(0), 0, ranks(world.next(0), best), active_ms=minutes * MINUTE)
        world.now += 40 * MINUTE
    world.submit(world.next(1), 1, ranks(world.next(1), "one"))  # gold, right; time not known
    both.now = world.now
    admin = both.someone("admin")
    names = {both.store.read(gather, campaign_id=world.campaign).people[one].user_id: one for one in _people(both)}
    ada, bob = (names[world.people[who]] for who in (0, 1))
    head, *rows = table(admin, both, "work")
    assert head == [
        "annotator",
        "last hour",
        "last day",
        "in all",
        "an active hour",
        "minutes, median",
        "hours",
        "cost",
    ]
    # 3 tasks in 12 minutes: 15 an hour; 0.2 hours at 30
    assert rows == [[ada, "1", "3", "3", "15.0", "3.0", "0.2", "6.00"], [bob, "1", "1", "1", DASH, DASH, "0.0", "0.00"]]
    known = {row[0]: row[1:] for row in table(admin, both, "known")[1:]}
    assert known[ada][0] == "0 of 1"
    assert known[bob][0] == "1 of 1"
    cost = dict(table(admin, both, "cost")[1:])
    assert cost["so far"] == "6.00"
    assert cost["... a judgment that counts"] == "3.00"  # two of normal items
    assert cost["what is left"] == "6.00"  # two of four
    assert "The time of 1 of 4 is not known" in text_of(admin.get(f"/admin/campaign/{world.campaign}?figures"))


def test_the_price_of_an_hour_and_examples_can_change_while_people_work(both):
    both.open(items=1, people=1, task_type="demonstrate", settings=CampaignSettings(pass_mark=0.6))
    page = both.person().get(both.task_page)
    sent = {"revision": "1", "text": "Words.", "active_ms": str(30 * MINUTE)}
    both.person().post(f"/t/{assignment(page)}/submit", sent)
    admin = both.someone("admin")
    here = f"/admin/campaign/{both.world.campaign}"
    assert admin.get(f"{here}/table/cost.csv").status_code == 404
    change = {"state": "open", "overlap": "3", "hourly_rate": "20", "examples": "One.\r\n----\r\n\r\nTwo **2**."}
    saved = admin.post(f"{here}/change", change)
    assert 'name="hourly_rate" value="20.0"' in saved.text
    assert "One.\n---\nTwo **2**.</textarea>" in saved.text
    assert dict(table(admin, both, "cost")[1:])["so far"] == "10.00"  # the report that is kept knows of it
    shown = both.person().get(f"/c/{both.world.campaign}/examples").text
    assert shown.index("One.") < shown.index("Two <strong>2</strong>")
    for wrong in ({"hourly_rate": "-3"}, {"hourly_rate": "x"}, {"examples": "x" * 8001}):
        refused = admin.post(f"{here}/change", {"state": "paused", **wrong})
        assert refused.status_code == 400
        assert next(iter(wrong)) in text_of(refused)
    campaign = both.store.read(lambda s: s.get(Campaign, both.world.campaign))
    assert (campaign.state, campaign.settings["pass_mark"], campaign.settings["hourly_rate"]) == ("open", 0.6, 20)
    admin.post(f"{here}/change", {"state": "paused"})  # what a form does not have stays
    admin.post(f"{here}/change", {"examples": ""})
    found = both.store.read(lambda s: list(s.scalars(select(Event.detail).where(Event.kind == "campaign"))))
    assert [(one.get("hourly_rate"), one.get("examples")) for one in found[-3:]] == [(20.0, 2), (None, None), (None, 0)]
    assert both.person().post(f"{here}/change", change).status_code == 404
    assert "hourly_rate 20.0" in text_of(admin.get(f"/admin/events/{both.world.project}"))


def test_a_campaign_of_an_earlier_version_has_the_settings_it_did_not_know(place):
    place.open(items=1, people=1, task_type="demonstrate")
    place.store.run(lambda s: setattr(s.get(Campaign, place.world.campaign), "settings", {}))
    page = place.someone("admin").get(f"/admin/campaign/{place.world.campaign}")
    assert page.status_code == 200
    assert 'name="hourly_rate" value="0.0"' in page.text


@pytest.mark.parametrize(
    ("sent", "kept"), [("86400000", 86_400_000), ("86400001", None), ("9" * 15, None), ("-1", None)]
)
def test_time_that_nobody_can_have_spent_is_not_known_and_costs_nothing(place, sent, kept):
    place.open(items=1, people=1)
    ada = place.person()
    page = ada.get(place.task_page)
    fields = {f"rank.{one}": "1" for one in shown(page).values()}
    ada.post(f"/t/{assignment(page)}/submit", {"revision": "1", "active_ms": sent, **fields})
    assert [one.active_ms for one in place.store.read(verdicts, campaign_id=place.world.campaign)] == [kept]


def _people(place):
    return place.store.read(gather, campaign_id=place.world.campaign).people


def test_length_stands_beside_the_model_that_agrees_most(place):
    place.open(items=0, people=1, overlap=1, settings=CampaignSettings(gold_every=0))
    for number in range(40):
        item = place.world.add_item(f"q{number}", responses=("short", "much, much longer"))
        task = place.world.next(0)
        assert task.item_id
        # People prefer the longer one in 30 of 40; the good model in 20, agreeing in 30; the bad one is against them.
        longer, good = number < 30, number < 20
        place.world.submit(task, 0, ranks(task, "much, much longer" if longer else "short"))
        order = [one.id for one in task.responses]
        text = {one.id: one.text for one in task.responses}
        for name, wants in (("good", good), ("bad", not longer)):

            def add(session, name=name, wants=wants, order=order, text=text, item=task.item_id):
                model = add_model(session, name=name, revision="1", kind="reward")
                judge = add_judge(session, model_id=model.id, prompt="score")
                best = next(one for one in order if (text[one] != "short") == wants)
                payload = {"ranks": {one: 1 if one == best else 2 for one in order}}
                add_model_judgment(
                    session,
                    item_id=item,
                    judge_id=judge.id,
                    payload=payload,
                    display_order=order,
                    client_key=f"{name}:{item}",
                    started_at=1,
                    submitted_at=2,
                )

            place.store.run(add)
        del item
    material = place.store.read(gather, campaign_id=place.world.campaign)
    section = length_beside_a_model(material, analyse(material))
    assert "good@1" in section.sees
    assert section.table.header == ["the longer is", "people", "from 1/2", "model", "people less model"]
    first = section.table.rows[0]
    assert (first[1][:4], first[2], first[3][:4], first[4]) == ("0.75", "0.25", "0.50", "0.25")


def test_a_note_stands_on_the_first_page_until_its_reader_dismisses_it(both):
    both.open(items=1, people=2)
    admin, ada, bob = both.someone("admin"), both.person(0), both.person(1)
    send = f"/admin/campaign/{both.world.campaign}/message/"
    assert ada.post(send + bob.user_id, {"text": "psst"}).status_code == 404
    assert admin.post(send + ada.user_id, {"text": " "}).status_code == 400
    assert admin.post(send + both.someone(None, name="eve").user_id, {"text": "hello"}).status_code == 404
    assert admin.post(send + ada.user_id, {"text": "Please **read** the part on ties."}).status_code == 200
    assert "<strong>read</strong> the part on ties" in ada.get("/").text
    assert "part on ties" not in bob.get("/").text
    note = both.store.read(lambda s: s.scalar(select(Event).where(Event.kind == "note")))
    assert "ties" not in str(note.detail)  # the log has ids only
    assert bob.post(f"/notes/{note.id}/dismiss").status_code == 404
    assert "part on ties" not in ada.post(f"/notes/{note.id}/dismiss").text
    assert ada.post(f"/notes/{note.id}/dismiss").status_code == 200
    events = both.store.read(lambda s: list(s.scalars(select(Event.kind).where(Event.kind == "note read"))))
    assert events == ["note read"]


def test_a_second_click_sends_no_second_note(both):
    both.open(items=1, people=1)
    admin, ada = both.someone("admin"), both.person(0)
    send = f"/admin/campaign/{both.world.campaign}/message/{ada.user_id}"
    for text in ("Take your time.", "Take your time.", "Well done."):
        assert admin.post(send, {"text": text}).status_code == 200
    page = ada.get("/").text
    assert (page.count("Take your time."), page.count("Well done.")) == (1, 1)
    note = both.store.read(lambda s: s.scalar(select(Event.id).where(Event.kind == "note").order_by(Event.id).limit(1)))
    ada.post(f"/notes/{note}/dismiss")
    admin.post(send, {"text": "Take your time."})  # meant again
    assert ada.get("/").text.count("Take your time.") == 1


def test_evidence_is_collected_once_a_night_however_often_a_server_starts(both):
    both.open(items=0, people=0)  # nothing to find is noted too
    both.now = now_ms()
    assert [collect_evidence(both.app.state.studio) for _ in range(2)] == [1, 0]
    both.now += 86_400_000
    assert collect_evidence(both.app.state.studio) == 1
    found = both.store.read(lambda s: list(s.scalars(select(Event.detail).where(Event.kind == "evidence"))))
    assert found == [{"people": 0, "flagged": 0, "kinds": {}}] * 2
    assert both.someone("admin").get(f"/admin/campaign/{both.world.campaign}?figures").status_code == 200


def test_what_was_written_to_someone_is_forgotten_with_them(both):
    both.open(items=1, people=1)
    admin = both.someone("admin")
    admin.post(f"/admin/campaign/{both.world.campaign}/message/{both.world.people[0]}", {"text": "Dear person 0"})
    both.store.run(forget, user_id=both.world.people[0], now=both.now)
    assert both.store.read(lambda s: list(s.scalars(select(Body.text)))) == [None]


@pytest.mark.parametrize("way", ["forget", "retention"])
def test_a_report_that_is_kept_has_no_words_that_were_erased(both, way):
    both.open(items=1, people=2, retention_days=30)
    for who in (0, 1):
        task = both.world.next(who)
        both.world.submit(task, who, {**ranks(task), "reason": f"words of {who}"})
    reports = both.app.state.studio.reports
    before, report = reports.of(both.store, both.world.campaign)
    assert {one.words for one in before.verdicts} == {"words of 0", "words of 1"}
    assert reports.of(both.store, both.world.campaign)[1] is report
    if way == "forget":
        both.store.run(forget, user_id=both.world.people[0], now=both.now)
    else:
        both.store.run(enforce_retention, now=now_ms() + 40 * 86_400_000)
    after, _ = reports.of(both.store, both.world.campaign)
    assert {one.words for one in after.verdicts} == ({None, "words of 1"} if way == "forget" else {None})
    assert set(after.people) == set(both.store.read(gather, campaign_id=both.world.campaign).people)


def test_a_report_that_is_kept_learns_of_rewards(place):
    place.open(items=1, people=1)
    task = place.world.next(0)
    place.world.submit(task, 0, ranks(task, "one"))
    reports, here = place.app.state.studio.reports, place.world.campaign
    assert reports.of(place.store, here)[1].judges == ()
    given = {task.item_id: {one.id: 1.0 if one.text == "one" else 0.5 for one in task.responses}}
    place.store.run(keep_rewards, campaign_id=here, model="rm@1", rewards=given)
    assert [(one.judge, one.agreement) for one in reports.of(place.store, here)[1].judges] == [("rm@1", 1.0)]


def test_evidence_is_collected_by_night_and_dated(both):
    both.open(items=0, people=2, overlap=2, settings=CampaignSettings(gold_every=1, attention_every=0))
    for number in range(12):
        both.world.add_item(f"g{number}", kind="gold", expected={"one": 1, "two": 2})
    for _ in range(12):
        both.world.submit(both.world.next(0), 0, ranks(both.world.next(0), "two"))
    assert collect_evidence(both.app.state.studio) == 1
    (event,) = both.store.read(lambda s: list(s.scalars(select(Event).where(Event.kind == "evidence"))))
    assert event.detail == {"people": 1, "flagged": 1, "kinds": {"gold": 1}}
    page = text_of(both.someone("admin").get(f"/admin/campaign/{both.world.campaign}?figures"))
    assert "on 1 person, enough to decide on 1" in " ".join(page.split())


def test_each_judgment_knows_its_login_or_token_and_takes_it_nowhere(both):
    both.open(items=4, people=1)
    first, second = both.person(), both.person()
    for visitor in (first, second):
        page = visitor.get(both.task_page)
        visitor.post(
            f"/t/{assignment(page)}/submit", {"revision": "1", **{f"rank.{one}": "1" for one in shown(page).values()}}
        )
    page = second.get(both.task_page)
    second.post(f"/t/{assignment(page)}/skip", {"revision": "1", "skip": "language"})
    client = program(both, first.user_id, "annotate")
    task = client.post(f"/api/v1/campaigns/{both.world.campaign}/next").json()
    payload = {"ranks": {one["id"]: 1 for one in task["responses"]}}
    client.post(f"/api/v1/assignments/{task['assignment']}/submit", json={"payload": payload})
    found = both.store.read(verdicts, campaign_id=both.world.campaign, include_surplus=True)
    logins = both.store.read(lambda s: list(s.scalars(select(LoginSession.id).order_by(LoginSession.id))))
    token = both.store.read(lambda s: s.scalar(select(ApiToken.id)))
    assert [one.session for one in found] == [logins[0], logins[1], logins[1], token]
    both.store.run(enforce_retention, now=now_ms() + 40 * 86_400_000)  # logins that have ended are deleted
    again = both.store.read(verdicts, campaign_id=both.world.campaign, include_surplus=True)
    assert [one.session for one in again] == [*logins[:2], logins[1], token]
    rows = exported_rows(both.store, ExportOptions(form="judgments"), campaign_id=both.world.campaign, actor_id=None)
    assert not [one for one in (*logins, token) if one in str(rows)]


@pytest.mark.parametrize("part", ["agreement", "annotators", "flags", "settings"])
def test_parts_of_a_campaign_have_addresses_that_lead_to_places(place, part):
    place.open(items=2, people=2)
    for who, best in ((0, "one"), (0, "two"), (1, "one"), (1, "one")):
        place.world.submit(place.world.next(who), who, ranks(place.world.next(who), best))
    admin = place.someone("admin")
    here = f"/admin/{part}/{place.world.campaign}"
    assert here in admin.get(f"/admin/{part}").text
    assert here in admin.get(f"/admin/campaign/{place.world.campaign}").text
    led = admin.get(here, follow_redirects=False).headers["location"]
    address, _, where = led.partition("#")
    assert f'id="{where}"' in admin.get(address).text
    assert place.person().get(here).status_code == 404
    assert place.person().get(f"/admin/{part}").status_code == 404
