"""The REST API: tokens and scopes, the way of a task, managing, and whatever else schemathesis thinks of."""

from __future__ import annotations

import re

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import (
    missing_required_header,
    positive_data_acceptance,
    unsupported_method,
)
from sqlalchemy import select

from accord.feedback.store import verdicts
from accord.feedback.store.queries.tokens import add_token
from accord.feedback.store.tables import Item
from feedback.studio.test_talking import Model
from feedback.studio.test_watching import Writer, events, shown
from feedback.studio.visitors import HOST, Visitor

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
    assert [one["kind"] for one in client.get("/api/v1/events?limit=200").json()][-1] == "import"


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
