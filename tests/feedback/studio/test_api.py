"""The REST API: tokens and scopes, the way of a task, managing, and whatever else schemathesis thinks of."""

from __future__ import annotations

import json
import re
import zipfile
from io import BytesIO

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import (
    missing_required_header,
    positive_data_acceptance,
    unsupported_method,
)
from sqlalchemy import select

from accord.feedback.store import ExportOptions, export_campaign, verdicts
from accord.feedback.store.queries.talks import lines_of
from accord.feedback.store.queries.tokens import add_token
from accord.feedback.store.tables import Item
from feedback.studio.test_lockstep import Paced
from feedback.studio.test_talking import Model, begin
from feedback.studio.test_watching import Writer, events, shown
from feedback.studio.visitors import HOST, Visitor

EVENTS = "/api/v1/events?limit=200"
YEAR = 365 * 86_400_000


def program(place, user_id, *scopes):
    """A client with a bearer token."""
    token = place.store.run(add_token, user_id=user_id, name="t", scopes=scopes, expires_at=place.now + YEAR)
    visitor = Visitor(place.app, user_id)
    visitor.client.headers["Authorization"] = f"Bearer {token}"
    return visitor.client


def test_a_program_does_a_task(both):
    both.open(items=1, people=1)
    client = program(both, both.world.people[0], "annotate")
    task = client.post(f"/api/v1/campaigns/{both.world.campaign}/next").json()
    assert task["prompt"][0]["content"] == "question 0"
    mine, ids = task["assignment"], [one["id"] for one in task["responses"]]
    kept = client.put(f"/api/v1/assignments/{mine}/draft", json={"payload": {"fields": {"x": "1"}}})
    assert kept.headers["etag"] == '"1"'
    stale = client.put(f"/api/v1/assignments/{mine}/draft", json={"payload": {}}, headers={"If-Match": '"0"'})
    assert stale.status_code == 409
    assert stale.headers["content-type"] == "application/problem+json"
    verdict = {"revision": task["revision"], "payload": {"ranks": {ids[0]: 1, ids[1]: None}}}
    first, second = (client.post(f"/api/v1/assignments/{mine}/submit", json=verdict).json() for _ in range(2))
    assert (first["repeated"], second["repeated"]) == (False, True)
    assert first["judgment"] == second["judgment"]
    assert both.store.read(verdicts, campaign_id=both.world.campaign)[0].ranks == {ids[0]: 1, ids[1]: None}
    assert client.post(f"/api/v1/campaigns/{both.world.campaign}/next").json()["stop"] == "nothing left"


def test_the_same_key_gives_the_first_answer_and_a_wrong_one_says_what_is_wrong(both):
    both.open(items=2, people=1)
    client = program(both, both.world.people[0], "annotate")
    task = client.post(f"/api/v1/campaigns/{both.world.campaign}/next").json()
    mine, ids = task["assignment"], [one["id"] for one in task["responses"]]

    def send(key, what="submit", **body):
        return client.post(f"/api/v1/assignments/{mine}/{what}", json=body, headers={"Idempotency-Key": key})

    verdict = {"payload": {"ranks": {ids[0]: 1, ids[1]: 2}}}
    other = {"payload": {"ranks": {ids[0]: 2, ids[1]: 1}}}
    wrong = (
        (send("nonsense", **verdict), "expected ASSIGNMENT:REVISION"),
        (send(f"{mine}:0", **verdict), "expected ASSIGNMENT:REVISION"),
        (send(f"{mine}:1\n", **verdict), "expected ASSIGNMENT:REVISION"),
        (send("0190a1b2-0000-7000-8000-000000000000:1", **verdict), "key of the assignment 0190a1b2"),
        (send(f"{mine}:1", **verdict, revision=2), "found revision 1 here and 2 in the body"),
        (send("x" * 61, **verdict), "at most 60 characters"),
        (send(f"{mine}:x", "skip", reason="language"), "expected ASSIGNMENT:REVISION"),
    )
    for answer, said in wrong:
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
        assert answer.json()["errors"][0]["field"] == "header.idempotency-key"
        assert said in answer.json()["detail"]
    assert both.store.read(verdicts, campaign_id=both.world.campaign) == []
    first, second, third = (send(f"{mine}:1", **body).json() for body in (verdict, other, {**other, "revision": 1}))
    assert first == {"judgment": first["judgment"], "counted": True, "repeated": False}
    assert second == third == {**first, "repeated": True}
    assert both.store.read(verdicts, campaign_id=both.world.campaign)[0].ranks == {ids[0]: 1, ids[1]: 2}
    assert send(f"{mine}:3", **other).status_code == 400  # revision 2 comes next
    assert send(f"{mine}:2", **other).json()["repeated"] is False
    task = client.post(f"/api/v1/campaigns/{both.world.campaign}/next").json()
    mine = task["assignment"]
    skipped, again = (send(f"{mine}:1", "skip", reason="language").json() for _ in range(2))
    assert (skipped["repeated"], again["repeated"], again["judgment"]) == (False, True, skipped["judgment"])


def test_the_key_is_in_the_schema(place):
    schema = place.app.state.studio and Visitor(place.app).client.get("/api/v1/openapi.json").json()
    for what in ("submit", "skip"):
        given = schema["paths"][f"/assignments/{{assignment_id}}/{what}"]["post"]["parameters"]
        (key,) = (one for one in given if one["name"] == "idempotency-key")
        assert key["in"] == "header"
        assert not key["required"]
        assert "ASSIGNMENT:REVISION" in key["description"]
        assert "[0-9a-f-]" in str(key["schema"])


def test_a_token_reaches_as_far_as_its_scopes_and_its_person(place):
    place.open(people=1)
    admin, annotator = place.someone("admin").user_id, place.world.people[0]
    path = f"/api/v1/campaigns/{place.world.campaign}/flags"
    assert program(place, admin, "admin").get(path).status_code == 200
    assert program(place, admin, "annotate", "review").get(path).status_code == 403
    assert program(place, annotator, "admin").get(path).status_code == 404  # a scope makes nobody an admin
    assert Visitor(place.app).client.get(path).status_code == 401


def test_a_token_is_shown_once_and_can_be_ended(place):
    place.open(people=1)
    ada = place.person()
    shown = ada.post("/account/tokens", {"name": "robot", "scope-annotate": "yes"}).text
    token = re.search(r'class="link">(\w{64})<', shown)[1]
    assert token not in ada.get("/account").text
    client = Visitor(place.app).client
    client.headers["Authorization"] = f"Bearer {token}"
    path = f"/api/v1/campaigns/{place.world.campaign}/next"
    assert client.post(path).status_code == 200
    ada.post("/account/tokens/" + re.search(r"/account/tokens/([^/]+)/revoke", shown)[1] + "/revoke")
    assert client.post(path).status_code == 401


def test_a_session_needs_its_token_against_forgery(place):
    place.open(people=1)
    ada, path = place.person(), f"/api/v1/campaigns/{place.world.campaign}/next"
    assert ada.client.post(path, headers={"Origin": HOST}).status_code == 403
    assert (
        ada.client.post(path, headers={"Origin": "https://evil.example", "X-CSRF-Token": ada.csrf}).status_code == 403
    )
    assert ada.client.post(path, headers={"Origin": HOST, "X-CSRF-Token": ada.csrf}).status_code == 200


def test_from_a_project_to_an_export(place):
    place.open(people=0)
    site = place.someone(None, site=True)
    client = program(place, site.user_id, "admin", "review", "annotate")

    def make(path, **fields):
        answer = client.post(f"/api/v1/{path}", json=fields)
        assert answer.status_code == 201, answer.text
        return answer.json()

    project = make("projects", slug="sums", consent="ok?", guideline="right first")["id"]
    campaign = make("campaigns", project=project, name="c", task_type="rank", overlap=1, state="open")["id"]
    responses = [{"id": "a", "text": "4", "model": "m@1"}, {"id": "b", "text": "5"}]
    rows = [{"id": "q", "prompt": "2+2=", "responses": responses}]
    (item,) = make(f"campaigns/{campaign}/items", items=rows)
    case = site.get(f"/review/{campaign}/{item}").text
    ids = sorted(set(re.findall(r'name="rank\.([^"]+)"', case)))
    judged = {"item": item, "model": "judge@1", "prompt": "which?", "display_order": ids, "key": "1"}
    make("judgments/ai", judgments=[{**judged, "payload": {"ranks": {ids[0]: 1, ids[1]: 2}}}])
    assert client.get(f"/api/v1/campaigns/{campaign}").json()["slots"] == 1
    exported = client.get(f"/api/v1/campaigns/{campaign}/export?as=comparisons").json()
    assert len(exported["train"]) == 1
    assert [one["kind"] for one in client.get(EVENTS).json()][-2:] == ["import", "export"]


def test_a_program_agrees_and_talks(place):
    place.models["writer@1"] = Writer("one", "two")
    place.open(items=0, people=0, task_type="chat")
    bob = place.someone("annotator")
    client = program(place, bob.user_id, "annotate")
    talk = {"campaign": place.world.campaign}
    assert client.post("/api/v1/conversations", json=talk).status_code == 400  # agreed to nothing yet
    text = client.get(f"/api/v1/projects/{place.world.project}/consent").json()
    agree = {"project": place.world.project, "uses": ["train"]}
    assert client.post("/api/v1/consents", json={**agree, "text": place.world.project}).status_code == 400
    assert client.post("/api/v1/consents", json={**agree, "text": text["id"]}).status_code == 201
    begun = client.post("/api/v1/conversations", json=talk).json()["id"]
    answer = client.post(f"/api/v1/conversations/{begun}/turns", json={"text": "count"})
    assert shown(events(answer)) == "one two"
    other = program(place, place.someone("annotator", name="eve").user_id, "annotate")
    assert other.post(f"/api/v1/conversations/{begun}/turns", json={"text": "x"}).status_code == 404


def test_a_program_picks_between_two_candidates(place):
    place.models |= {name: Paced(name, said, 0.001) for name, said in (("new@1", "a b c d"), ("old@1", "e f g h"))}
    place.open(items=0, people=2, task_type="chat")
    client = program(place, place.world.people[0], "annotate")
    begun = client.post("/api/v1/conversations", json={"campaign": place.world.campaign}).json()["id"]
    one = f"/api/v1/conversations/{begun}"
    *steps, last = events(client.post(f"{one}/turns", json={"text": "letters"}))
    assert (sorted(steps[0]["add"]), last) == (["a b c d", "e f g h"], {"error": None})
    assert client.post(f"{one}/picks", json={"verdict": "C"}).status_code == 422
    eve = program(place, place.world.people[1], "annotate")
    assert eve.post(f"{one}/picks", json={"verdict": "B"}).status_code == 404
    for _ in range(2):
        assert client.post(f"{one}/picks", json={"verdict": "B"}).status_code == 201
    chosen = [line.text for line in place.store.read(lines_of, begun) if line.chosen]
    assert chosen == ["letters", steps[0]["add"][1]]


@pytest.mark.parametrize("task_type", ["chat", "redteam"])
@pytest.mark.parametrize("rule", ["keep_verdicts", "delete"])
def test_conversations_leave_by_three_ways_under_the_same_rules(place, tmp_path, task_type, rule):
    """The command's function, the page and the REST API: before and after consent is taken back."""
    place.models["new@1"] = Model("new@1")
    place.open(items=0, people=2, task_type=task_type, on_withdrawal=rule)
    for who in (0, 1):
        visitor = place.person(who)
        talk = begin(place, visitor, area="privacy", goal="an address")
        visitor.post(f"{talk}/say", {"text": f"words of {who}"})
        visitor.post(f"{talk}/finish", {"rating": "4", "success": "1", "tag.privacy": "on"})
    admin = place.someone("admin")
    client = program(place, admin.user_id, "admin")

    def ways() -> list[list[dict]]:
        options = ExportOptions(form="conversations")
        campaign = place.world.campaign
        export_campaign(place.store, tmp_path, options, campaign_id=campaign, actor_id=None)
        page = admin.post(f"/admin/campaign/{campaign}/export", {"form": "conversations"})
        rest = client.get(f"/api/v1/campaigns/{campaign}/export?as=conversations")
        files = [(tmp_path / "train.jsonl").read_text(), zipfile.ZipFile(BytesIO(page.content)).read("train.jsonl")]
        return [[json.loads(line) for line in text.splitlines()] for text in files] + [rest.json()["train"]]

    first, second, third = ways()
    assert first == second == third
    assert sorted(row["messages"][0]["content"] for row in first) == ["words of 0", "words of 1"]
    assert {row["meta"]["kind"] for row in first} == {task_type}
    place.now += 1000
    place.person(0).post(f"/account/withdraw/{place.world.project}")
    first, second, third = ways()
    assert first == second == third
    assert [row["messages"][0]["content"] for row in first] == ["words of 1"]
    place.person(1).post(f"/account/withdraw/{place.world.project}")
    for answer in (
        client.get(f"/api/v1/campaigns/{place.world.campaign}/export?as=conversations"),
        admin.post(f"/admin/campaign/{place.world.campaign}/export", {"form": "conversations"}),
    ):
        assert answer.status_code == 400
        assert "2 consent withdrawn" in answer.text
    kinds = [one["kind"] for one in program(place, place.someone(None, site=True).user_id, "admin").get(EVENTS).json()]
    assert kinds.count("export") == 6


def test_an_admin_s_program_samples_and_reads(place):
    place.models["new@1"] = Model("new@1")
    place.open(items=2, people=1)
    place.world.submit(place.world.next())
    place.world.next()
    client = program(place, place.someone("admin").user_id, "admin", "review")
    one = f"/api/v1/campaigns/{place.world.campaign}"
    assert client.get(f"{one}/progress").json() == {"state": "open", "slots": 6, "filled": 1, "leased": 1}
    (line,) = client.get(f"{one}/annotators").json()
    assert (line["judgments"], line["agrees"]) == (1, None)
    prompts, seen = f"/api/v1/prompts?project={place.world.project}&limit=1", []
    while page := client.get(f"{prompts}&after={seen[-1] if seen else ''}").json():
        seen += [row["id"] for row in page]
    assert len(seen) == 2
    responses = client.get(f"/api/v1/responses?project={place.world.project}").json()
    assert {row["text"] for row in responses} == {"one", "two"}
    made = client.post(f"{one}/sample", json={"prompts": ["sing"], "count": 2})
    assert made.status_code == 400  # one distinct reply, and a ranking takes two
    place.models["old@1"] = Model("old@1")
    assert len(client.post(f"{one}/sample", json={"prompts": ["sing"]}).json()) == 1
    alike = ["a" * 250 + end for end in "xy"]  # named by all of their words, not by the first ones
    assert len(client.post(f"{one}/sample", json={"prompts": alike}).json()) == 2
    named = place.store.read(lambda session: list(session.scalars(select(Item.source_ref))))
    assert len({name for name in named if name}) == 3
    models = {row["model"] for row in client.get(f"/api/v1/responses?project={place.world.project}").json()}
    assert models == {None, "new@1", "old@1"}
    annotator = program(place, place.world.people[0], "admin", "review")
    for path in (f"{one}/progress", f"{one}/annotators", prompts, f"/api/v1/responses?project={place.world.project}"):
        assert annotator.get(path).status_code == 404


def test_the_page_of_the_api_lists_its_calls(place):
    place.open(people=1)
    page = place.person().get("/api/v1/")
    assert "/api/v1/assignments/{assignment_id}/submit" in page.text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_schemathesis_finds_no_fault(place):
    """Made-up calls of every operation: no 5xx, no answer the schema does not know."""
    place.open(items=3, people=1)
    site = place.someone("admin", site=True)
    token = place.store.run(
        add_token, user_id=site.user_id, name="t", scopes=("admin", "review", "annotate"), expires_at=place.now + YEAR
    )
    place.app.state.studio.limits._per_minute = 10**9
    (api,) = (one.app for one in place.app.routes if getattr(one, "path", "") == "/api/v1")
    schema = schemathesis.openapi.from_asgi("/openapi.json", api)
    # What the schema cannot say (an id that is there, ranks that fit an item) makes valid data be refused.
    left_out = [positive_data_acceptance, unsupported_method, missing_required_header]
    seen = set()
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(case=operation.as_strategy())
        def call(case):
            case.headers["Authorization"] = f"Bearer {token}"
            case.call_and_validate(excluded_checks=left_out)

        call()
        seen.add(operation.label)
    assert len(seen) >= 28
