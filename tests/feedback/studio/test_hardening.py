"""Headers, sizes, hostile texts in pages, and a log without content."""

from __future__ import annotations

import logging
import re

import pytest
from sqlalchemy import select

from accord.feedback.store.tables import Body
from accord.feedback.studio import StudioConfig, create_app
from accord.feedback.studio.reports import as_csv
from feedback.studio.test_api import program
from feedback.studio.test_talking import Model
from feedback.studio.visitors import HOST, Visitor, assignment, shown, text_of

NASTY = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'\u202e{{7*7}}"


def test_every_answer_carries_the_headers(place):
    place.open(people=1)
    ada = place.person()
    for answer in (ada.get("/"), ada.get("/nothing"), ada.get("/static/studio.css"), Visitor(place.app).get("/login")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert ada.get("/").headers["cache-control"] == "no-store"


def test_pages_hold_no_script_no_style_and_no_address_of_elsewhere(place):
    place.open(people=1)
    admin = place.someone("admin")
    pages = [place.person().get(place.task_page), admin.get(f"/admin/campaign/{place.world.campaign}"), admin.get("/")]
    for page in pages:
        assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", page.text)
        assert not re.search(r'(?:src|href|action)="(?:https?:)?//', page.text)


def test_under_tls_the_cookie_is_for_tls_only(sqlite_store):
    app = create_app(sqlite_store, StudioConfig(behind_proxy=True))
    answer = Visitor(app).get("/login")
    assert answer.headers["strict-transport-security"].startswith("max-age=")
    from accord.feedback.studio.context import cookie_name

    assert cookie_name(StudioConfig(behind_proxy=True)) == "__Host-session"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::"])
def test_other_machines_are_served_over_tls_only(host):
    with pytest.raises(ValueError, match="in clear text"):
        StudioConfig(host=host)
    assert StudioConfig(host=host, behind_proxy=True).secure


def test_bodies_have_a_size(place):
    place.open(people=1)
    ada = place.person()
    page = ada.get(place.task_page)
    large = ada.post(f"/t/{assignment(page)}/draft", {"version": "0", "reason": "x" * (1 << 20)})
    assert large.status_code == 413

    def drip():
        for _ in range(20):
            yield b"reason=" + b"x" * (1 << 16)

    headers = {"Origin": HOST, "Content-Type": "application/x-www-form-urlencoded"}
    assert ada.client.post(f"/t/{assignment(page)}/draft", content=drip(), headers=headers).status_code == 413


def test_hostile_texts_stay_text_wherever_they_are_shown(place):
    place.open(items=0, people=0, content_warning=NASTY)
    place.world.add_item(NASTY, responses=(NASTY, "fine"))
    ada = place.someone("admin", name=f"eve {NASTY}")
    ada.post(f"/c/{place.world.campaign}/consent", {"agree": "yes"})
    ada.post(f"/c/{place.world.campaign}/guidelines", {"guideline": place.world.guideline})
    ada.post(f"/admin/texts/{place.world.project}/guideline", {"markdown": NASTY, "note": NASTY})
    page = ada.get(place.task_page)
    ranking = {f"rank.{one}": str(n) for n, one in enumerate(shown(page).values(), 1)}
    ada.post(f"/t/{assignment(page)}/submit", {"revision": "1", "reason": NASTY, **ranking})
    item, campaign = place.world.items[0], place.world.campaign
    seen = [
        page.text,
        ada.get("/history").text,
        ada.get(f"/t/{assignment(page)}").text,
        ada.get(f"/review/{campaign}").text,
        ada.get(f"/review/{campaign}/{item}").text,
        ada.get(f"/admin/campaign/{campaign}?figures").text,
        ada.get(f"/admin/people/{place.world.project}").text,
        ada.get(f"/admin/texts/{place.world.project}").text,
        ada.get(f"/admin/events/{place.world.project}").text,
        ada.get(f"/c/{campaign}/guidelines").text,
        ada.post("/preview", {"text": NASTY}).text,
    ]
    for text in seen:
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "\u202e" not in re.sub(r'(?s)value="[^"]*"|<textarea.*?</textarea>|aria-label="[^"]*"', "", text)
        assert "49" not in re.findall(r"\{\{7\*7\}\}|49(?=\s*<)", text)


@pytest.mark.parametrize(
    "value", ["' OR '1'='1", "1; DROP TABLE judgment", "\x00", "%00", "../../etc/passwd", "9" * 5000]
)
def test_injections_find_nothing(place, value):
    place.open(people=1)
    ada = place.person()
    for path in ("/c/{}/task", "/t/{}", "/review/{}", "/admin/campaign/{}", "/talk/{}"):
        answer = ada.client.get(path.format(value.replace("/", "%2F").replace("\x00", "%00")))
        assert answer.status_code == 404, path
    page = ada.get(place.task_page)
    for name in ("revision", "version", "active_ms"):
        ada.post(f"/t/{assignment(page)}/draft", {name: value})
    assert "data-assignment" in ada.get(place.task_page).text


def test_the_log_holds_no_secret_and_no_word_of_anyone(place, caplog):
    place.open(people=1)
    secrets = ["PLANTED-PASSWORD-123", "PLANTED-WORDS", "PLANTED-QUERY", "PLANTED-TOKEN"]
    with caplog.at_level(logging.DEBUG):
        ada = place.person()
        page = ada.get(place.task_page + "?x=PLANTED-QUERY")
        ada.post("/login", {"name": "PLANTED-WORDS", "password": "PLANTED-PASSWORD-123"})
        ada.get("/join/PLANTED-TOKEN")
        ada.post(f"/t/{assignment(page)}/draft", {"version": "0", "reason": "PLANTED-WORDS"})
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert any('"route": "/c/{campaign_id}/task"' in line for line in ours)
    for secret in (*secrets, ada.csrf, ada.client.cookies["session"]):
        assert not any(secret in line for line in ours)


def test_a_fault_is_said_without_its_inside(place, monkeypatch):
    place.open(people=1)
    monkeypatch.setattr("accord.feedback.studio.pages.home.my_work", lambda *_, **__: 1 / 0)
    answer = place.person().get("/")
    assert answer.status_code == 500
    assert "Something broke" in answer.text
    assert "ZeroDivision" not in answer.text


def test_too_many_requests_wait_and_nothing_else_does(sqlite_store):
    from feedback.studio.visitors import Place

    place = Place(sqlite_store)
    place.open(people=2)
    place.app.state.studio.limits._per_minute = 5
    ada, bob = place.person(0), place.person(1)
    codes = [ada.get("/history").status_code for _ in range(7)]
    assert codes == [200] * 5 + [429] * 2
    assert bob.get("/history").status_code == 200
    place.now += 60_000
    assert ada.get("/history").status_code == 200


def test_a_cell_of_a_table_is_no_formula():
    made = as_csv(["who", "n"], [["=HYPERLINK(1)", "-0.5"], ["@x", "+1"], ["-cmd", 3]])
    assert made.splitlines()[1:] == ["'=HYPERLINK(1),-0.5", "'@x,+1", "'-cmd,3"]


def test_a_null_character_is_kept_as_a_sign_for_it_by_both_databases(both):
    """PostgreSQL keeps none in a text: what SQLite took was an error 500 there. A model can write one, too."""
    both.models["m@1"] = Model("good\0bye")
    both.open(items=1, people=1)
    admin, ada = both.someone("admin"), both.person()
    page = ada.get(both.task_page)
    ranks = {f"rank.{one}": "1" for one in shown(page).values()}
    new = {"task_type": "chat", "guideline": both.world.guideline, "overlap": "1", "lease_minutes": "30"}
    made = admin.post(f"/admin/project/{both.world.project}/campaigns", {"name": "a\0b", **new})
    campaign = made.url.path.split("/")[3]
    answers = [
        made,
        admin.post(f"/admin/campaign/{campaign}/change", {"state": "open"}),
        admin.post(f"/admin/campaign/{both.world.campaign}/message/{ada.user_id}", {"text": "note\0d"}),
        admin.post(f"/admin/texts/{both.world.project}/guideline", {"markdown": "a\0b"}),
        ada.post(f"/t/{assignment(page)}/draft", {"version": "0", "reason": "a\0b"}),
        ada.post(f"/t/{assignment(page)}/submit", {"revision": "1", "reason": "say\0so", **ranks}),
        ada.get("/"),
    ]
    assert [one.status_code for one in answers] == [200] * len(answers)
    assert "note\ufffdd" in answers[-1].text
    ada.post(f"/c/{campaign}/guidelines", {"guideline": both.guideline().id})
    talk = ada.post(f"/c/{campaign}/chat")
    assert "good\ufffdbye" in ada.post(f"{talk.url.path}/say", {"text": "hi\0there"}).text
    assert ada.get("/c/a%00b/task").status_code == 404
    bodies = both.store.read(lambda s: set(s.scalars(select(Body.text))))
    assert {"note\ufffdd", "say\ufffdso", "hi\ufffdthere", "good\ufffdbye heard 1"} <= bodies


@pytest.mark.parametrize("rate", ["inf", "-1", "nan", "1e999"])
def test_the_price_of_an_hour_is_a_finite_number_on_both_databases(both, rate):
    both.open()
    given = {"name": "new", "task_type": "rank", "guideline": both.world.guideline, "overlap": "1"}
    address = f"/admin/project/{both.world.project}/campaigns"
    answer = both.someone("admin").post(address, {**given, "lease_minutes": "30", "hourly_rate": rate})
    assert answer.status_code == 400
    assert "hourly_rate" in text_of(answer)


@pytest.mark.parametrize("draft", [{"fields": ["x"]}, {"fields": "x"}, {"fields": {"span.0": 5, "reason": ["y"]}}])
def test_a_program_s_draft_of_another_form_does_not_break_the_page(place, draft):
    place.open(items=1, people=1)
    ada = place.person()
    mine = assignment(ada.get(place.task_page))
    client = program(place, ada.user_id, "annotate")
    assert client.put(f"/api/v1/assignments/{mine}/draft", json={"payload": draft}).status_code == 200
    page = ada.get(place.task_page)
    assert page.status_code == 200
    assert 'name="span.0"' not in page.text
