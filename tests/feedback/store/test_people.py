"""Accounts, invitations and logins; conversations; forgetting and retention."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import select, text

from accord.feedback.store import (
    MissingError,
    Store,
    accept_invite,
    add_model,
    add_project,
    add_prompt,
    add_review,
    add_turn,
    add_user,
    enforce_retention,
    finish_conversation,
    forget,
    invite,
    messages_of,
    now_ms,
    rate_by_others,
    revoke_session,
    save_draft,
    session_of,
    set_role,
    start_conversation,
    start_session,
    verdicts,
)
from accord.feedback.store.ids import token_hash
from accord.feedback.store.queries.messages import notes_for, send_note
from accord.feedback.store.tables import Base, Body, Item, Judgment, LoginSession, User
from accord.records import Message
from feedback.worlds import NOW, make_world, ranks

HOUR, DAY = 3_600_000, 86_400_000


def test_a_login_ends_when_idle_expired_revoked_or_disabled(store):
    user = store.run(add_user, handle="ada")
    token, csrf = store.run(start_session, user_id=user.id, now=NOW)
    login = store.run(session_of, token=token, now=NOW + 11 * HOUR)
    assert (login.user_id, login.csrf) == (user.id, csrf)
    assert store.run(session_of, token=token, now=NOW + 22 * HOUR) is not None  # seen at 11 h
    assert store.run(session_of, token=token, now=NOW + 35 * HOUR) is None
    assert store.run(session_of, token=csrf, now=NOW) is None
    kept = store.read(lambda session: session.scalars(select(LoginSession)).one())
    assert kept.token_hash == token_hash(token) != token
    store.run(revoke_session, session_id=kept.id, now=NOW)
    assert store.run(session_of, token=token, now=NOW + 23 * HOUR) is None


def test_an_invitation_is_good_once_and_for_a_time(store):
    world = make_world(store)
    guest = store.run(add_user, handle="guest", email="G@x.org")
    token = store.run(invite, project_id=world.project, role="reviewer", expires_at=NOW + DAY)
    with pytest.raises(MissingError, match="expired"):
        store.run(accept_invite, token=token, user_id=guest.id, now=NOW + DAY)
    store.run(accept_invite, token=token, user_id=guest.id, now=NOW)
    with pytest.raises(MissingError, match="used"):
        store.run(accept_invite, token=token, user_id=guest.id, now=NOW)
    site = store.run(invite, project_id=None, role="admin", expires_at=NOW + DAY)
    store.run(accept_invite, token=site, user_id=guest.id, now=NOW)
    assert store.read(lambda session: session.get(User, guest.id)).is_admin
    for taken in ({"handle": "guest"}, {"handle": "other", "email": "g@X.org"}):
        with pytest.raises(ValueError, match="taken"):
            store.run(add_user, **taken)


def conversation(world, who=0):
    store, me = world.store, world.people[who]
    model = store.run(add_model, name="m", revision="1")
    started = store.run(start_conversation, campaign_id=world.campaign, user_id=me, model_id=model.id, goal="a plan")

    def say(role, said, parent=None, **more):
        return store.run(
            add_turn, conversation_id=started.id, user_id=me, role=role, text=said, parent_id=parent, **more
        )

    asked = say("user", "How?")
    say("assistant", "No way.", asked.id, chosen=False)
    say("assistant", "Like this.", asked.id, latency_ms=40)
    return started.id


def test_a_conversation_is_rated_by_others_and_never_by_its_author(store):
    world = make_world(store, items=0, people=2, task_type="redteam")
    talk = conversation(world)
    assert [message.content for message in store.read(messages_of, talk)] == ["How?", "Like this."]
    with pytest.raises(MissingError, match="of yours"):
        store.run(add_turn, conversation_id=talk, user_id=world.people[1], role="user", text="x")
    with pytest.raises(ValueError, match="finished"):
        store.run(rate_by_others, conversation_id=talk)
    store.run(finish_conversation, conversation_id=talk, user_id=world.people[0], rating=2)
    item = store.run(rate_by_others, conversation_id=talk)
    assert world.next(0) == "nothing left"
    task = world.next(1)
    assert (task.item_id, [message.content for message in task.prompt]) == (item, ["How?"])
    assert world.submit(task, 1, payload={"conversation_id": talk, "success": 3}).counted
    with pytest.raises(ValueError, match="is finished"):
        store.run(add_turn, conversation_id=talk, user_id=world.people[0], role="user", text="x")


def everything(store: Store) -> str:
    """All cells of all tables as text."""
    with store.engine.connect() as connection:
        return "\n".join(
            str(tuple(row)) for table in Base.metadata.sorted_tables for row in connection.execute(select(table))
        )


SECRETS = ("person 0", "zq-words", "zq-draft", "zq-review", "How?", "Like this.", "a plan", "zq@mail.org")


@pytest.mark.parametrize("promise", ["keep_verdicts", "delete"])
def test_forgetting_erases_every_word_and_keeps_or_deletes_the_verdicts(store, promise):
    world = make_world(store, items=0, people=2, task_type="redteam", on_withdrawal=promise)
    me, other = world.people
    store.run(lambda session: setattr(session.get(User, me), "email", "zq@mail.org"))
    talk = conversation(world)
    store.run(finish_conversation, conversation_id=talk, user_id=me)
    item = store.run(rate_by_others, conversation_id=talk)
    world.add_item("a")
    world.add_item("b")
    store.run(set_role, user_id=other, project_id=world.project, role="reviewer", actor_id=None)
    payload = {"conversation_id": talk, "success": 1, "tried": "zq-words"}
    receipt = world.submit(world.next(0), 0, payload=payload)
    store.run(add_review, reviewer_id=other, judgment_id=receipt.judgment_id, decision="accept", reason="fine")
    task = world.next(0)
    store.run(
        save_draft, assignment_id=task.assignment_id, annotator_id=me, payload={"t": "zq-draft"}, version=0, now=NOW
    )
    store.run(start_session, user_id=me, now=NOW)
    left_alone = world.submit(world.next(1), 1, payload={"conversation_id": talk, "success": 0})
    before = everything(store)
    assert [secret for secret in SECRETS if secret not in before] == ["zq-review"]
    pseudonym = store.read(lambda session: session.get(User, me)).pseudonym
    done = store.run(forget, user_id=me, now=NOW)
    after = everything(store)
    assert [secret for secret in SECRETS if secret in after] == []
    assert pseudonym not in after
    assert (done.bodies, done.contents, done.judgments) == (4, 2, int(promise == "delete"))
    assert store.read(lambda session: session.get(Item, item)).state == "withdrawn"
    left = store.read(verdicts, campaign_id=world.campaign)
    assert len(left) == 1 + int(promise == "keep_verdicts")
    assert left_alone.judgment_id in {verdict.judgment_id for verdict in left}
    assert all(verdict.words is None for verdict in left)
    assert world.next(0) == "not a member"
    with pytest.raises(Exception, match="append-only"), store.engine.begin() as connection:
        connection.execute(text("DELETE FROM judgment"))


def test_a_note_that_is_sent_many_times_at_once_is_left_once(store):
    world = make_world(store, items=0, people=2)
    me, admin = world.people
    store.run(set_role, user_id=admin, project_id=world.project, role="admin", actor_id=None)
    start = Barrier(6)

    def send(_):
        start.wait(timeout=10)
        store.run(send_note, campaign_id=world.campaign, annotator_id=me, actor_id=admin, text="Well done")

    with ThreadPoolExecutor(6) as clicks:
        list(clicks.map(send, range(6)))
    assert len(store.read(notes_for, user_id=me)) == 1


def test_notes_drafts_and_what_is_made_of_conversations_are_erased_in_time_too(store):
    """Of this project only, and of it no more than is older than promised."""
    world = make_world(store, items=0, people=2, task_type="redteam", retention_days=30)
    me, admin = world.people
    store.run(set_role, user_id=admin, project_id=world.project, role="admin", actor_id=None)
    talk = conversation(world)
    store.run(finish_conversation, conversation_id=talk, user_id=me)
    item = store.run(rate_by_others, conversation_id=talk)
    imported = world.add_item("zq-imported")
    task = world.next(0)
    made = now_ms()
    store.run(send_note, campaign_id=world.campaign, annotator_id=me, actor_id=admin, text="zq-note")
    kept = {"assignment_id": task.assignment_id, "annotator_id": me, "payload": {"t": "zq-draft"}}
    store.run(save_draft, **kept, version=0, now=made)
    asked = {"messages": (Message(role="user", content="zq-q"),), "source": "t", "author_id": me}
    store.run(add_prompt, project_id=store.run(add_project, slug="q", retention_days=1000).id, **asked)
    assert store.run(enforce_retention, now=made + 29 * DAY) == 0
    assert [
        one for one in ("How?", "Like this.", "a plan", "zq-note", "zq-draft") if one not in everything(store)
    ] == []
    # three turns, a note, a draft, the copies of prompt and response, a goal
    assert store.run(enforce_retention, now=made + 31 * DAY) == 8
    after = everything(store)
    assert [one for one in ("How?", "Like this.", "a plan", "zq-note", "zq-draft") if one in after] == []
    assert [one for one in ("zq-imported", "zq-q") if one not in after] == []
    states = store.read(lambda session: [session.get(Item, one).state for one in (item, imported)])
    assert states == ["withdrawn", "open"]
    assert store.read(notes_for, user_id=me) == []
    assert store.run(enforce_retention, now=made + 31 * DAY) == 0


def test_texts_are_erased_when_their_time_is_over_and_verdicts_stay(store):
    world = make_world(store, items=1, people=1, retention_days=30)
    task = world.next()
    world.submit(task, payload={**ranks(task), "reason": "zq-words"})
    made = store.read(lambda session: session.scalars(select(Body)).one()).created_at
    assert store.run(enforce_retention, now=made + 30 * DAY) == 0
    assert store.run(enforce_retention, now=made + 30 * DAY + 1) == 1
    assert store.run(enforce_retention, now=made + 31 * DAY) == 0
    assert "zq-words" not in everything(store)
    assert len(store.read(lambda session: session.scalars(select(Judgment)).all())) == 1
