"""Invitations, logging in and out, accounts."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import func, select

from accord.feedback.store import add_user, invite, session_of, start_session
from accord.feedback.store.tables import LoginSession, User
from accord.feedback.studio.passwords import hash_password
from accord.feedback.studio.serve import admin_link
from feedback.studio.visitors import HOST, Visitor, text_of

PASSWORD = "correct horse battery"


@pytest.fixture
def stranger(place):
    place.open(people=0)
    return Visitor(place.app)


@pytest.fixture(scope="module")
def hashed():
    return hash_password(PASSWORD)


def add_ada(place, hashed, **more):
    return place.store.run(add_user, handle="ada", password_hash=hashed, **more).id


def token_for(place, role="annotator", days=1, project=True):
    until = place.now + days * 86_400_000
    return place.store.run(invite, project_id=place.world.project if project else None, role=role, expires_at=until)


def log_in(visitor, password=PASSWORD, name="ada", **more):
    return visitor.post("/login", {"name": name, "password": password, **more}, follow_redirects=False)


def test_an_invitation_makes_an_account_once(place, stranger):
    link = f"/join/{token_for(place)}"
    assert "project p as an annotator" in re.sub(r"\s+", " ", text_of(stranger.get(link)))
    joined = stranger.post(link, {"name": "ada", "password": PASSWORD})
    assert joined.url.path == "/"
    assert "question" not in joined.text
    assert "c" in joined.text
    again = Visitor(place.app).post(link, {"name": "bob", "password": PASSWORD})
    assert again.status_code == 404
    assert place.store.read(lambda s: s.scalar(select(func.count()).select_from(User))) == 1


def test_looking_at_an_invitation_does_not_use_it(place, stranger):
    link = f"/join/{token_for(place)}"
    assert [stranger.get(link).status_code for _ in range(3)] == [200, 200, 200]


def test_an_invitation_runs_out(place, stranger):
    link = f"/join/{token_for(place)}"
    place.now += 86_400_000
    assert stranger.get(link).status_code == 404


@pytest.mark.parametrize(
    ("name", "password", "words"),
    [("ada", "short", "expected 12"), ("a", PASSWORD, "2 to 60"), ("a\x00b", PASSWORD, "visible characters")],
)
def test_a_refused_account_keeps_the_invitation(place, stranger, name, password, words):
    link = f"/join/{token_for(place)}"
    refused = stranger.post(link, {"name": name, "password": password})
    assert refused.status_code == 400
    assert words in text_of(refused)
    assert stranger.post(link, {"name": "ada", "password": PASSWORD}).status_code == 200


def test_the_first_start_has_a_link_for_its_admin_and_the_second_has_none(place, stranger):
    link = place.store.run(admin_link, base="", now=place.now)
    assert stranger.post(link, {"name": "ada", "password": PASSWORD}).status_code == 200
    assert stranger.get("/admin").status_code == 200
    assert place.store.run(admin_link, base="", now=place.now) is None


def test_the_admin_link_is_good_for_fifteen_minutes(place, stranger):
    link = place.store.run(admin_link, base="", now=place.now)
    place.now += 15 * 60_000
    assert stranger.get(link).status_code == 404


def test_logging_in_leads_to_where_one_was_going(place, stranger, hashed):
    add_ada(place, hashed)
    sent = stranger.get("/history", follow_redirects=False)
    assert sent.headers["location"] == "/login?next=%2Fhistory"
    assert log_in(stranger, next="/history").headers["location"] == "/history"
    assert stranger.get("/history").status_code == 200


@pytest.mark.parametrize("where", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)"])
def test_logging_in_leads_nowhere_else(place, stranger, hashed, where):
    add_ada(place, hashed)
    assert log_in(stranger, next=where).headers["location"] == "/"


def test_every_failure_says_the_same(place, stranger, hashed):
    add_ada(place, hashed)
    closed = place.store.run(add_user, handle="closed", password_hash=hashed)
    place.store.run(lambda s: setattr(s.get(User, closed.id), "disabled_at", place.now))
    place.store.run(add_user, handle="no password")
    said = set()
    for name, password in (("ada", "wrong"), ("nobody", "wrong"), ("closed", PASSWORD), ("no password", "")):
        refused = Visitor(place.app).post("/login", {"name": name, "password": password})
        assert refused.status_code == 401
        said.add(re.sub(r"\s+", " ", text_of(refused)))
    assert len(said) == 1


def test_guessing_is_slowed_down_and_the_owner_gets_in_later(place, stranger, hashed):
    add_ada(place, hashed)
    codes = [log_in(stranger, "wrong").status_code for _ in range(7)]
    assert codes == [401] * 6 + [429] or codes == [401] * 5 + [429] * 2
    refused = log_in(stranger)
    assert refused.status_code == 429  # the right password does not help either
    assert int(refused.headers["retry-after"]) >= 1
    place.now += 16 * 60_000
    assert log_in(stranger).status_code == 303


def test_a_session_brought_along_is_not_taken_over(place, stranger, hashed):
    """Session fixation: whoever plants a cookie must not know the session after the login."""
    user = add_ada(place, hashed)
    planted, _ = place.store.run(start_session, user_id=user, now=place.now)
    stranger.client.cookies.set("session", planted)
    log_in(stranger)
    fresh = [cookie.value for cookie in stranger.client.cookies.jar if cookie.domain]
    assert planted not in fresh
    assert len(fresh) == 1


def test_the_cookie_is_kept_from_scripts_and_other_sites(place, stranger, hashed):
    add_ada(place, hashed)
    cookie = log_in(stranger).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie


def test_logging_out_ends_the_session_in_the_store(place, stranger, hashed):
    user = add_ada(place, hashed)
    token, csrf = place.store.run(start_session, user_id=user, now=place.now)
    Visitor(place.app, user, (token, csrf)).post("/logout")
    assert place.store.run(session_of, token=token, now=place.now) is None
    assert Visitor(place.app, user, (token, csrf)).get("/", follow_redirects=False).status_code == 303


def test_a_session_ends_after_twelve_idle_hours(place, stranger, hashed):
    ada = place.enter(add_ada(place, hashed))
    place.now += 11 * 3_600_000
    assert ada.get("/history", follow_redirects=False).status_code == 200
    place.now += 12 * 3_600_000
    assert ada.get("/history", follow_redirects=False).status_code == 303


def test_reading_writes_at_most_once_a_minute(place, stranger, hashed):
    user = add_ada(place, hashed)
    ada = place.enter(user)
    place.now += 61_000
    seen = []
    for _ in range(3):
        ada.get("/history")
        query = select(LoginSession.seen_at).where(LoginSession.user_id == user)
        seen.append(place.store.read(lambda s, q=query: s.scalar(q)))
        place.now += 10_000
    assert len(set(seen)) == 1


def test_a_stolen_session_does_not_guess_the_password_either(place, stranger, hashed):
    thief = place.enter(add_ada(place, hashed))
    new = {"old": "wrong", "new": "another good password"}
    assert [thief.post("/account/password", new).status_code for _ in range(7)] == [400] * 5 + [429] * 2
    assert thief.post("/account/password", {**new, "old": PASSWORD}).status_code == 429
    assert log_in(stranger).status_code == 303  # the door is another one


def test_a_new_password_logs_all_others_out(place, stranger, hashed):
    user = add_ada(place, hashed)
    here, there = place.enter(user), place.enter(user)
    wrong = here.post("/account/password", {"old": "wrong", "new": "another good password"})
    assert wrong.status_code == 400
    assert there.get("/account", follow_redirects=False).status_code == 200
    changed = here.post("/account/password", {"old": PASSWORD, "new": "another good password"})
    assert "is changed" in text_of(changed)
    assert there.get("/account", follow_redirects=False).status_code == 303
    assert log_in(stranger, "another good password").status_code == 303


def test_one_browser_can_be_logged_out_from_another(place, stranger, hashed):
    user = add_ada(place, hashed)
    here, there = place.enter(user), place.enter(user)
    other = re.search(r"/account/sessions/([^/]+)/revoke", here.get("/account").text)[1]
    here.post(f"/account/sessions/{other}/revoke")
    assert there.get("/account", follow_redirects=False).status_code == 303


def test_a_form_of_another_site_is_refused_before_anything_is_read(place, stranger, hashed):
    add_ada(place, hashed)
    forged = stranger.client.post(
        "/login", data={"name": "ada", "password": PASSWORD}, headers={"Origin": "https://evil.example"}
    )
    assert forged.status_code == 403
    assert "set-cookie" not in forged.headers
    crossed = stranger.client.post(
        "/login", data={"name": "ada"}, headers={"Origin": HOST, "Sec-Fetch-Site": "cross-site"}
    )
    assert crossed.status_code == 403
