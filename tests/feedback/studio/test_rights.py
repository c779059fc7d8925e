"""Who may do what: every address that changes something, every admin page, every id that is someone else's."""

from __future__ import annotations

import re

import pytest
from fastapi.routing import APIRoute
from sqlalchemy import select
from starlette.routing import Mount

from accord.feedback.store import CampaignSettings, add_project, add_review, import_records, set_role
from accord.feedback.store.tables import User
from accord.feedback.studio.api import annotating, managing, reading, talking
from accord.feedback.studio.api.callers import caller
from accord.feedback.studio.context import checked_form, open_form, visitor
from accord.feedback.studio.pages import PAGES
from accord.records import Response as Said
from accord.records import ResponseSet
from feedback.studio.test_api import program
from feedback.studio.visitors import HOST, Visitor, assignment, shown
from feedback.worlds import ranks

OPEN = {"/login", "/join/{token}", "/preferences"}  # of those who are not logged in


def routes(app):
    return [one for module in PAGES for one in module.router.routes if isinstance(one, APIRoute)]


def dependencies(dependant) -> set[object]:
    return {dependant.call}.union(*(dependencies(one) for one in dependant.dependencies))


@pytest.fixture
def full(place):
    """A place with a task in hand, so that every kind of id is there."""
    place.open(items=2, people=2)
    place.mine = place.person(0).get(place.task_page)
    return place


def test_all_that_changes_something_asks_for_the_token_of_the_session(place):
    unguarded = []
    for route in routes(place.app):
        used = dependencies(route.dependant)
        if route.methods - {"GET"} and checked_form not in used and not route.path.startswith("/api/"):
            unguarded.append(route.path)
            assert open_form in used, route.path  # at least: from a page of ours
    assert set(unguarded) == OPEN


def test_all_but_the_entrance_asks_who_is_there(place):
    open_ = {one.path for one in routes(place.app) if visitor not in dependencies(one.dependant)}
    assert {path for path in open_ if not path.startswith("/api/")} == OPEN
    assert [one.path for one in place.app.routes if isinstance(one, Mount)] == ["/api/v1", "/static"]


def test_every_call_of_the_api_asks_who_is_there():
    calls = [
        one
        for part in (annotating, managing, reading, talking)
        for one in part.router.routes
        if isinstance(one, APIRoute)
    ]
    assert len(calls) >= 29
    assert [one.path for one in calls if caller not in dependencies(one.dependant)] == []


def addresses(place, *, methods: str) -> list[str]:
    """Every address with ids of the project filled in."""
    ids = {
        "campaign_id": place.world.campaign,
        "project_id": place.world.project,
        "item_id": place.world.items[0],
        "user_id": place.world.people[1],
        "assignment_id": assignment(place.mine),
        "judgment_id": "01a21312-0000-7000-8000-000000000000",
        "exclusion_id": "01a21312-0000-7000-8000-000000000000",
        "conversation_id": "01a21312-0000-7000-8000-000000000000",
        "session_id": "01a21312-0000-7000-8000-000000000000",
        "token_id": "01a21312-0000-7000-8000-000000000000",
        "note_id": "01a21312-0000-7000-8000-000000000000",
        "identity": "agreement",
    }
    found = [one.path for one in routes(place.app) if methods in one.methods and "{token}" not in one.path]
    return [re.sub(r"{(\w+)}", lambda match: ids[match[1]], path) for path in found]


OWN = (
    "/",
    "/history",
    "/qualify",
    "/help/keys",
    "/account",
    "/preview",
    "/logout",
    "/login",
    "/preferences",
    "/account/password",
    "/account/tokens",
)


def test_a_stranger_with_an_account_finds_nothing_of_the_project(full):
    stranger = full.someone(None)
    for path in addresses(full, methods="GET"):
        if path not in OWN and not path.startswith("/api/"):
            assert stranger.get(path, follow_redirects=False).status_code == 404, path


def test_a_stranger_with_an_account_changes_nothing_of_the_project(full):
    stranger = full.someone(None)
    for path in addresses(full, methods="POST"):
        if path not in OWN and not path.startswith("/api/"):
            answer = stranger.post(path, {"agree": "yes", "role": "admin"}, follow_redirects=False)
            assert answer.status_code == 404 or "/admin/explore" in path, path  # no file was sent, which it says first


def test_an_annotator_sees_no_page_of_admins_or_reviewers(full):
    bob = full.person(1)
    for methods in ("GET", "POST"):
        for path in addresses(full, methods=methods):
            if path.startswith(("/admin", "/review")) and "/import" not in path:
                answer = bob.get(path) if methods == "GET" else bob.post(path, {"role": "admin"})
                assert answer.status_code == 404, path


def test_a_reviewer_reviews_and_administers_nothing(full):
    rita = full.someone("reviewer")
    assert rita.get(f"/review/{full.world.campaign}").status_code == 200
    for path in addresses(full, methods="GET"):
        if path.startswith("/admin"):
            assert rita.get(path).status_code == 404, path


def test_an_admin_of_one_project_is_nobody_in_another(full):
    other = full.store.run(add_project, slug="other").id
    eve = full.someone(None, name="eve")
    full.store.run(set_role, user_id=eve.user_id, project_id=other, role="admin", actor_id=None)
    assert eve.get("/admin").status_code == 200
    assert eve.get(f"/admin/project/{other}").status_code == 200
    lists = {f"/admin/{part}" for part in ("agreement", "annotators", "flags", "settings")}  # of one's own campaigns
    for path in addresses(full, methods="GET"):
        if path.startswith(("/admin/", "/review", "/c/", "/t/")):
            answer = eve.get(path, follow_redirects=False)
            assert answer.status_code == (200 if path in lists else 404), path
            assert full.world.campaign not in answer.text.replace(path, ""), path


def test_the_task_of_another_is_not_found(full):
    bob, theirs = full.person(1), assignment(full.mine)
    ranking = {f"rank.{one}": "1" for one in shown(full.mine).values()}
    assert bob.get(f"/t/{theirs}").status_code == 404
    for what in ("draft", "submit", "skip", "draft/drop"):
        answer = bob.post(f"/t/{theirs}/{what}", {"revision": "1", "version": "0", "skip": "language", **ranking})
        assert answer.status_code == 404, what
    assert full.person(0).post(f"/t/{theirs}/submit", {"revision": "1", **ranking}).status_code == 200


def test_ids_of_another_task_in_a_form_are_refused(full):
    ada = full.person(0)
    full.world.submit(full.world.next(1), 1)
    other = full.world.next(1)
    forged = {f"rank.{one}": str(rank) for one, rank in ranks(other)["ranks"].items()}
    answer = ada.post(f"/t/{assignment(full.mine)}/submit", {"revision": "1", **forged})
    assert answer.status_code == 400 or other.item_id == full.world.items[0]


@pytest.mark.parametrize("token", ["", "wrong", "ä" * 20])
def test_a_wrong_token_changes_nothing(full, token):
    ada = full.person(0)
    answer = ada.post(f"/t/{assignment(full.mine)}/skip", {"revision": "1", "skip": "language"}, csrf=token)
    assert answer.status_code == 403
    assert "data-assignment" in ada.get(full.task_page).text


def test_the_token_of_another_session_changes_nothing(full):
    ada, bob = full.person(0), full.person(1)
    answer = ada.post(f"/t/{assignment(full.mine)}/skip", {"revision": "1", "skip": "language"}, csrf=bob.csrf)
    assert answer.status_code == 403


def test_a_page_of_another_site_changes_nothing(full):
    ada = full.person(0)
    path, data = f"/t/{assignment(full.mine)}/skip", {"revision": "1", "skip": "language", "csrf": ada.csrf}
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": HOST, "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert ada.client.post(path, data=data, headers=headers).status_code == 403, headers


@pytest.mark.parametrize("task_type", ["rank", "winrate", "demonstrate"])
def test_nothing_an_annotator_can_read_names_a_model_or_another_person(both, task_type):
    """Pages and JSON, before and after a qualification, with others' words, reviews, notes and rewards in the store."""
    both.open(items=0, people=3, overlap=3, task_type=task_type, settings=CampaignSettings(attempts=1))
    if task_type == "demonstrate":
        for n in range(3):
            both.world.add_item(f"question {n}", responses=(), source_ref=f"zqname{n}")
    else:
        models = ("zqmodel@1", "zqother@2")
        sets = [ResponseSet(id=f"zqname{n}", prompt=f"question {n}", responses=answers(n, models)) for n in range(3)]
        both.world.items = import_records(both.store, sets, campaign_id=both.world.campaign, source="zqsource").items
    admin, rita = both.someone("admin", name="zqadmin"), both.someone("reviewer", name="zqreviewer")
    both.world.people[0] = both.world.add_person("zqperson")
    for _ in range(3):
        task = both.world.next(0)
        answer = {"rank": ranks(task), "winrate": {"choice": None}, "demonstrate": {"text": "zqwords"}}[task_type]
        done = both.world.submit(task, 0, {**answer, **({"reason": "zqreason"} if task_type == "rank" else {})})
        note = {"reviewer_id": rita.user_id, "decision": "accept", "reason": "zqreview"}
        both.store.run(add_review, judgment_id=done.judgment_id, **note)
    bob = both.person(1)
    admin.post(f"/admin/campaign/{both.world.campaign}/message/{bob.user_id}", {"text": "Hello."})
    both.mine, task = bob.get(both.task_page), both.world.next(1)
    mine = {"rank": ranks(task), "winrate": {"choice": None}, "demonstrate": {"text": "mine"}}[task_type]
    both.world.submit(task, 1, mine)
    client = program(both, bob.user_id, "annotate")
    texts = {path: bob.get(path).text for path in addresses(both, methods="GET") if "/admin" not in path}
    texts |= {"next": client.post(f"/api/v1/campaigns/{both.world.campaign}/next").text}
    texts |= {path: bob.get(path).text for path in ("/api/v1/campaigns", f"/c/{both.world.campaign}/examples")}
    pseudonyms = both.store.read(lambda s: list(s.scalars(select(User.pseudonym))))
    hidden = ("zq", "gold", "imported", *pseudonyms)
    assert {path: one for path, text in texts.items() for one in hidden if one in text} == {}


def answers(number, models):
    return tuple(Said(id=f"zq{one}", text=f"words {place} {number}", model=one) for place, one in enumerate(models))


def test_a_role_is_changed_by_an_admin_and_logs_out(full):
    admin, bob = full.someone("admin"), full.person(1)
    people = f"/admin/people/{full.world.project}"
    assert admin.post(f"{people}/{bob.user_id}/role", {"role": "reviewer"}).status_code == 200
    assert bob.get("/", follow_redirects=False).status_code == 303
    assert full.enter(bob.user_id).get(f"/review/{full.world.campaign}").status_code == 200
    assert admin.post(f"{people}/{admin.user_id}/role", {"role": "annotator"}).status_code == 400
    assert admin.post(f"{people}/{bob.user_id}/role", {"role": "emperor"}).status_code == 400


def test_only_an_admin_of_the_site_closes_accounts(full):
    admin, site, bob = full.someone("admin"), full.someone(None, site=True), full.person(1)
    path = f"/admin/people/{full.world.project}/{bob.user_id}/disable"
    assert admin.post(path, {"disabled": "yes"}).status_code == 404
    assert site.post(path, {"disabled": "yes"}).status_code == 200
    assert full.enter(bob.user_id).get("/", follow_redirects=False).status_code == 303


def test_nobody_is_let_in_without_a_session(full):
    visitor = Visitor(full.app)
    for path in addresses(full, methods="GET"):
        if path != "/login" and not path.startswith("/api/"):
            answer = visitor.get(path, follow_redirects=False)
            assert answer.status_code == 303, path
            assert answer.headers["location"].startswith("/login")
